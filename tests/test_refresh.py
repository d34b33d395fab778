"""Refreshing the catalogue at set times: on one node of all, taken up when that node dies, and what it does."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from storage.budget import Budget
from storage.embedded import Services
from storage.movies import Movies
from storage.postgres import Postgres
from storage.redis import BUDGET, Redis, open_redis
from storage.refreshes import TAKES, Refreshes
from storage.schema import migrate
from storage.seedings import Seedings
from storage.tmdb_entities import People, TvShows
from tests.clients import PATIENCE_S
from tests.databases import fresh_database
from tests.node import serving
from tests.standins import tmdb_films
from tests.standins.server import Gate, serve
from tests.standins.tmdb import Fault, TmdbStandIn, stalls
from wsserver.refresh import Keeping, Refresh
from wsserver.seeding import BATCH, Wanted
from wsserver.vendors.tmdb import Tmdb

ROOT = Path(__file__).resolve().parent.parent
SLOT = datetime.now(UTC).replace(hour=4, minute=0, second=0, microsecond=0)
CRON = "0 4 * * *"
LEASE = timedelta(seconds=60)
TABLES = "tmdb.movies, tmdb.people, tmdb.tv_shows, tmdb.feeds, tmdb.seeded_films, tmdb.refreshes"

# A node of its own, to be killed.
NODE = """
import asyncio, sys
from tests.test_refresh import refresh_of, wanted
async def main(database_url, redis_url, tmdb_url, token):
    async with refresh_of(database_url, redis_url, tmdb_url, token, node="doomed", wanted=wanted(4)):
        await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.01)


def wanted(concurrency: int = 2) -> Wanted:
    return Wanted(pages=3, concurrency=concurrency)


def clock(starts_at: datetime = SLOT - timedelta(seconds=0.2)) -> Callable[[], datetime]:
    """It goes as fast as the real one."""
    began = time.monotonic()
    return lambda: starts_at + timedelta(seconds=time.monotonic() - began)


