"""The film catalogue: cards, details and lists of `tmdb.movies`, and storing what TMDB says.

No list reads `raw`; a detail page reads the few people of it that it shows. What a question means is decided by the
assistant, which asks here for films by name, by credit or by filter.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from protocol.movies import CastMember, CrewMember, Feed, MovieCard, MovieDetail
from storage.film_filter import Film, FilmFilter, Order, where
from storage.film_rows import film_row
from storage.postgres import Postgres, Record

POSTER_URL = "https://image.tmdb.org/t/p/w500"
BACKDROP_URL = "https://image.tmdb.org/t/p/w780"

STORE_BATCH = 200
"""Films per statement: about 4 MB of TMDB's JSON."""

COMPARED_BY_GENRE = 500
"""A drama has its genre in common with a third of all films: comparing them all takes longer than an answer may."""

_CARD = (
    "tmdb_id, title, release_date, poster_path, vote_average, vote_count, genres,"
    " directors[1:2] AS directors, cast_names[1:5] AS top_cast"
)
_FILM = (
    "tmdb_id, title, title_en, original_title, original_language, release_date, runtime, overview, overview_en,"
    " popularity, vote_average, vote_count, genre_ids, directors, cast_names[1:8] AS cast_names, title_keys, part_keys"
)

# All take limit, offset and today.
_FEEDS: dict[Feed, str] = {
    "popular": f"SELECT {_CARD} FROM tmdb.movies WHERE $3::date IS NOT NULL ORDER BY popularity DESC, tmdb_id",
    "now_playing": (
        f"SELECT {_CARD} FROM tmdb.movies WHERE release_date <= $3::date ORDER BY release_date DESC, tmdb_id"
    ),
    # Both the index of the releases, read from one end or the other.
    "upcoming": f"SELECT {_CARD} FROM tmdb.movies WHERE release_date > $3::date ORDER BY release_date, tmdb_id DESC",
}

_DETAIL = f"""
    SELECT {_CARD}, original_title, runtime, overview, backdrop_path,
        jsonb_path_query_array(raw, 'lax $.credits.cast[0 to 19]') AS cast_members,
        jsonb_path_query_array(
            raw,
            'lax $.credits.crew[*] ? (
                @.job == "Director" || @.job == "Screenplay" || @.job == "Writer" || @.job == "Story"
                || @.job == "Novel" || @.job == "Producer" || @.job == "Director of Photography"
                || @.job == "Original Music Composer"
            )'
        ) AS crew_members
    FROM tmdb.movies WHERE tmdb_id = $1
"""
MAX_CREW = 20

_COLUMNS = {
    "tmdb_id": "integer",
    "title": "text",
    "title_en": "text",
    "original_title": "text",
    "original_language": "text",
    "release_date": "date",
    "runtime": "integer",
    "overview": "text",
    "overview_en": "text",
    "popularity": "double precision",
    "vote_average": "double precision",
    "vote_count": "integer",
    "genre_ids": "integer[]",
    "genres": "text[]",
    "directors": "text[]",
    "director_keys": "text[]",
    "cast_names": "text[]",
    "cast_keys": "text[]",
    "title_keys": "text[]",
    "part_keys": "text[]",
    "poster_path": "text",
    "backdrop_path": "text",
    "raw": "jsonb",
    "raw_hash": "text",
    "language": "text",
}
# An unchanged film is written again only to renew its date: TMDB's terms want what is kept to be fetched anew.
_STORE = f"""
    INSERT INTO tmdb.movies AS stored ({", ".join(_COLUMNS)})
    SELECT {", ".join(_COLUMNS)}
    FROM jsonb_to_recordset($1::jsonb) AS fetched ({", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())})
    ON CONFLICT (tmdb_id) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name != "tmdb_id")}, fetched_at = now()
    WHERE stored.raw_hash <> excluded.raw_hash
        OR stored.language <> excluded.language
        OR stored.fetched_at < now() - interval '1 day'
    RETURNING tmdb_id
"""


