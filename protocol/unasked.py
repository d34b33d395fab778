"""What the server says over the socket unasked: that it listens, what became of a conversation, and that it stops."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from protocol.conversations import EXAMPLE_CONVERSATION, Conversation
from protocol.errors import RESTARTING
from protocol.operation import Noun

ConversationChange = Literal["titled", "renamed", "deleted", "answered", "branched"]


class ServerFacts(Noun):
    """What a client needs to know of this server. Times are seconds; `max_message_bytes` is of UTF-8."""

    connection_id: str
    ping_interval_s: int
    resume_window_s: int
    max_message_bytes: int


class Connected(Noun):
    """The first frame of every socket that is let in."""

    type: Literal["connected"] = "connected"
    code: Literal[0] = 0
    message: str = "连接成功"
    data: None = None
    server: ServerFacts


class ChangedConversation(Noun):
    """What became of a conversation, and what its line in a list says now.

    `titled`: it got its first title; `renamed`; `deleted`: it is gone, and this is what it was; `answered`: it has an
    answer that this socket did not follow; `branched`: another branch of it is shown. `updated_at` is when it got a
    message last.
    """

    conversation_id: UUID
    title: str | None
    change: ConversationChange
    updated_at: datetime


class ConversationUpdated(Noun):
    """To every socket of the user: a conversation is not what it was."""

    type: Literal["conversation_updated"] = "conversation_updated"
    code: Literal[0] = 0
    message: str = "会话已更新"
    data: ChangedConversation

    @classmethod
    def of(cls, conversation: Conversation, change: ConversationChange) -> "ConversationUpdated":
        """The frame for a conversation as it is after the change."""
        return cls(
            data=ChangedConversation(
                conversation_id=conversation.id,
                title=conversation.title,
                change=change,
                updated_at=conversation.updated_at,
            )
        )


class Goodbye(Noun):
    """This node stops soon: come back, to any node, after `retry_after_ms`."""

    type: Literal["goodbye"] = "goodbye"
    code: int = RESTARTING.code
    message: str = "服务正在重启，请稍后重连"
    retry_after_ms: int


UNASKED: tuple[Noun, ...] = (
    Connected(
        server=ServerFacts(
            connection_id="9f86d081884c7d65", ping_interval_s=25, resume_window_s=600, max_message_bytes=65_536
        )
    ),
    ConversationUpdated.of(EXAMPLE_CONVERSATION, "answered"),
    Goodbye(retry_after_ms=1_800),
)
"""One of each kind, as the documents show it."""
