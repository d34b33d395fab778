"""Film lookups in a large catalogue, over the socket: how long one takes, and how many a core of the server answers."""

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil

from storage.embedded import Services, embedded_services
from storage.film_index import store_spellings
from storage.postgres import Postgres
from storage.schema import migrate
from tests.bench.films import FIRST_ID, fill
from tests.bench.served import Ask, milliseconds, one_by_one, server
from tests.clients import Frame, SocketClient, socket_client

FILMS = 100_000
"""TMDB has about ten times as many, most of them without a vote."""

ONE_BY_ONE = 500
"""Lookups of each kind, one after the other, each beside a ping: the 99th percentile is the fifth slowest."""

AT_ONCE, AT_ONCE_S = 16, 4.0
"""Sockets that ask without a pause, and for how long: as much as keeps one core busy."""

SPELLED_AT_ONCE = 2_000


@asynccontextmanager
async def _catalogue(count: int) -> AsyncIterator[tuple[Services, list[str]]]:
    """Services with that many generated films, and titles that some of them have.

    BENCH_DATA names a folder that is kept, for measuring again without filling it again.
    """
    with tempfile.TemporaryDirectory(prefix="cinewire-films-") as temporary:
        folder = Path(os.environ.get("BENCH_DATA", temporary))
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        with embedded_services(folder / "services") as services:
            assert services.database_url is not None
            await migrate(services.database_url)
            async with Postgres.open(services.database_url, size=2) as postgres:
                async with postgres.connection() as connection:
                    there = await connection.fetchval("SELECT count(*) FROM tmdb.movies")
                if there != count:
                    started = time.perf_counter()
                    await fill(services.database_url, count)
                    await _spell(postgres)
                    print(f"{count} films made in {time.perf_counter() - started:.0f} s", flush=True)
                async with postgres.connection() as connection:
                    records = await connection.fetch(
                        "SELECT title, title_en FROM tmdb.movies WHERE tmdb_id % 97 = 0 ORDER BY tmdb_id"
                    )
            yield services, [title for record in records for title in (record["title"], record["title_en"])]


async def _spell(postgres: Postgres) -> None:
    """What the films are found by, in larger steps than a server takes that has others to serve."""
    last = 0
    while True:
        async with postgres.transaction() as connection:
            rows = await connection.fetch(
                """
                SELECT tmdb_id, title, title_en, original_title, part_keys, directors, cast_names,
                    release_date::text AS release_date, vote_count, popularity, raw
                FROM tmdb.movies WHERE tmdb_id > $1 ORDER BY tmdb_id LIMIT $2
                """,
                last,
                SPELLED_AT_ONCE,
            )
            if not rows:
                break
            await store_spellings(connection, rows)
            last = rows[-1]["tmdb_id"]
    async with postgres.connection() as connection:
        await connection.execute("VACUUM ANALYZE tmdb.film_spellings, tmdb.people_spellings", timeout=120)


def _asks(count: int, titles: list[str]) -> dict[str, Ask]:
    def bulk(pick: random.Random) -> Frame:
        return {"type": "movies_bulk", "ids": [FIRST_ID + pick.randrange(count) for _ in range(20)]}

    def feed(kind: str, offset: int) -> Ask:
        return lambda _pick: {"type": "movies_feed", "feed": kind, "offset": offset}

    def search(pick: random.Random) -> Frame:
        # As somebody types: the whole of a title, or as much as there is of it so far.
        title = pick.choice(titles)
        return {"type": "movies_search", "query": title[: pick.randint(2, len(title))] if len(title) > 2 else title}

    return {
        "movies_bulk of 20": bulk,
        **{
            f"movies_feed {kind} at {offset}": feed(kind, offset)
            for kind, offset in (("popular", 0), ("popular", 1_000), ("popular", 10_000), ("now_playing", 10_000))
        },
        "movies_search": search,
    }


async def films_lookup(count: int = int(os.environ.get("BENCH_FILMS", str(FILMS)))) -> None:
    """Lookups among 100,000 films: cards of 20, pages of feeds, searches."""
    async with _catalogue(count) as (services, titles):
        assert services.database_url is not None
        assert services.redis_url is not None
        limits = dict.fromkeys(("RATE_LIMIT_MESSAGES_PER_S", "RATE_LIMIT_BURST", "SOCKETS_PER_USER"), "1000000")
        async with server(DATABASE_URL=services.database_url, REDIS_URL=services.redis_url, **limits) as (url, process):
            ping_per_core = await _per_core(url, process, lambda _pick: {"type": "ping"})
            print(f"{'ping':32} {'':56} {ping_per_core:7.0f} a second a core")
            for name, ask in _asks(count, titles).items():
                async with socket_client(url) as client:
                    await client.login()
                    lookups, pings = await one_by_one(client, ask, ONE_BY_ONE)
                per_core = await _per_core(url, process, ask)
                ratio = statistics.median(lookups) / statistics.median(pings)
                print(
                    f"{name:32} {milliseconds(lookups)}   {ratio:5.1f} pings   "
                    f"{per_core:7.0f} a second a core, a ping's {ping_per_core / per_core:.1f}",
                    flush=True,
                )
            print(f"resident memory, after           {process.memory_info().rss / 2**20:.0f} MiB")


async def _per_core(url: str, process: psutil.Process, ask: Ask) -> float:
    """How many a second of the server's processor time answers, while many ask at once."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(socket_client(url)) for _ in range(AT_ONCE)]
        for client in clients:
            await client.login()
        before, ends_at = _cpu_s(process), time.monotonic() + AT_ONCE_S

        async def keep_asking(client: SocketClient, seed: int) -> int:
            pick, answered = random.Random(seed), 0
            while time.monotonic() < ends_at:
                reply = await client.call(ask(pick))
                assert reply["code"] == 0, reply
                answered += 1
            return answered

        answered = sum(await asyncio.gather(*(keep_asking(client, seed) for seed, client in enumerate(clients))))
        return answered / (_cpu_s(process) - before)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
