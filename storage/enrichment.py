"""The log of what was fetched for questions: what was asked, what could be meant, what was taken, how it went.

For finding out afterwards why an answer was what it was. It names users and holds what they asked, so it is kept for
a short time. Whether a question may be logged is decided by who asks; nothing is fetched here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from storage.graph_outbox import EntityType
from storage.postgres import Postgres
from storage.users import hold_user, was_erased

KEEP = timedelta(days=30)
"""Long enough to look into a complaint, no longer."""


@dataclass(frozen=True, slots=True)
class Considered:
    """An entity that the question may have meant; `selected` when it was taken. `score` is the route's own."""

    entity_type: EntityType
    tmdb_id: int
    selected: bool
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Enrichment:
    """What was done for the question of a run. `candidates` and `chosen` are as the route has them."""

    request_id: str
    user_id: str = field(repr=False)
    query: str = field(repr=False)
    route: str
    outcome: str
    duration_ms: int
    candidates: Sequence[Any] = field(default=(), repr=False)
    chosen: Sequence[Any] = field(default=(), repr=False)
    entities: Sequence[Considered] = ()


class EnrichmentLog:
    """Every method raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def write(self, enrichment: Enrichment) -> None:
        """Log it, unless the account was deleted meanwhile.

        A run that is begun anew on another node replaces what it logged before.
        """
        async with self._postgres.transaction() as connection:
            await hold_user(connection, enrichment.user_id)
            if await was_erased(connection, enrichment.user_id):
                return
            await connection.execute(
                """
                INSERT INTO tmdb.enrichment_requests
                    (request_id, user_id, query, route, candidates, chosen, outcome, duration_ms)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                ON CONFLICT (request_id) DO UPDATE
                SET user_id = excluded.user_id, query = excluded.query, route = excluded.route,
                    candidates = excluded.candidates, chosen = excluded.chosen, outcome = excluded.outcome,
                    duration_ms = excluded.duration_ms, created_at = now()
                """,
                enrichment.request_id,
                enrichment.user_id,
                enrichment.query,
                enrichment.route,
                enrichment.candidates,
                enrichment.chosen,
                enrichment.outcome,
                enrichment.duration_ms,
            )
            await connection.execute(
                "DELETE FROM tmdb.enrichment_request_entities WHERE request_id = $1", enrichment.request_id
            )
            await connection.execute(
                """
                INSERT INTO tmdb.enrichment_request_entities (request_id, entity_type, tmdb_id, selected, score)
                SELECT $1, * FROM unnest($2::text[], $3::integer[], $4::boolean[], $5::double precision[])
                ON CONFLICT (request_id, entity_type, tmdb_id) DO NOTHING
                """,
                enrichment.request_id,
                [entity.entity_type for entity in enrichment.entities],
                [entity.tmdb_id for entity in enrichment.entities],
                [entity.selected for entity in enrichment.entities],
                [entity.score for entity in enrichment.entities],
            )

    async def purge(self) -> int:
        """Forget what is older than KEEP; returns how many requests."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                "DELETE FROM tmdb.enrichment_requests WHERE created_at < now() - $1::interval RETURNING request_id",
                KEEP,
            )
        return len(records)
