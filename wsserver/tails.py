"""Runs that other nodes make, followed by their logs: each log is read once for all who follow it here.

A log may end without the run's last frame: Redis lost it, or its owner died with it. Whether that is so is asked of
whoever knows (`endings`), and only when nothing has come for a while.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from protocol.envelope import Frame, encode_frame
from protocol.errors import OperationError
from storage.runs import LoggedFrame, RunLogs
from wsserver.feed import LOOK_AGAIN_S, RETRY_S, Feed, Follower

SEQ_GAP = 1_000_000
"""How far above the log a new beginning is numbered: more than a run can have sent while Redis took none of it."""

RUNS_AT_ONCE = 100
"""Logs read in one round trip: some milliseconds of this process, which everybody else waits for."""

WATCH_S = 5.0
"""How often a run's owner is told again that somebody reads its log, should Redis have lost it."""

QUIET_S = 2.0
"""A run that says nothing for this long may be over: a question to the table, for all quiet runs together."""

Endings = Callable[[Sequence[str]], Awaitable[Mapping[str, Sequence[Frame]]]]
"""Of these runs, those that are over and whose logs will never say so, each with its last frames."""


class Tail(Feed):
    """One run that another node makes."""

    def __init__(self, tails: "Tails", request_id: str, newest: LoggedFrame | None) -> None:
        super().__init__(request_id, tails.spawn)
        self._tails = tails
        self.position = newest.seq if newest else 0
        self.ended = newest is not None and newest.last
        self.quiet_since = time.monotonic()
        self.watched_at = -math.inf
        """When its owner was last told that somebody reads its log."""
        self.epilogue: list[LoggedFrame] = []
        """The end of a run whose log has none."""

    async def page(self, after_seq: int) -> Sequence[LoggedFrame]:
        logged = await self._tails.logs.read(self.request_id, after_seq)
        return logged or [frame for frame in self.epilogue if frame.seq > after_seq]

    def follow(self, follower: Follower) -> Callable[[], None]:
        """As every feed; the log is read for as long as somebody follows."""
        return Feed.follow(self._tails.reading(self), follower)

    def end_with(self, frames: Sequence[Frame]) -> None:
        """Hand out the end that the log does not have."""
        # Above whatever the run's owner may still log: under one seq there is never another frame.
        position = self.position + SEQ_GAP
        self.epilogue = [
            LoggedFrame(position + number, encode_frame(self.request_id, position + number, frame, None))
            for number, frame in enumerate(frames, 1)
        ]
        for frame in self.epilogue:
            self.hand_out(frame)


class Tails:
    """Reads the logs of all runs that are followed here and made elsewhere."""

    def __init__(self, logs: RunLogs, spawn: Callable[..., object]) -> None:
        self.logs = logs
        self.spawn = spawn
        self.endings: Endings | None = None
        self._tails: dict[str, Tail] = {}
        self._something = asyncio.Event()

    async def tail(self, request_id: str) -> Tail:
        """The run's frames, as its log has them. Raises STORAGE_UNAVAILABLE."""
        return Tail(self, request_id, await self.logs.newest(request_id))

    def reading(self, tail: Tail) -> Tail:
        """Have the log of a run read for its followers: by the tail that does it already, or else by this one."""
        if tail.ended:
            return tail
        self._something.set()
        return self._tails.setdefault(tail.request_id, tail)

    async def read(self) -> None:
        """Read until cancelled."""
        while True:
            await self._something.wait()
            self._drop_unfollowed()
            if not self._tails:
                self._something.clear()
                continue
            try:
                await self._read(list(self._tails.values()))
            except OperationError:
                await asyncio.sleep(RETRY_S)
                continue
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _read(self, tails: Sequence[Tail]) -> None:
        for first in range(0, len(tails), RUNS_AT_ONCE):
            some, now = tails[first : first + RUNS_AT_ONCE], time.monotonic()
            unwatched = [tail for tail in some if now - tail.watched_at > WATCH_S]
            after = {tail.request_id: tail.position for tail in some}
            read = await self.logs.read_many(after, watch=[tail.request_id for tail in unwatched])
            for tail in unwatched:
                tail.watched_at = now
            for request_id, frames in read.items():
                self._hand_out(request_id, frames)

    async def look_for_ends(self) -> None:
        """Give an end to the runs whose logs have none, until cancelled."""
        while True:
            await self._something.wait()
            await asyncio.sleep(QUIET_S / 2)
            quiet_before = time.monotonic() - QUIET_S
            quiet = [
                request_id
                for request_id, tail in self._tails.items()
                if not tail.ended and tail.quiet_since < quiet_before
            ]
            if not quiet or self.endings is None:
                continue
            try:
                endings = await self.endings(quiet)
                # The end may be there already, and only its reading be late.
                await self._read([self._tails[name] for name in endings if name in self._tails])
            except OperationError:
                continue
            for request_id, frames in endings.items():
                tail = self._tails.get(request_id)
                if tail is not None and not tail.ended and tail.quiet_since < quiet_before:
                    tail.end_with(frames)

    def _drop_unfollowed(self) -> None:
        for request_id, tail in tuple(self._tails.items()):
            if not tail.followers or tail.ended:
                del self._tails[request_id]

    def _hand_out(self, request_id: str, frames: Sequence[LoggedFrame]) -> None:
        tail = self._tails.get(request_id)
        if tail is not None and frames:
            tail.quiet_since = time.monotonic()
            for frame in frames:
                # What came in between is an end that it was given.
                if frame.seq > tail.position:
                    tail.hand_out(frame)
