"""What the TMDB client makes of a TMDB that answers, throttles, stalls, breaks off and says what it should not."""

import asyncio
import contextlib
import gzip
import logging
import os
import re
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from protocol.movies import Feed
from storage.budget import LONGEST_S, Budget
from storage.film_rows import film_row
from storage.movies import Movies
from storage.postgres import Postgres
from storage.redis import BUDGET, Redis
from tests.clients import PATIENCE_S
from tests.logs import logged_of
from tests.standins import tmdb as standin
from tests.standins.server import Gate, serve
from tests.standins.tmdb import Fault, TmdbStandIn
from tests.standins.tmdb_films import PEOPLE
from wsserver.vendors import tmdb as client_of_tmdb
from wsserver.vendors.tmdb import (
    SearchHit,
    Tmdb,
    TmdbError,
    TmdbNotFoundError,
    TmdbRefusedError,
    TmdbUnavailableError,
    TmdbUnreadableError,
)

ROOT = Path(__file__).resolve().parent.parent
CHINESE = "zh-CN"
BUDGET_NAME = "test-tmdb"
ENGLISH_ONLY = {"iso_639_1": "en", "iso_3166_1": "US", "data": {"title": "Only English"}}

Change = Callable[[Any], Any]


class Account:
    """A stand-in that is being served, and the client for it."""

    def __init__(self, server: TmdbStandIn, base_url: str, client: httpx.AsyncClient, budget: Budget) -> None:
        self.server = server
        self.base_url = base_url
        self.client = client
        self.budget = budget
        self.tmdb = self.configured()

    def configured(
        self, *, token: str | None = None, api_key: str | None = None, deadline_s: float = PATIENCE_S
    ) -> Tmdb:
        """With the token that the stand-in takes, unless another credential is given."""
        return Tmdb(
            base_url=self.base_url,
            token=self.server.token if token is None and api_key is None else token,
            api_key=api_key,
            client=self.client,
            budget=self.budget,
            deadline_s=deadline_s,
            backoff_s=0.01,
        )


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[tuple[TmdbStandIn, str, httpx.AsyncClient]]:
    server = TmdbStandIn()
    async with serve(server.app) as base_url, httpx.AsyncClient(trust_env=False) as client:
        yield server, base_url, client


@pytest.fixture
async def account(served: tuple[TmdbStandIn, str, httpx.AsyncClient], redis: Redis) -> Account:
    server, base_url, client = served
    server.reset()
    await redis.delete(BUDGET(BUDGET_NAME))
    return Account(server, base_url, client, Budget(redis, BUDGET_NAME, per_s=1000, burst=1000))


async def failure(call: Awaitable[object]) -> TmdbError:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await call
    except TmdbError as told:
        return told
    pytest.fail("there was an answer")


def renamed(**fields: object) -> Change:
    return lambda body: body | fields


def with_row(path: tuple[str, ...], row: object) -> Change:
    """The answer with one more row in the list at `path`."""

    def change(body: Any) -> Any:
        holder = body
        for name in path[:-1]:
            holder = holder[name]
        holder[path[-1]].insert(0, row)
        return body

    return change


# Asking.


@pytest.mark.parametrize("credential", ["token", "api_key", "both"])
async def test_either_credential_will_do_and_the_token_goes_first(account: Account, credential: str) -> None:
    token, api_key = account.server.token, account.server.api_key
    chosen: dict[str, dict[str, Any]] = {
        "token": {"token": token},
        "api_key": {"api_key": api_key},
        "both": {"token": token, "api_key": api_key},
    }
    await account.configured(**chosen[credential]).check()
    (call,) = account.server.seen
    assert call.path == "/3/authentication"
    assert call.query == ({"api_key": api_key} if credential == "api_key" else {})
    assert call.headers.get("authorization") == (None if credential == "api_key" else f"Bearer {token}")


async def test_a_film_comes_with_its_credits_and_translations_in_one_request(account: Account) -> None:
    film = await account.tmdb.movie(9, language=CHINESE)
    (call,) = account.server.seen
    assert call.query == {"language": CHINESE, "append_to_response": "credits,translations"}
    assert film["id"] == 9
    assert film["credits"]["cast"]
    assert {entry["iso_639_1"] for entry in film["translations"]["translations"]} >= {"en"}


