"""Filling the catalogue from TMDB: what is kept when TMDB misbehaves, when it is cut off, and when two do it."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from protocol.movies import Feed
from storage.budget import Budget
from storage.embedded import Services
from storage.movies import Movies
from storage.postgres import Postgres
from storage.redis import BUDGET, Redis
from storage.schema import migrate, revision
from storage.seedings import Seedings
from tests.clients import PATIENCE_S
from tests.databases import fresh_database
from tests.standins.server import Gate, serve
from tests.standins.tmdb import Fault, TmdbStandIn, answers, changed, html, stalls, throttles
from wsserver.commands import seed_main
from wsserver.seeding import BATCH, HOPELESS, Seeding, Tally, Wanted
from wsserver.vendors.tmdb import Tmdb

ROOT = Path(__file__).resolve().parent.parent
UNENDING = 100_000
"""Faults, more than any test meets."""


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """An empty catalogue, TMDB's stand-in, and what is between them."""

    database_url: str
    postgres: Postgres
    redis: Redis
    tmdb: TmdbStandIn
    tmdb_url: str
    client: httpx.AsyncClient

    def seeding(self, wanted: Wanted, *, since: datetime | None = None) -> Seeding:
        tmdb = Tmdb(
            base_url=self.tmdb_url,
            token=self.tmdb.token,
            api_key=None,
            client=self.client,
            budget=Budget(self.redis, "tmdb", per_s=1000, burst=1000),
            deadline_s=PATIENCE_S,
            backoff_s=0.01,
        )
        movies, seedings = Movies(self.postgres), Seedings(self.postgres)
        return Seeding(tmdb, movies, seedings, wanted, since=since or datetime.now(UTC), pause_s=0.001)

    async def seed(self, wanted: Wanted, *, since: datetime | None = None) -> Tally:
        seeding = self.seeding(wanted, since=since)
        async with asyncio.timeout(PATIENCE_S):
            await seeding.lists()
        return seeding.tally

    def film_calls(self) -> dict[int, int]:
        """How often each film was asked for."""
        found = ((re.fullmatch(r"/3/movie/(\d+)", path), count) for path, count in self.tmdb.calls.items())
        return {int(match[1]): count for match, count in found if match}

    async def column(self, sql: str) -> list[Any]:
        async with self.postgres.connection() as connection:
            return [record[0] for record in await connection.fetch(sql)]

    async def films(self) -> list[int]:
        return await self.column("SELECT tmdb_id FROM tmdb.movies ORDER BY tmdb_id")

    async def feed(self, feed: Feed) -> list[int]:
        return await self.column(f"SELECT tmdb_id FROM tmdb.feeds WHERE feed = '{feed}' ORDER BY position")

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.database_url,
            "TMDB_API_BASE": self.tmdb_url,
            "TMDB_API_TOKEN": self.tmdb.token,
            "TMDB_REQUESTS_PER_S": "1000",
            **more,
        }


@pytest.fixture(scope="module")
async def _database(services: Services) -> AsyncIterator[tuple[str, Postgres]]:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        async with Postgres.open(url, size=4) as postgres:
            yield url, postgres


@pytest.fixture
async def catalogue(_database: tuple[str, Postgres], redis: Redis) -> AsyncIterator[Catalogue]:
    url, postgres = _database
    async with postgres.connection() as connection:
        await connection.execute(
            "TRUNCATE tmdb.movies, tmdb.feeds, tmdb.seedings, tmdb.seeded_films, tmdb.refreshes,"
            " tmdb.neo4j_etl_outbox CASCADE"
        )
    await redis.delete(BUDGET("tmdb"))
    standin = TmdbStandIn()
    async with serve(standin.app) as tmdb_url, httpx.AsyncClient(trust_env=False) as client:
        yield Catalogue(url, postgres, redis, standin, tmdb_url, client)


# What is kept.


async def test_lists_come_first_each_film_once_and_each_lists_own_order_is_kept(catalogue: Catalogue) -> None:
    catalogue.tmdb.feeds = {"popular": [5, 3, 5, *range(100, 140)], "now_playing": [3, 200, 5], "upcoming": [201]}
    tally = await catalogue.seed(Wanted(pages=2, region="CN"))
    popular = [5, 3, *range(100, 136)]
    assert await catalogue.feed("popular") == popular
    assert await catalogue.feed("now_playing") == [3, 200, 5]
    assert await catalogue.feed("upcoming") == [201]
    films = {*popular, 200, 201}
    assert set(await catalogue.films()) == films
    assert catalogue.film_calls() == dict.fromkeys(films, 1)
    paths = [call.path for call in catalogue.tmdb.seen]
    assert all(re.fullmatch("/3/movie/[a-z_]+", path) for path in paths[:6])
    assert not any(re.fullmatch("/3/movie/[a-z_]+", path) for path in paths[6:])
    assert {call.query.get("region") for call in list(catalogue.tmdb.seen)[:6]} == {"CN"}
    assert (tally.new, tally.films, tally.left, tally.succeeded) == (len(films), len(films), 0, True)


