"""Chats: questions, the frames of an answer while it is made, and the history of a conversation."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, TypedDict, get_args
from uuid import UUID

from pydantic import ConfigDict, Field, ValidationInfo, computed_field, field_validator

from protocol import errors
from protocol.operation import (
    NOT_BLANK,
    STORABLE,
    Access,
    Body,
    GuestClaim,
    GuestName,
    MessageId,
    Noun,
    OperationTable,
    Rate,
    Request,
    Route,
    Shape,
    StreamingRequest,
)
from protocol.watchlist import EXAMPLE_CAPTURE, WatchlistCaptured

MAX_QUERY_CHARACTERS = 8_000
"""A long question with a pasted synopsis; about a tenth of a small model's context."""

Query = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS), NOT_BLANK, STORABLE]
Uuid = Annotated[UUID, Field(strict=False)]
RequestId = Annotated[str, Field(min_length=1, max_length=64), STORABLE]
KnowledgeBase = Annotated[str, Field(max_length=64), STORABLE]

FinishReason = Literal["stop", "length", "cancelled", "interrupted"]


class SendChat(StreamingRequest):
    """Ask. Without `conversation_id` the question goes to the caller's standing conversation.

    `use_auto_rag` and `kb_prefix` ask for a knowledge base first; `debug` adds `status` frames; after an
    `incognito` question nothing is stored. `watchlist_auto_capture` notes films in the watchlist that the question says
    one wants to see, has seen or does not want, unless it is `incognito`.
    """

    type: Literal["chat"]
    query: Query
    use_auto_rag: bool = False
    kb_prefix: KnowledgeBase | None = None
    conversation_id: Uuid | None = None
    debug: bool = False
    incognito: bool = False
    watchlist_auto_capture: bool = False
    on_busy: Literal["reject", "enqueue", "interrupt"] = "reject"
    """What to do when the conversation is still being answered: refuse, wait for it, or cut it short."""


GuestsSecret = Annotated[str | None, Field(exclude_if=lambda secret: secret is None)]
"""Only with the first answer of a guest, and when that is asked for again under its `id`: what `adopt_guest` wants."""


class ChatAccepted(Noun):
    """The question is stored and its answer has begun. `guest_secret` comes with a guest's first answer only."""

    request_id: str
    conversation_id: UUID | None
    guest_secret: GuestsSecret = None


Stage = Literal["routing", "retrieval", "enrichment", "generation"]

StatusContent = Annotated[
    dict[str, str | int],
    Field(json_schema_extra={"required": ["stage"], "properties": {"stage": {"enum": list(get_args(Stage))}}}),
]
"""The stage, and facts of it that differ by what answers."""


class StatusWire(TypedDict):
    content: StatusContent


@dataclass(frozen=True, slots=True)
class Status:
    """Where the answer stands; sent only when the question said `debug`."""

    TYPE: ClassVar[str] = "status"
    stage: Stage
    facts: dict[str, str | int] = field(default_factory=dict)

    def wire(self) -> StatusWire:
        return {"content": {"stage": self.stage, **self.facts}}


class ChunkWire(TypedDict):
    content: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer's text."""

    TYPE: ClassVar[str] = "chunk"
    text: str = field(repr=False)

    def wire(self) -> ChunkWire:
        return {"content": self.text}


class RecommendedFilms(TypedDict):
    tmdb_ids: list[int]
    title: str
    mode: str


class RecommendationsWire(TypedDict):
    content: RecommendedFilms


@dataclass(frozen=True, slots=True)
class Recommendations:
    """Films that the answer recommends, at most once an answer. Every id is in the catalogue."""

    TYPE: ClassVar[str] = "recommendations"
    tmdb_ids: list[int]
    title: str
    mode: str

    def wire(self) -> RecommendationsWire:
        return {"content": {"tmdb_ids": self.tmdb_ids, "title": self.title, "mode": self.mode}}


@dataclass(frozen=True, slots=True)
class Usage:
    """What the model counted, in tokens."""

    prompt_tokens: int
    completion_tokens: int


class CompleteWire(TypedDict):
    content: None
    answer: str
    message_id: UUID | None
    finish_reason: FinishReason
    usage: Usage | None
    aigc: bool


