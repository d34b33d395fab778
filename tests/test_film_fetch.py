"""Films that the catalogue lacks are fetched from TMDB, each once over all nodes; nothing that is stored needs it."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from storage.budget import Budget
from storage.embedded import Services
from storage.film_marks import FilmMarks
from storage.movies import Movies
from storage.postgres import Postgres
from storage.redis import BUDGET, FILM_CLAIM, Redis, open_redis
from tests.clients import PATIENCE_S, Frame, HttpClient, Transport, new_code, socket_client
from tests.databases import fresh_database
from tests.node import TestNode, serving
from tests.standins import tmdb as standin
from tests.standins.server import Gate, serve
from tests.standins.tmdb import Fault, TmdbStandIn
from tests.standins.tmdb_films import credits_of
from wsserver.domains import film_fetch
from wsserver.domains.film_fetch import FilmFetch, Outcome
from wsserver.tasks import Tasks
from wsserver.vendors.tmdb import Tmdb, TmdbRefusedError, TmdbUnavailableError, TmdbUnreadableError

AT_TMDB = range(1_200_000_000, 1_900_000_000)
NOWHERE = "redis://127.0.0.1:1"
CHINESE = "zh-CN"


def films(number: int) -> list[int]:
    """Ids of films that TMDB has and of which no other test knows."""
    return random.sample(AT_TMDB, number)


def no_films(number: int) -> list[int]:
    """Ids of which TMDB has no film."""
    return random.sample(range(1_000_000_000, AT_TMDB.start), number)


def path(tmdb_id: int) -> str:
    return f"/3/movie/{tmdb_id}"


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Wait for a condition that is looked at, at most PATIENCE_S."""
    async with asyncio.timeout(PATIENCE_S):
        while not (met if isinstance(met := condition(), bool) else await met):
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Cinema:
    """A catalogue of its own, the TMDB that it is filled from, and two nodes that serve it."""

    server: TmdbStandIn
    tmdb_url: str
    services: Services
    postgres: Postgres
    client: httpx.AsyncClient
    nodes: Sequence[TestNode]

    @property
    def movies(self) -> Movies:
        return Movies(self.postgres)

    async def stored(self, number: int = 1) -> list[int]:
        """Films that are in the catalogue."""
        ids = films(number)
        await self.movies.store([{"id": tmdb_id, "title": f"片名{tmdb_id}"} for tmdb_id in ids])
        return ids

    async def titles(self, ids: Sequence[int]) -> dict[int, str]:
        return {tmdb_id: card.title for tmdb_id, card in (await self.movies.cards(ids)).items()}


def settings(server: TmdbStandIn, tmdb_url: str) -> dict[str, Any]:
    return {
        "tmdb_api_base": tmdb_url,
        "tmdb_api_token": server.token,
        "tmdb_requests_per_s": 50,
        "enrichment_enable": True,
    }


@pytest.fixture(scope="module")
async def _cinema(services: Services, data_dir: Path) -> AsyncIterator[Cinema]:
    assert services.database_url is not None
    server = TmdbStandIn()
    async with (
        fresh_database(services.database_url) as url,
        serve(server.app) as tmdb_url,
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client,
    ):
        kept, chosen = Services(url, services.redis_url, None), settings(server, tmdb_url)
        async with (
            serving(kept, data_dir, **chosen) as one,
            serving(kept, data_dir, **chosen) as other,
            Postgres.open(url) as postgres,
        ):
            await until(lambda: server.calls["/3/authentication"] == 2)
            yield Cinema(server, tmdb_url, kept, postgres, client, (one, other))


@pytest.fixture
async def cinema(_cinema: Cinema, redis: Redis) -> Cinema:
    """The same for all tests, TMDB as new."""
    _cinema.server.reset()
    _cinema.server.films = AT_TMDB
    await redis.delete(BUDGET("tmdb"))
    return _cinema


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks().open() as opened:
        yield opened


Fetchers = Callable[..., FilmFetch]