async def test_a_second_seeding_finds_what_is_new_changed_and_as_it_was(catalogue: Catalogue) -> None:
    wanted = Wanted(("popular",), pages=1)
    await catalogue.seed(wanted)
    catalogue.tmdb.feeds = {"popular": [7, 3, 999]}
    catalogue.tmdb.changes = {"/3/movie/7": {"title": "改了名字"}}
    tally = await catalogue.seed(wanted)
    assert (tally.new, tally.changed, tally.unchanged, tally.not_found) == (1, 1, 1, 0)
    assert await catalogue.feed("popular") == [7, 3, 999]
    assert len(await catalogue.films()) == 21


async def test_a_listed_film_that_tmdb_does_not_have_is_counted_and_no_failure(catalogue: Catalogue) -> None:
    catalogue.tmdb.feeds = {"popular": [1, 5_000, 2]}
    tally = await catalogue.seed(Wanted(("popular",), pages=1))
    assert (tally.new, tally.not_found, tally.succeeded) == (2, 1, True)
    assert await catalogue.feed("popular") == [1, 5_000, 2]


async def test_one_broken_film_and_one_that_cannot_be_stored_cost_no_other(catalogue: Catalogue) -> None:
    endless = {"id": 1, "name": os.urandom(20_000).hex(), "order": 0}  # no index of PostgreSQL takes such a name
    catalogue.tmdb.changes = {"/3/movie/7": {"title": 5}, "/3/movie/9": {"credits": {"cast": [endless], "crew": []}}}
    tally = await catalogue.seed(Wanted(("popular",), pages=1))
    assert tally.failed == {7: "unreadable", 9: "cannot be stored"}
    assert await catalogue.films() == [number for number in range(1, 21) if number not in (7, 9)]
    assert await catalogue.feed("popular") == list(range(1, 21))
    assert not tally.succeeded


async def test_bursts_of_429_and_html_lose_nothing(catalogue: Catalogue) -> None:
    catalogue.tmdb.queue(*throttles("0", times=3), *html(times=2), *throttles(None, times=3), *[Fault()] * 10)
    catalogue.tmdb.queue(*html(times=4), *throttles("0", times=4))
    tally = await catalogue.seed(Wanted(pages=1))
    assert tally.succeeded
    assert await catalogue.films() == list(range(1, 21))


async def test_a_wrong_row_of_a_list_costs_its_page_nothing_else(catalogue: Catalogue) -> None:
    def spoilt(page: Any) -> Any:
        page["results"][4:4] = [None, {"id": "7"}, {"id": 2**40}, 5]
        return page

    catalogue.tmdb.queue(changed(spoilt))
    tally = await catalogue.seed(Wanted(("upcoming",), pages=1))
    assert tally.succeeded
    assert await catalogue.feed("upcoming") == list(range(1, 21))


@pytest.mark.parametrize(("broken", "left"), [(1, range(20, 40)), (2, range(1, 21))])
async def test_a_list_that_was_not_read_whole_keeps_its_old_order_and_its_films_come(
    catalogue: Catalogue, broken: int, left: range
) -> None:
    await Movies(catalogue.postgres).replace_feed("popular", [41, 42])
    catalogue.tmdb.queue(*[Fault()] * (broken - 1), changed(lambda page: page | {"results": None}))
    tally = await catalogue.seed(Wanted(("popular",), pages=2))
    assert await catalogue.feed("popular") == [41, 42]
    assert await catalogue.films() == [*left][:20]
    assert [listing.left_out for listing in tally.listings] == [1]
    assert not tally.succeeded


async def test_an_empty_list_does_not_replace_one_that_has_films(catalogue: Catalogue) -> None:
    await Movies(catalogue.postgres).replace_feed("upcoming", [41, 42])
    catalogue.tmdb.feeds = {"upcoming": []}
    await catalogue.seed(Wanted(("upcoming",), pages=1))
    assert await catalogue.feed("upcoming") == [41, 42]


