"""People and TV shows as TMDB knows them: storing them, and finding them by name.

What a film's credits say of people is in storage/film_store.py; not everybody there was ever asked about.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from storage.film_names import title_keys
from storage.film_rows import Json, day, person_key, raw_hash, text, translated
from storage.graph_outbox import EntityType
from storage.postgres import Postgres, Record
from storage.tmdb_store import KEEP_DAYS, STORE_BATCH, Stored, drop_older_than, in_order, store_batch

_KEPT = {"raw": "jsonb", "raw_hash": "text", "language": "text"}
PERSON_COLUMNS = {
    "tmdb_id": "integer",
    "name": "text",
    "also_known_as": "text[]",
    "name_keys": "text[]",
    "gender": "integer",
    "known_for_department": "text",
    "birthday": "date",
    "deathday": "date",
    "place_of_birth": "text",
    "biography": "text",
    "popularity": "double precision",
    "profile_path": "text",
    "imdb_id": "text",
    **_KEPT,
}
TV_COLUMNS = {
    "tmdb_id": "integer",
    "name": "text",
    "name_en": "text",
    "original_name": "text",
    "original_language": "text",
    "name_keys": "text[]",
    "first_air_date": "date",
    "last_air_date": "date",
    "status": "text",
    "seasons": "integer",
    "episodes": "integer",
    "overview": "text",
    "popularity": "double precision",
    "vote_average": "double precision",
    "vote_count": "integer",
    "genre_ids": "integer[]",
    "genres": "text[]",
    "poster_path": "text",
    **_KEPT,
}
_PERSON = "tmdb_id, name, also_known_as, known_for_department, birthday, deathday, biography, popularity, profile_path"
_TV = (
    "tmdb_id, name, name_en, original_name, first_air_date, last_air_date, status, seasons, episodes, overview,"
    " popularity, vote_average, vote_count, genre_ids, genres, poster_path"
)


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """Somebody as TMDB knows them; texts may be empty. `name` is the one that credits have."""

    tmdb_id: int
    name: str
    also_known_as: list[str]
    known_for_department: str
    birthday: date | None
    deathday: date | None
    biography: str = field(repr=False)
    popularity: float
    profile_path: str | None


@dataclass(frozen=True, slots=True)
class TvShow:
    """A show as TMDB knows it; texts may be empty."""

    tmdb_id: int
    name: str
    name_en: str
    original_name: str
    first_air_date: date | None
    last_air_date: date | None
    status: str
    seasons: int | None
    episodes: int | None
    overview: str = field(repr=False)
    popularity: float
    vote_average: float
    vote_count: int
    genre_ids: list[int]
    genres: list[str]
    poster_path: str | None


class People:
    """People of TMDB. Every method may raise STORAGE_UNAVAILABLE."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def store(self, people: Sequence[Json], *, language: str = "zh-CN") -> Stored:
        """Keep TMDB's answers about people, all or none, and what the graph has to be told.

        Each is GET /3/person/{id} in `language`, with whatever was appended. Raises ValueError for what is no person.
        """
        return await _store(self._postgres, "person", PERSON_COLUMNS, (person_row(each, language) for each in people))

    async def find(self, keys: Sequence[str], *, limit: int = 100) -> list[KnownPerson]:
        """Who is called one of these (storage/film_names.py), by any name; the most popular first."""
        return [KnownPerson(**record) for record in await _find(self._postgres, "tmdb.people", _PERSON, keys, limit)]

    async def drop_older_than(self, days: int = KEEP_DAYS) -> int:
        """Drop people who were not fetched for so long; returns how many. The graph is told."""
        return await drop_older_than(self._postgres, "person", days)


