"""Which films were fetched from TMDB in bulk and when, so that a seeding that was cut off goes on where it was.

What is fetched, and in which order, is wsserver/seeding.py's; the films themselves are in storage/film_store.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.postgres import Postgres

SEEDING_LOCK = 0x53656564
"""The advisory lock of whoever seeds by hand ("Seed"). PostgreSQL gives it up with the connection of who is killed."""

LOOK_S = 0.25
"""Between two looks whether the lock is free."""

KEEP = timedelta(days=7)
"""A seeding that was cut off can be gone on with for a week; later its films are worth fetching again."""


@dataclass(frozen=True, slots=True)
class SeedingRow:
    """A seeding: what was fetched from `since` on, it need not fetch."""

    id: int
    since: datetime


class Seedings:
    """Seedings and what they fetched. Every method may raise STORAGE_UNAVAILABLE."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def turn(self, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Be the only one inside; who has to wait is told so once. It holds a connection of the pool."""
        async with self._postgres.connection() as connection:
            told = False
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", SEEDING_LOCK):
                if not told:
                    on_wait()
                    told = True
                await asyncio.sleep(LOOK_S)
            try:
                yield
            finally:
                # The pool does not; of a connection that was lost PostgreSQL does.
                if not connection.is_closed():
                    await connection.execute("SELECT pg_advisory_unlock($1)", SEEDING_LOCK)

    async def begin(self, language: str) -> SeedingRow:
        """A new seeding."""
        async with self._postgres.connection() as connection:
            record = await connection.fetchrow(
                "INSERT INTO tmdb.seedings (language) VALUES ($1) RETURNING id, started_at", language
            )
        return SeedingRow(record["id"], record["started_at"])

    async def unfinished(self, language: str) -> SeedingRow | None:
        """The latest seeding in this language that did not come to its end."""
        async with self._postgres.connection() as connection:
            record = await connection.fetchrow(
                """
                SELECT id, started_at FROM tmdb.seedings
                WHERE language = $1 AND ended_at IS NULL AND started_at > now() - $2::interval
                ORDER BY started_at DESC LIMIT 1
                """,
                language,
                KEEP,
            )
        return SeedingRow(record["id"], record["started_at"]) if record else None

    async def end(self, seeding_id: int) -> None:
        """Nothing of it is left to be done."""
        async with self._postgres.connection() as connection:
            await connection.execute("UPDATE tmdb.seedings SET ended_at = now() WHERE id = $1", seeding_id)

    async def fetched(self, ids: Collection[int], language: str, since: datetime) -> set[int]:
        """Those that TMDB was asked about since then, by anybody, and answered."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                """
                SELECT tmdb_id FROM tmdb.seeded_films
                WHERE tmdb_id = ANY($1::integer[]) AND language = $2 AND fetched_at >= $3
                """,
                list(ids),
                language,
                since,
            )
        return {record["tmdb_id"] for record in records}

    async def note(self, ids: Collection[int], language: str) -> None:
        """TMDB answered about these, and what it said of them is kept."""
        async with self._postgres.connection() as connection:
            # In order, so that of two who note the same films one waits for the other.
            await connection.execute(
                """
                INSERT INTO tmdb.seeded_films (tmdb_id, language) SELECT unnest($1::integer[]), $2
                ON CONFLICT (tmdb_id, language) DO UPDATE SET fetched_at = now()
                """,
                sorted(set(ids)),
                language,
            )

    async def forget_old_films(self) -> None:
        """Drop what no seeding asks about any more."""
        async with self._postgres.connection() as connection:
            await connection.execute("DELETE FROM tmdb.seeded_films WHERE fetched_at < now() - $1::interval", KEEP)

    async def forget_old_seedings(self) -> None:
        """Drop those that nobody goes on with any more."""
        async with self._postgres.connection() as connection:
            await connection.execute("DELETE FROM tmdb.seedings WHERE started_at < now() - $1::interval", KEEP)