async def test_people_and_shows_come_with_what_belongs_to_them(account: Account) -> None:
    director = (await account.tmdb.movie(9, language=CHINESE))["credits"]["crew"][0]
    person = await account.tmdb.person(director["id"], language=CHINESE)
    assert (person["id"], person["name"]) == (director["id"], director["name"])
    assert (9, "Director") in [(film["id"], film["job"]) for film in person["movie_credits"]["crew"]]
    assert "translations" in person
    show = await account.tmdb.tv(9, language=CHINESE)
    assert show["id"] == 9
    assert show["name"]
    assert {"credits", "translations"} <= show.keys()
    assert set(account.server.calls) == {"/3/movie/9", f"/3/person/{director['id']}", "/3/tv/9"}


async def test_whatever_tmdb_leaves_empty_a_film_can_be_kept(account: Account, postgres: Postgres) -> None:
    account.server.films = range(2_000_000_001, 2_000_000_301)
    films = [await account.tmdb.movie(tmdb_id, language=CHINESE) for tmdb_id in account.server.films]
    # Every kind of gap was among them.
    assert {""} < {film["release_date"] for film in films}
    assert {None, 0} < {film["runtime"] for film in films}
    assert {None} < {film["poster_path"] for film in films}
    assert any(not film["overview"] for film in films)
    assert any(film["title"] == film["original_title"] for film in films)
    assert any(type(film["vote_average"]) is int for film in films)
    movies = Movies(postgres)
    try:
        assert (await movies.store(films)).new == len(films)
        stored = await movies.cards(list(account.server.films))
        assert {card.tmdb_id: card.title for card in stored.values()} == {
            film["id"]: film_row(film, CHINESE)["title"] for film in films
        }
        for film in films[:30]:
            assert await movies.detail(film["id"]) is not None
    finally:
        async with postgres.connection() as connection:
            await connection.execute("DELETE FROM tmdb.movies WHERE tmdb_id > 2000000000")


@pytest.mark.parametrize("feed", ["popular", "now_playing", "upcoming"])
async def test_lists_are_read_in_their_order_though_their_pages_overlap(account: Account, feed: Feed) -> None:
    account.server.feeds[feed] = [5, 3, 5, *range(100, 140)]
    first = await account.tmdb.movie_list(feed, 1, language=CHINESE)
    second = await account.tmdb.movie_list(feed, 2, language=CHINESE, region="CN")
    assert first.ids == [5, 3, *range(100, 117)]
    assert second.ids == list(range(116, 136))
    assert [call.query for call in account.server.seen] == [
        {"language": CHINESE, "page": "1"},
        {"language": CHINESE, "page": "2", "region": "CN"},
    ]


@pytest.mark.parametrize(("said", "total_pages"), [(49_821, 500), (500, 500), (3, 3), (0, 0)])
async def test_no_list_has_more_pages_than_can_be_asked_for(account: Account, said: int, total_pages: int) -> None:
    account.server.total_pages = said
    assert (await account.tmdb.movie_list("popular", 1, language=CHINESE)).total_pages == total_pages


async def test_a_search_finds_films_shows_and_people_and_skips_the_rest(account: Account) -> None:
    rows = [
        {"media_type": "movie", "id": 1, "title": "流浪地球", "original_title": "The", "release_date": "2019-02-05"}
        | {"popularity": 41.8, "vote_count": 712},
        {"media_type": "collection", "id": 2, "name": "流浪地球（系列）"},
        {"media_type": "tv", "id": 3, "name": "地球", "original_name": "Earth", "first_air_date": ""},
        {"media_type": "person", "id": 4, "name": "吴京", "gender": 2, "known_for": [], "popularity": 9},
    ]
    page = {"page": 1, "results": rows, "total_pages": 1, "total_results": 4}
    account.server.queue(standin.answers(page))
    assert await account.tmdb.search_multi("流浪 地球&a=b", language=CHINESE, page=2) == [
        SearchHit("movie", 1, "流浪地球", "The", 2019, 41.8, 712),
        SearchHit("tv", 3, "地球", "Earth", None, 0.0, 0),
        SearchHit("person", 4, "吴京", "吴京", None, 9.0, 0),
    ]
    (call,) = account.server.seen
    assert call.query == {"query": "流浪 地球&a=b", "language": CHINESE, "page": "2", "include_adult": "false"}


