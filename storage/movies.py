"""The film catalogue: cards, details and lists of `tmdb.movies`, and who made films with whom.

No list reads `raw`; a detail page reads the few people of it that it shows. What a question means is decided by the
assistant, which asks here for films by name, by credit or by filter. Storing films is storage/film_store.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from protocol.movies import CastMember, CrewMember, Feed, MovieCard, MovieDetail
from storage.film_filter import DIRECTED, PLAYED, Credit, Film, FilmFilter, Order, where
from storage.film_store import FilmStore
from storage.postgres import Record

POSTER_URL = "https://image.tmdb.org/t/p/w500"
BACKDROP_URL = "https://image.tmdb.org/t/p/w780"

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

# What may be in a feed on day $3, and its order when TMDB gave none.
_FEEDS: dict[Feed, tuple[str, str]] = {
    "popular": ("$3::date IS NOT NULL", "popularity DESC, tmdb_id"),
    "now_playing": ("release_date <= $3::date", "release_date DESC, tmdb_id"),
    # Both the index of the releases, read from one end or the other.
    "upcoming": ("release_date > $3::date", "release_date, tmdb_id DESC"),
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

# A person counts once for two films, whatever they did twice in one of them.
_SHARED = """
    SELECT DISTINCT liked_id, movie_id AS candidate_id, name_key, {points} AS points
    FROM (
        SELECT movie_id AS liked_id, name_key FROM tmdb.movie_credits WHERE movie_id = ANY($1::integer[]) AND {part}
    ) AS known JOIN tmdb.movie_credits USING (name_key) WHERE {part}
