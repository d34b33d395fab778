"""Branches of a conversation: an answer made again, a question asked otherwise, and which of them is shown."""

from typing import Literal

from protocol import errors
from protocol.chat import (
    CHAT_FRAMES,
    EXAMPLE_ACCEPTED,
    EXAMPLE_MESSAGE,
    EXAMPLE_REPLY,
    RUN_ERRORS,
    ChatAccepted,
    ChatReply,
    KnowledgeBase,
    Query,
    Uuid,
)
from protocol.conversations import EXAMPLE_CONVERSATION, Conversation, GuestsBody
from protocol.operation import Access, OperationTable, Rate, Request, Route, Shape, StreamingRequest


class RegenerateAnswer(StreamingRequest):
    """Have a question answered again; `message_id` is the question's or one of its answers'.

    The new answer takes the place of what followed the question, which is kept beside it. If none comes, nothing
    changes. The rest is as in `chat`.
    """

    type: Literal["regenerate"]
    message_id: Uuid
    use_auto_rag: bool = False
    kb_prefix: KnowledgeBase | None = None
    debug: bool = False


class EditQuestion(StreamingRequest):
    """Ask otherwise: `query` takes the place of the question `message_id` and of what followed it, which is kept.

    The rest is as in `chat`.
    """

    type: Literal["edit"]
    message_id: Uuid
    query: Query
    use_auto_rag: bool = False
    kb_prefix: KnowledgeBase | None = None
    debug: bool = False
    watchlist_auto_capture: bool = False


class ChooseBranch(Request):
    """Show the branch that the message is on, to its newest end, and go on from there."""

    type: Literal["branch_choose"]
    message_id: Uuid


class RegenerateBody(GuestsBody):
    message_id: Uuid
    use_auto_rag: bool = False
    kb_prefix: KnowledgeBase | None = None
    debug: bool = False

    def message(self) -> dict[str, object]:
        return {**super().message(), "stream": True}


class EditBody(RegenerateBody):
    content: Query
    watchlist_auto_capture: bool = False

    def message(self) -> dict[str, object]:
        message = super().message()
        return {**message, "query": message.pop("content")}


class ChooseBody(GuestsBody):
    message_id: Uuid


operations = OperationTable()

_ERRORS = (
    errors.MESSAGE_NOT_FOUND,
    errors.CONVERSATION_NOT_FOUND,
    errors.CONVERSATION_BUSY,
    errors.TOO_MANY_RUNS,
    errors.RATE_LIMITED,
    errors.DRAINING,
)

REGENERATE = operations.declare_streaming(
    "regenerate",
    RegenerateAnswer,
    ChatAccepted,
    ChatReply,
    summary="Have a question answered again",
    access=Access.NAMED,
    accepted_message="正在处理中...",
    routes=(Route("POST", "/api/v1/chat/regenerate", Shape.TYPED_SSE, RegenerateBody),),
    rate=Rate.CHAT,
    errors=_ERRORS,
    run_errors=RUN_ERRORS,
    frames=CHAT_FRAMES,
    example=RegenerateAnswer(type="regenerate", id="q2", message_id=EXAMPLE_MESSAGE.id, stream=True),
    example_accepted=EXAMPLE_ACCEPTED,
    example_reply=EXAMPLE_REPLY,
)
EDIT = operations.declare_streaming(
    "edit",
    EditQuestion,
    ChatAccepted,
    ChatReply,
    summary="Ask a question otherwise",
    access=Access.NAMED,
    accepted_message="正在处理中...",
    routes=(
        Route(
            "POST",
            "/api/v1/chat/edit",
            Shape.TYPED_SSE,
            EditBody,
            {"message_id": str(EXAMPLE_MESSAGE.parent_id), "content": "推荐五部诺兰导演的电影"},
        ),
    ),
    rate=Rate.CHAT,
    errors=_ERRORS,
    run_errors=RUN_ERRORS,
    frames=CHAT_FRAMES,
    example=EditQuestion(
        type="edit",
        id="q3",
        message_id=EXAMPLE_MESSAGE.parent_id or EXAMPLE_MESSAGE.id,
        query="推荐五部诺兰导演的电影",
        stream=True,
    ),
    example_accepted=EXAMPLE_ACCEPTED,
    example_reply=EXAMPLE_REPLY,
)
BRANCH_CHOOSE = operations.declare(
    "branch_choose",
    ChooseBranch,
    Conversation,
    summary="Show the branch that a message is on",
    access=Access.NAMED,
    routes=(Route("POST", "/api/v1/chat/branch", Shape.BARE, ChooseBody),),
    errors=(errors.MESSAGE_NOT_FOUND, errors.CONVERSATION_BUSY),
    example=ChooseBranch(type="branch_choose", message_id=EXAMPLE_MESSAGE.siblings[0]),
    example_reply=EXAMPLE_CONVERSATION,
)
