"""The load's sockets, and what they do: pings in a closed loop, chats one after the other.

picows, because it costs a fifth of what any server costs. A socket hands its messages to what it is doing at the time.
"""

import asyncio
import itertools
import json
import re
import time
from array import array
from collections.abc import Sequence
from typing import Any, Protocol

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tests.bench.histogram import Counts, counted
from tests.bench.scripted_model import RATE

OPEN_S = 60.0
"""A server that accepts thousands at once keeps some waiting."""

FINISH_S = 20.0
"""How long what was begun may take to end when the measuring is over."""

READ_BUFFER_BYTES = 1024
"""A frame of these loads has about 100 bytes, and there are 15,000 sockets."""

HEAD = 28
"""The type of a message stands within these bytes, in either speech."""

PONG = {"type": "pong", "code": 0, "message": "pong", "data": None}
STAMP = re.compile(rb"@(\d+)\.(\d+);")
RETRY_S = 0.25
LEAST_PIECES = 10
"""Of the first answers, which are of all lengths."""


class Doing(Protocol):
    """What a socket's messages are for."""

    def take(self, socket: "Socket", payload: bytes) -> None: ...


class Nothing:
    def take(self, socket: "Socket", payload: bytes) -> None:
        """An idle socket reads what comes and does nothing with it."""


class Socket(WSListener):  # type: ignore[misc]  # untyped
    """One connection. `opened` is done when it can be spoken on."""

    def __init__(self, number: int, speech: str) -> None:
        self.number = number
        self.is_socketio = speech == "socketio"
        self.greets = speech == "greeted json"
        self.doing: Doing = Nothing()
        self.closed = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: WSTransport | None = None
        self.sent_ns = 0
        self.waits = False
        self.next_piece = self.last_piece = 0
        self.request_id = ""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if not self.is_socketio and not self.greets:
            self.opened.set_result(None)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        payload = frame.get_payload_as_bytes()
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

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed = True
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed while it was opened"))

    def say(self, payload: bytes) -> None:
        assert self.transport is not None
        if not self.closed:
            self.transport.send(WSMsgType.TEXT, payload)

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

    def __init__(self, socket: Socket, expected: str) -> None:
        self._expected = expected
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        socket.doing = self

    def take(self, socket: Socket, payload: bytes) -> None:
        content = socket.content(payload)
        if content["type"] in (self._expected, "error") and not self.answer.done():
            self.answer.set_result(content)


async def ask(socket: Socket, message: dict[str, Any], expected: str) -> dict[str, Any]:
    """Send a message and wait for its answer. Raises RuntimeError for an error."""
    waiting = Ask(socket, expected)
    socket.say(socket.message(message))
    async with asyncio.timeout(OPEN_S):
        answer = await waiting.answer
    socket.doing = Nothing()
    if answer["code"] != 0:
        raise RuntimeError(f"{message['type']} was answered with {answer}")
    return answer


class Opening:
    """Opens sockets, some at once; each may log in as somebody of its own, by a code that begins with `login`."""

    def __init__(self, url: str, speech: str, login: str | None, sources: Sequence[str]) -> None:
        self._url, self._speech, self._login = url, speech, login
        self._sources = itertools.cycle(sources or ["127.0.0.1"])

    async def open(self, count: int, *, first: int, at_once: int) -> list[Socket]:
        numbers = iter(range(first, first + count))
        opened: list[Socket] = []

        async def some() -> None:
            for number in numbers:
                opened.append(await self._one(number))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(at_once, count)):
                tasks.create_task(some())
        return sorted(opened, key=lambda socket: socket.number)

    async def _one(self, number: int) -> Socket:
        _, listener = await ws_connect(
            lambda: Socket(number, self._speech),
            self._url,
            websocket_handshake_timeout=OPEN_S,
            read_buffer_init_size=READ_BUFFER_BYTES,
            local_addr=(next(self._sources), 0),
        )
        socket: Socket = listener
        async with asyncio.timeout(OPEN_S):
            await socket.opened
        if self._login is not None:
            code = f"{self._login}-{number}"
            await ask(socket, {"type": "login", "code": code}, "login_response")
        return socket


class Pings:
    """Each socket sends its next ping when its pong has come. A pong is compared byte for byte."""

    def __init__(self, sockets: Sequence[Socket]) -> None:
        self._sockets = sockets
        self._ping = sockets[0].message({"type": "ping"})
        self._pong: bytes | None = None
        self.took_ns = array("q")
        self.wrong = 0
        self.going_on = True

    def start(self) -> None:
        for socket in self._sockets:
            socket.doing = self
            self._send(socket)

    def _send(self, socket: Socket) -> None:
        socket.waits = True
        socket.sent_ns = time.perf_counter_ns()
        socket.say(self._ping)

    def take(self, socket: Socket, payload: bytes) -> None:
        if payload != self._pong:
            if self._pong is not None or socket.content(payload) != PONG:
                self.wrong += 1
                return
            self._pong = payload
        self.took_ns.append(time.perf_counter_ns() - socket.sent_ns)
        if self.going_on:
            self._send(socket)
        else:
            socket.waits = False

    def mark(self) -> int:
        return len(self.took_ns)

    def since(self, first: int, last: int) -> dict[str, Any]:
        """What was measured between two marks."""
        return {"operations": last - first, "latency": counted(self.took_ns[first:last]), "wrong": self.wrong}

    async def finish(self) -> None:
        self.going_on = False
        await idle(self._sockets)