@pytest.fixture
def fetchers(cinema: Cinema, redis: Redis, tasks: Tasks) -> Fetchers:
    """Makes what a node has, with deadlines that suit a test."""

    def fetcher(
        *, deadline_s: float = PATIENCE_S, token: str | None = None, redis: Redis = redis, **options: Any
    ) -> FilmFetch:
        tmdb = Tmdb(
            base_url=cinema.tmdb_url,
            token=token or cinema.server.token,
            api_key=None,
            client=cinema.client,
            budget=Budget(redis, "test-film-fetch", per_s=1000, burst=1000),
            deadline_s=deadline_s,
            backoff_s=0.01,
        )
        options = {"within_s": PATIENCE_S, "movies": cinema.movies, **options}
        movies = options.pop("movies")
        return FilmFetch(tmdb, movies, FilmMarks(redis), tasks.spawn, language=CHINESE, **options)

    return fetcher


@asynccontextmanager
async def caller(url: str, name: str) -> AsyncIterator[Transport]:
    """Somebody new, over a transport."""
    if name == "socket":
        async with socket_client(url) as opened:
            await opened.login()
            yield opened
        return
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
        reply = await http.post("/api/v1/messages", json={"type": "login", "code": new_code()})
        yield HttpClient(http, reply.json()["data"]["token"])


@pytest.fixture(params=["socket", "http"])
def by(request: pytest.FixtureRequest) -> str:
    """Over which transport."""
    name: str = request.param
    return name


@pytest.fixture
async def transport(cinema: Cinema, by: str) -> AsyncIterator[Transport]:
    async with caller(cinema.nodes[0].url, by) as opened:
        yield opened


def bulk(ids: Sequence[int]) -> Frame:
    return {"type": "movies_bulk", "ids": list(ids)}


def detail(tmdb_id: int) -> Frame:
    return {"type": "movie_detail", "tmdb_id": tmdb_id}


# Lookups, as clients see them.


async def test_films_that_are_not_in_the_catalogue_are_answered_in_the_order_asked_for(
    cinema: Cinema, transport: Transport
) -> None:
    new, (here,), (gone,) = films(3), await cinema.stored(), no_films(1)
    asked = [new[0], here, gone, new[1], 603, new[2]]
    reply = await transport.call(bulk(asked))
    assert [card["tmdb_id"] for card in reply["data"]["items"]] == [tmdb_id for tmdb_id in asked if tmdb_id != gone]
    assert reply["data"]["missing_ids"] == [gone]
    assert all(card["title"] for card in reply["data"]["items"])
    assert cinema.server.calls == {path(tmdb_id): 1 for tmdb_id in (*new, gone)}
    again = await transport.call(bulk(asked))
    assert again["data"] == reply["data"]
    assert cinema.server.calls.total() == 4


async def test_a_page_of_a_film_that_is_not_in_the_catalogue_is_fetched(cinema: Cinema, transport: Transport) -> None:
    (new,) = films(1)
    billed = [person["name"] for person in credits_of(new)["cast"]]
    for _ in range(2):
        movie = (await transport.call(detail(new)))["data"]["movie"]
        assert movie["tmdb_id"] == new
        assert movie["title"]
        assert [person["name"] for person in movie["cast"]] == billed
    assert cinema.server.calls == {path(new): 1}
    assert cinema.server.seen[0].query == {"language": CHINESE, "append_to_response": "credits,translations"}


async def test_a_film_that_tmdb_does_not_have_is_asked_for_once_by_all_nodes(cinema: Cinema, by: str) -> None:
    (gone,) = no_films(1)
    for node in (*cinema.nodes, *cinema.nodes):
        async with caller(node.url, by) as client:
            error = await client.call(detail(gone))
            assert (error["code"], error["reason"], error["retryable"]) == (404, "movie_not_found_in_db", False)
            assert (await client.call(bulk([gone])))["data"] == {"items": [], "missing_ids": [gone]}
    assert cinema.server.calls == {path(gone): 1}


