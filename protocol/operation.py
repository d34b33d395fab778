"""What an operation is: one typed request, one typed reply, and for a streaming one the frames between them.

An operation is declared once, as a value. The socket, the HTTP routes, the checks and the documents follow from it;
a type checker refuses a handler whose request or reply does not fit. Here is no table of all operations (that is
`operations.py`) and nothing is executed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from protocol.errors import ErrorKind

if TYPE_CHECKING:
    from protocol.envelope import Frame


class Access(StrEnum):
    """Who may call an operation. Over the socket a guest does not exist: a socket is logged in or it is not."""

    ANYONE = "anyone"
    GUEST = "guest"
    NAMED = "named"
    """Guests only under a name: what they keep is theirs to find again."""
    USER = "user"


class Rate(StrEnum):
    """What calls of one address count as, beside the limits of a connection and of a user."""

    LOGIN = "login"
    CHAT = "chat"
    """Guests' only: a guest's name costs nothing, and a user has limits of its own."""


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("不能含有 NUL 字符")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("不能为空")
    return text


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A rule for a string, said to who reads schemas too: a check by itself says nothing there."""

    check: Callable[[str], str]
    pattern: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        return {**described, "allOf": [*described.get("allOf", []), {"pattern": self.pattern}]}


STORABLE = _Pattern(_storable, "^[^\\u0000]*$")
"""For a string that PostgreSQL shall keep: it has no way to store NUL in text."""

_BLANKS = "\\t-\\r\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
"""What `str.strip` takes away; `\\s` is something else in every dialect."""

NOT_BLANK = _Pattern(_not_blank, f"[^{_BLANKS}]")

MessageId = Annotated[str, Field(min_length=1, max_length=64), STORABLE]
"""The client's own name for a message, echoed in every answer to it."""


GuestName = Annotated[str, Field(min_length=1, max_length=128), NOT_BLANK, STORABLE]


class Noun(BaseModel):
    """Base of everything that is sent back: immutable, and quiet in logs about what it holds."""

    model_config = ConfigDict(frozen=True)

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        return []


class Request(BaseModel):
    """Base of every client message. Strict: `"1"` is no number and `1` is no boolean. Unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)

    type: str
    id: MessageId | None = None

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        return [("type", self.type)]


class StreamingRequest(Request):
    """A request whose answer can be followed while it is made. `stream: false` waits for the whole of it."""

    stream: bool = False

    @property
    def follows(self) -> bool:
        """Whether the frames are wanted, rather than the reply."""
        return self.stream


class Body(BaseModel):
    """Base of the request bodies and query strings of HTTP routes that keep the shape of an older API."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)

    def message(self) -> dict[str, object]:
        """The same wish as a client message, `type` left out."""
        return self.model_dump(exclude_none=True)

    def guest(self) -> "GuestClaim | None":
        """Who the caller says it is, where the body says so. Believed only inside the guests' own namespace."""
        return None

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        return []


@dataclass(frozen=True, slots=True)
class GuestClaim:
    """An unproven identity. `surface` keeps apart equal names from different APIs; `session` names a conversation."""

    surface: Literal["mp", "openid", "header"]
    name: str = field(repr=False)
    session: str = field(default="", repr=False)


class Shape(StrEnum):
    """How an HTTP route dresses a reply."""

    BARE = "bare"
    """The reply's data as the body; failures as `{"error": …}` with the matching HTTP status."""
    ENVELOPE = "envelope"
    """`{code, message, data}` with HTTP 200 always, as pages expect that read `res.data.code`."""
    TYPED_SSE = "typed_sse"
    """The socket's own frames as server-sent events."""
    STATUS_SSE = "status_sse"
    """Frames renamed to `{status, content}` for older web pages."""


