"""What the server says over the socket without having been asked: that it listens, and that it is about to stop."""

from typing import Literal

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
    Goodbye(retry_after_ms=1_800),
)
"""One of each kind, as the documents show it."""
