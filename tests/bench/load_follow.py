"""Answers that several sockets follow: one asks, the others resume what it was given, on its node or on another.

The sockets of several groups, which have the same users, number by number: the leaders ask once, and all of them count
the frames of the answer and how old its pieces came.
"""

import asyncio
import time
from array import array
from collections.abc import Sequence
from typing import Any

from tests.bench.histogram import counted
from tests.bench.load_doing import HEAD, STAMP, idle
from tests.bench.talk import Talk


class Follows:
    """`groups` are pairs of leaders and of the groups that follow them."""

    def __init__(self, groups: Sequence[tuple[Sequence[Talk], Sequence[Sequence[Talk]]]], seconds: float) -> None:
        self._followers: dict[Talk, list[Talk]] = {}
        for leaders, following in groups:
            for number, leader in enumerate(leaders):
                self._followers[leader] = [group[number] for group in following]
        self._sockets = [one for leader, several in self._followers.items() for one in (leader, *several)]
        self._seconds = seconds
        self.ages_ns = array("q")
        self.frames = self.pieces = self.errors = self.followed = 0
        self.first_error = ""

    def start(self) -> None:
        """Begin all answers within a second."""
        loop, count = asyncio.get_running_loop(), len(self._followers)
        for socket in self._sockets:
            socket.doing = self
        for number, leader in enumerate(self._followers):
            loop.call_later(number / count, self._ask, leader)

    def _ask(self, leader: Talk) -> None:
        leader.waits = True
        leader.say(leader.message({"type": "chat", "query": f"{self._seconds:g}", "stream": True}))

    def take(self, socket: Talk, payload: bytes) -> None:
        head = payload[:HEAD]
        if b'"chunk"' in head:
            now = time.monotonic_ns()
            self.frames += 1
            for _, due_ns in STAMP.findall(payload):
                self.ages_ns.append(now - int(due_ns))
                self.pieces += 1
        elif b'"chat_processing"' in head:
            socket.request_id = socket.content(payload)["data"]["request_id"]
            for follower in self._followers[socket]:
                follower.say(follower.message({"type": "resume", "request_id": socket.request_id, "after_seq": 0}))
        elif b'"resume_response"' in head:
            self.followed += 1
        elif b'"complete"' in head:
            socket.waits = False
        elif b'"error"' in head:
            self.errors += 1
            self.first_error = self.first_error or payload.decode()

    def mark(self) -> tuple[int, int, int]:
        return len(self.ages_ns), self.frames, self.pieces

    def since(self, first: tuple[int, int, int], last: tuple[int, int, int]) -> dict[str, Any]:
        return {
            "latency": counted(self.ages_ns[first[0] : last[0]]),
            "frames": last[1] - first[1],
            "operations": last[2] - first[2],
            "followed": self.followed,
            "errors": self.errors,
            "error": self.first_error,
        }

    async def finish(self) -> None:
        for leader in self._followers:
            if leader.waits:
                leader.say(leader.message({"type": "cancel", "request_id": leader.request_id}))
        await idle(self._sockets)
