"""Films with their relations and lists: who made what with whom, TMDB's feeds, and what gets too old."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any

import pytest

from storage.demo.load import load_demo
from storage.embedded import Services
from storage.film_filter import Credit, FilmFilter, Order, Role
from storage.film_names import key
from storage.movies import Movies
from storage.postgres import Postgres, Record
from storage.schema import downgrade, migrate
from tests.bench.films import fill
from tests.bench.films import films as generated_films
from tests.databases import fresh_database

TODAY = date(2026, 1, 1)
GUO, WU, LIU, NOBODY = 1118711, 78871, 5, 6


@pytest.fixture
async def database_url(services: Services) -> AsyncIterator[str]:
    """A database of the newest revision, without films."""
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        yield url


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[Postgres]:
    async with Postgres.open(database_url) as opened:
        yield opened


@pytest.fixture
async def movies(empty: Postgres) -> Movies:
    return Movies(empty)


def film(tmdb_id: int, *, cast: Sequence[Any] = (), crew: Sequence[Any] = (), **changes: Any) -> dict[str, Any]:
    """GET /3/movie/{id} with credits; `cast` are ids and names, `crew` jobs besides."""
    return {
        "id": tmdb_id,
        "title": f"片名{tmdb_id}",
        "original_title": f"Original {tmdb_id}",
        "original_language": "zh",
        "release_date": "2020-05-17",
        "popularity": 100.0 - tmdb_id,
        "genres": [{"id": 878, "name": "科幻"}],
        "credits": {
            "cast": [
                {"id": who, "name": name, "character": f"Part {at}", "order": at, "credit_id": f"{tmdb_id}c{at}"}
                for at, (who, name) in enumerate(cast)
            ],
            "crew": [
                {"id": who, "name": name, "department": "Any", "job": job, "credit_id": f"{tmdb_id}w{at}"}
                for at, (who, name, job) in enumerate(crew)
            ],
        },
    } | changes


async def rows(postgres: Postgres, sql: str, *parameters: object) -> list[Record]:
    async with postgres.connection() as connection:
        return list(await connection.fetch(sql, *parameters))


async def credits_of(postgres: Postgres, tmdb_id: int) -> list[tuple[Any, ...]]:
    sql = "SELECT role, position, person_id, name_key, job, character FROM tmdb.movie_credits WHERE movie_id = $1"
    return [tuple(record) for record in await rows(postgres, f"{sql} ORDER BY role, position", tmdb_id)]


async def test_everybody_is_there_once_for_each_part_and_job(empty: Postgres, movies: Movies) -> None:
    crew = [(GUO, "郭帆", "Director"), (GUO, "郭帆", "Writer"), (None, "No Id", "Editor"), (9, " ", "Gaffer")]
    await movies.store([film(1, cast=[(WU, "吴京"), (LIU, "Andy Lau"), (WU, "吴京")], crew=crew)])
    assert await credits_of(empty, 1) == [
        ("cast", 0, WU, "吴京", None, "Part 0"),
        ("cast", 1, LIU, "andylau", None, "Part 1"),
        ("cast", 2, WU, "吴京", None, "Part 2"),
        ("crew", 0, GUO, "郭帆", "Director", None),
        ("crew", 1, GUO, "郭帆", "Writer", None),
        ("crew", 2, None, "noid", "Editor", None),
    ]
    (work,) = await movies.filmography(Credit(("郭帆",)))
    assert (work.film.tmdb_id, work.jobs, work.played, work.characters) == (1, ["Director", "Writer"], False, [])


async def test_relations_follow_a_change_and_only_of_what_changed(empty: Postgres, movies: Movies) -> None:
    await movies.store([film(1, cast=[(WU, "吴京")]), film(2, cast=[(WU, "吴京")])])
    before = await rows(empty, "SELECT ctid, * FROM tmdb.movie_credits WHERE movie_id = 2")
    changed = film(1, cast=[(LIU, "Andy Lau")], genres=[{"id": 18, "name": "剧情"}, {"id": 18, "name": "剧情"}])
    assert (await movies.store([changed, film(2, cast=[(WU, "吴京")])])).changed_ids == (1,)
    assert [row[2] for row in await credits_of(empty, 1)] == [LIU]
    assert await rows(empty, "SELECT ctid, * FROM tmdb.movie_credits WHERE movie_id = 2") == before
    genres = await rows(empty, "SELECT movie_id, genre_id FROM tmdb.movie_genres ORDER BY movie_id")
    assert [tuple(record) for record in genres] == [(1, 18), (2, 878)]


async def test_what_cannot_be_stored_leaves_no_relations_behind(empty: Postgres, movies: Movies) -> None:
    twice = film(2, cast=[(3_000_000_000, "Too Large")])
    with pytest.raises(Exception, match="int32"):
        await movies.store([film(1, cast=[(WU, "吴京")]), twice])
    for table in ("movies", "movie_credits", "movie_genres", "neo4j_etl_outbox"):
        assert await rows(empty, f"SELECT FROM tmdb.{table}") == []


async def test_a_film_is_found_by_the_first_forty_of_its_cast(movies: Movies) -> None:
    await movies.store([film(1, cast=[(100 + at, f"Actor {at}x") for at in range(45)])])
    found = await movies.credited([key("Actor 39x"), key("Actor 40x")])
    assert found == {"actor39x": "Actor 39x"}
    late = [FilmFilter(credits=(Credit((), ids=(100 + at,)),)) for at in (39, 40)]
    assert [await movies.count_matching(wanted) for wanted in late] == [1, 0]


async def test_people_are_found_by_id_as_by_name_and_ids_tell_namesakes_apart(movies: Movies) -> None:
    await movies.store(
        [
            film(1, cast=[(WU, "Wu Jing")], crew=[(GUO, "郭帆", "Director")]),
            film(2, cast=[(LIU, "Wu Jing")]),
            film(3, cast=[(LIU, "Other")], crew=[(WU, "Wu Jing", "Director"), (GUO, "郭帆", "Editor")]),
        ]
    )

    async def found(*credits_: Credit) -> list[int]:
        films = await movies.search(FilmFilter(credits=credits_), Order.POPULAR, limit=10)
        assert await movies.count_matching(FilmFilter(credits=credits_)) == len(films)
        return [each.tmdb_id for each in films]

    assert await found(Credit(("wujing",))) == [1, 2, 3]
    assert await found(Credit((), ids=(WU,))) == [1, 3]
    assert await found(Credit((), Role.DIRECTOR, ids=(WU,))) == [3]
    assert await found(Credit(("wujing",), Role.CAST)) == [1, 2]
    assert await found(Credit((), Role.CREW, ids=(GUO,))) == [1, 3]
    assert await found(Credit(("wujing",)), Credit((), Role.CREW, ids=(GUO,))) == [1, 3]
    assert await found(Credit((), ids=(WU,)), Credit(("郭帆",))) == [1]
    assert await found(Credit((), ids=(NOBODY,))) == []


async def test_a_filmography_has_what_somebody_did_in_each_film(movies: Movies) -> None:
    await movies.store(
        [
            film(1, cast=[(WU, "吴京"), (WU, "吴京")], crew=[(WU, "吴京", "Director"), (WU, "吴京", "Producer")]),
            film(2, cast=[(WU, "吴京")]),
            film(3, crew=[(WU, "吴京", "Producer")]),
        ]
    )
    works = await movies.filmography(Credit((), ids=(WU,)))
    assert [(work.film.tmdb_id, work.jobs, work.played, work.characters) for work in works] == [
        (1, ["Director", "Producer"], True, ["Part 0", "Part 1"]),
        (2, [], True, ["Part 0"]),
    ]
    assert [work.film.tmdb_id for work in await movies.filmography(Credit(("吴京",), Role.CREW))] == [1, 3]
    assert [work.film.tmdb_id for work in await movies.filmography(Credit(("吴京",)), limit=1)] == [1]


async def test_collaborators_are_counted_by_films(movies: Movies) -> None:
    await movies.store(
        [
            film(1, cast=[(WU, "吴京"), (LIU, "Andy Lau")], crew=[(GUO, "郭帆", "Director"), (GUO, "郭帆", "Writer")]),
            film(2, cast=[(WU, "Wu Jing")], crew=[(GUO, "郭帆", "Director")]),
            film(3, cast=[(WU, "吴京"), (LIU, "Andy Lau")]),
            film(4, cast=[(None, "吴京")], crew=[(GUO, "郭帆", "Director")]),
        ]
    )
    found = await movies.collaborators(Credit((), Role.DIRECTOR, ids=(GUO,)))
    assert [(who.person_id, who.name_key, who.films, who.jobs) for who in found] == [
        (WU, "wujing", 2, ["Actor"]),
        (LIU, "andylau", 1, ["Actor"]),
        (None, "吴京", 1, ["Actor"]),
    ]
    assert [(who.person_id, who.films) for who in await movies.collaborators(Credit(("吴京",)))] == [(LIU, 2), (GUO, 2)]
    (first,) = await movies.collaborators(Credit((), ids=(WU,)), limit=1)
    assert (first.person_id, first.films, first.jobs) == (LIU, 2, ["Actor"])


async def test_the_demo_catalogues_people_have_no_ids_and_are_found_all_the_same(postgres: Postgres) -> None:
    movies = Movies(postgres)
    # Tests of other files store films of TMDB here.
    credited_by_id = """
        SELECT FROM tmdb.movie_credits JOIN tmdb.movies ON tmdb_id = movie_id
        WHERE person_id IS NOT NULL AND source = 'demo'
    """
    assert await rows(postgres, credited_by_id) == []
    together = await movies.collaborators(Credit(("christophernolan",)), limit=3)
    assert together[0].films >= 3
    assert together[0].name in ("Michael Caine", "Christian Bale", "Cillian Murphy")
    shared = FilmFilter(credits=(Credit(("christophernolan",)), Credit((together[0].name_key,))))
    assert await movies.count_matching(shared) == together[0].films


async def test_a_feed_is_tmdbs_list_in_its_order_without_films_that_are_missing(movies: Movies) -> None:
    await movies.store([film(tmdb_id, popularity=5.0) for tmdb_id in range(1, 8)])
    await movies.replace_feed("popular", [7, 3, 999, 5, 3, 1, 7])
    whole = [card.tmdb_id for card in await movies.feed("popular", limit=10, offset=0, today=TODAY)]
    assert whole == [7, 3, 5, 1]
    pages = [await movies.feed("popular", limit=2, offset=offset, today=TODAY) for offset in (0, 2, 4)]
    assert [[card.tmdb_id for card in page] for page in pages] == [[7, 3], [5, 1], []]
    await movies.replace_feed("popular", [2, 1])
    assert [card.tmdb_id for card in await movies.feed("popular", limit=10, offset=0, today=TODAY)] == [2, 1]


async def test_a_feed_without_a_list_that_fits_is_in_the_catalogues_order(movies: Movies) -> None:
    await movies.store([film(1, popularity=1.0), film(2, popularity=2.0), film(3, popularity=2.0)])
    for listed in ([], [999], []):
        await movies.replace_feed("popular", listed)
        feed = await movies.feed("popular", limit=10, offset=0, today=TODAY)
        assert [card.tmdb_id for card in feed] == [2, 3, 1]


async def test_lists_by_date_leave_out_what_does_not_fit_the_day(movies: Movies) -> None:
    days = {1: "2026-02-01", 2: "2025-12-01", 3: "2026-01-02", 4: "", 5: "2026-01-01"}
    await movies.store([film(tmdb_id, release_date=day) for tmdb_id, day in days.items()])
    for feed, expected in (("upcoming", [1, 3]), ("now_playing", [2, 5])):
        await movies.replace_feed(feed, [1, 2, 3, 4, 5])  # type: ignore[arg-type]
        found = await movies.feed(feed, limit=10, offset=0, today=TODAY)  # type: ignore[arg-type]
        assert [card.tmdb_id for card in found] == expected
    # A list whose films are all out by now is no list of what comes.
    await movies.replace_feed("upcoming", [2, 5])
    assert [card.tmdb_id for card in await movies.feed("upcoming", limit=10, offset=0, today=TODAY)] == [3, 1]


async def test_of_two_who_replace_a_list_at_once_one_wins_whole(empty: Postgres, movies: Movies) -> None:
    lists = [list(range(1, 60)), list(range(100, 140)), list(range(500, 700))]
    for _ in range(5):
        async with asyncio.timeout(20):
            await asyncio.gather(*(movies.replace_feed("popular", listed) for listed in lists))
        found = await rows(empty, "SELECT tmdb_id FROM tmdb.feeds WHERE feed = 'popular' ORDER BY position")
        assert [record["tmdb_id"] for record in found] in lists


async def age(postgres: Postgres, days: int, *ids: int) -> None:
    sql = "UPDATE tmdb.movies SET fetched_at = fetched_at - make_interval(days => $1) WHERE tmdb_id = ANY($2)"
    async with postgres.connection() as connection:
        await connection.execute(sql, days, ids)


async def test_films_that_tmdb_was_not_asked_about_for_long_are_stale_then_dropped(
    empty: Postgres, movies: Movies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.tmdb_store.DROP_BATCH", 1)
    await movies.store([film(tmdb_id, cast=[(WU, "吴京")]) for tmdb_id in (1, 2, 3)])
    await movies.store([film(4)], source="demo")
    await age(empty, 100, 2)
    await age(empty, 200, 3, 4)
    assert await movies.stale(50, 10) == [3, 2]
    assert await movies.stale(50, 1) == [3]
    assert await movies.stale(150, 10) == [3]
    assert await movies.drop_older_than(180) == 1
    assert await movies.drop_older_than(180) == 0
    assert set(await movies.cards([1, 2, 3, 4])) == {1, 2, 4}
    assert await movies.drop_older_than(-1) == 2
    assert set(await movies.cards([1, 2, 3, 4])) == {4}
    assert await credits_of(empty, 3) == []
    assert await rows(empty, "SELECT FROM tmdb.movie_genres WHERE movie_id = 3") == []
    told = await rows(empty, "SELECT tmdb_id, operation FROM tmdb.neo4j_etl_outbox ORDER BY tmdb_id")
    assert [tuple(record) for record in told] == [(1, "delete"), (2, "delete"), (3, "delete"), (4, "upsert")]


async def test_a_list_that_is_too_old_is_dropped_with_the_films(empty: Postgres, movies: Movies) -> None:
    await movies.replace_feed("popular", [1])
    await movies.replace_feed("upcoming", [1])
    async with empty.connection() as connection:
        await connection.execute(
            "UPDATE tmdb.feeds SET listed_at = now() - interval '181 days' WHERE feed = 'upcoming'"
        )
    await movies.drop_older_than(180)
    assert [record["feed"] for record in await rows(empty, "SELECT feed FROM tmdb.feeds")] == ["popular"]


async def test_tmdb_replaces_the_demo_catalogue_and_never_the_other_way_round(empty: Postgres, movies: Movies) -> None:
    await load_demo(movies)
    await movies.store([film(603, title="矩阵")])
    assert (await movies.store([film(603, title="旧")], source="demo")).unchanged == 1
    assert (await movies.cards([603]))[603].title == "矩阵"
    sources = await rows(empty, "SELECT tmdb_id FROM tmdb.movies WHERE source = 'tmdb'")
    assert [record["tmdb_id"] for record in sources] == [603]


def _store_in_a_process(database_url: str, started: Any, turn: int) -> None:
    async def store() -> int:
        written = 0
        async with Postgres.open(database_url, size=1) as postgres:
            answers = list(generated_films(450))
            await asyncio.to_thread(started.wait, 20)
            for round_ in range(3):
                changed = [answer | {"popularity": float(10 * round_ + turn)} for answer in answers[:: 1 - 2 * turn]]
                written += (await Movies(postgres).store(changed)).written
        return written

    assert asyncio.run(store()) > 0


@pytest.mark.slow
async def test_two_processes_that_store_the_same_films_wait_for_each_other_and_not_in_a_circle(
    database_url: str, empty: Postgres
) -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Barrier(2)
    processes = [
        context.Process(target=_store_in_a_process, args=(database_url, started, turn), daemon=True) for turn in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 40)
    assert [process.exitcode for process in processes] == [0, 0]
    # Each film's relations are of the answer that it has, and it is to be told once.
    wrong = """
        SELECT FROM tmdb.movies
        WHERE jsonb_array_length(raw->'credits'->'cast') + jsonb_array_length(raw->'credits'->'crew')
            <> (SELECT count(*) FROM tmdb.movie_credits WHERE movie_id = tmdb_id)
    """
    assert await rows(empty, wrong) == []
    pending = await rows(empty, "SELECT count(*), count(DISTINCT tmdb_id) FROM tmdb.neo4j_etl_outbox")
    assert tuple(pending[0]) == (450, 450)


async def snapshot(database_url: str, *tables: str) -> list[list[tuple[Any, ...]]]:
    async with Postgres.open(database_url, size=1) as postgres:
        return [
            [tuple(record) for record in await rows(postgres, f"SELECT * FROM tmdb.{table} AS kept ORDER BY kept")]
            for table in tables
        ]


async def test_a_catalogue_that_is_filled_for_measuring_is_as_if_its_films_were_stored(
    services: Services, database_url: str
) -> None:
    assert services.database_url is not None
    tables = ("movie_credits", "movie_genres")
    await fill(database_url, 60)
    async with fresh_database(services.database_url) as other:
        await migrate(other)
        async with Postgres.open(other, size=1) as postgres:
            await Movies(postgres).store(list(generated_films(60)))
        assert await snapshot(other, *tables) == await snapshot(database_url, *tables)
    async with Postgres.open(database_url, size=1) as postgres:
        (each,) = await rows(postgres, "SELECT count(*)::float / 60 AS credits FROM tmdb.movie_credits")
        assert 20 < each["credits"] < 30
        assert (await Movies(postgres).store(list(generated_films(60)))).unchanged == 60


async def test_films_of_the_first_revision_are_carried_into_the_relations_and_back(database_url: str) -> None:
    names = [
        "Spider-Man Jr. II",
        "Zoë Bell",
        "O’Brien & Söhne",
        "ハヤオ・ミヤザキ",
        "李小龙",
        "Straße Part",
        "Ng IV.",
        "Dvořák-Łoś",
    ]
    people = [(100 + at, name) for at, name in enumerate(names)]
    crew = [(who, name, "Writer") for who, name in people] + [(None, "Only Director", "Director")]
    async with Postgres.open(database_url, size=1) as postgres:
        movies = Movies(postgres)
        await load_demo(movies)
        many = [(1000 + at, f"Actor {at} {chr(97 + at % 26)}") for at in range(45)]
        await movies.store([film(1, crew=crew), film(2, cast=many, crew=crew), film(3), film(4, credits=None)])
        await movies.store([film(5, cast=[(7, "Back"), (8, "Front")]) | {"genres": None}])
        await rows(postgres, "DELETE FROM tmdb.neo4j_etl_outbox")
    relations = ("movie_credits", "movie_genres")
    stored = await snapshot(database_url, *relations)
    (sources,) = await snapshot(database_url, "movies")
    await downgrade(database_url, "0003")
    async with Postgres.open(database_url, size=1) as postgres:
        (old,) = await rows(postgres, "SELECT cast_names, cast_keys, director_keys FROM tmdb.movies WHERE tmdb_id = 2")
        assert old["cast_keys"] == [key(name) for name in old["cast_names"]]
        assert old["director_keys"] == ["onlydirector"]
    await migrate(database_url)
    assert await snapshot(database_url, *relations) == stored
    async with Postgres.open(database_url, size=1) as postgres:
        demo = await rows(postgres, "SELECT tmdb_id FROM tmdb.movies WHERE source = 'tmdb' ORDER BY tmdb_id")
        assert [record["tmdb_id"] for record in demo] == [1, 2, 3, 4, 5]
        to_tell = await rows(postgres, "SELECT count(*) AS films FROM tmdb.neo4j_etl_outbox WHERE operation = 'upsert'")
        assert to_tell[0]["films"] == len(sources)
        assert (await Movies(postgres).store([film(3)])).unchanged == 1