async def test_a_search_for_a_title_finds_its_film(account: Account) -> None:
    film = await account.tmdb.movie(9, language=CHINESE)
    hits = await account.tmdb.search_multi(film["title"], language=CHINESE)
    assert ("movie", 9, film["title"]) in [(hit.media_type, hit.tmdb_id, hit.title) for hit in hits]
    assert await account.tmdb.search_multi("nobody is called this", language=CHINESE) == []


async def test_a_blank_search_asks_nobody(account: Account) -> None:
    assert await account.tmdb.search_multi("  \n", language=CHINESE) == []
    assert not account.server.seen


# What is not what it should be.


@pytest.mark.parametrize(
    ("path", "rows"),
    [
        (("credits", "cast"), [None, "x", {"id": "1", "name": "A"}, {"id": 1}, {"id": 1, "name": None}]),
        (("credits", "crew"), [{"id": 1, "name": "A", "job": 7}, {"id": 0, "name": "A"}, {"id": 2**31, "name": "A"}]),
        (("genres",), [{"name": "A"}, {"id": True, "name": "A"}, 18]),
        (("translations", "translations"), [{"iso_639_1": "en"}, {"iso_639_1": "en", "iso_3166_1": "US", "data": []}]),
    ],
)
async def test_rows_that_are_none_are_left_out_of_a_film_and_counted(
    account: Account, path: tuple[str, ...], rows: list[object]
) -> None:
    whole = await account.tmdb.movie(9, language=CHINESE)
    for row in rows:
        account.server.queue(standin.changed(with_row(path, row)))
        with logged_of("tmdb") as lines:
            assert await account.tmdb.movie(9, language=CHINESE) == whole
        assert [(line["outcome"], line["rows_left_out"]) for line in lines] == [("ok", 1)]


async def test_films_that_are_none_are_left_out_of_somebodys_films(account: Account) -> None:
    whole = await account.tmdb.person(PEOPLE[0], language=CHINESE)
    for part in ("cast", "crew"):
        account.server.queue(standin.changed(with_row(("movie_credits", part), {"id": "7", "title": "A"})))
        assert await account.tmdb.person(PEOPLE[0], language=CHINESE) == whole


@pytest.mark.parametrize(
    "change",
    [
        renamed(id=10),
        renamed(id="9"),
        renamed(id=None),
        renamed(title=["A"]),
        renamed(title="", original_title=" ", translations=None),
        renamed(runtime="120"),
        renamed(runtime=-1),
        renamed(runtime=2**31),
        renamed(vote_count=2**31),
        renamed(vote_average="7"),
        renamed(popularity={}),
        renamed(release_date=20200101),
        renamed(overview=7),
        renamed(poster_path=False),
        renamed(genres={}),
        renamed(credits=[]),
        renamed(credits={"cast": "x"}),
        renamed(translations=[]),
        lambda _: [],
        lambda _: "a film",
        lambda _: {},
    ],
)
async def test_an_answer_that_is_not_this_film_is_unreadable_and_not_asked_for_again(
    account: Account, change: Change
) -> None:
    account.server.queue(standin.changed(change))
    told = await failure(account.tmdb.movie(9, language=CHINESE))
    assert isinstance(told, TmdbUnreadableError)
    assert not told.retryable
    assert account.server.calls["/3/movie/9"] == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {"id": body["id"], "title": "A"},
        lambda body: {"id": body["id"], "original_title": "A", "credits": None, "translations": None, "genres": None},
        lambda body: dict.fromkeys(body) | {"id": body["id"], "title": "A"},
        renamed(title="", original_title="", translations={"translations": [ENGLISH_ONLY]}),
        renamed(something_new={"a": [1]}, vote_average=7, popularity=1),
        renamed(release_date="2024-13-45"),
    ],
)
async def test_what_is_absent_null_or_new_does_not_make_a_film_unreadable(account: Account, change: Change) -> None:
    account.server.queue(standin.changed(change))
    assert film_row(await account.tmdb.movie(9, language=CHINESE), CHINESE)["tmdb_id"] == 9