class Movies:
    """Films of the catalogue. Every method may raise STORAGE_UNAVAILABLE."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def count(self) -> int:
        """How many films there are."""
        return await self.count_matching(FilmFilter())

    async def cards(self, ids: Sequence[int]) -> dict[int, MovieCard]:
        """Cards of those of the films that are in the catalogue, in no order."""
        sql = f"SELECT {_CARD} FROM tmdb.movies WHERE tmdb_id = ANY($1::integer[])"
        return {record["tmdb_id"]: _card(record) for record in await self._fetch(sql, ids)}

    async def detail(self, tmdb_id: int) -> MovieDetail | None:
        """Everything that a film's page shows: 20 of the cast as billed, and the key jobs of the crew."""
        records = await self._fetch(_DETAIL, tmdb_id)
        return _detail(records[0]) if records else None

    async def feed(self, feed: Feed, *, limit: int, offset: int, today: date) -> list[MovieCard]:
        """A page of a stable list: most popular first, last released first, or next to be released first.

        `upcoming` holds only films that are not out on `today`: it is empty when the catalogue knows none.
        """
        records = await self._fetch(f"{_FEEDS[feed]} LIMIT $1 OFFSET $2", limit, offset, today)
        return [_card(record) for record in records]

    async def store(self, films: Sequence[Mapping[str, Any]], *, language: str = "zh-CN") -> int:
        """Keep TMDB's answers about films, all or none; returns how many were new, changed or older than a day.

        Each is GET /3/movie/{id}?append_to_response=credits,translations in `language`. The last one of an id counts.
        Raises ValueError for what is no film.
        """
        rows = {row["tmdb_id"]: row for row in (film_row(film, language) for film in films)}
        # In order of the ids, so that two who store the same films wait for each other and not in a circle.
        ordered = sorted(rows.values(), key=lambda row: int(str(row["tmdb_id"])))
        written = 0
        async with self._postgres.transaction() as connection:
            for first in range(0, len(ordered), STORE_BATCH):
                written += len(await connection.fetch(_STORE, ordered[first : first + STORE_BATCH]))
        return written

    # The two lookups by many keys go key by key, behind OFFSET 0: for a whole array, and for a join that it may turn
    # round, the planner prefers to read the table, which takes 50 times as long.

    async def titled(self, keys: Sequence[str], *, limit: int = 100) -> list[Film]:
        """Films one of whose titles, or part of one, has one of these keys; the most voted first."""
        sql = f"""
            SELECT {_FILM} FROM tmdb.movies WHERE tmdb_id IN (
                SELECT tmdb_id FROM unnest($1::text[]) AS asked (name_key)
                CROSS JOIN LATERAL (
                    SELECT tmdb_id FROM tmdb.movies WHERE title_keys @> ARRAY[name_key] OFFSET 0
                ) AS by_title
                UNION
                SELECT tmdb_id FROM unnest($1::text[]) AS asked (name_key)
                CROSS JOIN LATERAL (
                    SELECT tmdb_id FROM tmdb.movies WHERE part_keys @> ARRAY[name_key] OFFSET 0
                ) AS by_part
            )
            ORDER BY vote_count DESC, tmdb_id LIMIT $2
        """
        return [_film(record) for record in await self._fetch(sql, keys, limit)]

    async def similarly_titled(self, keys: Sequence[str], *, limit: int = 500) -> list[Film]:
        """Films with a title about as long as one of these keys, most popular first: to find a slip of the pen."""
        lengths = sorted({length for key in keys for length in range(len(key) - 2, len(key) + 3)})
        sql = f"""
            SELECT {_FILM} FROM tmdb.movies
            WHERE EXISTS (SELECT FROM unnest(title_keys) AS title_key WHERE length(title_key) = ANY($1::integer[]))
            ORDER BY popularity DESC, tmdb_id LIMIT $2
        """
        return [_film(record) for record in await self._fetch(sql, lengths, limit)]

    async def credited(self, keys: Sequence[str]) -> dict[str, str]:
        """Those of the keys that are somebody in the credits, with the name as it is written there."""
        sql = """
            SELECT name_key, min(name) AS name FROM unnest($1::text[]) AS asked (name_key)
            CROSS JOIN LATERAL (
                SELECT directors[array_position(director_keys, name_key)] AS name
                FROM tmdb.movies WHERE director_keys @> ARRAY[name_key] OFFSET 0
            ) AS directed
            GROUP BY name_key
            UNION
            SELECT name_key, min(name) AS name FROM unnest($1::text[]) AS asked (name_key)
            CROSS JOIN LATERAL (
                SELECT cast_names[array_position(cast_keys, name_key)] AS name
                FROM tmdb.movies WHERE cast_keys @> ARRAY[name_key] OFFSET 0
            ) AS played
            GROUP BY name_key
        """
        return {record["name_key"]: record["name"] for record in await self._fetch(sql, keys)}

    async def search(self, wanted: FilmFilter, order: Order, *, limit: int, offset: int = 0) -> list[Film]:
        """Films that the filter lets through, in order."""
        made = where(wanted, order=order, parameters=(limit, offset))
        sql = f"SELECT {_FILM} FROM tmdb.movies WHERE {made.sql} ORDER BY {order} LIMIT $1 OFFSET $2"
        return [_film(record) for record in await self._fetch(sql, *made.parameters)]

    async def count_matching(self, wanted: FilmFilter) -> int:
        """How many films the filter lets through."""
        made = where(wanted)
        records = await self._fetch(f"SELECT count(*) AS films FROM tmdb.movies WHERE {made.sql}", *made.parameters)
        return int(records[0]["films"])

    async def similar(self, ids: Sequence[int], wanted: FilmFilter, *, limit: int) -> list[Film]:
        """Films most like these ones, that the filter lets through.

        A common director counts 3, each common member of the cast 2, and up to 4 for having the same genres and no
        others; the better rated of equals comes first. A film with nobody and not half of the genres in common is not
        like them. Of those with only genres in common the most popular COMPARED_BY_GENRE are looked at.
        """
        made = where(wanted, parameters=(ids, limit, COMPARED_BY_GENRE))
        sql = f"""
            WITH liked AS (
                SELECT director_keys AS directors_liked, cast_keys AS cast_liked, genre_ids AS genres_liked
                FROM tmdb.movies WHERE tmdb_id = ANY($1::integer[])
            ),
            candidates AS (
                SELECT tmdb_id AS candidate_id
                FROM liked JOIN tmdb.movies ON director_keys && directors_liked OR cast_keys && cast_liked
                WHERE {made.sql}
                UNION (
                    SELECT tmdb_id FROM tmdb.movies
                    WHERE genre_ids && ARRAY(SELECT unnest(genres_liked) FROM liked) AND {made.sql}
                    ORDER BY popularity DESC, tmdb_id LIMIT $3
                )
            ),
            compared AS (
                SELECT candidate_id, vote_average,
                    3 * cardinality(ARRAY(SELECT unnest(director_keys) INTERSECT SELECT unnest(directors_liked)))
                    + 2 * cardinality(ARRAY(SELECT unnest(cast_keys) INTERSECT SELECT unnest(cast_liked))) AS people,
                    4.0 * cardinality(ARRAY(SELECT unnest(genre_ids) INTERSECT SELECT unnest(genres_liked)))
                    / greatest(1, cardinality(ARRAY(SELECT unnest(genre_ids) UNION SELECT unnest(genres_liked))))
                        AS genres
                FROM liked CROSS JOIN candidates JOIN tmdb.movies ON tmdb_id = candidate_id
                WHERE candidate_id <> ALL($1::integer[])
            ),
            best AS (
                SELECT candidate_id, sum(people + genres) + max(vote_average) / 20 AS score FROM compared
                WHERE people > 0 OR genres >= 2 GROUP BY candidate_id ORDER BY score DESC, candidate_id LIMIT $2
            )
            SELECT {_FILM} FROM best JOIN tmdb.movies ON tmdb_id = candidate_id ORDER BY score DESC, tmdb_id
        """
        return [_film(record) for record in await self._fetch(sql, *made.parameters)]

    async def _fetch(self, sql: str, *parameters: object) -> list[Record]:
        async with self._postgres.connection() as connection:
            return list(await connection.fetch(sql, *parameters))


