"""What the server says over the socket unasked: that it listens, what became of a conversation, and that it stops."""

from typing import Literal
from uuid import UUID

from protocol.errors import RESTARTING
from protocol.operation import Noun


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


class TitledConversation(Noun):
    conversation_id: UUID
    title: str


class ConversationUpdated(Noun):
    """To every socket of the user: a conversation got a title."""

    type: Literal["conversation_updated"] = "conversation_updated"
    code: Literal[0] = 0
    message: str = "会话已更新"
    data: TitledConversation


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
    ConversationUpdated(
        data=TitledConversation(
            conversation_id=UUID("33a7437f-8c56-555c-b930-867255586e20"), title="推荐三部诺兰导演的电影"
        )
    ),
    Goodbye(retry_after_ms=1_800),
)
"""One of each kind, as the documents show it."""
