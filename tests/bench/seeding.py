"""How long `run.py seed-movies` takes for a thousand films, beside the same requests with nothing stored.

TMDB's stand-in is a process of its own that answers after 50 ms. The budget is raised: it is not what is measured.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvloop

from storage.budget import Budget
from storage.embedded import Services, embedded_services
from storage.redis import open_redis
from wsserver.telemetry import configure_logging
from wsserver.vendors.tmdb import Tmdb

ROOT = Path(__file__).resolve().parent.parent.parent
FILMS, PAGES, LATENCY_MS, CONCURRENCY = 1000, 53, 50, 8
PER_S = 1000


@asynccontextmanager
async def tmdb() -> AsyncIterator[dict[str, str]]:
    """The stand-in's address and credential, as settings."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.standins.tmdb", "--films", str(FILMS), "--latency-ms", str(LATENCY_MS)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
    try:
        yield dict(line.split("=", 1) for line in lines)
    finally:
        process.kill()
        await process.wait()


async def requests_only(settings: dict[str, str], services: Services) -> float:
    """Seconds for the same requests, by the same client, as many at a time."""
    assert services.redis_url is not None
    async with open_redis(services.redis_url) as redis, httpx.AsyncClient(trust_env=False) as client:
        asked = Tmdb(
            base_url=settings["TMDB_API_BASE"],
            token=settings["TMDB_API_TOKEN"],
            api_key=None,
            client=client,
            budget=Budget(redis, "bench", per_s=PER_S),
        )
        pages, films = iter(range(1, PAGES + 1)), iter(range(1, FILMS + 1))

        async def read_pages() -> None:
            for page in pages:
                await asked.movie_list("popular", page, language="zh-CN")

        async def read_films() -> None:
            for tmdb_id in films:
                await asked.movie(tmdb_id, language="zh-CN")

        started = time.perf_counter()
        for work in (read_pages, read_films):
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(work())
        return time.perf_counter() - started


async def seeding() -> None:
    """1,000 films from a TMDB that answers after 50 ms, 8 at a time, into an empty catalogue."""
    configure_logging(level="warning", json=False)
    with tempfile.TemporaryDirectory(prefix="cinewire-bench-") as folder:
        Path(folder).chmod(0o755)
        async with tmdb() as settings:
            with embedded_services(Path(folder) / "data") as services:
                assert services.database_url is not None
                assert services.redis_url is not None
                # On the loop that the command uses.
                alone_s = await asyncio.to_thread(uvloop.run, requests_only(settings, services))
                places = {"DATABASE_URL": services.database_url, "REDIS_URL": services.redis_url}
                environment = {"PATH": os.environ["PATH"], "TMDB_REQUESTS_PER_S": str(PER_S), **settings, **places}
                arguments = ("--type", "popular", "--pages", str(PAGES), "--concurrency", str(CONCURRENCY))
                started = time.perf_counter()
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, str(ROOT / "run.py"), "seed-movies", *arguments),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    env=environment,
                )
                out, _ = await process.communicate()
                elapsed_s = time.perf_counter() - started
    said = out.decode()
    assert process.returncode == 0, said
    assert f"new {FILMS}," in said, said
    seeded_s = float(said.splitlines()[-1].split(" s,")[0])
    print(said.splitlines()[-1])
    print(f"the same requests, nothing stored    {alone_s:6.2f} s")
    print(f"seeding, in those                    {seeded_s / alone_s:6.2f}")
    print(f"the command, start and migration too {elapsed_s:6.2f} s")