def _card(record: Record) -> MovieCard:
    return MovieCard(**_card_fields(record))


def _card_fields(record: Record) -> dict[str, Any]:
    released: date | None = record["release_date"]
    return {
        "tmdb_id": record["tmdb_id"],
        "title": record["title"],
        "release_date": released.isoformat() if released else None,
        "year": released.year if released else None,
        "poster_url": POSTER_URL + record["poster_path"] if record["poster_path"] else None,
        "vote_average": record["vote_average"],
        "vote_count": record["vote_count"],
        "genres": record["genres"],
        "directors": record["directors"],
        "top_cast": record["top_cast"],
    }


def _detail(record: Record) -> MovieDetail:
    crew = dict.fromkeys((person["name"], person["job"]) for person in record["crew_members"])
    return MovieDetail(
        **_card_fields(record),
        original_title=record["original_title"],
        runtime=record["runtime"],
        overview=record["overview"],
        backdrop_url=BACKDROP_URL + record["backdrop_path"] if record["backdrop_path"] else None,
        cast=[
            CastMember(name=person["name"], character=person.get("character") or "")
            for person in record["cast_members"]
        ],
        crew=[CrewMember(name=name, job=job) for name, job in list(crew)[:MAX_CREW]],
    )


def _film(record: Record) -> Film:
    return Film(**record)
