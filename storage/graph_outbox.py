"""What the graph has to be told: entities that were stored anew or dropped, and how far telling it has come.

A row is written in the transaction that changes its entity. It is *pending* until a worker claims it; an entity has at
most one pending row, so that many changes are told once. A change while a worker is busy with the entity makes a new
pending row, which is claimed after the busy one is done or its lease is over. How the graph looks is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from storage.postgres import Connection, Postgres

FIRST_RETRY = timedelta(seconds=10)
"""After the first failure; doubled with each further one."""

LONGEST_RETRY = timedelta(hours=1)
"""A graph that was away for a day is found an hour after it came back at the latest."""

KEEP_DONE = timedelta(days=7)
"""How long it can be seen that and when something was told."""

MAX_ERROR = 500
"""Characters of an error that are kept."""

EntityType = Literal["movie", "person", "tv"]
Operation = Literal["upsert", "delete"]

_TABLES: dict[EntityType, str] = {"movie": "tmdb.movies", "person": "tmdb.people", "tv": "tmdb.tv_shows"}


@dataclass(frozen=True, slots=True)
class Pending:
    """An entity that the graph has to be told about, and what TMDB says about it now.

    `id` grows with every change of an entity: what comes from a smaller one than the graph knows is out of date.
    `raw` is None when the entity is to be deleted; so it is when it was dropped after its change.
    """

    id: int
    entity_type: EntityType
    tmdb_id: int
    operation: Operation
    attempts: int
    raw: dict[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Rows that are not done. `failing` are pending ones that failed before; `oldest` is when the first was written."""

    pending: int
    claimed: int
    failing: int
    oldest: datetime | None


async def enqueue(connection: Connection, entity_type: EntityType, ids: Sequence[int], operation: Operation) -> None:
    """Note that entities changed, in the transaction that changes them."""
    # In order of the ids, so that those who note the same wait for each other and not in a circle.
    await connection.execute(
        """
        INSERT INTO tmdb.neo4j_etl_outbox (entity_type, tmdb_id, operation)
        SELECT $1, tmdb_id, $3 FROM unnest($2::integer[]) AS changed (tmdb_id) ORDER BY tmdb_id
        ON CONFLICT (entity_type, tmdb_id) WHERE claimed_at IS NULL AND done_at IS NULL
        DO UPDATE SET operation = excluded.operation, next_try = now()
        """,
        entity_type,
        ids,
        operation,
    )