@dataclass(frozen=True, slots=True)
class Route:
    """An HTTP route of an operation, beside `POST /api/v1/messages` that every operation has.

    `body` is what the route reads: JSON for POST, the query string for GET and DELETE; and path parameters.
    `example` is one that it takes; without it, what the operation's own example says under the same names.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    shape: Shape
    body: type[Body]
    example: Mapping[str, object] | None = None


RequestT = TypeVar("RequestT", bound=Request)
ReplyT = TypeVar("ReplyT", bound=BaseModel | None)
AcceptedT = TypeVar("AcceptedT", bound=BaseModel)
StreamingRequestT = TypeVar("StreamingRequestT", bound=StreamingRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[RequestT, ReplyT]):
    """One request type and its one reply.

    `name` is the message's `type` on the wire; `deadline_s` bounds the handler; `message` is the reply's text;
    `error_type` is the type of the frame that says it failed; a `quiet` one is logged only at level debug. `errors` are
    what it may fail with beside what everything may; the examples are what the documents show.
    """

    name: str
    summary: str
    request: type[RequestT]
    reply: type[ReplyT]
    reply_type: str
    message: str
    access: Access
    deadline_s: float
    routes: tuple[Route, ...] = ()
    error_type: str = "error"
    quiet: bool = False
    rate: Rate | None = None
    errors: tuple[ErrorKind, ...] = ()
    example: RequestT | None = None
    example_reply: ReplyT | None = None

    streaming: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingOperation(Generic[StreamingRequestT, AcceptedT, ReplyT]):
    """A request that is accepted at once and answered by a run: frames while it goes on, one reply when it ends.

    The reply is complete in itself: a client that ignores every frame loses only time. `errors` are what it may be
    refused with, `run_errors` what its run may end with, beside what everything may. `frames` are of each kind
    that the run may send before it fails, in an order in which they may come.
    """

    name: str
    summary: str
    request: type[StreamingRequestT]
    accepted: type[AcceptedT]
    accepted_type: str
    accepted_message: str
    reply: type[ReplyT]
    reply_type: str
    message: str
    access: Access
    deadline_s: float
    routes: tuple[Route, ...] = ()
    rate: Rate | None = None
    errors: tuple[ErrorKind, ...] = ()
    run_errors: tuple[ErrorKind, ...] = ()
    frames: "tuple[Frame, ...]" = ()
    example: StreamingRequestT | None = None
    example_accepted: AcceptedT | None = None
    example_reply: ReplyT | None = None

    error_type: ClassVar[str] = "error"
    quiet: ClassVar[bool] = False
    streaming: ClassVar[bool] = True


AnyOperation = Operation[Any, Any] | StreamingOperation[Any, Any, Any]


class OperationTable:
    """The operations of one domain. A name declared twice raises at import."""

    def __init__(self) -> None:
        self._by_name: dict[str, AnyOperation] = {}

    @property
    def by_name(self) -> Mapping[str, AnyOperation]:
        return self._by_name

    def declare(
        self,
        name: str,
        request: type[RequestT],
        reply: type[ReplyT],
        *,
        summary: str,
        access: Access,
        message: str = "成功",
        reply_type: str | None = None,
        deadline_s: float = 10.0,
        routes: tuple[Route, ...] = (),
        error_type: str = "error",
        quiet: bool = False,
        rate: Rate | None = None,
        errors: tuple[ErrorKind, ...] = (),
        example: RequestT | None = None,
        example_reply: ReplyT | None = None,
    ) -> Operation[RequestT, ReplyT]:
        """Declare an operation with one reply. `reply_type` is `{name}_response` unless the wire has its own name."""
        operation: Operation[RequestT, ReplyT] = Operation(
            name=name,
            summary=summary,
            request=request,
            reply=reply,
            reply_type=reply_type or f"{name}_response",
            message=message,
            access=access,
            deadline_s=deadline_s,
            routes=routes,
            error_type=error_type,
            quiet=quiet,
            rate=rate,
            errors=errors,
            example=example,
            example_reply=example_reply,
        )
        self._add(operation)
        return operation

    def declare_streaming(
        self,
        name: str,
        request: type[StreamingRequestT],
        accepted: type[AcceptedT],
        reply: type[ReplyT],
        *,
        summary: str,
        access: Access,
        accepted_message: str,
        accepted_type: str | None = None,
        message: str = "成功",
        deadline_s: float = 10.0,
        routes: tuple[Route, ...] = (),
        rate: Rate | None = None,
        errors: tuple[ErrorKind, ...] = (),
        run_errors: tuple[ErrorKind, ...] = (),
        frames: "tuple[Frame, ...]" = (),
        example: StreamingRequestT | None = None,
        example_accepted: AcceptedT | None = None,
        example_reply: ReplyT | None = None,
    ) -> StreamingOperation[StreamingRequestT, AcceptedT, ReplyT]:
        """Declare an operation answered by a run. `deadline_s` bounds the time to accept it, not the run.

        `accepted_type` is `{name}_processing` unless the wire has its own name; with no `reply` there are only frames.
        """
        operation: StreamingOperation[StreamingRequestT, AcceptedT, ReplyT] = StreamingOperation(
            name=name,
            summary=summary,
            request=request,
            accepted=accepted,
            accepted_type=accepted_type or f"{name}_processing",
            accepted_message=accepted_message,
            reply=reply,
            reply_type=f"{name}_response",
            message=message,
            access=access,
            deadline_s=deadline_s,
            routes=routes,
            rate=rate,
            errors=errors,
            run_errors=run_errors,
            frames=frames,
            example=example,
            example_accepted=example_accepted,
            example_reply=example_reply,
        )
        self._add(operation)
        return operation

    def _add(self, operation: AnyOperation) -> None:
        if operation.name in self._by_name:
            raise ValueError(f"operation {operation.name!r} is declared twice")
        self._by_name[operation.name] = operation


def merge(*tables: OperationTable) -> Mapping[str, AnyOperation]:
    """One table of all of them; a name that two domains declare raises."""
    merged: dict[str, AnyOperation] = {}
    for table in tables:
        for name, operation in table.by_name.items():
            if name in merged:
                raise ValueError(f"operation {name!r} is declared by two domains")
            merged[name] = operation
    return merged