"""


@dataclass(frozen=True, slots=True)
class Work:
    """A film of somebody, and what they did in it. `characters` may be empty although they played."""

    film: Film
    jobs: list[str]
    played: bool
    characters: list[str]


@dataclass(frozen=True, slots=True)
class Collaborator:
    """Somebody who made films with somebody, and as what: jobs as TMDB names them, "Actor" for the cast."""

    name: str
    name_key: str
    person_id: int | None
    films: int
    jobs: list[str]


class Movies(FilmStore):
    """Films of the catalogue. Every method may raise STORAGE_UNAVAILABLE."""

    async def count(self) -> int:
        """How many films there are."""
        return await self.count_matching(FilmFilter())

    async def cards(self, ids: Sequence[int]) -> dict[int, MovieCard]:
        """Cards of those of the films that are in the catalogue, in no order."""
        sql = f"SELECT {_CARD} FROM tmdb.movies WHERE tmdb_id = ANY($1::integer[])"
        return {record["tmdb_id"]: _card(record) for record in await self._fetch(sql, ids)}

    async def films(self, ids: Sequence[int]) -> list[Film]:
        """Those of the films that are in the catalogue, in the order of the ids."""
        sql = f"""
            SELECT {_FILM} FROM tmdb.movies JOIN unnest($1::integer[]) WITH ORDINALITY AS wanted (tmdb_id, at)
            USING (tmdb_id) ORDER BY at
        """
        return [_film(record) for record in await self._fetch(sql, ids)]

    async def detail(self, tmdb_id: int) -> MovieDetail | None:
        """Everything that a film's page shows: 20 of the cast as billed, and the key jobs of the crew."""
        records = await self._fetch(_DETAIL, tmdb_id)
        return _detail(records[0]) if records else None

    async def has(self, tmdb_id: int) -> bool:
        """Whether TMDB's answer about a film is kept; that of the demo catalogue is none."""
        sql = "SELECT FROM tmdb.movies WHERE tmdb_id = $1 AND source = 'tmdb'"
        return bool(await self._fetch(sql, tmdb_id))

    async def raw(self, tmdb_id: int) -> dict[str, Any] | None:
        """TMDB's whole answer about a film, where `has` says that there is one."""
        records = await self._fetch("SELECT raw FROM tmdb.movies WHERE tmdb_id = $1 AND source = 'tmdb'", tmdb_id)
        return records[0]["raw"] if records else None

    async def feed(self, feed: Feed, *, limit: int, offset: int, today: date) -> list[MovieCard]:
        """A page of a stable list, in TMDB's own order when it is kept (`replace_feed`) and has films that fit.

        Else most popular first, last released first, or next to be released first. `upcoming` holds only films that
        are not out on `today`, in TMDB's list too, which has others; it is empty when the catalogue knows none.
        """
        fits, order = _FEEDS[feed]
        listed = f"FROM tmdb.feeds JOIN tmdb.movies USING (tmdb_id) WHERE feed = $4 AND {fits}"
        # The films before the page are counted in the index alone: reading them takes 40 ms at an offset of 10,000.
        sql = f"""
            SELECT {_CARD} FROM unnest(ARRAY(
                (SELECT tmdb_id {listed} ORDER BY position LIMIT $1 OFFSET $2)
                UNION ALL
                (
                    SELECT tmdb_id FROM tmdb.movies WHERE {fits} AND NOT EXISTS (SELECT {listed})
                    ORDER BY {order} LIMIT $1 OFFSET $2
                )
            )) WITH ORDINALITY AS page (tmdb_id, at) JOIN tmdb.movies USING (tmdb_id) ORDER BY at
        """
        return [_card(record) for record in await self._fetch(sql, limit, offset, today, feed)]

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
        sql = f"""
            SELECT name_key, name FROM unnest($1::text[]) AS asked (asked_key)
            CROSS JOIN LATERAL (
                (SELECT name_key, name FROM tmdb.movie_credits WHERE name_key = asked_key AND {DIRECTED} LIMIT 1)
                UNION ALL
                (SELECT name_key, name FROM tmdb.movie_credits WHERE name_key = asked_key AND {PLAYED} LIMIT 1)
            ) AS credited
        """
        return {record["name_key"]: record["name"] for record in await self._fetch(sql, keys)}

    async def filmography(self, somebody: Credit, *, limit: int = 100) -> list[Work]:
        """Films in which somebody has the role, the most popular first, and all that they did in each."""
        sql = f"""
            WITH films AS (
                SELECT {_FILM} FROM tmdb.movies WHERE tmdb_id = ANY(ARRAY({somebody.films_of("$1")}))
                ORDER BY popularity DESC, tmdb_id LIMIT $2
            )
            SELECT films.*, work.* FROM films CROSS JOIN LATERAL (
                SELECT coalesce(array_agg(job ORDER BY position) FILTER (WHERE job IS NOT NULL), '{{}}') AS jobs,
                    bool_or(role = 'cast') AS played,
                    coalesce(array_agg("character" ORDER BY position) FILTER (WHERE "character" IS NOT NULL), '{{}}')
                        AS characters
                FROM tmdb.movie_credits WHERE movie_id = tmdb_id AND {somebody.is_them("$1")}
            ) AS work
            ORDER BY popularity DESC, tmdb_id
        """
        works = [dict(record) for record in await self._fetch(sql, somebody.names, limit)]
        return [
            Work(jobs=work.pop("jobs"), played=work.pop("played"), characters=work.pop("characters"), film=Film(**work))
            for work in works
        ]

    async def collaborators(self, somebody: Credit, *, limit: int = 20) -> list[Collaborator]:
        """Who was in most of the films in which somebody has the role, in front of the camera or behind it."""
        sql = f"""
            SELECT min(name) AS name, min(name_key) AS name_key, person_id, count(DISTINCT movie_id) AS films,
                array_agg(DISTINCT CASE role WHEN 'cast' THEN 'Actor' ELSE coalesce(job, department, '') END) AS jobs
            FROM tmdb.movie_credits
            WHERE movie_id = ANY(ARRAY({somebody.films_of("$1")})) AND ({somebody.is_them("$1")}) IS NOT TRUE
            GROUP BY person_id, CASE WHEN person_id IS NULL THEN name_key END
            ORDER BY films DESC, name_key, person_id LIMIT $2
        """
        return [Collaborator(**record) for record in await self._fetch(sql, somebody.names, limit)]

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
                SELECT tmdb_id AS liked_id, genre_ids AS genres_liked
                FROM tmdb.movies WHERE tmdb_id = ANY($1::integer[])
            ),
            shared AS (
                SELECT liked_id, candidate_id, sum(points) AS people FROM (
                    {_SHARED.format(part=DIRECTED, points=3)} UNION ALL {_SHARED.format(part=PLAYED, points=2)}
                ) AS by_person
                GROUP BY liked_id, candidate_id
            ),
            candidates AS (
                SELECT tmdb_id AS candidate_id FROM tmdb.movies
                WHERE tmdb_id = ANY(ARRAY(SELECT candidate_id FROM shared)) AND {made.sql}
                UNION (
                    SELECT by_genre.tmdb_id FROM (SELECT DISTINCT unnest(genres_liked) FROM liked) AS asked (genre)
                    CROSS JOIN LATERAL (
                        SELECT tmdb_id, genres.popularity
                        FROM tmdb.movie_genres AS genres JOIN tmdb.movies ON tmdb_id = movie_id
                        WHERE genre_id = genre AND {made.sql}
                        ORDER BY genres.popularity DESC, movie_id LIMIT $3
                    ) AS by_genre
                    GROUP BY by_genre.tmdb_id, by_genre.popularity
                    ORDER BY by_genre.popularity DESC, by_genre.tmdb_id LIMIT $3
                )
            ),
            compared AS (
                SELECT candidate_id, vote_average, coalesce(people, 0) AS people,
                    4.0 * cardinality(ARRAY(SELECT unnest(genre_ids) INTERSECT SELECT unnest(genres_liked)))
                    / greatest(1, cardinality(ARRAY(SELECT unnest(genre_ids) UNION SELECT unnest(genres_liked))))
                        AS genres
                FROM liked CROSS JOIN candidates JOIN tmdb.movies ON tmdb_id = candidate_id
                LEFT JOIN shared USING (liked_id, candidate_id)
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
