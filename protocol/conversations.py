"""Conversations: making, listing, reading, naming, searching and deleting them, and what one thinks of an answer."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from protocol import errors
from protocol.chat import EXAMPLE_MESSAGE, Message, Uuid
from protocol.operation import (
    NOT_BLANK,
    STORABLE,
    Access,
    Body,
    GuestClaim,
    GuestName,
    Noun,
    OperationTable,
    Request,
    Route,
    Shape,
)

MAX_CONVERSATIONS = 5_000
"""Conversations of one user: one a day for thirteen years, and still counted in a millisecond."""

Title = Annotated[str, Field(min_length=1, max_length=100), NOT_BLANK, STORABLE]

SearchQuery = Annotated[str, Field(min_length=1, max_length=100), NOT_BLANK, STORABLE]

Rating = Annotated[int, Field(ge=1, le=5)]

Comment = Annotated[str, Field(max_length=1_000), STORABLE]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ListPosition:
    """Where a page of the list ended. As a cursor it is 32 characters: microseconds and id, base64url."""

    updated_at: datetime
    id: UUID

    def cursor(self) -> str:
        since_us = (self.updated_at - _EPOCH) // timedelta(microseconds=1)
        return base64.urlsafe_b64encode(since_us.to_bytes(8) + self.id.bytes).decode()

    @classmethod
    def of_cursor(cls, cursor: str) -> "ListPosition":
        """Raises ValueError for what is no cursor."""
        raw = base64.urlsafe_b64decode(cursor)
        try:
            return cls(_EPOCH + timedelta(microseconds=int.from_bytes(raw[:8])), UUID(bytes=raw[8:]))
        except OverflowError as error:
            raise ValueError(error) from None


def _is_cursor(cursor: str) -> str:
    try:
        ListPosition.of_cursor(cursor)
    except ValueError:
        raise ValueError("不是列表返回的 next_before") from None
    return cursor


ListCursor = Annotated[str, Field(max_length=32), AfterValidator(_is_cursor)]


class Conversation(Noun):
    """A conversation. `title` is null until it has one; `updated_at` is when it was made or last got a message.

    Times are ISO 8601 in UTC.
    """

    id: UUID
    title: str | None
    created_at: datetime
    updated_at: datetime


class CreateConversation(Request):
    """Begin an empty conversation. Sent again it makes another: an empty one too many is harmless."""

    type: Literal["conversation_create"]
    title: Title | None = None


class ListConversations(Request):
    """The one that got a message last first. `before` is the `next_before` of the page before."""

    type: Literal["conversation_list"]
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    before: ListCursor | None = None


class ConversationList(Noun):
    """`next_before` is null when there are no more. What gets a message meanwhile moves to the top, not onto a page."""

    items: list[Conversation]
    next_before: str | None


class GetConversation(Request):
    """A conversation and a page of its messages. `before` is a message's id."""

    type: Literal["conversation_get"]
    conversation_id: Uuid
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    before: Uuid | None = None


class ConversationPage(Noun):
    """Messages oldest first. `next_before` is null when nothing is older."""

    conversation: Conversation
    items: list[Message]
    next_before: UUID | None


class RenameConversation(Request):
    """Give a conversation another title. It does not move in the list."""

    type: Literal["conversation_rename"]
    conversation_id: Uuid
    title: Title


class DeleteConversation(Request):
    """Delete a conversation for ever; an answer that is being made in it is cancelled."""

    type: Literal["conversation_delete"]
    conversation_id: Uuid


class ConversationDeleted(Noun):
    conversation_id: UUID


class SearchConversations(Request):
    """Messages of one's own that contain this text, whatever the case; the newest first.

    The hundred conversations that got a message last are searched, and the newest fifty messages of each.
    """

    type: Literal["conversation_search"]
    query: SearchQuery
    limit: Annotated[int, Field(ge=1, le=50)] = 20


class FoundMessage(Noun):
    """A message, and the title of the conversation that it is in."""

    message: Message
    title: str | None


class FoundMessages(Noun):
    items: list[FoundMessage]


class RateAnswer(Request):
    """Say what one thinks of an answer of one's own conversations. Said again, it replaces what was said before."""

    type: Literal["feedback"]
    message_id: Uuid
    rating: Rating
    comment: Comment | None = None


class Feedback(Noun):
    """What somebody thinks of an answer: `rating` from 1 to 5. Times are ISO 8601 in UTC."""

    id: UUID
    message_id: UUID
    rating: int
    comment: str | None
    created_at: datetime
    changed_at: datetime


class GuestsBody(Body):
    """Whose conversations they are; believed of guests only. The same name as in `POST /api/v1/mp/chat/stream`."""

    user_id: GuestName | None = None

    def message(self) -> dict[str, object]:
        return self.model_dump(exclude_none=True, exclude={"user_id"})

    def guest(self) -> GuestClaim | None:
        return GuestClaim("mp", self.user_id) if self.user_id else None


class CreateBody(GuestsBody):
    title: Title | None = None


class ListQuery(GuestsBody, strict=False):
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    before: ListCursor | None = None


class GetQuery(GuestsBody, strict=False):
    conversation_id: Uuid
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    before: Uuid | None = None


class RenameBody(GuestsBody):
    conversation_id: Uuid
    title: Title


class ConversationPath(GuestsBody, strict=False):
    conversation_id: Uuid


