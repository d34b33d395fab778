"""What clients do to a server: pings in a closed loop, chats one after the other; and what they saw of the answers."""

import asyncio
import re
import time
from array import array
from collections.abc import Sequence
from typing import Any

from tests.bench.histogram import Counts, counted
from tests.bench.scripted_model import RATE
from tests.bench.talk import Nothing, Talk

FINISH_S = 20.0
"""How long what was begun may take to end when the measuring is over."""

HEAD = 28
"""The type of a message stands within these bytes, in either speech."""

PONG = {"type": "pong", "code": 0, "message": "pong", "data": None}
STAMP = re.compile(rb"@(\d+)\.(\d+);")
RETRY_S = 0.25
LEAST_PIECES = 10
"""Of the first answers, which are of all lengths."""


class Pings:
    """Each socket sends its next ping when its pong has come. A pong is compared byte for byte."""

    def __init__(self, sockets: Sequence[Talk]) -> None:
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

    def _send(self, socket: Talk) -> None:
        socket.waits = True
        socket.sent_ns = time.perf_counter_ns()
        socket.say(self._ping)

    def take(self, socket: Talk, payload: bytes) -> None:
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

    def __init__(self, sockets: Sequence[Talk], seconds: float, spread_s: float, *, cancels: bool = False) -> None:
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

    def _send(self, socket: Talk, seconds: float) -> None:
        if self._going_on and not socket.closed:
            socket.waits = True
            socket.next_piece, socket.last_piece = 0, round(seconds * RATE)
            socket.sent_ns = time.perf_counter_ns()
            socket.say(self._chat if seconds == self._seconds else self._question(seconds))

    def take(self, socket: Talk, payload: bytes) -> None:
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

    def _look(self, socket: Talk, payload: bytes) -> None:
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

    def _ended(self, socket: Talk) -> None:
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


async def idle(sockets: Sequence[Talk], timeout_s: float = FINISH_S) -> None:
    """Wait until nobody waits for an answer, a while at most."""
    give_up_at = time.monotonic() + timeout_s
    while any(socket.waits and not socket.closed for socket in sockets) and time.monotonic() < give_up_at:
        await asyncio.sleep(0.02)
    for socket in sockets:
        socket.waits = False
        socket.doing = Nothing()