class Chats:
    """Each socket asks its next question when its answer has ended: as many answers run as there are sockets.

    The first answers are of all lengths up to the asked one: from the start on as many end at any time as will later.
    Of some sockets every piece is looked at: how old it came, and whether each came once and in order. Of the others
    the pieces are counted.
    """

    LOOKED_AT = 500

    def __init__(self, sockets: Sequence[Socket], seconds: float, spread_s: float, *, cancels: bool = False) -> None:
        self._sockets = sockets
        self._every = max(1, len(sockets) // self.LOOKED_AT)
        self._seconds = seconds
        self._spread_s = spread_s
        self._cancels = cancels
        self._chat = self._question(seconds)
        self._going_on = True
        self.ages_ns = array("q")
        self.first_ns = array("q")
        self.frames = self.pieces = self.answers = 0
        self.missing = self.doubled = self.errors = 0
        self.first_error = ""

    def _question(self, seconds: float) -> bytes:
        return self._sockets[0].message({"type": "chat", "query": f"{seconds:g}", "stream": True})

    def start(self) -> None:
        """Begin one answer after the other."""
        loop, count = asyncio.get_running_loop(), len(self._sockets)
        for number, socket in enumerate(self._sockets):
            socket.doing = self
            # Lengths are dealt out by a step that has no factor in common with most counts: neighbours end far apart.
            length_s = max(LEAST_PIECES, round(self._seconds * RATE * (number * 7919 % count + 1) / count)) / RATE
            loop.call_later(self._spread_s * number / count, self._send, socket, length_s)

    def _send(self, socket: Socket, seconds: float) -> None:
        if self._going_on and not socket.closed:
            socket.waits = True
            socket.next_piece, socket.last_piece = 0, round(seconds * RATE)
            socket.sent_ns = time.perf_counter_ns()
            socket.say(self._chat if seconds == self._seconds else self._question(seconds))

    def take(self, socket: Socket, payload: bytes) -> None:
        head = payload[:HEAD]
        if b'"chunk"' in head:
            if socket.next_piece == 0:
                self.first_ns.append(time.perf_counter_ns() - socket.sent_ns)
            self.frames += 1
            if socket.number % self._every:
                here = payload.count(b"@")
                socket.next_piece += here
                self.pieces += here
            else:
                self._look(socket, payload)
        elif b'"complete"' in head:
            self._ended(socket)
        elif b'"chat_processing"' in head and self._cancels:
            socket.request_id = socket.content(payload)["data"]["request_id"]
        elif b'"error"' in head:
            self.errors += 1
            self.first_error = self.first_error or payload.decode()
            socket.waits = False
            asyncio.get_running_loop().call_later(RETRY_S, self._send, socket, self._seconds)

    def _look(self, socket: Socket, payload: bytes) -> None:
        now = time.monotonic_ns()
        for number_, due_ns in STAMP.findall(payload):
            number = int(number_)
            self.pieces += 1
            self.ages_ns.append(now - int(due_ns))
            if number < socket.next_piece:
                self.doubled += 1
            else:
                self.missing += number - socket.next_piece
                socket.next_piece = number + 1

    def _ended(self, socket: Socket) -> None:
        socket.waits = False
        if self._going_on:
            self.answers += 1
            self.missing += max(0, socket.last_piece - socket.next_piece)
            self.doubled += max(0, socket.next_piece - socket.last_piece)
            self._send(socket, self._seconds)

    def mark(self) -> tuple[int, ...]:
        return len(self.ages_ns), len(self.first_ns), self.frames, self.pieces, self.answers

    def since(self, first: tuple[int, ...], last: tuple[int, ...]) -> dict[str, Any]:
        ages: Counts = counted(self.ages_ns[first[0] : last[0]])
        return {
            "latency": ages,
            "first": counted(self.first_ns[first[1] : last[1]]),
            "frames": last[2] - first[2],
            "operations": last[3] - first[3],
            "answers": last[4] - first[4],
            **{"missing": self.missing, "doubled": self.doubled, "errors": self.errors, "error": self.first_error},
            "gone": sum(socket.closed for socket in self._sockets),
        }

    async def finish(self) -> None:
        """End what runs: by a cancel where a server's answers outlive their sockets; else by closing those, later."""
        self._going_on = False
        if not self._cancels:
            for socket in self._sockets:
                socket.doing, socket.waits = Nothing(), False
            return
        for socket in self._sockets:
            if socket.waits:
                socket.say(socket.message({"type": "cancel", "request_id": socket.request_id}))
        await idle(self._sockets)


async def idle(sockets: Sequence[Socket], timeout_s: float = FINISH_S) -> None:
    """Wait until nobody waits for an answer, a while at most."""
    give_up_at = time.monotonic() + timeout_s
    while any(socket.waits and not socket.closed for socket in sockets) and time.monotonic() < give_up_at:
        await asyncio.sleep(0.02)
    for socket in sockets:
        socket.waits = False
        socket.doing = Nothing()