@dataclass(frozen=True, slots=True)
class Complete:
    """The end of an answer. `message_id` is null when nothing was stored; `aigc`: made by a machine, label it so."""

    TYPE: ClassVar[str] = "complete"
    answer: str = field(repr=False)
    message_id: UUID | None
    finish_reason: FinishReason
    usage: Usage | None

    def wire(self) -> CompleteWire:
        return {
            "content": None,
            "answer": self.answer,
            "message_id": self.message_id,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
            "aigc": True,
        }


RestartReason = Literal["node_lost", "handed_over", "log_lost"]


class RestartContent(TypedDict):
    reason: RestartReason


class RestartWire(TypedDict):
    content: RestartContent


@dataclass(frozen=True, slots=True)
class Restart:
    """The node that answered is gone and another begins anew: drop the text so far. Only here `seq` may jump."""

    TYPE: ClassVar[str] = "restart"
    reason: RestartReason

    def wire(self) -> RestartWire:
        return {"content": {"reason": self.reason}}


RetractReason = Literal["content_refused", "content_unchecked"]


class RetractContent(TypedDict):
    reason: RetractReason


class RetractWire(TypedDict):
    content: RetractContent


@dataclass(frozen=True, slots=True)
class Retract:
    """Take back the text shown so far: it was refused, or could not be checked. An `error` of that reason follows."""

    TYPE: ClassVar[str] = "retract"
    reason: RetractReason

    def wire(self) -> RetractWire:
        return {"content": {"reason": self.reason}}


ChatFrame = Status | Chunk | Recommendations | WatchlistCaptured | Complete | Restart | Retract


class ChatReply(Noun):
    """The whole answer, for those who do not follow its frames. `id` is the stored message's.

    `aigc`: it was made by a machine, and whoever shows it labels it so (标识办法, in force since 2025-09-01).
    """

    msg: str
    id: UUID | None
    session_id: str
    conversation_id: UUID | None
    request_id: str
    recommendations: Annotated[Recommendations | None, Field(exclude_if=lambda films: films is None)] = None
    watchlist: Annotated[WatchlistCaptured | None, Field(exclude_if=lambda films: films is None)] = None
    guest_secret: GuestsSecret = None
    aigc: Literal[True] = True


class Message(Noun):
    """A stored message. Times are ISO 8601 in UTC. `aigc`: made by a machine, label it so.

    It follows the message `parent_id`, null for a first one. Asked otherwise or answered again, there are several that
    follow the same one: a page has those of the `chosen` branch, each with its `siblings`, itself among them, the
    oldest first; left out when there is no other.
    """

    id: UUID
    conversation_id: UUID
    role: Literal["user", "assistant"]
    content: str
    created_at: datetime
    request_id: str | None
    finish_reason: FinishReason | None
    parent_id: UUID | None
    chosen: bool
    siblings: list[UUID] = Field(default_factory=list, exclude_if=lambda siblings: len(siblings) < 2)
    usage: Annotated[Usage | None, Field(exclude_if=lambda usage: usage is None)] = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def aigc(self) -> bool:
        return self.role == "assistant"


class ResumeRun(StreamingRequest):
    """Follow an answer from where one left off, on any node, while it is made and for ten minutes after."""

    type: Literal["resume"]
    request_id: RequestId
    after_seq: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0

    @property
    def follows(self) -> bool:
        return True


class Resumed(Noun):
    """Where the answer stands. `recovered` false: its frames are gone, and `message` is what was stored of it."""

    recovered: bool
    last_seq: int
    running: bool
    message: Annotated[Message | None, Field(exclude_if=lambda message: message is None)] = None


def _one_of_two_names(schema: dict[str, Any]) -> None:
    names = ("request_id", "chat_id")
    for name in names:
        # One that is null is as good as left out; who reads the schema leaves it out.
        schema["properties"][name] = schema["properties"][name]["anyOf"][0]
    schema["oneOf"] = [{"required": [name]} for name in names]


class CancelRun(Request):
    """End an answer now and keep what there is of it; name it by its `request_id` or by the `id` of its chat."""

    model_config = ConfigDict(json_schema_extra=_one_of_two_names)

    type: Literal["cancel"]
    request_id: RequestId | None = None
    chat_id: Annotated[MessageId | None, Field(validate_default=True)] = None

    @field_validator("chat_id")
    @classmethod
    def _one_name(cls, chat_id: str | None, info: ValidationInfo) -> str | None:
        if "request_id" in info.data and (info.data["request_id"] is None) == (chat_id is None):
            raise ValueError("和 request_id 必须且只能给一个")
        return chat_id


