"""Which runs are this node's: says that it is alive, makes what it was given, and takes over what the dead left.

It looks into the table a few times a second rather than being told: a listener may be cut off without noticing, a
look that failed is simply made again.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial

import structlog

from protocol.errors import RUN_NOT_FOUND, OperationError
from storage.ownership import Owned, RunRow, RunTable
from wsserver.heart import BEAT_S, STILL_S, Heart
from wsserver.hub import Hub
from wsserver.tasks import Tasks

log = structlog.get_logger(__name__)

LOOK_S = 0.25
"""Between looks: a cancel from another node works within half a second, at four small queries a second."""

LEASE = timedelta(seconds=6)
"""How long a node may be silent before its runs are taken over: six beats, so that a busy second costs no answer."""

TAKE_AT_ONCE = 200
"""Runs taken over in one look: a node's thousand are spread over the others, and over some seconds."""

MISSING_S = 2.0
"""How long the table may say that a run is ours while nothing makes it, before it is begun anew."""

SETTLE_S = 3 * BEAT_S
"""How long a node that has just started takes nothing over: PostgreSQL may have just started too, and then nobody
has beaten for a while."""

FORGET_S = 60.0
"""Between deletions of rows that nobody can ask for any more."""


class Ownership:
    """This node's part in making every run exactly once."""

    def __init__(self, table: RunTable, hub: Hub, heart: Heart) -> None:
        """`table` is on a connection of its own: what shall stop must not wait behind chats."""
        self.node = heart.node
        self.taken: Callable[[RunRow], None] = lambda _row: None
        """Called with a run that this node has to begin anew."""
        self.started: Callable[[RunRow], None] = lambda _row: None
        """Called with a queued run of this node whose turn it is."""
        self.beginning: set[str] = set()
        """Runs of this node that are not being made yet: just stored, or taken over."""
        self._table = table
        self._hub = hub
        self._heart = heart
        self._sure_at = -math.inf
        """When the last look began that found what is ours."""
        self._missing: dict[str, float] = {}
        self._unsettled: dict[str, Callable[[], Awaitable[object]]] = {}
        self._due: dict[str, float] = {}
        self._take_from = time.monotonic() + SETTLE_S
        hub.stood_still = self._may_have_lost_runs

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Ownership"]:
        """Take part until the block ends; then what is left is given up. Raises STORAGE_UNAVAILABLE at the start."""
        await self._table.beat(self.node)
        async with self._heart.open(), Tasks().open() as tasks:
            tasks.spawn(self._watch(), name="ownership of runs")
            yield self
        with contextlib.suppress(OperationError):
            await self.hand_over()
            await self._table.leave(self.node)

    async def hand_over(self) -> None:
        """Give up every run that this node has not ended. Raises STORAGE_UNAVAILABLE."""
        owned = [one.request_id for one in await self._table.owned(self.node)]
        for run in self._hub.owned():
            run.stop("handed over")
        if owned:
            await self._table.hand_over(self.node, owned)

    def settle_later(self, request_id: str, settle: Callable[[], Awaitable[object]]) -> None:
        """Store how a run ended as soon as PostgreSQL is back."""
        self._unsettled[request_id] = settle

    def _may_have_lost_runs(self) -> bool:
        return time.monotonic() - self._heart.pulse_at > STILL_S or self._heart.woke_at > self._sure_at

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except OperationError as error:
                if time.monotonic() >= self._take_from:
                    log.warning("runs cannot be looked after", reason=error.kind.reason)
                # Nobody could beat: after it everybody looks dead for a moment.
                self._take_from = time.monotonic() + LEASE.total_seconds()
            except Exception:
                # One row that nobody foresaw must not make this node look dead, and cost it all its runs.
                log.exception("look after runs failed")
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        looked_at = time.monotonic()
        for request_id, settle in tuple(self._unsettled.items()):
            try:
                await settle()
            except OperationError as error:
                if error.kind is not RUN_NOT_FOUND:
                    raise
                log.warning("run was another node's before its end was stored", request_id=request_id)
            del self._unsettled[request_id]
        owned = {one.request_id: one for one in await self._table.owned(self.node)}
        if time.monotonic() - self._heart.pulse_at > STILL_S or self._heart.woke_at >= looked_at:
            return  # what was read may be from before we stood still
        self._compare(owned, looked_at)
        if any(one.state == "queued" for one in owned.values()):
            for row in await self._table.start_queued(self.node):
                self.started(row)
        if not self._hub.draining and looked_at >= self._take_from and self._is_due("take over", BEAT_S):
            for row in await self._table.take_over(self.node, LEASE, TAKE_AT_ONCE):
                log.warning("run taken over", request_id=row.request_id, takeovers=row.takeovers)
                self.taken(row)
        if self._is_due("forget", FORGET_S):
            await self._table.forget()

    def _is_due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def _compare(self, owned: dict[str, Owned], looked_at: float) -> None:
        """Fence what is not ours any more, stop what shall end, begin anew what nothing makes."""
        making = {run.request_id: run for run in self._hub.owned()}
        for run in making.values():
            row = owned.get(run.request_id)
            if run.settled or run.started >= looked_at:
                continue
            if row is None or row.epoch != run.epoch:
                log.warning("run is another node's by now", request_id=run.request_id)
                run.fence()
                continue
            run.confirm()
            if row.stop is not None:
                run.stop(row.stop)
        self._sure_at = looked_at
        self._missing = {
            request_id: self._missing.get(request_id, looked_at)
            for request_id in owned
            if request_id not in making and request_id not in self._unsettled and request_id not in self.beginning
        }
        lost = [request_id for request_id, since in self._missing.items() if looked_at - since > MISSING_S]
        for request_id in lost:
            log.warning("run was left undone", request_id=request_id)
            del self._missing[request_id]
            self.settle_later(request_id, partial(self._table.hand_over, self.node, [request_id]))