@contextlib.asynccontextmanager
async def refresh_of(
    database_url: str, redis_url: str, tmdb_url: str, token: str, *, node: str, wanted: Wanted, **more: Any
) -> AsyncIterator[None]:
    """A node that refreshes at SLOT, which is now."""
    async with (
        Postgres.open(database_url, size=4) as postgres,
        open_redis(redis_url) as redis,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        tmdb = Tmdb(
            base_url=tmdb_url,
            token=token,
            api_key=None,
            client=client,
            budget=Budget(redis, "tmdb", per_s=1000, burst=1000),
            backoff_s=0.01,
        )
        keeping = Keeping(
            Movies(postgres), People(postgres), TvShows(postgres), Seedings(postgres), Refreshes(postgres)
        )
        options = {"lease_s": 60.0, "look_s": 0.05, "clock": clock(), **more}
        share = Budget(redis, "tmdb-refresh", per_s=1000, burst=1)
        async with Refresh(tmdb, keeping, share, node=node, cron=CRON, wanted=wanted, **options).open():
            yield


class Cluster:
    """An empty catalogue, TMDB, and nodes that refresh it."""

    def __init__(self, services: Services, postgres: Postgres, tmdb: TmdbStandIn, tmdb_url: str) -> None:
        self.services = services
        self.postgres = postgres
        self.tmdb = tmdb
        self.tmdb_url = tmdb_url
        self.slots = Refreshes(postgres)

    def node(self, name: str, **more: Any) -> contextlib.AbstractAsyncContextManager[None]:
        return refresh_of(*self.where(), node=name, **{"wanted": wanted(), **more})

    def where(self) -> tuple[str, str, str, str]:
        assert self.services.database_url is not None
        assert self.services.redis_url is not None
        return self.services.database_url, self.services.redis_url, self.tmdb_url, self.tmdb.token

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async with self.postgres.connection() as connection:
            return [tuple(record) for record in await connection.fetch(sql)]

    async def is_refreshed(self) -> bool:
        return bool(await self.rows("SELECT slot FROM tmdb.refreshes WHERE ended_at IS NOT NULL"))

    async def is_reading_lists(self) -> bool:
        """The first page of all three was asked for."""
        return sum(self.tmdb.calls.values()) == 3

    async def summary(self) -> dict[str, Any]:
        ((summary,),) = await self.rows("SELECT summary FROM tmdb.refreshes")
        assert isinstance(summary, dict)
        return summary

    def film_calls(self) -> list[int]:
        return [count for path, count in self.tmdb.calls.items() if path.rpartition("/")[2].isdigit()]


@pytest.fixture(scope="module")
async def _database(services: Services) -> AsyncIterator[Services]:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        yield Services(url, services.redis_url, None)


@pytest.fixture
async def cluster(_database: Services, redis: Redis) -> AsyncIterator[Cluster]:
    assert _database.database_url is not None
    await redis.delete(BUDGET("tmdb"), BUDGET("tmdb-refresh"))
    standin = TmdbStandIn()
    async with Postgres.open(_database.database_url, size=2) as postgres, serve(standin.app) as tmdb_url:
        async with postgres.connection() as connection:
            await connection.execute(f"TRUNCATE {TABLES} CASCADE")
        yield Cluster(_database, postgres, standin, tmdb_url)


async def test_of_many_nodes_one_refreshes(cluster: Cluster) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for name in ("a", "b", "c"):
            await stack.enter_async_context(cluster.node(name))
        await eventually(cluster.is_refreshed)
    assert await cluster.rows("SELECT slot, takes, node IN ('a', 'b', 'c') FROM tmdb.refreshes") == [(SLOT, 1, True)]
    assert cluster.film_calls() == [1] * 58
    assert cluster.tmdb.calls["/3/movie/popular"] == 3
    assert (await cluster.summary())["new"] == 58
    assert await cluster.rows("SELECT count(*) FROM tmdb.feeds GROUP BY feed") == [(58,)] * 3


async def test_films_that_get_old_are_fetched_and_what_is_too_old_is_dropped(cluster: Cluster) -> None:
    films = [tmdb_films.film(tmdb_id, "zh-CN") for tmdb_id in (900, 901, 902, 5_000)]
    await Movies(cluster.postgres).store(films)
    await People(cluster.postgres).store([tmdb_films.person(10_000), tmdb_films.person(10_001)])
    await TvShows(cluster.postgres).store([tmdb_films.show(1, "zh-CN"), tmdb_films.show(2, "zh-CN")])
    async with cluster.postgres.connection() as connection:
        await connection.execute(
            "UPDATE tmdb.movies SET fetched_at = now() - CASE WHEN tmdb_id = 900 THEN interval '149 days'"
            " WHEN tmdb_id = 901 THEN interval '151 days' ELSE interval '181 days' END"
        )
        await connection.execute(
            "UPDATE tmdb.people SET fetched_at = now() - interval '181 days' WHERE tmdb_id = 10000"
        )
        await connection.execute("UPDATE tmdb.tv_shows SET fetched_at = now() - interval '181 days' WHERE tmdb_id = 2")
    async with cluster.node("a"):
        await eventually(cluster.is_refreshed)
    assert "/3/movie/900" not in cluster.tmdb.calls
    ages = await cluster.rows(
        "SELECT tmdb_id, fetched_at > now() - interval '1 day' FROM tmdb.movies WHERE tmdb_id > 100 ORDER BY tmdb_id"
    )
    assert ages == [(900, False), (901, True), (902, True)], "TMDB has no film 5000 any more, and nor have we"
    assert await cluster.rows("SELECT tmdb_id FROM tmdb.people") == [(10_001,)]
    assert await cluster.rows("SELECT tmdb_id FROM tmdb.tv_shows") == [(1,)]
    summary = await cluster.summary()
    dropped = [summary[f"{kind}_dropped"] for kind in ("films", "people", "shows")]
    assert dropped == [1, 1, 1]


@pytest.mark.slow
async def test_the_slot_of_a_killed_node_is_taken_up_and_gone_on_with(cluster: Cluster) -> None:
    gate, pages, concurrency, answered = Gate(), 9, 4, 30
    cluster.tmdb.queue(*[Fault()] * (pages + answered), *[stalls(gate)] * concurrency)

    async def all_wait() -> bool:
        return sum(cluster.tmdb.calls.values()) == pages + answered + concurrency

    doomed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", NODE, *cluster.where()), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    async with cluster.node("heir", clock=clock(SLOT + timedelta(hours=1))):
        await eventually(all_wait)
        assert await cluster.rows("SELECT node, takes, ended_at FROM tmdb.refreshes") == [("doomed", 1, None)]
        doomed.kill()
        await doomed.wait()
        gate.open()
        async with cluster.postgres.connection() as connection:  # a minute later
            await connection.execute("UPDATE tmdb.refreshes SET leased_until = leased_until - interval '1 minute'")
        await eventually(cluster.is_refreshed)
    assert await cluster.rows("SELECT slot, node, takes FROM tmdb.refreshes") == [(SLOT, "heir", 2)]
    assert await cluster.rows("SELECT count(*) FROM tmdb.movies") == [(58,)]
    assert sum(cluster.film_calls()) < 58 + BATCH + concurrency
    assert (await cluster.summary())["skipped"] > answered - BATCH


async def test_a_node_that_stops_hands_its_slot_over_at_once(cluster: Cluster) -> None:
    gate = Gate()
    cluster.tmdb.queue(*[stalls(gate)] * 3)
    async with cluster.node("leaving"):
        await eventually(cluster.is_reading_lists)
    gate.open()
    async with cluster.node("heir", clock=clock(SLOT + timedelta(hours=1))):
        await eventually(cluster.is_refreshed)
    assert await cluster.rows("SELECT node, takes FROM tmdb.refreshes") == [("heir", 1)]


async def test_who_lost_its_slot_stops(cluster: Cluster) -> None:
    gate = Gate()
    cluster.tmdb.queue(*[stalls(gate)] * 3)
    with capture_logs() as logs:
        async with cluster.node("frozen", lease_s=0.4):
            await eventually(cluster.is_reading_lists)
            async with cluster.postgres.connection() as connection:
                await connection.execute(
                    "UPDATE tmdb.refreshes SET node = 'other', leased_until = now() + interval '1 day'"
                )

            async def has_noticed() -> bool:
                return any(line["event"] == "refresh was taken up by another node" for line in logs)

            await eventually(has_noticed)
            gate.open()
    assert [line["outcome"] for line in logs if line["event"] == "tmdb call"] == ["cancelled"] * 3
    assert cluster.film_calls() == []
    assert await cluster.rows("SELECT node, ended_at FROM tmdb.refreshes") == [("other", None)]


async def test_there_are_never_two_at_once_and_a_poisonous_one_is_given_up(cluster: Cluster) -> None:
    slots = cluster.slots
    first = await slots.claim(SLOT, "a", LEASE)
    assert first is not None
    assert await slots.claim(SLOT + timedelta(days=1), "b", LEASE) is None, "the one before is still at work"
    assert await slots.take_up("b", LEASE) is None
    for take in range(2, TAKES + 1):
        async with cluster.postgres.connection() as connection:
            await connection.execute("UPDATE tmdb.refreshes SET leased_until = now() - interval '1 s'")
        taken = await slots.take_up("b", LEASE)
        assert taken is not None
        assert (taken.at, taken.takes, taken.started_at) == (SLOT, take, first.started_at)
        assert not await slots.renew(first, "a", LEASE)
    async with cluster.postgres.connection() as connection:
        await connection.execute("UPDATE tmdb.refreshes SET leased_until = now() - interval '1 s'")
    assert await slots.take_up("c", LEASE) is None
    assert await slots.claim(SLOT + timedelta(days=1), "c", LEASE) is None
    await slots.close_lost()
    assert await slots.claim(SLOT + timedelta(days=1), "c", LEASE) is not None
    assert await slots.claim(SLOT, "c", LEASE) is None


async def test_a_server_with_the_setting_refreshes(cluster: Cluster, data_dir: Path) -> None:
    # Its own time is far away; what there is to be done now is what another node left behind.
    day = datetime.now(UTC) + timedelta(days=180)
    assert await cluster.slots.claim(SLOT, "gone", timedelta(0)) is not None
    cluster.tmdb.feeds = {"popular": [1, 2], "now_playing": [3], "upcoming": [4]}
    async with serving(
        cluster.services,
        data_dir,
        database_url=cluster.services.database_url,
        tmdb_api_base=cluster.tmdb_url,
        tmdb_api_token=cluster.tmdb.token,
        tmdb_refresh_cron=f"0 0 {day.day} {day.month} *",
        tmdb_refresh_pages=1,
    ):
        await eventually(cluster.is_refreshed)
    assert await cluster.rows("SELECT tmdb_id FROM tmdb.movies ORDER BY 1") == [(1,), (2,), (3,), (4,)]
    assert cluster.tmdb.calls["/3/movie/popular"] == 1