async def test_no_page_is_asked_for_that_a_list_does_not_have(catalogue: Catalogue) -> None:
    catalogue.tmdb.total_pages, catalogue.tmdb.feeds = None, {"popular": list(range(1, 30))}
    tally = await catalogue.seed(Wanted(("popular",), pages=500))
    assert catalogue.tmdb.calls["/3/movie/popular"] == 2
    assert tally.succeeded
    assert await catalogue.feed("popular") == list(range(1, 30))


async def test_when_the_way_to_tmdb_is_shut_the_rest_is_not_tried_and_no_list_changes(catalogue: Catalogue) -> None:
    await Movies(catalogue.postgres).replace_feed("popular", [41])
    catalogue.tmdb.queue(*[Fault()] * 25, *[answers(b"Forbidden", 403)] * UNENDING)
    tally = await catalogue.seed(Wanted(("popular",), pages=5))
    assert tally.given_up is not None
    assert "403" in tally.given_up
    assert tally.new == 20, "what was fetched before is kept"
    assert HOPELESS <= len(tally.failed) < HOPELESS + 8
    assert tally.left == tally.films - tally.new - len(tally.failed) > 0
    assert await catalogue.feed("popular") == [41]


async def test_what_was_fetched_since_is_not_fetched_again_in_the_same_language(catalogue: Catalogue) -> None:
    wanted = Wanted(("popular",), pages=1)
    catalogue.tmdb.feeds = {"popular": [1, 2, 5_000]}
    began = await Seedings(catalogue.postgres).begin("zh-CN")
    await catalogue.seed(wanted)
    tally = await catalogue.seed(wanted, since=began.since)
    assert (tally.skipped, tally.new, tally.unchanged, tally.not_found) == (3, 0, 0, 0)
    assert catalogue.film_calls() == {1: 1, 2: 1, 5_000: 1}, "that it is not there is an answer too"
    await catalogue.seed(Wanted(("popular",), pages=1, language="en-US"), since=began.since)
    assert catalogue.film_calls() == {1: 2, 2: 2, 5_000: 2}


# The command.


