"""Refreshes the catalogue at set times: what seed-movies does, then films that are getting old, then dropping.

It answers when, on which node of all, and what happens when that node dies. Fetching is `seeding.py`'s, the claims are
storage/refreshes.py's.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from protocol.errors import OperationError
from storage.budget import Budget
from storage.movies import Movies
from storage.refreshes import Refreshes, Slot
from storage.seedings import Seedings
from storage.tmdb_entities import People, TvShows
from wsserver.cron import next_time
from wsserver.seeding import Seeding, Wanted
from wsserver.tasks import Tasks
from wsserver.vendors.tmdb import Tmdb

log = structlog.get_logger(__name__)

LEASE_S = 60.0
"""A node that has not renewed its claim for this long is gone, and another takes the slot up."""

LOOK_S = 15.0
"""Between two looks for a slot whose node is gone."""

RELEASE_S = 2.0
"""For giving a slot up when the node stops."""

STALE_DAYS = 150
"""A month before TMDB's terms want a film dropped: so many refreshes may fail."""

STALE_AT_ONCE = 20_000
"""Films of one refresh, at half of 20 a second for half an hour. What is left is the next one's."""

CONCURRENCY = 2
"""The share of the budget keeps it slow; two calls at a time reach it at TMDB's usual 0.2 s."""


class _LostError(Exception):
    """The slot is another node's by now."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where things are kept."""

    movies: Movies
    people: People
    shows: TvShows
    seedings: Seedings
    slots: Refreshes


class Refresh:
    """The refreshes of one node. `share` is how often it may ask TMDB, a part of what all nodes may."""

    def __init__(
        self,
        tmdb: Tmdb,
        keeping: Keeping,
        share: Budget,
        *,
        node: str,
        cron: str,
        wanted: Wanted,
        lease_s: float = LEASE_S,
        look_s: float = LOOK_S,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tmdb = tmdb
        self._keeping = keeping
        self._slots = keeping.slots
        self._share = share
        self._node = node
        self._cron = cron
        self._wanted = wanted
        self._lease = timedelta(seconds=lease_s)
        self._look_s = look_s
        self._clock = clock

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Refresh when it is time until the block ends."""
        async with Tasks().open() as tasks:
            tasks.spawn(self._watch(), name="refresh of the catalogue")
            yield

    async def _watch(self) -> None:
        due = next_time(self._cron, self._clock())
        while True:
            now = self._clock()
            try:
                slot = await (self._claim(due) if now >= due else self._slots.take_up(self._node, self._lease))
            except OperationError as error:
                log.warning("no refresh can be claimed, trying again", reason=error.kind.reason)
                await asyncio.sleep(self._look_s)
                continue
            if now >= due:
                due = next_time(self._cron, now)
            if slot is not None:
                await self._hold(slot)
            left_s = (due - self._clock()).total_seconds()
            await asyncio.sleep(min(self._look_s, max(0.0, left_s)))

    async def _claim(self, due: datetime) -> Slot | None:
        await self._slots.close_lost()
        return await self._slots.claim(due, self._node, self._lease)

    async def _hold(self, slot: Slot) -> None:
        """Refresh while the slot is ours."""
        try:
            await self._refresh_while_held(slot)
        except asyncio.CancelledError:
            with contextlib.suppress(OperationError, TimeoutError):
                async with asyncio.timeout(RELEASE_S):
                    await self._slots.release(slot, self._node)
            raise

    async def _refresh_while_held(self, slot: Slot) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(slot))
                await self._refresh(slot)
                renewing.cancel()
        except* _LostError:
            log.warning("refresh was taken up by another node", slot=slot.at.isoformat())
        except* Exception:
            # Whoever takes it up after the lease goes on where it was.
            log.exception("refresh failed", slot=slot.at.isoformat(), takes=slot.takes)

    async def _renew(self, slot: Slot) -> None:
        lease_s = self._lease.total_seconds()
        held_until = time.monotonic() + lease_s
        while True:
            await asyncio.sleep(lease_s / 4)
            asked_at = time.monotonic()
            with contextlib.suppress(OperationError):
                if not await self._slots.renew(slot, self._node, self._lease):
                    raise _LostError
                held_until = asked_at + lease_s
            if time.monotonic() > held_until:
                raise _LostError

    async def _refresh(self, slot: Slot) -> None:
        started, keeping = time.monotonic(), self._keeping
        seeding = Seeding(
            self._tmdb, keeping.movies, keeping.seedings, self._wanted, since=slot.started_at, share=self._share
        )
        await seeding.lists()
        await seeding.films(await keeping.movies.stale(STALE_DAYS, STALE_AT_ONCE))
        dropped = {
            "films_dropped": await keeping.movies.drop_older_than(),
            "people_dropped": await keeping.people.drop_older_than(),
            "shows_dropped": await keeping.shows.drop_older_than(),
        }
        summary = seeding.tally.counts() | dropped
        await self._slots.end(slot, self._node, summary)
        await self._slots.forget_old()
        await keeping.seedings.forget_old_films()
        log.info(
            "catalogue refreshed",
            slot=slot.at.isoformat(),
            takes=slot.takes,
            **summary,
            ms=round((time.monotonic() - started) * 1000),
        )