async def test_many_who_ask_two_nodes_for_the_same_films_have_each_fetched_once(cinema: Cinema) -> None:
    ids = films(10)

    async def ask(number: int) -> None:
        url = cinema.nodes[number % 2].url
        if number % 3:
            some = random.sample(ids, len(ids))
            response = await cinema.client.post(f"{url}/api/v1/mp/movies/bulk", json={"ids": some})
            assert [card["tmdb_id"] for card in response.json()["items"]] == some
        else:
            response = await cinema.client.get(f"{url}/api/v1/mp/movies/{ids[number // 3]}")
            assert response.json()["movie"]["tmdb_id"] == ids[number // 3]
        assert response.status_code == 200

    await asyncio.gather(*map(ask, range(30)))
    assert cinema.server.calls == {path(tmdb_id): 1 for tmdb_id in ids}


async def test_of_too_many_films_the_first_are_fetched_a_few_at_a_time(cinema: Cinema, transport: Transport) -> None:
    ids, gate = films(25), Gate()
    cinema.server.queue(*[standin.stalls(gate)] * 20)
    answer = asyncio.create_task(transport.call(bulk(ids)))
    await until(lambda: cinema.server.at_once == film_fetch.PARALLEL)
    gate.open()
    reply = await answer
    assert [card["tmdb_id"] for card in reply["data"]["items"]] == ids[:20]
    assert reply["data"]["missing_ids"] == ids[20:]
    assert cinema.server.most_at_once == film_fetch.PARALLEL == 8
    assert (await transport.call(bulk(ids)))["data"]["missing_ids"] == []


async def test_films_that_take_too_long_are_missing_now_and_in_the_catalogue_later(
    cinema: Cinema, data_dir: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here,), (slow, slower), gate = await cinema.stored(), films(2), Gate()
    monkeypatch.setattr("wsserver.film_parts.FilmFetch", partial(FilmFetch, within_s=0.1))
    async with (
        serving(cinema.services, data_dir, **settings(cinema.server, cinema.tmdb_url)) as node,
        caller(node.url, by) as client,
    ):
        await until(lambda: cinema.server.calls["/3/authentication"] == 1)
        cinema.server.queue(*[standin.stalls(gate)] * 2)
        reply = await client.call(bulk([slow, here]))
        assert [card["tmdb_id"] for card in reply["data"]["items"]] == [here]
        assert reply["data"]["missing_ids"] == [slow]
        error = await client.call(detail(slower))
        assert (error["code"], error["reason"], error["retryable"]) == (503, "film_source_unavailable", True)
        assert error["retry_after_ms"] >= 1000
        gate.open()

        async def are_here() -> bool:
            return len(await cinema.movies.cards([slow, slower])) == 2

        await until(are_here)
        assert (await client.call(detail(slower)))["data"]["movie"]["tmdb_id"] == slower
    assert (cinema.server.calls[path(slow)], cinema.server.calls[path(slower)]) == (1, 1)


async def test_who_leaves_while_a_film_is_fetched_does_not_stop_it(cinema: Cinema) -> None:
    (new,), gate = films(1), Gate()
    cinema.server.queue(standin.stalls(gate))
    async with socket_client(cinema.nodes[0].url) as client:
        await client.login()
        await client.send(detail(new))
        await gate.reached.wait()
    gate.open()
    await until(lambda: cinema.movies.has(new))
    assert cinema.server.calls == {path(new): 1}


@pytest.mark.parametrize("trouble", ["down", "slow", "refused", "html"])
async def test_stored_films_do_not_need_tmdb(
    cinema: Cinema, data_dir: Path, by: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here,), (new, other), gate = await cinema.stored(), films(2), Gate()
    monkeypatch.setattr("wsserver.film_parts.Tmdb", partial(Tmdb, backoff_s=0.01, deadline_s=0.3))
    chosen = settings(cinema.server, cinema.tmdb_url)
    if trouble == "down":
        chosen["tmdb_api_base"] = "http://127.0.0.1:1"
    elif trouble == "refused":
        chosen["tmdb_api_token"] = "wrong"
    else:
        cinema.server.queue(*([standin.stalls(gate)] if trouble == "slow" else standin.html()) * 500)
    async with serving(cinema.services, data_dir, **chosen) as node, caller(node.url, by) as client:

        async def stored_films_are_read() -> None:
            before = {name: count for name, count in cinema.server.calls.items() if name != "/3/authentication"}
            assert (await client.call(detail(here)))["data"]["movie"]["tmdb_id"] == here
            reply = await client.call(bulk([here]))
            assert ([card["tmdb_id"] for card in reply["data"]["items"]], reply["data"]["missing_ids"]) == ([here], [])
            after = {name: count for name, count in cinema.server.calls.items() if name != "/3/authentication"}
            assert after == before

        await stored_films_are_read()
        reply = await client.call(bulk([new, here]))
        assert ([card["tmdb_id"] for card in reply["data"]["items"]], reply["data"]["missing_ids"]) == ([here], [new])
        error = await client.call(detail(other))
        assert (error["code"], error["reason"], error["retryable"]) == (503, "film_source_unavailable", True)
        assert error["retry_after_ms"] > 1000
        assert cinema.server.calls[path(other)] == 0
        await stored_films_are_read()
    gate.open()


# Starting with TMDB.


@pytest.mark.parametrize(
    ("trouble", "level", "said"),
    [
        (None, "info", "films that the catalogue lacks are fetched"),
        ("refused", "error", "TMDB_API_TOKEN or TMDB_API_KEY: TMDB refuses it"),
        ("html", "warning", "TMDB_API_BASE: TMDB does not answer"),
    ],
)
async def test_the_start_says_what_tmdb_says_to_the_credential(
    cinema: Cinema, data_dir: Path, trouble: str | None, level: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsserver.film_parts.Tmdb", partial(Tmdb, backoff_s=0.01, deadline_s=0.3))
    chosen = settings(cinema.server, cinema.tmdb_url)
    if trouble == "refused":
        chosen["tmdb_api_token"] = "wrong"
    elif trouble == "html":
        cinema.server.queue(*standin.html(times=500))
    with structlog.testing.capture_logs() as lines:
        async with serving(cinema.services, data_dir, **chosen):
            await until(lambda: any(said in line["event"] and line["log_level"] == level for line in lines))


async def test_a_tmdb_that_does_not_answer_does_not_hold_up_the_start(cinema: Cinema, data_dir: Path) -> None:
    gate = Gate()
    cinema.server.queue(standin.stalls(gate))
    async with (
        serving(cinema.services, data_dir, **settings(cinema.server, cinema.tmdb_url)) as node,
        caller(node.url, "http") as client,
    ):
        await gate.reached.wait()
        assert (await client.call(detail(603)))["code"] == 0
    assert not gate.released.is_set()


async def test_nothing_is_fetched_unless_it_is_switched_on(cinema: Cinema, data_dir: Path) -> None:
    chosen = settings(cinema.server, cinema.tmdb_url) | {"enrichment_enable": False}
    (new,) = films(1)
    async with serving(cinema.services, data_dir, **chosen) as node, caller(node.url, "http") as client:
        assert (await client.call(detail(new)))["reason"] == "movie_not_found_in_db"
        assert (await client.call(bulk([new])))["data"]["missing_ids"] == [new]
    assert not cinema.server.calls


async def test_calls_of_tmdb_are_counted_by_how_they_ended(cinema: Cinema) -> None:
    (new,), (gone,) = films(1), no_films(1)
    url = cinema.nodes[0].url
    await cinema.client.post(f"{url}/api/v1/mp/movies/bulk", json={"ids": [new, gone]})
    metrics = (await cinema.client.get(f"{url}/metrics")).text
    for outcome in ("ok", "not_found"):
        assert f'cinewire_vendor_calls_total{{outcome="{outcome}",vendor="tmdb"}}' in metrics


# What TMDB says.


@pytest.mark.parametrize(
    "faults",
    [
        standin.throttles("0.05", times=5),
        [*standin.throttles(None, times=2), *standin.throttles("0.02", times=2)],
        standin.html(503, times=3),
        [*standin.html(502), standin.resets(), standin.answers(b"{", 200)],
    ],
    ids=["429", "429 twice", "html", "mixed"],
)
async def test_films_are_fetched_although_tmdb_stumbles(
    cinema: Cinema, fetchers: Fetchers, faults: list[Fault]
) -> None:
    ids = films(10)
    cinema.server.queue(*faults)
    fetched = await fetchers().fetch(ids)
    assert fetched.outcomes == dict.fromkeys(ids, Outcome.STORED)
    assert set(await cinema.titles(ids)) == set(ids)
    assert cinema.server.calls.total() == len(ids) + len(faults)


async def test_an_answer_that_is_no_film_is_none_until_tmdb_mends_it(cinema: Cinema, fetchers: Fetchers) -> None:
    fetcher, (broken, fine) = fetchers(), films(2)
    cinema.server.changes[path(broken)] = {"runtime": "120"}
    with pytest.raises(TmdbUnreadableError):
        await fetcher.raw(broken)
    assert (await fetcher.fetch([broken, fine])).outcomes == {broken: Outcome.MISSING, fine: Outcome.STORED}
    cinema.server.changes.clear()
    assert (await fetcher.fetch([broken])).outcomes == {broken: Outcome.STORED}


async def test_while_tmdb_is_away_nobody_waits_for_it_and_it_is_said_once(cinema: Cinema, fetchers: Fetchers) -> None:
    fetcher, ids = fetchers(deadline_s=0.1, rest_s=60), films(12)
    cinema.server.queue(*standin.html(times=500))
    with structlog.testing.capture_logs() as lines:
        fetched = await fetcher.fetch(ids[:10])
        assert fetched.outcomes == dict.fromkeys(ids[:10], Outcome.LATE)
        assert 50 < fetched.retry_after_s <= 60
        asked = cinema.server.calls.total()
        assert asked > 0
        assert (await fetcher.fetch(ids)).outcomes == dict.fromkeys(ids, Outcome.LATE)
        with pytest.raises(TmdbUnavailableError) as told:
            await fetcher.raw(ids[11])
        assert told.value.retry_after_s is not None
        assert 50 < told.value.retry_after_s <= 60
        assert cinema.server.calls.total() == asked
    assert [line["log_level"] for line in lines if "TMDB is unavailable" in line["event"]] == ["warning"]


async def test_one_film_finds_out_whether_tmdb_is_back(cinema: Cinema, fetchers: Fetchers) -> None:
    fetcher, (lost, probe, other, last), gate = fetchers(deadline_s=0.1, rest_s=0), films(4), Gate()
    cinema.server.queue(*standin.html(times=500))
    assert (await fetcher.fetch([lost])).outcomes == {lost: Outcome.LATE}
    cinema.server.reset()
    cinema.server.films = AT_TMDB
    patient = fetchers(rest_s=0)
    patient._rest = fetcher._rest  # the same node, with a TMDB that may take its time
    cinema.server.queue(standin.stalls(gate))
    finding_out = asyncio.create_task(patient.fetch([probe]))
    await gate.reached.wait()
    assert (await patient.fetch([other])).outcomes == {other: Outcome.LATE}
    with structlog.testing.capture_logs() as lines:
        gate.open()
        assert (await finding_out).outcomes == {probe: Outcome.STORED}
        assert (await patient.fetch([other, last])).outcomes == dict.fromkeys((other, last), Outcome.STORED)
    assert [line["event"] for line in lines].count("films are fetched from TMDB again") == 1


@pytest.mark.parametrize(("asked_for", "least", "most"), [("1", 50, 60), ("3000", 59, 60), (None, 50, 60)])
async def test_tmdb_rests_for_as_long_as_it_asks_for_within_reason(
    cinema: Cinema, fetchers: Fetchers, asked_for: str | None, least: float, most: float
) -> None:
    fetcher, (new,) = fetchers(deadline_s=0.2, rest_s=55), films(1)
    headers = {} if asked_for is None else {"retry-after": asked_for}
    cinema.server.queue(*[standin.answers(b"", 503, headers)] * 500)
    assert least < (await fetcher.fetch([new])).retry_after_s <= most


async def test_a_credential_that_tmdb_refuses_gives_it_a_rest_and_one_request_it_refuses_does_not(
    cinema: Cinema, fetchers: Fetchers
) -> None:
    refused, ids, (other,) = fetchers(token="wrong"), films(3), films(1)
    assert (await refused.fetch(ids[:1])).outcomes == {ids[0]: Outcome.LATE}
    assert (await refused.fetch(ids[1:])).outcomes == dict.fromkeys(ids[1:], Outcome.LATE)
    assert cinema.server.calls == {path(ids[0]): 1}
    fetcher = fetchers()
    cinema.server.queue(standin.answers({}, 400))
    with pytest.raises(TmdbRefusedError):
        await fetcher.raw(other)
    assert (await fetcher.fetch(ids)).outcomes == dict.fromkeys(ids, Outcome.STORED)


# Many nodes.


async def test_a_film_that_another_node_fetches_is_waited_for(cinema: Cinema, fetchers: Fetchers, redis: Redis) -> None:
    other, (theirs, dropped, gone) = FilmMarks(redis), films(3)
    for tmdb_id in (theirs, dropped, gone):
        assert await other.claim(tmdb_id)
    fetcher = fetchers()
    waiting = asyncio.create_task(fetcher.fetch([theirs, dropped, gone]))
    also = asyncio.create_task(fetcher.raw(theirs))
    await until(lambda: len(fetcher._flights) == 3)
    await cinema.movies.store([{"id": theirs, "title": "Theirs"}])
    await other.note_missing(gone)
    for tmdb_id in (dropped, gone):
        await other.release(tmdb_id)
    outcomes = {theirs: Outcome.STORED, dropped: Outcome.STORED, gone: Outcome.MISSING}
    assert (await waiting).outcomes == outcomes
    assert (await also) == {"id": theirs, "title": "Theirs"}
    assert cinema.server.calls == {path(dropped): 1}
    assert await redis.exists(FILM_CLAIM(str(dropped))) == 0


async def test_a_film_that_another_node_has_just_stored_is_not_fetched(cinema: Cinema, fetchers: Fetchers) -> None:
    ids = await cinema.stored(2)
    assert (await fetchers().fetch(ids)).outcomes == dict.fromkeys(ids, Outcome.STORED)
    assert not cinema.server.calls


async def test_a_node_that_stops_leaves_its_films_to_the_others(
    cinema: Cinema, fetchers: Fetchers, tasks: Tasks, redis: Redis
) -> None:
    fetcher, (new,), gate = fetchers(), films(1), Gate()
    cinema.server.queue(standin.stalls(gate))
    async with tasks.open():
        waiting = asyncio.create_task(fetcher.fetch([new]))
        await gate.reached.wait()
        assert await redis.exists(FILM_CLAIM(str(new)))
    assert (await waiting).outcomes == {new: Outcome.LATE}
    assert not await redis.exists(FILM_CLAIM(str(new)))
    assert (await fetchers().fetch([new])).outcomes == {new: Outcome.STORED}


async def test_a_film_that_another_node_does_not_get_is_given_up_for_now(
    cinema: Cinema, fetchers: Fetchers, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    (theirs,) = films(1)
    monkeypatch.setattr(film_fetch, "OTHERS_S", 0.15)
    assert await FilmMarks(redis).claim(theirs)
    assert (await fetchers().fetch([theirs])).outcomes == {theirs: Outcome.LATE}
    assert not cinema.server.calls


async def test_without_redis_each_node_fetches_for_itself(cinema: Cinema, fetchers: Fetchers) -> None:
    async with open_redis(NOWHERE) as away:
        fetcher, new, (gone,) = fetchers(redis=away), films(3), no_films(1)
        fetched, again = await asyncio.gather(fetcher.fetch([*new, gone]), fetcher.fetch([*new, gone]))
        assert fetched.outcomes == dict.fromkeys(new, Outcome.STORED) | {gone: Outcome.MISSING}
        assert again.outcomes == fetched.outcomes
        assert cinema.server.calls == {path(tmdb_id): 1 for tmdb_id in (*new, gone)}


async def test_a_node_begins_only_so_many_films(
    cinema: Cinema, fetchers: Fetchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher, ids, gate = fetchers(), films(4), Gate()
    monkeypatch.setattr(film_fetch, "MOST_UNDER_WAY", 2)
    cinema.server.queue(*[standin.stalls(gate)] * 2)
    first = asyncio.create_task(fetcher.fetch(ids[:2]))
    await until(lambda: cinema.server.at_once == 2)
    assert (await fetcher.fetch(ids[2:])).outcomes == dict.fromkeys(ids[2:], Outcome.LATE)
    gate.open()
    assert (await first).outcomes == dict.fromkeys(ids[:2], Outcome.STORED)
    assert (await fetcher.fetch(ids[2:])).outcomes == dict.fromkeys(ids[2:], Outcome.STORED)


# The answer itself.


async def test_an_answer_is_there_before_it_is_stored(cinema: Cinema, fetchers: Fetchers) -> None:
    fetcher, (new,) = fetchers(), films(1)
    async with cinema.postgres.transaction() as connection:
        await connection.execute("LOCK TABLE tmdb.movies IN SHARE MODE")
        raw = await fetcher.raw(new)
        assert raw is not None
        assert (raw["id"], set(raw) >= {"credits", "translations"}) == (new, True)
        assert await cinema.movies.raw(new) is None
        assert await fetcher.raw(new) == raw
    await until(lambda: cinema.movies.has(new))
    assert await fetcher.raw(new) == raw == await cinema.movies.raw(new)
    assert cinema.server.calls == {path(new): 1}


async def test_an_answer_can_be_had_though_it_cannot_be_stored(cinema: Cinema, fetchers: Fetchers) -> None:
    assert cinema.services.database_url is not None
    async with Postgres.open(cinema.services.database_url, size=1) as closed:
        pass
    fetcher, (new,) = fetchers(movies=Movies(closed)), films(1)
    raw = await fetcher.raw(new)
    assert raw is not None
    assert raw["id"] == new
    assert (await fetcher.fetch([new])).outcomes == {new: Outcome.LATE}


async def test_what_is_fetched_for_a_lookup_and_for_its_answer_is_fetched_once(
    cinema: Cinema, fetchers: Fetchers
) -> None:
    fetcher, (new,), gate = fetchers(), films(1), Gate()
    cinema.server.queue(standin.stalls(gate))
    asked = [asyncio.create_task(fetcher.raw(new)) for _ in range(5)]
    looked_up = asyncio.create_task(fetcher.fetch([new]))
    left = asyncio.create_task(fetcher.fetch([new]))
    await gate.reached.wait()
    for task in (left, asked[0]):
        # Python 3.11's wait_for, with which redis-py sends, may lose a cancellation.
        await until(lambda task=task: not task.cancel())
    gate.open()
    assert (await looked_up).outcomes == {new: Outcome.STORED}
    answers = await asyncio.gather(*asked[1:])
    assert all(answer is not None and answer["id"] == new for answer in answers)
    assert cinema.server.calls == {path(new): 1}


async def test_there_is_no_answer_about_a_film_that_tmdb_does_not_have(cinema: Cinema, fetchers: Fetchers) -> None:
    (gone,) = no_films(1)
    for fetcher in (fetchers(), fetchers()):
        assert set(await asyncio.gather(fetcher.raw(gone), fetcher.raw(gone))) == {None}
    assert cinema.server.calls == {path(gone): 1}


async def test_an_answer_that_does_not_come_is_not_waited_for(cinema: Cinema, fetchers: Fetchers) -> None:
    fetcher, (new,), gate = fetchers(within_s=0.05), films(1), Gate()
    cinema.server.queue(standin.stalls(gate))
    with pytest.raises(TmdbUnavailableError):
        await fetcher.raw(new)
    gate.open()
    await until(lambda: cinema.movies.has(new))


async def test_the_demo_catalogue_is_no_answer_of_tmdb(cinema: Cinema, fetchers: Fetchers) -> None:
    assert await cinema.movies.raw(680) is None
    cinema.server.films = [680]
    raw = await fetchers().raw(680)
    assert raw is not None
    assert raw["id"] == 680
    assert cinema.server.calls == {path(680): 1}