class GraphOutbox:
    """Every method raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def claim(self, limit: int, lease: timedelta) -> list[Pending]:
        """Take rows that are due, oldest first, for as long as the lease; after it they are anybody's again.

        Of an entity only the newest row is taken, and none while somebody else has one.
        """
        async with self._postgres.transaction() as connection:
            rows = await connection.fetch(
                """
                WITH due AS (
                    SELECT id FROM tmdb.neo4j_etl_outbox AS mine
                    WHERE done_at IS NULL AND next_try <= now() AND NOT EXISTS (
                        SELECT FROM tmdb.neo4j_etl_outbox AS other
                        WHERE other.entity_type = mine.entity_type AND other.tmdb_id = mine.tmdb_id
                            AND other.done_at IS NULL AND other.id <> mine.id
                            AND (other.id > mine.id OR other.claimed_at IS NOT NULL AND other.next_try > now())
                    )
                    ORDER BY next_try, id LIMIT $1 FOR UPDATE SKIP LOCKED
                )
                UPDATE tmdb.neo4j_etl_outbox AS taken
                SET claimed_at = now(), next_try = now() + $2::interval, attempts = attempts + 1
                FROM due WHERE taken.id = due.id
                RETURNING taken.id, entity_type, tmdb_id, operation, attempts
                """,
                limit,
                lease,
            )
            # In a statement of its own, which sees what was stored before the rows were locked. In the first one a
            # change that came between its start and the lock would be claimed and its `raw` not be seen.
            raws = await connection.fetch(
                """
                SELECT id, coalesce(movies.raw, people.raw, tv_shows.raw) AS raw FROM tmdb.neo4j_etl_outbox AS taken
                LEFT JOIN tmdb.movies ON entity_type = 'movie' AND movies.tmdb_id = taken.tmdb_id
                LEFT JOIN tmdb.people ON entity_type = 'person' AND people.tmdb_id = taken.tmdb_id
                LEFT JOIN tmdb.tv_shows ON entity_type = 'tv' AND tv_shows.tmdb_id = taken.tmdb_id
                WHERE id = ANY($1::bigint[]) AND operation = 'upsert'
                """,
                [row["id"] for row in rows],
            )
        raw_of = {record["id"]: record["raw"] for record in raws}
        return [Pending(**row, raw=raw_of.get(row["id"])) for row in sorted(rows, key=lambda row: int(row["id"]))]

    async def done(self, ids: Sequence[int]) -> None:
        """The graph has been told: these rows are finished, and with them what was older about their entities."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                """
                UPDATE tmdb.neo4j_etl_outbox AS older SET done_at = now(), last_error = NULL
                FROM tmdb.neo4j_etl_outbox AS told
                WHERE told.id = ANY($1::bigint[]) AND older.entity_type = told.entity_type
                    AND older.tmdb_id = told.tmdb_id AND older.id <= told.id AND older.done_at IS NULL
                """,
                ids,
            )

    async def failed(self, ids: Sequence[int], error: str, next_try: timedelta | None = None) -> None:
        """The graph could not be told: the rows are pending again, due after `next_try`.

        Without it they wait FIRST_RETRY, and twice as long after each further failure, LONGEST_RETRY at most. What
        changed meanwhile has its own pending row, which stays due as it is.
        """
        async with self._postgres.connection() as connection:
            await connection.execute(
                """
                WITH given_up AS (
                    DELETE FROM tmdb.neo4j_etl_outbox
                    WHERE id = ANY($1::bigint[]) AND claimed_at IS NOT NULL AND done_at IS NULL
                    RETURNING *
                )
                INSERT INTO tmdb.neo4j_etl_outbox AS pending
                    (entity_type, tmdb_id, operation, attempts, last_error, created_at, next_try)
                SELECT DISTINCT ON (entity_type, tmdb_id) entity_type, tmdb_id, operation, attempts, $2, created_at,
                    now() + coalesce($3::interval, least($5::interval, $4::interval * 2 ^ least(attempts - 1, 30)))
                FROM given_up ORDER BY entity_type, tmdb_id, id DESC
                ON CONFLICT (entity_type, tmdb_id) WHERE claimed_at IS NULL AND done_at IS NULL
                DO UPDATE SET attempts = excluded.attempts, last_error = excluded.last_error
                """,
                ids,
                error[:MAX_ERROR],
                next_try,
                FIRST_RETRY,
                LONGEST_RETRY,
            )

    async def stored(self, entity_type: EntityType, *, after: int, limit: int) -> list[Pending]:
        """The catalogue whatever the graph was told of it: entities with ids above `after`, in order.

        Their `id` is that of their newest row, 0 when it is forgotten; nothing is claimed.
        """
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                f"""
                WITH page AS (
                    SELECT tmdb_id, raw FROM {_TABLES[entity_type]} WHERE tmdb_id > $2 ORDER BY tmdb_id LIMIT $3
                ),
                newest AS (
                    SELECT tmdb_id, max(id) AS id FROM tmdb.neo4j_etl_outbox
                    WHERE entity_type = $1 AND tmdb_id IN (SELECT tmdb_id FROM page) GROUP BY tmdb_id
                )
                SELECT tmdb_id, coalesce(id, 0) AS id, raw FROM page LEFT JOIN newest USING (tmdb_id) ORDER BY tmdb_id
                """,
                entity_type,
                after,
                limit,
            )
        return [Pending(**record, entity_type=entity_type, operation="upsert", attempts=0) for record in records]

    async def counts(self) -> Backlog:
        """How far behind the graph is."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                """
                SELECT count(*) FILTER (WHERE claimed_at IS NULL) AS pending,
                    count(*) FILTER (WHERE claimed_at IS NOT NULL) AS claimed,
                    count(*) FILTER (WHERE claimed_at IS NULL AND attempts > 0) AS failing,
                    min(created_at) AS oldest
                FROM tmdb.neo4j_etl_outbox WHERE done_at IS NULL
                """
            )
        return Backlog(**records[0])

    async def purge(self) -> int:
        """Forget what was done more than KEEP_DONE ago; returns how many rows."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                "DELETE FROM tmdb.neo4j_etl_outbox WHERE done_at < now() - $1::interval RETURNING id", KEEP_DONE
            )
        return len(records)