async def test_people_and_shows_are_checked_too(account: Account) -> None:
    for change in (renamed(id=1), renamed(name=" "), renamed(also_known_as="A"), renamed(movie_credits=[])):
        account.server.queue(standin.changed(change))
        assert isinstance(await failure(account.tmdb.person(PEOPLE[0], language=CHINESE)), TmdbUnreadableError)
    for change in (renamed(id=1), renamed(name=None, original_name="", translations=None), renamed(vote_count=1.5)):
        account.server.queue(standin.changed(change))
        assert isinstance(await failure(account.tmdb.tv(9, language=CHINESE)), TmdbUnreadableError)


async def test_text_has_no_nul_which_postgresql_cannot_keep(account: Account) -> None:
    account.server.queue(standin.changed(renamed(title="a\0\0b\\u0000c\\\0")))
    assert (await account.tmdb.movie(9, language=CHINESE))["title"] == "ab\\u0000c\\"


async def test_rows_of_the_wrong_types_are_skipped_in_lists_and_searches_and_counted(account: Account) -> None:
    wrong: list[object] = [None, "x", [], {}, {"id": "7"}, {"id": 0}, {"id": True}, {"id": 2**31}]
    page = {"page": 1, "results": [*wrong, {"id": 7}, {"id": 8}, {"id": 7}], "total_pages": 1, "total_results": 3}
    account.server.queue(standin.answers(page))
    with logged_of("tmdb") as lines:
        assert (await account.tmdb.movie_list("popular", 1, language=CHINESE)).ids == [7, 8]
    assert [(line["what"], line["rows_left_out"]) for line in lines] == [("popular", len(wrong))]
    found: list[object] = [
        *wrong,
        {"media_type": 7, "id": 1},
        {"media_type": "movie", "id": 1, "title": None},
        {"media_type": "movie", "id": 1, "title": "A", "popularity": "high"},
        {"media_type": "tv", "id": 1, "title": "A"},
        {"media_type": "person", "id": "1", "name": "A"},
    ]
    good = {"media_type": "movie", "id": 7, "title": "A"}
    account.server.queue(standin.answers(page | {"results": [*found, good]}))
    with logged_of("tmdb") as lines:
        hits = await account.tmdb.search_multi("a", language=CHINESE)
    assert hits == [SearchHit("movie", 7, "A", "A", None, 0.0, 0)]
    assert [(line["what"], line["rows_left_out"]) for line in lines] == [("search", len(found))]


@pytest.mark.parametrize("body", [[], {}, {"results": None}, {"results": [], "total_pages": "1"}, 7], ids=repr)
async def test_a_page_that_is_none_is_unreadable(account: Account, body: object) -> None:
    account.server.queue(standin.answers(body), standin.answers(body))
    assert isinstance(await failure(account.tmdb.movie_list("popular", 1, language=CHINESE)), TmdbUnreadableError)
    assert isinstance(await failure(account.tmdb.search_multi("a", language=CHINESE)), TmdbUnreadableError)


# Refusals.


async def test_a_film_that_tmdb_does_not_have_is_worth_remembering(account: Account) -> None:
    told = await failure(account.tmdb.movie(1001, language=CHINESE))
    assert isinstance(told, TmdbNotFoundError)
    assert not told.retryable
    assert account.server.calls["/3/movie/1001"] == 1


async def test_a_404_that_is_not_tmdbs_says_nothing_about_the_film(account: Account) -> None:
    account.server.queue(*standin.html(404), standin.answers({"success": False}, 404))
    for _ in range(2):
        assert isinstance(await failure(account.tmdb.movie(9, language=CHINESE)), TmdbRefusedError)


async def test_a_wrong_credential_is_ours_to_mend_and_is_said_loudly_once(account: Account) -> None:
    for wrong in (account.configured(token="wrong"), account.configured(api_key="wrong")):
        with structlog.testing.capture_logs() as lines:
            for call in (wrong.check(), wrong.movie(9, language=CHINESE), wrong.search_multi("a", language=CHINESE)):
                told = await failure(call)
                assert isinstance(told, TmdbRefusedError)
                assert not told.retryable
        loud = [line for line in lines if line["log_level"] == "error"]
        assert [(line["status"], line["code"]) for line in loud] == [(401, 7)]
        assert [line["outcome"] for line in lines if line["log_level"] == "info"] == ["refused"] * 3
    assert len(account.server.seen) == 6