class CancelAccepted(Noun):
    """`running` is false when the answer had ended already."""

    request_id: str
    running: bool


class StreamQuery(Body, strict=False):
    """`GET /api/v1/streams/{request_id}`. A guest says the `user_id` that it asked with."""

    request_id: RequestId
    after_seq: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    user_id: GuestName | None = None

    def message(self) -> dict[str, object]:
        return self.model_dump(exclude={"user_id"})

    def guest(self) -> GuestClaim | None:
        return GuestClaim("mp", self.user_id) if self.user_id else None


class ReadHistory(Request):
    """Messages of one conversation, the caller's standing one by default. `before` is a message's id."""

    type: Literal["history"]
    conversation_id: Uuid | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    before: Uuid | None = None


class HistoryPage(Noun):
    """Oldest first. `next_before` is null when nothing is older."""

    items: list[Message]
    next_before: UUID | None


class WeChatChatBody(Body):
    """`POST /wechat/chat`: an openid without a token is a guest's name, no proof."""

    query: Query
    openid: GuestName | None = None
    use_auto_rag: bool = False

    def message(self) -> dict[str, object]:
        return {"query": self.query, "use_auto_rag": self.use_auto_rag}

    def guest(self) -> GuestClaim | None:
        return GuestClaim("openid", self.openid) if self.openid else None


class ConversationChatBody(Body):
    """`POST /api/v1/chat`: a question in a conversation, the caller's standing one by default."""

    content: Query
    conversation_id: Uuid | None = None
    user_id: GuestName | None = None

    def message(self) -> dict[str, object]:
        wish: dict[str, object] = {"query": self.content, "stream": True}
        return wish if self.conversation_id is None else wish | {"conversation_id": self.conversation_id}

    def guest(self) -> GuestClaim | None:
        return GuestClaim("mp", self.user_id) if self.user_id else None


class MiniProgramChatBody(Body):
    """`POST /api/v1/mp/chat/stream`: who asks and in which of its sessions stands in the body.

    `id` makes it safe to send again, as in a `chat`.
    """

    id: MessageId | None = None
    # `message` is the wire's name, and the base has a method of that name.
    text: Annotated[Query, Field(alias="message")]
    user_id: GuestName
    session_id: GuestName
    kb_prefix: KnowledgeBase | None = None
    debug: bool = False
    incognito: bool = False
    watchlist_auto_capture: bool = False

    def message(self) -> dict[str, object]:
        wish = {
            "query": self.text,
            "debug": self.debug,
            "incognito": self.incognito,
            "watchlist_auto_capture": self.watchlist_auto_capture,
            "stream": True,
        }
        named = {"id": self.id, "kb_prefix": self.kb_prefix}
        return wish | {name: value for name, value in named.items() if value is not None}

    def guest(self) -> GuestClaim:
        return GuestClaim("mp", self.user_id, self.session_id)


class WebChatBody(MiniProgramChatBody):
    """`POST /api/v1/chat/stream`: the same for older web pages. A `user_id` is the same guest here and there."""


operations = OperationTable()

_REQUEST_ID = "36bdb4ce9aa54fb8b253aac41a0daec9"
_CONVERSATION_ID = UUID("33a7437f-8c56-555c-b930-867255586e20")
_MESSAGE_ID = UUID("768e4228-a60d-4044-8471-a4fc9b8389b0")
_ANSWER = "克里斯托弗·诺兰是《盗梦空间》（2010）的导演。"
_FILMS = Recommendations([157336, 155, 27205], "为你推荐（克里斯托弗·诺兰执导的电影）", "movie_person")
EXAMPLE_MESSAGE = Message(
    id=_MESSAGE_ID,
    conversation_id=_CONVERSATION_ID,
    role="assistant",
    content=_ANSWER,
    created_at=datetime(2026, 5, 1, 12, tzinfo=UTC),
    request_id=_REQUEST_ID,
    finish_reason="stop",
    parent_id=UUID("0f3c5a52-7c9b-4b53-8f0e-6f6a9b0f4a11"),
    chosen=True,
    siblings=[UUID("f2a1c7de-0a3b-4f39-9a55-2d0d1a7f3c80"), _MESSAGE_ID],
    usage=Usage(812, 46),
)
CHAT_FRAMES = (
    Status("retrieval", {"films": 3}),
    Chunk("克里"),
    Retract("content_unchecked"),
    Restart("node_lost"),
    Chunk("克里斯托弗"),
    _FILMS,
    EXAMPLE_CAPTURE,
    Complete(_ANSWER, _MESSAGE_ID, "stop", None),
)
RUN_ERRORS = (
    errors.MODEL_UNAVAILABLE,
    errors.MODEL_TIMEOUT,
    errors.MODEL_BUSY,
    errors.MODEL_INTERRUPTED,
    errors.CONTENT_REFUSED,
    errors.CONTENT_UNCHECKED,
    errors.MODEL_REJECTED,
    errors.MODEL_MISCONFIGURED,
    errors.RUN_LOST,
)