class TvShows:
    """TV shows of TMDB. Every method may raise STORAGE_UNAVAILABLE."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def store(self, shows: Sequence[Json], *, language: str = "zh-CN") -> Stored:
        """Keep TMDB's answers about shows, all or none, and what the graph has to be told.

        Each is GET /3/tv/{id} in `language`, with whatever was appended. Raises ValueError for what is no show.
        """
        return await _store(self._postgres, "tv", TV_COLUMNS, (tv_row(each, language) for each in shows))

    async def find(self, keys: Sequence[str], *, limit: int = 100) -> list[TvShow]:
        """Shows that are called one of these, in any language that is kept; the most popular first."""
        return [TvShow(**record) for record in await _find(self._postgres, "tmdb.tv_shows", _TV, keys, limit)]

    async def drop_older_than(self, days: int = KEEP_DAYS) -> int:
        """Drop shows that were not fetched for so long; returns how many. The graph is told."""
        return await drop_older_than(self._postgres, "tv", days)


def person_row(raw: Json, language: str) -> dict[str, object]:
    """The columns of one person. Raises ValueError when `raw` is nobody with an id and a name."""
    tmdb_id, name = raw.get("id"), text(raw, "name")
    if not isinstance(tmdb_id, int) or not name:
        raise ValueError("not a person of TMDB: no id, or no name")
    others = [other.strip() for other in raw.get("also_known_as") or () if isinstance(other, str) and other.strip()]
    return {
        "tmdb_id": tmdb_id,
        "name": name,
        "also_known_as": others,
        "name_keys": list(dict.fromkeys(name_key for other in (name, *others) if (name_key := person_key(other)))),
        "gender": raw.get("gender") or None,
        "known_for_department": text(raw, "known_for_department"),
        "birthday": day(raw.get("birthday")),
        "deathday": day(raw.get("deathday")),
        "place_of_birth": text(raw, "place_of_birth"),
        "biography": text(raw, "biography") or translated(raw, "biography", "en", "US"),
        "popularity": raw.get("popularity") or 0.0,
        "profile_path": raw.get("profile_path") or None,
        "imdb_id": raw.get("imdb_id") or None,
        "raw": raw,
        "raw_hash": raw_hash(raw),
        "language": language,
    }


def tv_row(raw: Json, language: str) -> dict[str, object]:
    """The columns of one show. Raises ValueError when `raw` is no show with an id and a name."""
    tmdb_id, original_name = raw.get("id"), text(raw, "original_name")
    name = text(raw, "name") or original_name
    if not isinstance(tmdb_id, int) or not name:
        raise ValueError("not a show of TMDB: no id, or no name in any language")
    name_en = (
        translated(raw, "name", "en", "US") or (original_name if raw.get("original_language") == "en" else "") or name
    )
    genres = [genre for genre in raw.get("genres") or () if isinstance(genre, Mapping)]
    return {
        "tmdb_id": tmdb_id,
        "name": name,
        "name_en": name_en,
        "original_name": original_name or name,
        "original_language": text(raw, "original_language"),
        "name_keys": title_keys(name, name_en, original_name or name),
        "first_air_date": day(raw.get("first_air_date")),
        "last_air_date": day(raw.get("last_air_date")),
        "status": text(raw, "status"),
        "seasons": raw.get("number_of_seasons") or None,
        "episodes": raw.get("number_of_episodes") or None,
        "overview": text(raw, "overview") or translated(raw, "overview", "en", "US"),
        "popularity": raw.get("popularity") or 0.0,
        "vote_average": raw.get("vote_average") or 0.0,
        "vote_count": raw.get("vote_count") or 0,
        "genre_ids": [genre["id"] for genre in genres],
        "genres": [text(genre, "name") for genre in genres],
        "poster_path": raw.get("poster_path") or None,
        "raw": raw,
        "raw_hash": raw_hash(raw),
        "language": language,
    }


async def _store(
    postgres: Postgres, entity: EntityType, columns: Mapping[str, str], answers: Iterable[Mapping[str, Any]]
) -> Stored:
    rows = in_order(answers)
    async with postgres.transaction() as connection:
        return Stored.sum(
            [
                await store_batch(connection, entity, columns, rows[first : first + STORE_BATCH], "tmdb")
                for first in range(0, len(rows), STORE_BATCH)
            ]
        )


async def _find(postgres: Postgres, table: str, columns: str, keys: Sequence[str], limit: int) -> list[Record]:
    sql = f"SELECT {columns} FROM {table} WHERE name_keys && $1::text[] ORDER BY popularity DESC, tmdb_id LIMIT $2"
    async with postgres.connection() as connection:
        return list(await connection.fetch(sql, keys, limit))