async def test_each_kind_of_refusal_is_said_once(account: Account) -> None:
    unprocessable = standin.answers({"errors": ["query must be provided"]}, 422)
    forbidden = standin.html(403)[0]
    account.server.queue(unprocessable, forbidden, unprocessable, forbidden)
    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            assert isinstance(await failure(account.tmdb.check()), TmdbRefusedError)
    assert [(line["status"], line["code"]) for line in lines if line["log_level"] == "error"] == [
        (422, None),
        (403, None),
    ]


@pytest.mark.parametrize("page", [0, 501])
async def test_a_page_that_no_list_has_is_refused(account: Account, page: int) -> None:
    told = await failure(account.tmdb.movie_list("popular", page, language=CHINESE))
    assert isinstance(told, TmdbRefusedError)
    assert "code 22" in str(told)
    assert len(account.server.seen) == 1


@pytest.mark.parametrize(("status", "code"), [(501, 2), (500, 44)])
async def test_an_error_of_tmdbs_that_no_second_request_betters_is_not_asked_again(
    account: Account, status: int, code: int
) -> None:
    account.server.queue(standin.answers({"success": False, "status_code": code}, status))
    assert isinstance(await failure(account.tmdb.check()), TmdbRefusedError)
    assert len(account.server.seen) == 1


# TMDB's bad days.


@pytest.mark.parametrize(
    "fault",
    [
        standin.html(503)[0],
        standin.html(200)[0],
        standin.refuses(11),
        standin.answers({"success": False, "status_code": 46}, 503),
        standin.answers(b"", 502),
        standin.answers(b'{"id": 9, "title": "cut of', 200),
        standin.answers(b"\xff\xfe", 200),
        standin.answers(b"not gzip", 200, {"content-encoding": "gzip"}),
        standin.answers(b"", 302, {"location": "http://127.0.0.1:1/"}),
        standin.resets(),
        *standin.throttles(retry_after=None),
        *standin.throttles(retry_after="0"),
    ],
    ids=lambda fault: f"{fault.status}-{fault.body[:12]!r}",
)
async def test_a_failure_that_passes_is_asked_again(account: Account, fault: Fault) -> None:
    account.server.queue(fault, fault)
    with logged_of("tmdb") as lines:
        assert (await account.tmdb.movie(9, language=CHINESE))["id"] == 9
    assert account.server.calls["/3/movie/9"] == 3
    assert [(line["event"], line["outcome"], line["what"], line["tries"]) for line in lines] == [
        ("tmdb call", "ok", "movie", 3)
    ]


@pytest.mark.parametrize("fault", [standin.html(503)[0], standin.resets(), standin.answers(b"", 504)], ids=str)
async def test_a_failure_that_does_not_pass_is_told_within_the_deadline(account: Account, fault: Fault) -> None:
    account.server.queue(*[fault] * 100)
    with logged_of("tmdb") as lines:
        told = await failure(account.configured(deadline_s=1).movie(9, language=CHINESE))
    assert isinstance(told, TmdbUnavailableError)
    assert told.retryable
    assert told.retry_after_s is None
    assert [line["outcome"] for line in lines] == ["unavailable"]
    assert account.server.calls["/3/movie/9"] == lines[0]["tries"] > 1


async def test_a_maintenance_that_says_how_long_is_not_waited_for_in_vain(account: Account) -> None:
    account.server.queue(standin.answers(b"", 503, {"retry-after": "120"}))
    told = await failure(account.tmdb.movie(9, language=CHINESE))
    assert isinstance(told, TmdbUnavailableError)
    assert told.retry_after_s == 120
    assert account.server.calls["/3/movie/9"] == 1


async def test_who_is_throttled_waits_as_long_as_tmdb_says(account: Account) -> None:
    account.server.queue(*standin.throttles("1"))
    assert (await account.tmdb.movie(9, language=CHINESE))["id"] == 9
    assert account.server.calls["/3/movie/9"] == 2


async def test_when_one_node_is_throttled_all_nodes_pause(account: Account, redis: Redis) -> None:
    account.server.queue(*standin.throttles("100"))
    throttled = await failure(account.tmdb.movie(9, language=CHINESE))
    budget = Budget(redis, BUDGET_NAME, per_s=1000, burst=1000)
    other_node = Account(account.server, account.base_url, account.client, budget)
    paused = await failure(other_node.tmdb.movie(8, language=CHINESE))
    for told in (throttled, paused):
        assert isinstance(told, TmdbUnavailableError)
        assert 100 - PATIENCE_S < (told.retry_after_s or 0) <= 100
    assert account.server.calls == {"/3/movie/9": 1}


