"""Films for what somebody types: by title, by a part of it, in pinyin, mistyped, or by who made them; best first.

Each way to find them is one statement on keys that were made when the films were stored (`film_spellings.py`). What a
whole question means is not read here: that is the assistant's.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storage.film_filter import DIRECTED, PLAYED
from storage.film_names import is_ideograph
from storage.film_spellings import MAX_WHOLE, Kind, folded
from storage.film_typos import probes, slips_allowed, slips_between
from storage.postgres import Connection, Postgres

MOST_COMPARED = 300
"""Titles that are compared with a mistyped one, letter by letter: at most five milliseconds of this process."""

MOST_PEOPLE = 8
"""People whose films are looked up for a part of a name, those of the most voted films first."""

SHORTEST_NAME, SHORTEST_CHINESE_NAME = 3, 2
"""Characters of a name that have to be typed: fewer begin thousands of names."""

_ONLY, _ALL = "\x01", "\U0010ffff"
"""Behind a key: ends what is just this key, ends all that begins so. No key has a character outside of the two."""

_DATED = re.compile(r"(.*\D)((?:18[89]|19|20)\d\d)(?:年版?|版)?\W*", re.DOTALL)

_TITLES = (Kind.WHOLE, Kind.PART)
_PINYIN = (Kind.PINYIN, Kind.PINYIN_PART)

_KEYED = """
    SELECT tmdb_id FROM tmdb.film_spellings
    WHERE kind = $1 AND key >= $2 AND key < $3 AND ($4::smallint IS NULL OR year = $4)
    ORDER BY votes DESC, popularity DESC, tmdb_id LIMIT $5
"""

_SIMILAR = """
    SELECT tmdb_id, whole, max(votes) AS votes, max(popularity) AS popularity FROM tmdb.film_spellings
    WHERE kind = $1 AND key = ANY($2::text[]) AND ($3::smallint IS NULL OR year = $3)
    GROUP BY tmdb_id, whole ORDER BY count(*) DESC, votes DESC, popularity DESC, tmdb_id LIMIT $4
"""

# Best first: the whole name, a surname, what either begins with, and the same in pinyin.
_PEOPLE = """
    SELECT name_key, min(CASE WHEN kind < 2 AND key = $2 THEN kind WHEN kind < 2 THEN 2 WHEN key = $2 THEN 3 ELSE 4 END)
        AS likeness, max(votes) AS votes
    FROM tmdb.people_spellings WHERE kind = ANY($1::smallint[]) AND key >= $2 AND key < $3
    GROUP BY name_key ORDER BY likeness, votes DESC, name_key LIMIT $4
"""

# A film counts in full for who directed it and for the first three of its cast, and less and less for others. Person by
# person behind OFFSET 0, as in `movies.py`: for a join that it may turn round the planner reads the table.
_MADE_BY = f"""
    SELECT tmdb_id FROM (
        SELECT likeness, movie_id, part FROM unnest($1::text[], $2::integer[]) AS asked (name_key, likeness)
        CROSS JOIN LATERAL (
            SELECT movie_id, 1.0 AS part FROM tmdb.movie_credits
            WHERE movie_credits.name_key = asked.name_key AND {DIRECTED}
            UNION ALL
            SELECT movie_id, 1.0 / greatest(1, position - 1) FROM tmdb.movie_credits
            WHERE movie_credits.name_key = asked.name_key AND {PLAYED} OFFSET 0
        ) AS made
    ) AS credits JOIN tmdb.movies ON tmdb_id = movie_id
    WHERE $3::integer IS NULL OR extract(year FROM release_date) = $3
    GROUP BY tmdb_id, vote_count, popularity
    ORDER BY min(likeness), max(part) * vote_count DESC, popularity DESC, tmdb_id LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked for, folded, and of which year it must be."""

    key: str
    year: int | None = None

    @property
    def in_chinese(self) -> bool:
        return any(map(is_ideograph, self.key))


class _Found:
    """Ids in the order in which they were found, each once, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._ids: dict[int, None] = {}

    @property
    def ids(self) -> list[int]:
        return list(self._ids)[: self.limit]

    @property
    def full(self) -> bool:
        return len(self._ids) >= self.limit

    def add(self, ids: Iterable[int]) -> None:
        self._ids.update(dict.fromkeys(ids))


