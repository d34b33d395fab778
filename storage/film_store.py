"""Writing the film catalogue: films with their credits and genres, TMDB's lists of them, and dropping what is too old.

Reading is storage/movies.py. What a stored film looks like is made in storage/film_rows.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from protocol.movies import Feed
from storage.film_index import renewed, store_spellings
from storage.film_rows import CREDIT_COLUMNS, credit_rows, film_row
from storage.postgres import Connection, Postgres
from storage.tmdb_store import KEEP_DAYS, STORE_BATCH, Row, Source, Stored, drop_older_than, in_order, store_batch

FILM_COLUMNS = {
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
    "cast_names": "text[]",
    "title_keys": "text[]",
    "part_keys": "text[]",
    "poster_path": "text",
    "backdrop_path": "text",
    "raw": "jsonb",
    "raw_hash": "text",
    "language": "text",
    "spelling_rules": "smallint",
}
"""Columns of `tmdb.movies` that are made of TMDB's answer, and their types."""

GENRE_COLUMNS = ("movie_id", "genre_id", "popularity")

_ONCE = frozenset({"spelling_rules"})
"""Not renewed with the date alone: the spellings of a film are written when it is new or changed."""


class FilmStore:
    """What writes films. Every method may raise STORAGE_UNAVAILABLE."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def store(
        self, films: Sequence[Mapping[str, Any]], *, language: str = "zh-CN", source: Source = "tmdb"
    ) -> Stored:
        """Keep TMDB's answers about films, all or none, with their relations and what the graph has to be told.

        Each is GET /3/movie/{id}?append_to_response=credits,translations in `language`. The last one of an id counts.
        What is stored already is left alone; after a day its date is renewed. Raises ValueError for what is no film.
        """
        rows = in_order(film_row(film, language) for film in films)
        done: list[Stored] = []
        async with self._postgres.transaction() as connection:
            for first in range(0, len(rows), STORE_BATCH):
                batch = rows[first : first + STORE_BATCH]
                done.append(stored := await store_batch(connection, "movie", FILM_COLUMNS, batch, source, once=_ONCE))
                await _store_relations(connection, batch, stored)
        return Stored.sum(done)

    async def replace_feed(self, feed: Feed, ids: Sequence[int]) -> None:
        """Keep a list of TMDB in its order, in place of the one before; without ids there is none any more.

        Its films need not be in the catalogue. One that is in it twice, as happens between TMDB's pages, has its
        first place.
        """
        listed = list(dict.fromkeys(ids))
        async with self._postgres.transaction() as connection:
            # Row by row in order, so that of two who replace the same list one waits for the other.
            await connection.execute(
                """
                INSERT INTO tmdb.feeds (feed, position, tmdb_id)
                SELECT $1, at - 1, tmdb_id FROM unnest($2::integer[]) WITH ORDINALITY AS listed (tmdb_id, at)
                ORDER BY at
                ON CONFLICT (feed, position) DO UPDATE SET tmdb_id = excluded.tmdb_id, listed_at = now()
                """,
                feed,
                listed,
            )
            await connection.execute("DELETE FROM tmdb.feeds WHERE feed = $1 AND position >= $2", feed, len(listed))

    async def stale(self, older_than_days: int, limit: int) -> list[int]:
        """Films of TMDB that were not fetched for so long, the longest first: what has to be fetched anew."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                """
                SELECT tmdb_id FROM tmdb.movies
                WHERE source = 'tmdb' AND fetched_at < now() - make_interval(days => $1)
                ORDER BY fetched_at, tmdb_id LIMIT $2
                """,
                older_than_days,
                limit,
            )
        return [record["tmdb_id"] for record in records]

    async def drop_older_than(self, days: int = KEEP_DAYS) -> int:
        """Drop films of TMDB that were not fetched for so long, and its lists; returns how many films.

        The demo catalogue stays: it is ours. The graph is told.
        """
        async with self._postgres.connection() as connection:
            await connection.execute("DELETE FROM tmdb.feeds WHERE listed_at < now() - make_interval(days => $1)", days)
        return await drop_older_than(self._postgres, "movie", days)


async def _store_relations(connection: Connection, batch: Sequence[Row], stored: Stored) -> None:
    """The credits, genres and spellings of what is new or changed; others have them as they are."""
    if stored.changed:
        for table in ("movie_credits", "movie_genres"):
            await connection.execute(
                f"DELETE FROM tmdb.{table} WHERE movie_id = ANY($1::integer[])", stored.changed_ids
            )
    written = {*stored.new_ids, *stored.changed_ids}
    rows = [row for row in batch if row["tmdb_id"] in written]
    if not rows:
        return
    credits_ = [credit for row in rows for credit in credit_rows(row["raw"])]
    genres = [
        (row["tmdb_id"], genre_id, row["popularity"]) for row in rows for genre_id in dict.fromkeys(row["genre_ids"])
    ]
    await connection.copy_records_to_table(
        "movie_credits", schema_name="tmdb", columns=CREDIT_COLUMNS, records=credits_
    )
    await connection.copy_records_to_table("movie_genres", schema_name="tmdb", columns=GENRE_COLUMNS, records=genres)
    await store_spellings(connection, rows)
    await renewed(connection, stored.changed_ids)
