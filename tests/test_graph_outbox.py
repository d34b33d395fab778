"""What the graph has to be told: written with the entity, claimed by one worker at a time, told again when one dies."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from storage.embedded import Services
from storage.graph_outbox import FIRST_RETRY, KEEP_DONE, LONGEST_RETRY, GraphOutbox, Pending
from storage.movies import Movies
from storage.postgres import Postgres, Record
from storage.schema import migrate
from storage.tmdb_entities import People, TvShows
from tests.databases import fresh_database
from tests.test_film_relations import film

LEASE = timedelta(minutes=1)


@pytest.fixture
async def postgres(services: Services) -> AsyncIterator[Postgres]:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        async with Postgres.open(url) as opened:
            yield opened


@pytest.fixture
async def movies(postgres: Postgres) -> Movies:
    return Movies(postgres)


@pytest.fixture
async def outbox(postgres: Postgres) -> GraphOutbox:
    return GraphOutbox(postgres)


async def fetch(postgres: Postgres, sql: str, *parameters: object) -> list[Record]:
    async with postgres.connection() as connection:
        return list(await connection.fetch(sql, *parameters))


async def end_leases(postgres: Postgres) -> None:
    """As if the workers that have something had been dead for a while."""
    await fetch(postgres, "UPDATE tmdb.neo4j_etl_outbox SET next_try = now() WHERE claimed_at IS NOT NULL")


async def left(outbox: GraphOutbox) -> tuple[int, int, int]:
    backlog = await outbox.counts()
    return backlog.pending, backlog.claimed, backlog.failing


def title(row: Pending) -> str:
    assert row.raw is not None
    return str(row.raw["title"])


async def test_what_is_new_or_changed_is_to_be_told_once_and_what_is_not_is_not(
    postgres: Postgres, movies: Movies, outbox: GraphOutbox
) -> None:
    await movies.store([film(1), film(2)])
    await movies.store([film(1, title="B")])
    assert await left(outbox) == (2, 0, 0)
    taken = await outbox.claim(10, LEASE)
    assert [(row.entity_type, row.tmdb_id, row.operation, row.attempts, title(row)) for row in taken] == [
        ("movie", 1, "upsert", 1, "B"),
        ("movie", 2, "upsert", 1, "片名2"),
    ]
    await outbox.done([row.id for row in taken])
    await movies.store([film(1, title="B"), film(2)])
    await fetch(postgres, "UPDATE tmdb.movies SET fetched_at = now() - interval '2 days'")
    await movies.store([film(1, title="B"), film(2)])
    backlog = await outbox.counts()
    assert (backlog.pending, backlog.claimed, backlog.failing, backlog.oldest) == (0, 0, 0, None)


async def test_there_and_back_while_a_worker_is_busy_is_told_again(movies: Movies, outbox: GraphOutbox) -> None:
    await movies.store([film(1, title="A")])
    (first,) = await outbox.claim(10, LEASE)
    await movies.store([film(1, title="B")])
    await movies.store([film(1, title="A")])
    assert await left(outbox) == (1, 1, 0)
    # Not to another worker: it might be the faster one, and the older title the last to be written.
    assert await outbox.claim(10, LEASE) == []
    await outbox.done([first.id])
    (second,) = await outbox.claim(10, LEASE)
    assert second.id > first.id
    assert title(second) == "A"
    await outbox.done([second.id])
    assert await left(outbox) == (0, 0, 0)


async def test_a_film_that_was_dropped_before_it_was_told_is_deleted(
    postgres: Postgres, movies: Movies, outbox: GraphOutbox
) -> None:
    await movies.store([film(1), film(2)])
    await fetch(postgres, "UPDATE tmdb.movies SET fetched_at = now() - interval '200 days' WHERE tmdb_id = 1")
    await movies.drop_older_than(180)
    rows = {row.tmdb_id: row for row in await outbox.claim(10, LEASE)}
    assert (rows[1].operation, rows[1].raw) == ("delete", None)
    assert rows[2].operation == "upsert"
    await movies.store([film(1)])
    await outbox.done([row.id for row in rows.values()])
    (again,) = await outbox.claim(10, LEASE)
    assert (again.tmdb_id, again.operation) == (1, "upsert")


async def test_workers_that_claim_at_once_get_different_rows(movies: Movies, outbox: GraphOutbox) -> None:
    await movies.store([film(tmdb_id) for tmdb_id in range(1, 101)])
    async with asyncio.timeout(20):
        taken = await asyncio.gather(*(outbox.claim(30, LEASE) for _ in range(5)))
    ids = [row.tmdb_id for rows in taken for row in rows]
    assert len(ids) == len(set(ids))
    rest = await outbox.claim(1000, LEASE)
    assert {*ids, *(row.tmdb_id for row in rest)} == set(range(1, 101))
    assert len(ids) + len(rest) == 100


async def test_what_a_worker_that_died_had_is_claimed_again_after_its_lease(
    postgres: Postgres, movies: Movies, outbox: GraphOutbox
) -> None:
    await movies.store([film(1)])
    (lost,) = await outbox.claim(10, LEASE)
    assert await outbox.claim(10, LEASE) == []
    await end_leases(postgres)
    (again,) = await outbox.claim(10, LEASE)
    assert (again.id, again.attempts) == (lost.id, 2)
    await outbox.done([again.id])
    assert await outbox.claim(10, LEASE) == []


async def test_of_a_film_that_changed_after_its_worker_died_only_the_newest_is_told(
    postgres: Postgres, movies: Movies, outbox: GraphOutbox
) -> None:
    await movies.store([film(1, title="A")])
    (lost,) = await outbox.claim(10, LEASE)
    await movies.store([film(1, title="B")])
    await end_leases(postgres)
    (newest,) = await outbox.claim(10, LEASE)
    assert newest.id > lost.id
    assert title(newest) == "B"
    await outbox.done([newest.id])
    assert await left(outbox) == (0, 0, 0)


async def test_a_worker_that_was_taken_for_dead_ends_nothing_that_is_newer(
    postgres: Postgres, movies: Movies, outbox: GraphOutbox
) -> None:
    await movies.store([film(1, title="A")])
    (slow,) = await outbox.claim(10, LEASE)
    await movies.store([film(1, title="B")])
    await end_leases(postgres)
    (newest,) = await outbox.claim(10, LEASE)
    await outbox.done([slow.id])
    assert await left(outbox) == (0, 1, 0)
    await outbox.failed([newest.id], "graph is away", timedelta(0))
    (again,) = await outbox.claim(10, LEASE)
    assert title(again) == "B"


async def waits_s(postgres: Postgres) -> list[float]:
    """How long each row that is not done still has to wait, from the time that it was last touched."""
    sql = """
        SELECT extract(epoch FROM next_try - now())::double precision AS wait_s
        FROM tmdb.neo4j_etl_outbox WHERE done_at IS NULL ORDER BY id
    """
    return [record["wait_s"] for record in await fetch(postgres, sql)]


async def test_who_fails_waits_twice_as_long_each_time_up_to_an_hour(
    postgres: Postgres, movies: Movies, outbox: GraphOutbox
) -> None:
    await movies.store([film(1)])
    waits: list[float] = []
    for attempt in range(1, 13):
        (row,) = await outbox.claim(10, LEASE)
        assert row.attempts == attempt
        await outbox.failed([row.id], "graph is away " * 100)
        assert await left(outbox) == (1, 0, 1)
        assert await outbox.claim(10, LEASE) == []
        waits += await waits_s(postgres)
        await fetch(postgres, "UPDATE tmdb.neo4j_etl_outbox SET next_try = now()")
    first, longest = FIRST_RETRY.total_seconds(), LONGEST_RETRY.total_seconds()
    expected = [min(first * 2**attempt, longest) for attempt in range(12)]
    # Between the failure and the look at it some time goes by: less than the first wait.
    assert all(due - first < wait <= due for wait, due in zip(waits, expected, strict=True))
    (record,) = await fetch(postgres, "SELECT last_error FROM tmdb.neo4j_etl_outbox WHERE done_at IS NULL")
    assert record["last_error"].startswith("graph is away")
    assert len(record["last_error"]) == 500


async def test_a_change_while_a_worker_fails_is_one_pending_row_and_due_at_once(
    movies: Movies, outbox: GraphOutbox
) -> None:
    await movies.store([film(1, title="A"), film(2)])
    first, second = await outbox.claim(10, LEASE)
    await movies.store([film(1, title="B")])
    await outbox.failed([first.id, second.id], "graph is away")
    assert await left(outbox) == (2, 0, 2)
    (now,) = await outbox.claim(10, LEASE)
    assert (now.tmdb_id, title(now), now.attempts) == (1, "B", 2)
    await movies.store([film(2, title="C")])
    (other,) = await outbox.claim(10, LEASE)
    assert (other.tmdb_id, title(other)) == (2, "C")


async def test_storing_and_claiming_at_once_loses_no_change(movies: Movies, outbox: GraphOutbox) -> None:
    """Whatever the order: what a worker saw last of a film is what the film is in the end."""
    seen: dict[int, tuple[int, str]] = {}
    stored = asyncio.Event()

    async def work() -> None:
        while True:
            over = stored.is_set()
            rows = await outbox.claim(7, LEASE)
            for row in rows:
                if row.id >= seen.get(row.tmdb_id, (0, ""))[0]:
                    seen[row.tmdb_id] = (row.id, title(row))
            await outbox.done([row.id for row in rows])
            if over and not rows:
                return

    async def store() -> None:
        for round_ in range(60):
            await movies.store([film(tmdb_id, title=f"{round_}") for tmdb_id in range(1, 11)])
        stored.set()

    async with asyncio.timeout(40), asyncio.TaskGroup() as tasks:
        tasks.create_task(store())
        for _ in range(3):
            tasks.create_task(work())
    assert {tmdb_id: last for tmdb_id, (_, last) in seen.items()} == dict.fromkeys(range(1, 11), "59")


async def test_what_was_done_long_ago_is_forgotten(postgres: Postgres, movies: Movies, outbox: GraphOutbox) -> None:
    await movies.store([film(1), film(2)])
    first, second = await outbox.claim(10, LEASE)
    await outbox.done([first.id, second.id])
    sql = "UPDATE tmdb.neo4j_etl_outbox SET done_at = done_at - $1::interval WHERE id = $2"
    await fetch(postgres, sql, KEEP_DONE, first.id)
    assert await outbox.purge() == 1
    assert [record["id"] for record in await fetch(postgres, "SELECT id FROM tmdb.neo4j_etl_outbox")] == [second.id]


def person(tmdb_id: int, **changes: Any) -> dict[str, Any]:
    return {"id": tmdb_id, "name": f"Person {tmdb_id}", "also_known_as": [], "popularity": float(tmdb_id)} | changes


async def test_people_are_stored_and_told_like_films(postgres: Postgres, outbox: GraphOutbox) -> None:
    people = People(postgres)
    jing = person(
        78871,
        name="Wu Jing",
        also_known_as=["吴京", "Jacky Wu", ""],
        birthday="1974-04-03",
        deathday="",
        biography="",
        known_for_department="Acting",
        profile_path="/w.jpg",
        translations={"translations": [{"iso_639_1": "en", "iso_3166_1": "US", "data": {"biography": "Actor."}}]},
    )
    assert (await people.store([jing, person(2, name="Wu, Jing")])).new_ids == (2, 78871)
    assert (await people.store([dict(reversed(jing.items()))])).unchanged == 1
    assert (await people.store([jing | {"popularity": 1.0}])).changed_ids == (78871,)
    (found,) = await people.find(["吴京", "nobodyatall"])
    assert (found.tmdb_id, found.name, found.also_known_as) == (78871, "Wu Jing", ["吴京", "Jacky Wu"])
    assert (str(found.birthday), found.deathday, found.biography) == ("1974-04-03", None, "Actor.")
    assert [each.tmdb_id for each in await people.find(["wujing"])] == [2, 78871]
    assert [(row.entity_type, row.tmdb_id, row.raw and row.raw["name"]) for row in await outbox.claim(9, LEASE)] == [
        ("person", 2, "Wu, Jing"),
        ("person", 78871, "Wu Jing"),
    ]
    with pytest.raises(ValueError, match="not a person"):
        await people.store([person(3), {"id": 4}])
    assert await people.find([f"person{3}"]) == []


async def test_shows_are_stored_and_told_like_films(postgres: Postgres, outbox: GraphOutbox) -> None:
    shows = TvShows(postgres)
    raw = {
        "id": 1399,
        "name": "权力的游戏",
        "original_name": "Game of Thrones",
        "original_language": "en",
        "first_air_date": "2011-04-17",
        "last_air_date": None,
        "number_of_seasons": 8,
        "number_of_episodes": 73,
        "genres": [{"id": 18, "name": "剧情"}],
        "poster_path": None,
    }
    assert (await shows.store([raw])).new == 1
    assert (await shows.store([raw])).unchanged == 1
    for asked in ("权力的游戏", "gameofthrones"):
        (found,) = await shows.find([asked])
        assert (found.tmdb_id, found.name_en, found.seasons, found.genres) == (1399, "Game of Thrones", 8, ["剧情"])
    with pytest.raises(ValueError, match="not a show"):
        await shows.store([{"id": 2, "name": ""}])
    await fetch(postgres, "UPDATE tmdb.tv_shows SET fetched_at = now() - interval '181 days'")
    assert await shows.drop_older_than(180) == 1
    (row,) = await outbox.claim(9, LEASE)
    assert (row.entity_type, row.operation, row.raw) == ("tv", "delete", None)
