"""One side of a conversation with a server, whatever carries it: how its messages are written and read.

Messages are JSON as they are, or Socket.IO's, inside Engine.IO's packets. What for they are is not known here.
"""

import asyncio
import json
from typing import Any, Protocol

OPEN_S = 60.0
"""A server that accepts thousands at once keeps some waiting."""


class Doing(Protocol):
    """What a client's messages are for."""

    def take(self, talk: "Talk", payload: bytes) -> None: ...


class Nothing:
    def take(self, talk: "Talk", payload: bytes) -> None:
        """Who is idle reads what comes and does nothing with it."""


class Talk:
    """One client. `opened` is done when it can be spoken on; it hands its messages to what it is doing at the time."""

    def __init__(self, number: int, speech: str) -> None:
        self.number = number
        self.is_socketio = speech == "socketio"
        self.greets = speech == "greeted json"
        self.doing: Doing = Nothing()
        self.closed = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent_ns = 0
        self.waits = False
        self.next_piece = self.last_piece = 0
        self.request_id = ""

    def say(self, payload: bytes) -> None:
        """Send a text frame."""
        raise NotImplementedError

    def connected(self) -> None:
        """The handshake is over."""
        if not self.is_socketio and not self.greets:
            self.opened.set_result(None)

    def disconnected(self) -> None:
        self.closed = True
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed while it was opened"))

    def heard(self, payload: bytes) -> None:
        """Take a text frame of the server's."""
        if self.is_socketio and not payload.startswith(b"42"):
            self._engine(payload)
        elif self.greets and not self.opened.done():
            self.opened.set_result(None)
        else:
            self.doing.take(self, payload)

    def _engine(self, payload: bytes) -> None:
        """Engine.IO's own packets: its opening, Socket.IO's, and its ping."""
        if payload == b"2":
            self.say(b"3")
        elif payload.startswith(b"0"):
            self.say(b"40")
        elif payload.startswith(b"40") and not self.opened.done():
            self.opened.set_result(None)

    def message(self, message: dict[str, Any]) -> bytes:
        """A message as this server wants it."""
        written = json.dumps(message, separators=(",", ":"))
        return (f'42["{message["type"]}",{written}]' if self.is_socketio else written).encode()

    def content(self, payload: bytes) -> dict[str, Any]:
        """The object in a message of the server's."""
        read = json.loads(payload[2:] if self.is_socketio else payload)
        content: dict[str, Any] = read[1] if self.is_socketio else read
        return content


class Ask:
    """One message and its answer."""

    def __init__(self, talk: Talk, expected: str) -> None:
        self._expected = expected
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        talk.doing = self

    def take(self, talk: Talk, payload: bytes) -> None:
        content = talk.content(payload)
        if content["type"] in (self._expected, "error") and not self.answer.done():
            self.answer.set_result(content)


async def ask(talk: Talk, message: dict[str, Any], expected: str) -> dict[str, Any]:
    """Send a message and wait for its answer. Raises RuntimeError for an error."""
    waiting = Ask(talk, expected)
    talk.say(talk.message(message))
    async with asyncio.timeout(OPEN_S):
        answer = await waiting.answer
    talk.doing = Nothing()
    if answer["code"] != 0:
        raise RuntimeError(f"{message['type']} was answered with {answer}")
    return answer
