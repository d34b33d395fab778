"""Says that this node is alive, from a thread of its own: however busy the node is, it is not taken for dead.

On a loaded node a turn of the event loop takes seconds, and a query takes several turns; by then its runs would be
others'. A node whose loop does not turn at all any more is dead, whatever this thread could say: then it is silent.
"""

import asyncio
import contextlib
import math
import secrets
import threading
import time
from collections.abc import AsyncIterator

import asyncpg
import structlog

from protocol.errors import OperationError
from storage.ownership import RunTable
from storage.postgres import Postgres
from wsserver.tasks import Tasks

log = structlog.get_logger(__name__)

BEAT_S = 1.0

PULSE_S = 0.2
"""Between the pulses by which a process notices that it stood still."""

STILL_S = 4.0
"""A process that stood still for this long may have lost its runs: the lease less a beat, and a second."""

STUCK_S = 30.0
"""A loop that has not turned for this long hangs: the busiest node took six seconds a turn."""

STOP_S = 12.0
"""How long the thread may take to end: one statement's deadline, and a bit."""


class Heart:
    """The beats of one node, whose name is `node`."""

    def __init__(self, database_url: str, *, stuck_s: float = STUCK_S) -> None:
        self.node = secrets.token_hex(8)
        self.pulse_at = time.monotonic()
        """When this process was last known to run, on the clock of `time.monotonic()`."""
        self.woke_at = -math.inf
        """When it went on after it had stood still for too long."""
        self._database_url = database_url
        self._stuck_s = stuck_s
        self._turned_at = time.monotonic()
        self._stopping = threading.Event()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Heart"]:
        """Beat until the block ends."""
        thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="heart", daemon=True)
        thread.start()
        try:
            async with Tasks().open() as tasks:
                tasks.spawn(self._turn(), name="turns of the loop")
                yield self
        finally:
            self._stopping.set()
            await asyncio.to_thread(thread.join, STOP_S)

    async def _turn(self) -> None:
        while True:
            self._turned_at = time.monotonic()
            await asyncio.sleep(PULSE_S)

    # What follows runs in the thread.

    async def _live(self) -> None:
        async with Tasks().open() as tasks:
            beating = tasks.spawn(self._beat(), name="beats")
            while not self._stopping.is_set():
                now = time.monotonic()
                if self._loop_turns():
                    if now - self.pulse_at > STILL_S:
                        self.woke_at = now
                    self.pulse_at = now
                await asyncio.sleep(PULSE_S)
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            try:
                async with Postgres.open(self._database_url, size=1) as postgres:
                    table = RunTable(postgres)
                    while True:
                        # Before a beat that may take long: what stood still is known by a pulse, not by a beat.
                        with contextlib.suppress(OperationError):
                            if self._loop_turns():
                                await table.beat(self.node)
                        await asyncio.sleep(BEAT_S)
            except (OSError, TimeoutError, asyncpg.PostgresError, OperationError) as error:
                log.warning("heart cannot reach the database", reason=type(error).__name__)
            await asyncio.sleep(BEAT_S)

    def _loop_turns(self) -> bool:
        return time.monotonic() - self._turned_at < self._stuck_s