EXAMPLE_ACCEPTED = ChatAccepted(request_id=_REQUEST_ID, conversation_id=_CONVERSATION_ID)
EXAMPLE_REPLY = ChatReply(
    msg=_ANSWER,
    id=_MESSAGE_ID,
    session_id="O8fPy2eTnVq0b3sB7mXhWc1dKzJr4aLu",
    conversation_id=_CONVERSATION_ID,
    request_id=_REQUEST_ID,
    recommendations=_FILMS,
)

CHAT = operations.declare_streaming(
    "chat",
    SendChat,
    ChatAccepted,
    ChatReply,
    summary="Ask, and get the answer while it is made",
    access=Access.GUEST,
    accepted_message="正在处理中...",
    routes=(
        Route(
            "POST", "/wechat/chat", Shape.ENVELOPE, WeChatChatBody, {"query": "推荐三部诺兰导演的电影", "openid": "o1"}
        ),
        Route(
            "POST",
            "/api/v1/chat",
            Shape.TYPED_SSE,
            ConversationChatBody,
            {"conversation_id": str(_CONVERSATION_ID), "content": "推荐三部诺兰导演的电影"},
        ),
        Route(
            "POST",
            "/api/v1/mp/chat/stream",
            Shape.TYPED_SSE,
            MiniProgramChatBody,
            {"message": "推荐三部诺兰导演的电影", "user_id": "u1", "session_id": "s1", "kb_prefix": "movie"},
        ),
        Route(
            "POST",
            "/api/v1/chat/stream",
            Shape.STATUS_SSE,
            WebChatBody,
            {"message": "推荐三部诺兰导演的电影", "user_id": "u1", "session_id": "s1"},
        ),
    ),
    rate=Rate.CHAT,
    errors=(
        errors.CONVERSATION_NOT_FOUND,
        errors.CONVERSATION_BUSY,
        errors.QUEUE_FULL,
        errors.TOO_MANY_RUNS,
        errors.RATE_LIMITED,
        errors.DRAINING,
    ),
    run_errors=RUN_ERRORS,
    frames=CHAT_FRAMES,
    example=SendChat(type="chat", id="q1", query="推荐三部诺兰导演的电影", stream=True),
    example_accepted=EXAMPLE_ACCEPTED,
    example_reply=EXAMPLE_REPLY,
)
RESUME = operations.declare_streaming(
    "resume",
    ResumeRun,
    Resumed,
    type(None),
    summary="Follow an answer from where one left off",
    access=Access.GUEST,
    accepted_type="resume_response",
    accepted_message="成功",
    routes=(Route("GET", "/api/v1/streams/{request_id}", Shape.TYPED_SSE, StreamQuery),),
    errors=(errors.RUN_NOT_FOUND,),
    run_errors=RUN_ERRORS,
    frames=CHAT_FRAMES,
    example=ResumeRun(type="resume", request_id=_REQUEST_ID, after_seq=4),
    example_accepted=Resumed(recovered=True, last_seq=8, running=False),
)
CANCEL = operations.declare(
    "cancel",
    CancelRun,
    CancelAccepted,
    summary="End an answer now",
    access=Access.GUEST,
    errors=(errors.RUN_NOT_FOUND,),
    example=CancelRun(type="cancel", request_id=_REQUEST_ID),
    example_reply=CancelAccepted(request_id=_REQUEST_ID, running=True),
)
HISTORY = operations.declare(
    "history",
    ReadHistory,
    HistoryPage,
    summary="Messages of a conversation",
    access=Access.GUEST,
    errors=(errors.CONVERSATION_NOT_FOUND,),
    example=ReadHistory(type="history", limit=20),
    example_reply=HistoryPage(items=[EXAMPLE_MESSAGE], next_before=None),
)