async def test_a_pause_that_no_call_outlasts_is_believed_up_to_a_bound(account: Account) -> None:
    account.server.queue(*standin.throttles("99999999"))
    told = await failure(account.tmdb.check())
    assert isinstance(told, TmdbUnavailableError)
    assert (told.retry_after_s or 0) <= LONGEST_S


async def test_who_waits_for_the_budget_while_another_is_throttled_does_not_call(
    account: Account, redis: Redis
) -> None:
    tight = Account(account.server, account.base_url, account.client, Budget(redis, BUDGET_NAME, per_s=1, burst=1))
    await tight.tmdb.check()
    waiting = asyncio.create_task(failure(tight.tmdb.movie(9, language=CHINESE)))
    full_at = await redis.hget(BUDGET(BUDGET_NAME), "full_at")

    async with asyncio.timeout(PATIENCE_S):
        while await redis.hget(BUDGET(BUDGET_NAME), "full_at") == full_at:  # until it has its place
            await asyncio.sleep(0)
    await tight.budget.pause(100)
    assert isinstance(await waiting, TmdbUnavailableError)
    assert account.server.calls == {"/3/authentication": 1}


async def test_who_could_not_be_served_in_time_is_told_when_and_takes_no_place(account: Account, redis: Redis) -> None:
    budget = Budget(redis, BUDGET_NAME, per_s=0.01, burst=1)
    tight = Account(account.server, account.base_url, account.client, budget)
    await tight.tmdb.check()
    for _ in range(3):
        told = await failure(tight.tmdb.check())
        assert isinstance(told, TmdbUnavailableError)
        assert 100 - PATIENCE_S < (told.retry_after_s or 0) <= 100
    assert account.server.calls == {"/3/authentication": 1}


async def test_many_calls_at_once_stay_within_tmdbs_ceiling(account: Account, redis: Redis) -> None:
    account.server.ceiling_per_s = 40
    budgets = [Budget(redis, BUDGET_NAME, per_s=20, burst=10) for _ in range(2)]
    nodes = [Account(account.server, account.base_url, account.client, budget) for budget in budgets]
    films = await asyncio.gather(
        *(nodes[tmdb_id % 2].tmdb.movie(tmdb_id, language=CHINESE) for tmdb_id in range(1, 41))
    )
    assert [film["id"] for film in films] == list(range(1, 41))
    assert account.server.throttled == 0
    assert set(account.server.calls.values()) == {1}


async def test_an_answer_that_does_not_come_is_unavailable(account: Account) -> None:
    account.server.queue(standin.stalls(Gate()))
    with logged_of("tmdb") as lines:
        told = await failure(account.configured(deadline_s=0.5).movie(9, language=CHINESE))
    assert isinstance(told, TmdbUnavailableError)
    assert [(line["outcome"], line["detail"]) for line in lines] == [("unavailable", "no answer in time")]
    assert account.server.calls["/3/movie/9"] == 1


async def test_an_answer_that_is_only_late_is_waited_for(account: Account) -> None:
    account.server.latency_s = 0.05
    account.server.queue(standin.late(0.3))
    assert (await account.tmdb.movie(9, language=CHINESE))["id"] == 9
    assert account.server.calls["/3/movie/9"] == 1