class FilmSearch:
    """Finds films by what is typed."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def find(self, query: str, *, limit: int) -> list[int]:
        """TMDB ids, best first: the very title, its beginning, a part of it, pinyin, mistyped, then films by people.

        Of equals the most voted comes first. A year behind a title says of when it must be, unless it belongs to the
        title or nothing else is found. Nothing is found for what has neither letter nor digit. Raises
        STORAGE_UNAVAILABLE.
        """
        whole = _Wish(folded(query))
        found = _Found(limit)
        if not whole.key:
            return []
        async with self._postgres.connection() as connection:
            dated = _dated(query)
            if dated is not None:
                await _titled(connection, whole, _TITLES, found)
                await _anyhow(connection, dated, found)
            if dated is None or not found.ids:
                await _anyhow(connection, whole, found)
        return found.ids


def _dated(query: str) -> _Wish | None:
    match = _DATED.fullmatch(unicodedata.normalize("NFKC", query))
    title = folded(match[1]) if match else ""
    return _Wish(title, int(match[2])) if match and title else None


async def _anyhow(connection: Connection, wish: _Wish, found: _Found) -> None:
    """Every way to find films, from the best on, until there are enough."""
    exact = await _titled(connection, wish, _TITLES if wish.in_chinese else (*_TITLES, *_PINYIN), found)
    if found.full:
        return
    people = await _people(connection, wish)
    if not exact and not any(likeness == 0 for _, likeness in people):
        found.add(await _mistyped(connection, wish))
    if not found.full:
        # Of a cast only the first are among the people: others are found by the very name that the credits have.
        found.add(await _made_by(connection, [(wish.key, 0), *people], wish.year, found.limit))


async def _titled(connection: Connection, wish: _Wish, kinds: Sequence[Kind], found: _Found) -> bool:
    """Adds films with a key that begins so, kind by kind; says whether one has exactly this title."""
    exact = False
    for kind in kinds:
        if kind in {Kind.WHOLE, Kind.PINYIN} and not found.full:
            ids = await _keyed(connection, wish, kind, _ONLY, found.limit)
            exact = exact or (kind is Kind.WHOLE and bool(ids))
            found.add(ids)
        if not found.full:
            found.add(await _keyed(connection, wish, kind, _ALL, found.limit))
    return exact


async def _keyed(connection: Connection, wish: _Wish, kind: Kind, end: str, limit: int) -> list[int]:
    """Films with a key of this kind that begins so, or is just this; one may be there for several of its keys."""
    records = await connection.fetch(_KEYED, kind, wish.key, wish.key + end, wish.year, limit * MAX_WHOLE)
    return [record["tmdb_id"] for record in records]


async def _mistyped(connection: Connection, wish: _Wish) -> list[int]:
    """Films whose title is this one but for a slip or two, the fewest slips first."""
    pieces = probes(wish.key)
    if not pieces:
        return []
    near: list[tuple[int, int, float, int]] = []
    for record in await connection.fetch(_SIMILAR, Kind.PIECE, pieces, wish.year, MOST_COMPARED):
        slips = slips_between(wish.key, record["whole"], slips_allowed(record["whole"]))
        if slips is not None:
            near.append((slips, -record["votes"], -record["popularity"], record["tmdb_id"]))
    return [tmdb_id for *_, tmdb_id in sorted(near)]


async def _people(connection: Connection, wish: _Wish) -> list[tuple[str, int]]:
    """Whose name begins so, as the credits have it, and how much it is like it: 0 when it is the very name."""
    if len(wish.key) < (SHORTEST_CHINESE_NAME if wish.in_chinese else SHORTEST_NAME):
        return []
    kinds = _TITLES if wish.in_chinese else (*_TITLES, *_PINYIN)
    records = await connection.fetch(_PEOPLE, kinds, wish.key, wish.key + _ALL, MOST_PEOPLE)
    return [(record["name_key"], record["likeness"]) for record in records]


async def _made_by(
    connection: Connection, people: Sequence[tuple[str, int]], year: int | None, limit: int
) -> list[int]:
    """Films that these people directed or play in: of the best named first, then by their part and the film's votes."""
    names, likeness = [name for name, _ in people], [likeness for _, likeness in people]
    return [record["tmdb_id"] for record in await connection.fetch(_MADE_BY, names, likeness, year, limit)]