@contextlib.asynccontextmanager
async def command(
    catalogue: Catalogue, services: Services, *arguments: str, stderr: int = asyncio.subprocess.PIPE, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`run.py seed-movies` as a process; it is dead when the block ends."""
    assert services.redis_url is not None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "run.py"), "seed-movies", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env=catalogue.environment(REDIS_URL=services.redis_url, **environment),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(2 * PATIENCE_S):
        out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), (error or b"").decode()


def test_wrong_arguments_and_settings_end_with_2_and_say_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (["--type", "loved"], "--type"),
        (["--pages", "501"], "--pages"),
        (["--pages", "0"], "--pages"),
        (["--language", "Chinese"], "--language"),
        (["--region", "cn"], "--region"),
        (["--concurrency", "0"], "--concurrency"),
    ):
        with pytest.raises(SystemExit) as ending:
            seed_main(arguments)
        assert ending.value.code == 2
        assert said in capsys.readouterr().err
    assert seed_main([]) == 2
    said = capsys.readouterr().err
    assert "TMDB_API_TOKEN" in said
    assert "TMDB_API_KEY" in said
    monkeypatch.setenv("TMDB_API_TOKEN", "a b")
    assert seed_main([]) == 2
    assert "TMDB_API_TOKEN" in capsys.readouterr().err
    assert not (tmp_path / ".data").exists()


@pytest.mark.slow
async def test_the_command_says_what_it_did_and_ends_with_0_or_1(catalogue: Catalogue, services: Services) -> None:
    catalogue.tmdb.feeds = {"popular": list(range(1, 60)), "upcoming": [5_000]}
    arguments = ("--type", "popular", "--type", "upcoming", "--pages", "2")
    async with command(catalogue, services, *arguments) as process:
        code, out, error = await ended(process)
    assert code == 0, error
    assert "popular: 39 films on 2 pages" in out
    assert "new 39, changed 0, unchanged 0, not found 1, failed 0" in out
    assert "44 requests" in out
    catalogue.tmdb.changes = {f"/3/movie/{number}": {"title": 5} for number in range(1, 31)}
    async with command(catalogue, services, *arguments) as process:
        code, out, error = await ended(process)
    assert code == 1
    named = re.search(r"Failed: (.*) …", out)
    assert named
    assert len(re.findall(r"\d+ \(unreadable\)", named[1])) == 20
    assert "seed-movies --type popular --type upcoming --pages 2 --resume" in error
    catalogue.tmdb.changes = {}
    catalogue.tmdb.calls.clear()
    async with command(catalogue, services, *arguments, "--resume") as process:
        code, out, error = await ended(process)
    assert code == 0, error
    assert catalogue.film_calls() == dict.fromkeys(range(1, 31), 1), "only what had failed"


@pytest.mark.slow
async def test_a_refused_credential_ends_with_2(catalogue: Catalogue, services: Services) -> None:
    async with command(catalogue, services, TMDB_API_TOKEN="another") as process:
        code, _, error = await ended(process)
    assert code == 2
    assert "TMDB_API_TOKEN" in error
    assert "another" not in error


@pytest.mark.slow
async def test_after_kill_9_it_goes_on_where_it_was(catalogue: Catalogue, services: Services) -> None:
    catalogue.tmdb.feeds = {"popular": list(range(1, 200))}
    gate, pages, concurrency, answered = Gate(), 8, 4, 90
    catalogue.tmdb.queue(*[Fault()] * (pages + answered), *[stalls(gate)] * concurrency)
    arguments = ("--type", "popular", "--pages", str(pages), "--concurrency", str(concurrency))

    async def all_wait() -> bool:
        return sum(catalogue.tmdb.calls.values()) == pages + answered + concurrency

    async with command(catalogue, services, *arguments) as process:
        await eventually(all_wait)
        process.kill()
        await process.wait()
    stored = await catalogue.films()
    assert answered - BATCH < len(stored) <= answered
    assert await catalogue.feed("popular") == []
    gate.open()
    async with command(catalogue, services, *arguments, "--resume") as process:
        code, out, error = await ended(process)
    assert code == 0, error
    films = list(range(1, 154))
    assert await catalogue.films() == films
    assert await catalogue.feed("popular") == films
    twice = [tmdb_id for tmdb_id, count in catalogue.film_calls().items() if count > 1]
    assert len(twice) < BATCH + concurrency
    assert not set(twice) & set(stored)
    assert f"fetched before {len(stored)}," in out
    async with command(catalogue, services, *arguments, "--resume", "--dry-run") as process:
        code, out, _ = await ended(process)
    assert "Would fetch 153 films" in out, "it came to its end: there is nothing to resume"


async def test_a_turn_that_ended_or_failed_leaves_the_next_to_other_connections(services: Services) -> None:
    assert services.database_url is not None
    async with Postgres.open(services.database_url) as one, Postgres.open(services.database_url) as other:
        for _ in range(2):
            with contextlib.suppress(ZeroDivisionError):
                async with Seedings(one).turn(lambda: None):
                    raise ZeroDivisionError
            waits: list[str] = []
            async with asyncio.timeout(PATIENCE_S), Seedings(other).turn(partial(waits.append, "waits")):
                assert not waits


async def test_what_a_statement_leaves_open_is_not_the_next_ones(services: Services) -> None:
    assert services.database_url is not None
    async with Postgres.open(services.database_url, size=1) as postgres:
        async with postgres.connection() as connection:
            await connection.execute("BEGIN")
            await connection.execute("CREATE TABLE left_open ()")
        async with postgres.connection() as connection:
            assert await connection.fetchval("SELECT to_regclass('left_open')") is None


@pytest.mark.slow
async def test_of_two_at_once_one_waits_and_then_fetches_nothing_again(
    catalogue: Catalogue, services: Services
) -> None:
    gate = Gate()
    catalogue.tmdb.queue(stalls(gate))
    arguments = ("--type", "popular", "--pages", "2")
    async with command(catalogue, services, *arguments) as first:
        async with asyncio.timeout(PATIENCE_S):
            await gate.reached.wait()
        async with command(catalogue, services, *arguments) as second:
            assert second.stderr is not None
            async with asyncio.timeout(PATIENCE_S):
                line = (await second.stderr.readline()).decode()
            assert "waiting" in line
            gate.open()
            assert (await ended(first))[0] == 0
            code, out, error = await ended(second)
    assert code == 0, error
    assert "fetched before 39," in out
    assert catalogue.film_calls() == dict.fromkeys(range(1, 40), 1)
    assert await catalogue.feed("popular") == list(range(1, 40))


@pytest.mark.slow
async def test_ctrl_c_ends_it_with_130_and_says_how_to_go_on(catalogue: Catalogue, services: Services) -> None:
    gate = Gate()
    catalogue.tmdb.queue(*[Fault()] * 30, *[stalls(gate)] * 8)

    async def all_wait() -> bool:
        return sum(catalogue.tmdb.calls.values()) == 38

    async with command(catalogue, services, "--type", "popular", "--pages", "5") as process:
        await eventually(all_wait)
        process.send_signal(signal.SIGINT)
        code, out, error = await ended(process)
    assert code == 130
    assert "python3 run.py seed-movies --type popular --pages 5 --resume" in error
    assert "Traceback" not in error
    assert "new 20," in out
    assert len(await catalogue.films()) == 20


@pytest.mark.slow
async def test_on_a_terminal_one_line_is_written_over(catalogue: Catalogue, services: Services) -> None:
    gate, (seen, terminal) = Gate(), os.openpty()
    catalogue.tmdb.queue(*[Fault()] * 30, *[stalls(gate)] * 8)
    shown = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            shown.extend(os.read(seen, 4096))

    async def is_part_way() -> bool:
        return b" 25/96 " in shown

    os.set_blocking(seen, False)
    loop.add_reader(seen, read)
    try:
        async with command(catalogue, services, "--type", "popular", "--pages", "5", stderr=terminal) as process:
            await eventually(is_part_way)
            gate.open()
            code, _, _ = await ended(process)
        read()
    finally:
        loop.remove_reader(seen)
        os.close(seen)
        os.close(terminal)
    text = shown.decode()
    assert code == 0
    assert re.search(r"\rfilms \[#+\.+\] 25/96  [\d.]+/s  (\d+:\d\d|--:--) left\x1b\[K", text)
    assert "96/96" in text
    assert text.count("\n") == 1, "at its end"


async def test_a_dry_run_says_what_would_be_fetched_and_writes_nothing(
    catalogue: Catalogue, services: Services
) -> None:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        async with command(catalogue, services, "--dry-run", "--pages", "2", DATABASE_URL=url) as process:
            code, out, error = await ended(process)
        assert await revision(url) is None, "not even tables"
    assert code == 0, error
    assert "popular: 39 films on 2 pages" in out
    assert "Would fetch 39 films" in out
    assert catalogue.film_calls() == {}


@contextlib.asynccontextmanager
async def in_a_folder(catalogue: Catalogue) -> AsyncIterator[Callable[..., Awaitable[asyncio.subprocess.Process]]]:
    """Starts `run.py` with what it is given, on a data folder of its own; what still runs at the end is killed."""
    # The demo catalogue has none of them.
    catalogue.tmdb.films = range(2_000_000_001, 2_000_000_021)
    started: list[asyncio.subprocess.Process] = []
    with tempfile.TemporaryDirectory(prefix="cinewire-seed-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        environment = catalogue.environment(DATA_DIR=f"{folder}/data", PORT="0", LOG_LEVEL="error")
        del environment["DATABASE_URL"]

        async def start(*arguments: str) -> asyncio.subprocess.Process:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(ROOT / "run.py"), *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
            started.append(process)
            return process

        try:
            yield start
        finally:
            for process in started:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def address(server: asyncio.subprocess.Process) -> str:
    assert server.stdout is not None
    async with asyncio.timeout(2 * PATIENCE_S):
        found = re.search(r"http://\S+", (await server.stdout.readline()).decode())
    assert found
    return found[0]


@pytest.mark.slow
async def test_beside_a_running_server_it_fills_that_servers_catalogue(catalogue: Catalogue) -> None:
    async with in_a_folder(catalogue) as start:
        server = await start()
        url = await address(server)
        code, out, error = await ended(await start("seed-movies", "--type", "popular", "--pages", "1"))
        assert code == 0, error
        assert "new 20," in out
        reply = await catalogue.client.get(f"{url}/api/v1/mp/movies/2000000019")
        assert reply.json()["movie"]["tmdb_id"] == 2_000_000_019
        server.terminate()
        assert (await ended(server))[0] == 0


@pytest.mark.slow
async def test_a_server_that_starts_meanwhile_keeps_its_databases_until_it_stops(catalogue: Catalogue) -> None:
    gate = Gate()
    catalogue.tmdb.queue(stalls(gate))
    async with in_a_folder(catalogue) as start:
        seeding = await start("seed-movies", "--type", "popular", "--pages", "1")
        async with asyncio.timeout(2 * PATIENCE_S):
            await gate.reached.wait()
        server = await start()
        url = await address(server)
        gate.open()
        assert seeding.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while "they run until it stops" not in (line := (await seeding.stderr.readline()).decode()):
                assert line
        assert (await catalogue.client.get(f"{url}/ready")).status_code == 200
        server.terminate()
        assert (await ended(server))[0] == 0
        code, out, _ = await ended(seeding)
    assert code == 0
    assert "new 20," in out