@pytest.mark.parametrize("packed", [False, True])
async def test_an_endless_answer_is_not_read_to_its_end(
    account: Account, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(client_of_tmdb, "BODY_LIMIT_BYTES", 100_000)
    body = b" " * 100_001
    too_long = (
        standin.answers(gzip.compress(body), 200, {"content-encoding": "gzip"}) if packed else standin.answers(body)
    )
    account.server.queue(too_long)
    with logged_of("tmdb") as lines:
        assert (await account.tmdb.movie(9, language=CHINESE))["id"] == 9
    assert account.server.calls["/3/movie/9"] == 2
    account.server.queue(*[too_long] * 100)
    with logged_of("tmdb") as lines:
        told = await failure(account.configured(deadline_s=1).movie(9, language=CHINESE))
    assert isinstance(told, TmdbUnavailableError)
    assert "body too large" in lines[0]["detail"]


async def test_a_closed_port_is_unavailable(account: Account) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nowhere = Account(account.server, f"http://127.0.0.1:{port}", account.client, account.budget)
    told = await failure(nowhere.configured(deadline_s=0.2).movie(9, language=CHINESE))
    assert isinstance(told, TmdbUnavailableError)


async def test_a_cancelled_call_is_not_swallowed(account: Account) -> None:
    gate = Gate()
    account.server.queue(standin.stalls(gate))
    with logged_of("tmdb") as lines:
        async with asyncio.timeout(PATIENCE_S):
            call = asyncio.create_task(account.tmdb.movie(9, language=CHINESE))
            await gate.reached.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    assert [line["outcome"] for line in lines] == ["cancelled"]


# What nobody may read.


@pytest.mark.parametrize("credential", ["token", "api_key"])
async def test_no_credential_and_no_search_reach_a_log_or_a_traceback(
    account: Account, caplog: pytest.LogCaptureFixture, credential: str
) -> None:
    caplog.set_level(logging.DEBUG)
    secret: str = getattr(account.server, credential)
    searched = "whatsomebodylooksfor"
    chosen: dict[str, Any] = {credential: secret}
    tmdb, hasty = account.configured(**chosen), account.configured(**chosen, deadline_s=0.1)
    nowhere = Account(account.server, "http://127.0.0.1:1", account.client, account.budget)
    unreachable = nowhere.configured(**chosen, deadline_s=0.1)
    shown: list[str] = []
    with structlog.testing.capture_logs() as lines:
        assert await tmdb.search_multi(searched, language=CHINESE) == []
        for fault, asked in (
            (standin.resets(), hasty),
            (standin.stalls(Gate()), hasty),
            (standin.answers([]), tmdb),
            (standin.refuses(7), tmdb),
            (standin.refuses(34), tmdb),
            (standin.html(403)[0], tmdb),
            (standin.answers(b"", 503, {"retry-after": "99"}), tmdb),
            (None, unreachable),
            (standin.throttles("99")[0], tmdb),
        ):
            account.server.queue(*([fault] * 50 if fault and asked is hasty else [fault] if fault else []))
            told = await failure(asked.search_multi(searched, language=CHINESE))
            account.server.reset()
            shown += traceback.format_exception(told) + [repr(seen) for seen in _chain(told)]
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]  # which is the stand-in's
    assert any("/3/search/multi" in record.getMessage() for record in ours)  # httpx did log its requests
    shown += [repr(lines), repr(tmdb)]
    shown += [text for record in ours for text in (record.getMessage(), repr(record.args))]
    for place in shown:
        assert secret not in place
        assert searched not in place


def _chain(error: BaseException) -> list[object]:
    """An error, all that it was raised from or during, and the requests that httpx's errors carry."""
    seen: list[object] = []
    at: BaseException | None = error
    while at is not None:
        seen += [at, at.args]
        if isinstance(at, httpx.RequestError):
            seen.append(str(at.request.url))
        at = at.__cause__ or at.__context__
    return seen


@pytest.mark.parametrize("credential", [{}, {"token": ""}, {"token": "ключ"}, {"api_key": "a b"}], ids=str)
async def test_a_credential_that_cannot_be_sent_is_refused_and_not_repeated(
    account: Account, credential: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="TMDB") as refused:
        Tmdb(
            base_url=account.base_url,
            token=credential.get("token"),
            api_key=credential.get("api_key"),
            client=account.client,
            budget=account.budget,
        )
    assert not any(value and value in str(refused.value) for value in credential.values())


# The stand-in by hand.


async def test_the_stand_in_is_served_from_the_command_line_until_it_is_killed() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.standins.tmdb", "--films", "10"),
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            said = (await process.stdout.readuntil(b"\n\n")).decode()
        settings = dict(re.findall("(TMDB_[A-Z_]+)=(.+)", said))
        async with httpx.AsyncClient(base_url=settings["TMDB_API_BASE"], trust_env=False) as client:
            signed = {"api_key": settings["TMDB_API_KEY"]}
            assert (await client.get("/3/movie/10", params=signed)).json()["id"] == 10
            bearer = {"authorization": f"Bearer {settings['TMDB_API_TOKEN']}"}
            assert (await client.get("/3/movie/11", headers=bearer)).status_code == 404
            assert (await client.get("/3/movie/10")).json()["status_code"] == 7
        assert process.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
