"""Generated films, as TMDB would have sent them, and a catalogue full of them: about a thousand a second.

Genres, languages, figures and words of titles are distributed as in the demo catalogue; people have ids, and few of
them most of the credits. The same seed gives the same films. Their texts mean nothing.
"""

import json
import random
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from storage.demo.load import FOLDER, GENRES
from storage.film_rows import CREDIT_COLUMNS, credit_rows, film_row
from storage.film_store import FILM_COLUMNS, GENRE_COLUMNS
from storage.postgres import Connection, Postgres

CAST = 14
"""Average of a film. With the crew it has about 25 credits, as many as a popular film of TMDB has on its first page."""

CREW = (
    *(("Directing", "Director"), ("Writing", "Screenplay"), ("Writing", "Story"), ("Production", "Producer")),
    *(("Production", "Executive Producer"), ("Sound", "Original Music Composer"), ("Editing", "Editor")),
    *(("Camera", "Director of Photography"), ("Art", "Production Design"), ("Costume & Make-Up", "Costume Design")),
)
PEOPLE_PER_FILM = 2.5
"""Ten credits for each person on average; most have one or two and some have hundreds."""

FIRST_ID = 10_000_000
"""Above all ids of TMDB, so that generated films lie beside real ones."""

COPIED_AT_ONCE = 2_000
"""Films: about 20 MB of JSON in memory."""

VACUUM_S = 120.0

Json = dict[str, Any]


def films(count: int, *, seed: int = 1) -> Iterator[Json]:
    """GET /3/movie/{id}?append_to_response=credits,translations of `count` films, ids from FIRST_ID on."""
    made = _Generator(count, seed)
    return (made.film(FIRST_ID + number) for number in range(count))


async def fill(dsn: str, count: int, *, seed: int = 1) -> None:
    """Put generated films into a migrated database with COPY: the films and their relations, nothing for the graph."""
    async with Postgres.open(dsn, size=1) as postgres, postgres.connection() as connection:
        batch: list[Json] = []
        for film in films(count, seed=seed):
            batch.append(film)
            if len(batch) == COPIED_AT_ONCE:
                await _copy(connection, batch)
                batch.clear()
        await _copy(connection, batch)
        await connection.execute("VACUUM ANALYZE tmdb.movies, tmdb.movie_credits, tmdb.movie_genres", timeout=VACUUM_S)


async def _copy(connection: Connection, batch: list[Json]) -> None:
    rows = [film_row(film, "zh-CN") for film in batch]
    for row in rows:
        released = row["release_date"]
        row["release_date"] = date.fromisoformat(str(released)) if released else None
    for table, columns, records in (
        ("movies", tuple(FILM_COLUMNS), [tuple(row[column] for column in FILM_COLUMNS) for row in rows]),
        ("movie_credits", CREDIT_COLUMNS, [credit for film in batch for credit in credit_rows(film)]),
        (
            "movie_genres",
            GENRE_COLUMNS,
            [(film["id"], genre["id"], film["popularity"]) for film in batch for genre in film["genres"]],
        ),
    ):
        await connection.copy_records_to_table(table, schema_name="tmdb", columns=columns, records=records)


class _Generator:
    def __init__(self, count: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._demo: list[Json] = [
            json.loads(line) for line in (FOLDER / "movies.jsonl").read_text("utf-8").splitlines()
        ]
        names = {person["name"] for film in self._demo for person in film["cast"]}
        parts = sorted(name.split(" ", 1) for name in names if " " in name)
        first, last = sorted({part[0] for part in parts}), sorted({part[1] for part in parts})
        self._people = [
            (1_000 + 7 * number, f"{self._random.choice(first)} {self._random.choice(last)}")
            for number in range(max(50, int(count * PEOPLE_PER_FILM)))
        ]

    def film(self, tmdb_id: int) -> Json:
        pick = self._random
        like, other = pick.choice(self._demo), pick.choice(self._demo)
        english = (
            f"{like['title_en'].split(':')[0]} {pick.choice(('and', 'of', 'in'))} {other['title_en'].split(' ')[-1]}"
        )
        chinese = like["title"][: pick.randint(1, 4)] + other["title"][-pick.randint(1, 4) :]
        released = date(1930, 1, 1) + timedelta(days=int(35_000 * pick.random() ** 0.5))
        genre_ids = like["genre_ids"] if pick.random() < 0.6 else other["genre_ids"][:2]
        overview = like["overview"] + other["overview"]
        return {
            "adult": False,
            "backdrop_path": like["backdrop_path"],
            "genres": [{"id": genre_id, "name": GENRES[genre_id]} for genre_id in genre_ids],
            "id": tmdb_id,
            "imdb_id": f"tt{tmdb_id}",
            "original_language": like["original_language"]
            if pick.random() < 0.7
            else pick.choice(("zh", "ja", "fr", "ko")),
            "original_title": english,
            "overview": overview,
            "popularity": round(like["popularity"] * pick.random() ** 3, 3),
            "poster_path": like["poster_path"],
            "release_date": released.isoformat(),
            "runtime": max(40, like["runtime"] + pick.randint(-15, 15)),
            "title": chinese,
            "vote_average": round(min(10, like["vote_average"] * (0.6 + 0.5 * pick.random())), 3),
            "vote_count": int(like["vote_count"] * pick.random() ** 3),
            "credits": {"cast": self._cast(tmdb_id), "crew": self._crew(tmdb_id)},
            "translations": {
                "translations": [
                    {"iso_3166_1": "US", "iso_639_1": "en", "data": {"title": english, "overview": like["overview_en"]}}
                ]
            },
        }

    def _cast(self, tmdb_id: int) -> list[Json]:
        count = max(1, int(self._random.gauss(CAST, CAST / 3)))
        return [
            {
                "id": person_id,
                "name": name,
                "character": f"Part {at}",
                "order": at,
                "credit_id": f"{tmdb_id:020x}{at:04x}",
            }
            for at, (person_id, name) in enumerate(self._somebody() for _ in range(count))
        ]

    def _crew(self, tmdb_id: int) -> list[Json]:
        people = [self._somebody() for _ in CREW]
        people[1] = self._random.choice(people[:2])  # half of the directors write as well
        return [
            {"id": who[0], "name": who[1], "department": department, "job": job, "credit_id": f"{tmdb_id:020x}{at:04x}"}
            for at, (who, (department, job)) in enumerate(zip(people, CREW, strict=True), 1_000)
        ]

    def _somebody(self) -> tuple[int, str]:
        return self._people[int(len(self._people) * self._random.random() ** 1.5)]
