"""When the text of answers leaves: each run's at most every interval, which widens before this node is too busy.

A frame costs several times what a piece of text does. So a busy node sends fewer and longer ones, while there is still
time to: what waits for its frame stays younger than what would wait for a loop that cannot follow.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from wsserver.wheel import Wheel

MOST_S = 0.09
"""The interval of a node that is busy: with 30 ms for the loop and the way, a piece is 120 ms old when it is seen."""

BUSY, FULL = 0.5, 0.85
"""Shares of a core that the loop's thread takes: up to the first nothing is widened, from the second on all of it."""

LATE_S = 0.02
"""A loop this late is full, whatever it takes of a core: others on the machine may take the rest."""

WIDEN_S, NARROW_S = 0.3, 2.0
"""How slowly the interval follows: a burst is met within a second, and what was widened does not swing back at once."""

RESTING_STRAIN = 0.3
"""From which on the makers of answers rest between frames: at 55 ms a frame has three pieces of a fast model."""

TICK_S = 0.005
"""Between two looks at what is due: an eighth of the usual interval."""

SLOT_S = 0.001
"""How finely it is known what is due: what a tick adds to an interval is its own length and this."""

LOOK_S = 0.1
"""Between two looks at how busy the loop is."""


class Pace:
    """The interval, from `least_s` up to MOST_S: fed with how busy the loop was. Of 0 it stays 0: nothing gathers.

    `strain` says how far it is widened, from 0 to 1; `rests`, whether makers of answers had better rest between frames.
    """

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._room_s = max(0.0, MOST_S - least_s) if least_s > 0 else 0.0
        self.strain = 0.0
        self.interval_s = least_s
        self.rests = False

    def look(self, *, elapsed_s: float, busy_s: float, late_s: float) -> None:
        """Of `elapsed_s` the loop's thread ran for `busy_s`, and came to its timers `late_s` too late on average."""
        wanted = max((busy_s / elapsed_s - BUSY) / (FULL - BUSY), late_s / LATE_S)
        wanted = min(1.0, max(0.0, wanted))
        # Full only where it is still on its way there: the interval changes what it costs, so it is followed slowly.
        follow_s = WIDEN_S if wanted > self.strain else NARROW_S
        self.strain += (wanted - self.strain) * min(1.0, elapsed_s / follow_s)
        self.interval_s = self._least_s + self.strain * self._room_s
        # Going on after a rest takes some turns of the loop. Long ones gather what is said by themselves.
        self.rests = self._room_s > 0 and self.strain >= RESTING_STRAIN and late_s < LATE_S / 2


class Held(Protocol):
    """A run that holds text back."""

    def release(self, now: float) -> None: ...


class RollUp:
    """One timer for all runs that hold text back. It stands still while none does."""

    def __init__(self, pace: Pace, tell: Callable[[float], None]) -> None:
        """`tell` is told the interval in seconds, now and then."""
        self.pace = pace
        self._tell = tell
        self.wheel: Wheel[Held] = Wheel(SLOT_S)
        self._due: deque[Held] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted_at = 0.0
        self._looked_at = self._ran_s = 0.0
        self._late_s, self._ticks = 0.0, 0
        tell(pace.interval_s)

    def hold(self, run: Held, until: float) -> None:
        """Have `run` release its text at `until`, on the clock of `time.monotonic()`."""
        self.wheel.put(run, until)
        if self._timer is None:
            self._wait(time.monotonic())

    def rest(self) -> asyncio.Future[None]:
        """What the maker of an answer waits for."""
        return self._known_loop().create_future()

    def _known_loop(self) -> asyncio.AbstractEventLoop:
        # Asked once: on Python 3.11 each question is a system call, a twentieth of what a busy node did.
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def close(self) -> None:
        """Release nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self, now: float) -> None:
        self._wanted_at = now + TICK_S
        self._timer = self._known_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        try:
            self._late_s += max(0.0, now - self._wanted_at)
            self._ticks += 1
            if now - self._looked_at >= LOOK_S:
                self._look(now)
            self._due.extend(self.wheel.due(now))
            while self._due:
                self._due.popleft().release(now)
        finally:
            # Also after a mistake in one of them: it is not the others'. And only now, or each run that holds text
            # again while it is released would begin a timer of its own.
            self._timer = None
            if self.wheel or self._due:
                self._wait(now)

    def _look(self, now: float) -> None:
        ran_s = time.thread_time()
        self.pace.look(elapsed_s=now - self._looked_at, busy_s=ran_s - self._ran_s, late_s=self._late_s / self._ticks)
        self._looked_at, self._ran_s = now, ran_s
        self._late_s, self._ticks = 0.0, 0
        self._tell(self.pace.interval_s)
