"""Where the entities come from that the graph is told about, and who hears what became of them: the outbox, or all.

How they are told, and to whom, is not known here.
"""

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from storage.graph_outbox import EntityType, GraphOutbox, Pending

LEASE = timedelta(minutes=5)
"""More than twice the deadline of a transaction. Whom somebody who died had claimed waits as long."""

FILE_LEASE = timedelta(minutes=30)
"""A file is one piece: what is in it is claimed until it is whole. A million films take about twenty minutes."""

PARKED = timedelta(days=7)
"""What cannot be told as it is waits until it changes; a newer version of this program looks at it within a week."""

PARK_AFTER = 3
"""A graph may refuse one entity because of what somebody else was just doing; not three times."""

PURGE_EVERY_S = 3600.0
"""What was told is forgotten after days: to look each hour is often enough. Only who has nothing else to do looks."""

ORDER: Sequence[EntityType] = ("movie", "tv", "person")


class Source(Protocol):
    """Entities to tell, in batches. Every method may raise STORAGE_UNAVAILABLE."""

    async def take(self, limit: int) -> list[Pending]:
        """The next ones, nobody else's for some minutes; none when that is all for now."""
        ...

    async def told(self, ids: Sequence[int]) -> None:
        """They are where they should be."""
        ...

    async def refused(self, pending: Pending, error: str, *, for_good: bool) -> bool:
        """This one cannot be told; whether it was put away. Not `for_good`: again later, a few times."""
        ...

    async def given_back(self, ids: Sequence[int], error: str, *, at_once: bool) -> None:
        """They were taken in vain, and are due again: `at_once`, or later each time."""
        ...

    async def left(self) -> int:
        """How many wait to be taken, due or not."""
        ...


class FromOutbox:
    """What changed since it was last told."""

    def __init__(self, outbox: GraphOutbox, lease: timedelta = LEASE) -> None:
        self._outbox = outbox
        self._lease = lease
        self._purged_at = -math.inf

    async def take(self, limit: int) -> list[Pending]:
        claimed = await self._outbox.claim(limit, self._lease)
        if not claimed and time.monotonic() - self._purged_at > PURGE_EVERY_S:
            self._purged_at = time.monotonic()
            await self._outbox.purge()
        return claimed

    async def told(self, ids: Sequence[int]) -> None:
        await self._outbox.done(ids)

    async def refused(self, pending: Pending, error: str, *, for_good: bool) -> bool:
        parked = for_good or pending.attempts >= PARK_AFTER
        await self._outbox.failed([pending.id], error, PARKED if parked else None)
        return parked

    async def given_back(self, ids: Sequence[int], error: str, *, at_once: bool) -> None:
        await self._outbox.failed(ids, error, timedelta(0) if at_once else None)

    async def left(self) -> int:
        backlog = await self._outbox.counts()
        return backlog.pending + backlog.claimed


class WholeCatalogue:
    """Everything that is stored, once, whatever the outbox says; nothing is written down about it."""

    def __init__(self, outbox: GraphOutbox) -> None:
        self._outbox = outbox
        self._rest = list(ORDER)
        self._after = 0

    async def take(self, limit: int) -> list[Pending]:
        while self._rest:
            found = await self._outbox.stored(self._rest[0], after=self._after, limit=limit)
            if found:
                self._after = found[-1].tmdb_id
                return found
            self._rest.pop(0)
            self._after = 0
        return []

    async def told(self, ids: Sequence[int]) -> None:
        pass

    async def refused(self, pending: Pending, error: str, *, for_good: bool) -> bool:
        return False

    async def given_back(self, ids: Sequence[int], error: str, *, at_once: bool) -> None:
        pass

    async def left(self) -> int:
        return 0
