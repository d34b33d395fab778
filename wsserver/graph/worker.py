"""Tells a Neo4j about entities, batch by batch, and says of each what became of it.

A batch is one transaction. One that the graph refuses is halved until the entity is found that it refuses, so that one
holds up no others. What is said is export.py's, how it is sent vendors/neo4j.py's.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from protocol.errors import OperationError
from storage.graph_outbox import Pending
from wsserver.graph.export import CONSTRAINTS, Entity, entity_of, name_of, statements_for
from wsserver.graph.source import Source
from wsserver.vendors.neo4j import (
    GraphError,
    GraphMisconfiguredError,
    GraphRefusedError,
    GraphUnavailableError,
    Neo4j,
)

log = structlog.get_logger(__name__)

POLL_S = 2.0
"""How long a change may wait before a worker that has nothing to do sees it; a claim takes a millisecond."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Between tries while the graph or PostgreSQL is away; doubled each time."""


@dataclass(slots=True)
class Tally:
    """What a run has done so far. `waiting` were refused and are tried again later, `parked` only when they change."""

    told: int = 0
    deleted: int = 0
    waiting: int = 0
    parked: int = 0

    def count(self, entities: Sequence[Entity]) -> None:
        self.told += len(entities)
        self.deleted += sum(entity.deleted for entity in entities)

    @property
    def refused(self) -> int:
        return self.waiting + self.parked


class Refusals(Protocol):
    """What is done with an entity that cannot be told."""

    async def __call__(self, pending: Pending, error: Exception, *, for_good: bool) -> None: ...


def refusals(source: Source, tally: Tally) -> Refusals:
    """Tell the source, the log and the tally."""

    async def refuse(pending: Pending, error: Exception, *, for_good: bool) -> None:
        parked = await source.refused(pending, str(error), for_good=for_good)
        if parked:
            tally.parked += 1
        else:
            tally.waiting += 1
        log.warning(
            "entity not told to the graph",
            entity_type=pending.entity_type,
            tmdb_id=pending.tmdb_id,
            parked=parked,
            error=str(error),
        )

    return refuse


async def entities_of(claimed: Sequence[Pending], refuse: Refusals) -> list[Entity]:
    """The entities of rows, without those that are none."""
    entities = []
    for pending in claimed:
        try:
            entities.append(entity_of(pending))
        except ValueError as error:
            await refuse(pending, error, for_good=True)
    return entities


class GraphWorker:
    """Takes from a source and tells a graph. Several may do it at the same time, in any number of processes."""

    def __init__(
        self,
        source: Source,
        graph: Neo4j,
        tally: Tally,
        *,
        batch: int,
        on_progress: Callable[[], None] = lambda: None,
        poll_s: float = POLL_S,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._source = source
        self._graph = graph
        self._tally = tally
        self._refuse = refusals(source, tally)
        self._batch = batch
        self._on_progress = on_progress
        self._poll_s = poll_s
        self._first_pause_s = first_pause_s

    async def once(self, stop: asyncio.Event) -> None:
        """Tell until nothing is due, or until `stop`, but never half a batch.

        Raises GraphError and STORAGE_UNAVAILABLE; what was taken then is given back, or is free after its lease.
        """
        await self._graph.prepare(CONSTRAINTS)
        while not stop.is_set() and await self._next_batch():
            self._on_progress()

    async def follow(self, stop: asyncio.Event, *, may_wait_for_storage: bool) -> None:
        """Tell whatever comes until `stop`, and wait for a graph that is away, for PostgreSQL only if it `may`.

        Raises GraphMisconfiguredError, and STORAGE_UNAVAILABLE when it may not wait.
        """
        pause_s, prepared = self._first_pause_s, False
        while not stop.is_set():
            try:
                if not prepared:
                    await self._graph.prepare(CONSTRAINTS)
                    prepared = True
                while not stop.is_set() and await self._next_batch():
                    pause_s = self._first_pause_s
                    self._on_progress()
                wait_s = self._poll_s
            except (GraphUnavailableError, OperationError) as error:
                if isinstance(error, OperationError) and not may_wait_for_storage:
                    raise
                log.warning("the graph is not told for now", error=str(error), pause_s=pause_s)
                wait_s, pause_s = pause_s, min(pause_s * 2, LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)

    async def _next_batch(self) -> bool:
        """Whether there was one."""
        claimed = await self._source.take(self._batch)
        open_ = {name_of(pending): pending for pending in claimed}

        async def refuse(pending: Pending, error: Exception, *, for_good: bool) -> None:
            await self._refuse(pending, error, for_good=for_good)
            open_.pop(name_of(pending))

        entities = await entities_of(claimed, refuse)
        try:
            await self._tell(entities, open_, refuse)
        except GraphError as error:
            # Not the rows' fault when ours is to mend: then they are due when it is mended.
            at_once = isinstance(error, GraphMisconfiguredError)
            await self._source.given_back([row.id for row in open_.values()], str(error), at_once=at_once)
            raise
        return bool(claimed)

    async def _tell(self, entities: Sequence[Entity], open_: dict[str, Pending], refuse: Refusals) -> None:
        if not entities:
            return
        try:
            await self._graph.write(statements_for(entities))
        except GraphRefusedError as error:
            if len(entities) == 1:
                await refuse(open_[entities[0].entity], error, for_good=False)
                return
            middle = len(entities) // 2
            await self._tell(entities[:middle], open_, refuse)
            await self._tell(entities[middle:], open_, refuse)
            return
        await self._source.told([entity.outbox_id for entity in entities])
        self._tally.count(entities)
        for entity in entities:
            open_.pop(entity.entity)
