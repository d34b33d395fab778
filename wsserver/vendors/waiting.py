"""How long a vendor is waited for: deadlines of reads, and the pauses between tries."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

RETRY_AFTER_CAP_S = 3600.0  # no vendor means more; a date in a wrong year does


def until(deadline: float) -> asyncio.Timeout:
    """A deadline on the clock of `time.monotonic()`."""
    return asyncio.timeout(deadline - time.monotonic())


class Alarm:
    """`asyncio.timeout` for one read after another, with one timer for all: a timer each cost 6 of 48 µs a chunk."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = self._due = math.inf
        self._reader: asyncio.Task[object] | None = None
        self._rang = False

    async def read(self, source: AsyncIterator[bytes], within_s: float) -> bytes:
        """The next bytes of `source`; raises `TimeoutError`, or `StopAsyncIteration` at its end."""
        self._due = self._loop.time() + within_s
        if self._due < self._rings_at:
            self._set()
        # The loop is named, or Python 3.11 asks the kernel each time which it is.
        reader = asyncio.current_task(self._loop)
        cancelling = reader.cancelling() if reader else 0
        self._reader = reader
        try:
            return await anext(source)
        except asyncio.CancelledError:
            # Somebody else's cancellation may have come at the same time, and goes on.
            if self._rang and reader and reader.uncancel() <= cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._reader = None

    def off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set(self) -> None:
        self.off()
        self._rings_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._rings_at = math.inf
        if self._reader is None:
            return
        if self._loop.time() < self._due:
            self._set()
        else:
            self._rang = True
            self._reader.cancel()


def jittered(pause_s: float) -> float:
    """From half of the pause to the whole of it, so that the clients of one failure do not come back together."""
    return pause_s * random.uniform(0.5, 1)  # noqa: S311 - no secret


def retry_after_s(header: str | None) -> float | None:
    """Retry-After in either of its forms (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), RETRY_AFTER_CAP_S)