class SearchTextQuery(GuestsBody, strict=False):
    query: SearchQuery
    limit: Annotated[int, Field(ge=1, le=50)] = 20


class FeedbackBody(GuestsBody):
    message_id: Uuid
    rating: Rating
    comment: Comment | None = None


operations = OperationTable()

EXAMPLE_CONVERSATION = Conversation(
    id=EXAMPLE_MESSAGE.conversation_id,
    title="诺兰的电影",
    created_at=datetime(2026, 5, 1, 11, 58, tzinfo=UTC),
    updated_at=EXAMPLE_MESSAGE.created_at,
)
_FEEDBACK = Feedback(
    id=UUID("5d0c8e1b-6f0a-4c52-9a1e-3f7b2d94c680"),
    message_id=EXAMPLE_MESSAGE.id,
    rating=5,
    comment="正是我想找的",
    created_at=datetime(2026, 5, 1, 12, 1, tzinfo=UTC),
    changed_at=datetime(2026, 5, 1, 12, 1, tzinfo=UTC),
)
_NEW = Conversation(
    id=EXAMPLE_CONVERSATION.id,
    title=EXAMPLE_CONVERSATION.title,
    created_at=EXAMPLE_CONVERSATION.created_at,
    updated_at=EXAMPLE_CONVERSATION.created_at,
)

CONVERSATION_CREATE = operations.declare(
    "conversation_create",
    CreateConversation,
    Conversation,
    summary="Begin an empty conversation",
    access=Access.NAMED,
    routes=(Route("POST", "/api/v1/conversations", Shape.BARE, CreateBody),),
    errors=(errors.TOO_MANY_CONVERSATIONS,),
    example=CreateConversation(type="conversation_create", title="诺兰的电影"),
    example_reply=_NEW,
)
CONVERSATION_LIST = operations.declare(
    "conversation_list",
    ListConversations,
    ConversationList,
    summary="One's conversations, the one that got a message last first",
    access=Access.NAMED,
    routes=(Route("GET", "/api/v1/conversations", Shape.BARE, ListQuery),),
    example=ListConversations(type="conversation_list", limit=1),
    example_reply=ConversationList(
        items=[EXAMPLE_CONVERSATION],
        next_before=ListPosition(EXAMPLE_CONVERSATION.updated_at, EXAMPLE_CONVERSATION.id).cursor(),
    ),
)
CONVERSATION_GET = operations.declare(
    "conversation_get",
    GetConversation,
    ConversationPage,
    summary="A conversation and a page of its messages",
    access=Access.NAMED,
    routes=(Route("GET", "/api/v1/conversations/{conversation_id}", Shape.BARE, GetQuery),),
    errors=(errors.CONVERSATION_NOT_FOUND,),
    example=GetConversation(type="conversation_get", conversation_id=EXAMPLE_CONVERSATION.id, limit=1),
    example_reply=ConversationPage(
        conversation=EXAMPLE_CONVERSATION, items=[EXAMPLE_MESSAGE], next_before=EXAMPLE_MESSAGE.id
    ),
)
CONVERSATION_RENAME = operations.declare(
    "conversation_rename",
    RenameConversation,
    Conversation,
    summary="Give a conversation another title",
    access=Access.NAMED,
    # POST, because wx.request has no PATCH.
    routes=(Route("POST", "/api/v1/conversations/{conversation_id}/rename", Shape.BARE, RenameBody),),
    errors=(errors.CONVERSATION_NOT_FOUND,),
    example=RenameConversation(type="conversation_rename", conversation_id=EXAMPLE_CONVERSATION.id, title="诺兰的电影"),
    example_reply=EXAMPLE_CONVERSATION,
)
CONVERSATION_DELETE = operations.declare(
    "conversation_delete",
    DeleteConversation,
    ConversationDeleted,
    summary="Delete a conversation for ever",
    access=Access.NAMED,
    routes=(Route("DELETE", "/api/v1/conversations/{conversation_id}", Shape.BARE, ConversationPath),),
    errors=(errors.CONVERSATION_NOT_FOUND,),
    example=DeleteConversation(type="conversation_delete", conversation_id=EXAMPLE_CONVERSATION.id),
    example_reply=ConversationDeleted(conversation_id=EXAMPLE_CONVERSATION.id),
)
CONVERSATION_SEARCH = operations.declare(
    "conversation_search",
    SearchConversations,
    FoundMessages,
    summary="Messages of one's own that contain a text",
    access=Access.NAMED,
    routes=(Route("GET", "/api/v1/conversations/search", Shape.BARE, SearchTextQuery),),
    example=SearchConversations(type="conversation_search", query="诺兰", limit=20),
    example_reply=FoundMessages(items=[FoundMessage(message=EXAMPLE_MESSAGE, title=EXAMPLE_CONVERSATION.title)]),
)
FEEDBACK = operations.declare(
    "feedback",
    RateAnswer,
    Feedback,
    summary="Say what one thinks of an answer",
    access=Access.NAMED,
    routes=(Route("POST", "/api/v1/feedback", Shape.BARE, FeedbackBody),),
    errors=(errors.MESSAGE_NOT_FOUND,),
    example=RateAnswer(type="feedback", message_id=EXAMPLE_MESSAGE.id, rating=5, comment="正是我想找的"),
    example_reply=_FEEDBACK,
)
