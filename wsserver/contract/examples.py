"""What the declared examples look like on the wire: they go through the very functions that answer clients.

Raises MissingExampleError for a declaration that has none, and says what to add to it.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from protocol.envelope import Frame, encode_error, encode_frame, encode_reply
from protocol.errors import ErrorKind, OperationError
from protocol.operation import AnyOperation, Body, Route, Shape, StreamingOperation
from storage.runs import LoggedFrame
from wsserver.contract.schemas import is_only_followed
from wsserver.http import dress_error, opening, sse_event, status_event, status_of, typed_event

Json: TypeAlias = dict[str, Any]

RETRY_AFTER_MS = 1_000
"""What the examples of errors that can be retried say."""

REQUEST_ID = "36bdb4ce9aa54fb8b253aac41a0daec9"
"""Of a run."""

HTTP_REQUEST_ID = "f0c1d2e3a4b5968778695a4b3c2d1e0f"
"""Of a request, whose answer may not be a run's."""


class MissingExampleError(Exception):
    """A declaration lacks an example. Says which one, and how to add it."""


def request_example(operation: AnyOperation) -> Json:
    """The example's message, with what it says and nothing that it leaves out."""
    if operation.example is None:
        raise MissingExampleError(
            f"operation {operation.name!r} has no example of its request: add"
            f" example={operation.request.__name__}(type={operation.name!r}, …) to its declaration"
        )
    fields: Json = operation.example.model_dump(mode="json", exclude_unset=True)
    return fields


def _reply_of(operation: AnyOperation) -> BaseModel | None:
    if operation.reply is not type(None) and operation.example_reply is None:
        raise MissingExampleError(
            f"operation {operation.name!r} has no example of its reply: add"
            f" example_reply={operation.reply.__name__}(…) to its declaration"
        )
    return operation.example_reply


def _accepted_of(operation: StreamingOperation[Any, Any, Any]) -> BaseModel:
    accepted: BaseModel | None = operation.example_accepted
    if accepted is None:
        raise MissingExampleError(
            f"operation {operation.name!r} has no example of its acceptance: add"
            f" example_accepted={operation.accepted.__name__}(…) to its declaration"
        )
    return accepted


def _frames_of(operation: StreamingOperation[Any, Any, Any]) -> tuple[Frame, ...]:
    if not operation.frames:
        raise MissingExampleError(
            f"operation {operation.name!r} has no frames: add frames=(…,) to its declaration, of each kind that its"
            " run may send, in an order in which they may come"
        )
    return operation.frames


def _id_of(operation: AnyOperation) -> str | None:
    message_id: str | None = request_example(operation).get("id")
    return message_id


def reply_example(operation: AnyOperation) -> Json:
    """The reply frame, to the example of the request."""
    message_id, reply = _id_of(operation), _reply_of(operation)
    if isinstance(operation, StreamingOperation) and is_only_followed(operation):
        return accepted_example(operation)
    return _object(encode_reply(operation.reply_type, operation.message, reply, message_id))


def accepted_example(operation: StreamingOperation[Any, Any, Any]) -> Json:
    """The frame that says that the run has begun."""
    accepted = _accepted_of(operation)
    return _object(encode_reply(operation.accepted_type, operation.accepted_message, accepted, _id_of(operation)))


def frame_examples(operation: StreamingOperation[Any, Any, Any]) -> Mapping[type, Json]:
    """The frames of a run, by their kinds."""
    return {
        type(frame): _object(encode_frame(REQUEST_ID, seq, frame, _id_of(operation)))
        for seq, frame in enumerate(_frames_of(operation), 1)
    }


def data_example(operation: AnyOperation) -> Any:
    """The reply's data by itself."""
    return from_json(to_json(_reply_of(operation)))


def events_example(operation: StreamingOperation[Any, Any, Any], shape: Shape) -> str:
    """A whole stream of server-sent events, as its text."""
    first: Mapping[str, object] = opening(operation, _accepted_of(operation))
    if shape is Shape.STATUS_SSE:
        first = status_of(first)
    event = typed_event if shape is Shape.TYPED_SSE else status_event
    frames = [
        LoggedFrame(seq, encode_frame(REQUEST_ID, seq, frame, None))
        for seq, frame in enumerate(_frames_of(operation), 1)
    ]
    return b"".join((sse_event(first), *(event(frame) for frame in frames))).decode()


def body_example(operation: AnyOperation, route: Route) -> Json:
    """What the route reads: its own example, or the operation's as far as both have the same fields."""
    fields = route.example
    if fields is None:
        names = {field.alias or name for name, field in route.body.model_fields.items()} - {"type"}
        fields = {name: value for name, value in request_example(operation).items() if name in names}
    try:
        body: Body = route.body.model_validate_json(to_json(fields))
        operation.request.model_validate({"type": operation.name, **body.message()})
    except ValidationError as error:
        raise MissingExampleError(
            f"{route.method} {route.path} of operation {operation.name!r} has no example that it would take: add"
            f" example={{…}} to its Route, a valid {route.body.__name__}. {error}"
        ) from None
    return dict(fields)


def _occurrence(kind: ErrorKind) -> OperationError:
    return OperationError(kind, retry_after_ms=RETRY_AFTER_MS if kind.retryable else None)


def error_example(kind: ErrorKind, shape: Shape | None, *, type_: str = "error") -> Json:
    """An error as a route of this shape answers it; without a shape the frame."""
    if shape is None:
        return _object(encode_error(_occurrence(kind), type_=type_))
    return _object(bytes(dress_error(_occurrence(kind), shape, HTTP_REQUEST_ID).body))


def _object(encoded: bytes) -> Json:
    read: Json = from_json(encoded)
    return read
