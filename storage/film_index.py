"""The keys of films in PostgreSQL: written together with a film, and made anew for films whose keys are older.

What the keys are is said in `film_spellings.py`, how they are asked for in `film_search.py`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from protocol.errors import OperationError
from storage.demo.people import people_in_chinese
from storage.film_spellings import RULES, film_spellings, people_spellings
from storage.postgres import Connection, Postgres

RENEWED_AT_ONCE = 50
"""Films per transaction: a tenth of a second, which another who stores one of them can wait."""

PAUSE_S = 0.05
"""Between two transactions: those who ask come first."""

RETRY_S = 5.0
"""Until the next attempt while another node is at it, or while PostgreSQL is away."""

RENEWAL_LOCK = 0x43696E6C
"""The advisory lock of whoever makes keys anew ("Cinl"), so that nodes that start together do it once."""

_FORGET = "DELETE FROM tmdb.film_spellings WHERE tmdb_id = ANY($1::integer[])"

_STORE = """
    INSERT INTO tmdb.film_spellings (tmdb_id, kind, key, whole, year, votes, popularity)
    SELECT * FROM unnest(
        $1::integer[], $2::smallint[], $3::text[], $4::text[], $5::smallint[], $6::integer[], $7::real[]
    )
"""

# No row is ever changed here, and none has to be the only one: two transactions that store films of the same people
# would else wait for each other. Instead somebody gets one row more each time that their best film's votes doubled.
_STORE_PEOPLE = """
    INSERT INTO tmdb.people_spellings (kind, key, name_key, votes)
    SELECT kind, key, name_key, max(votes)
    FROM unnest($1::smallint[], $2::text[], $3::text[], $4::integer[]) AS seen (kind, key, name_key, votes)
    WHERE NOT EXISTS (
        SELECT FROM tmdb.people_spellings AS known
        WHERE known.kind = seen.kind AND known.key = seen.key AND known.name_key = seen.name_key
            AND known.votes >= seen.votes / 2
    )
    GROUP BY kind, key, name_key
"""

_OLDER = """
    SELECT tmdb_id, title, title_en, original_title, part_keys, directors, cast_names,
        release_date::text AS release_date, vote_count, popularity, raw
    FROM tmdb.movies WHERE spelling_rules < $1 ORDER BY spelling_rules, tmdb_id LIMIT $2 FOR UPDATE SKIP LOCKED
"""

_RENEWED = "UPDATE tmdb.movies SET spelling_rules = $1 WHERE tmdb_id = ANY($2::integer[])"


async def store_spellings(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the keys of films, from their rows as `film_row` makes them, in the transaction that wrote the films."""
    if not rows:
        return
    films, people = await asyncio.to_thread(_spell, rows)
    await connection.execute(_FORGET, [row["tmdb_id"] for row in rows])
    await connection.execute(_STORE, *_columns(films, 7))
    await connection.execute(_STORE_PEOPLE, *_columns(people, 4))


async def renewed(connection: Connection, ids: Sequence[int]) -> None:
    """Note that the keys of these films are those of this code."""
    if ids:
        await connection.execute(_RENEWED, RULES, ids)


class FilmIndex:
    """Brings the keys of all films up to the rules of this code."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def renew(self) -> None:
        """Make keys for every film that has none or older ones, a few at a time; one node does it, others wait."""
        while True:
            try:
                renewed = await self.renew_some()
            except OperationError:
                renewed = None
            if renewed == 0:
                return
            await asyncio.sleep(RETRY_S if renewed is None else PAUSE_S)

    async def renew_some(self) -> int | None:
        """Renew the keys of RENEWED_AT_ONCE films; how many there were, None while another node does it.

        Raises STORAGE_UNAVAILABLE.
        """
        async with self._postgres.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", RENEWAL_LOCK):
                return None
            rows = await connection.fetch(_OLDER, RULES, RENEWED_AT_ONCE)
            await store_spellings(connection, rows)
            await renewed(connection, [row["tmdb_id"] for row in rows])
        return len(rows)


def _spell(rows: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    films: list[tuple[object, ...]] = []
    people: list[tuple[object, ...]] = []
    chinese = people_in_chinese()
    for row in rows:
        released, votes = row["release_date"], row["vote_count"]
        year = int(released[:4]) if released else None
        films.extend((row["tmdb_id"], *made, year, votes, row["popularity"]) for made in film_spellings(row))
        people.extend((*made, votes) for made in people_spellings(row, chinese))
    return films, people


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[Sequence[object]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
