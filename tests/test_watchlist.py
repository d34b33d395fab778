"""The watchlist: adding, listing, removing, whose it is; and what chats note in it, once, to be undone."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from protocol.watchlist import MAX_ITEMS
from storage.demo.people import people_in_chinese
from storage.embedded import Services
from storage.movies import Movies
from storage.postgres import Postgres
from storage.schema import migrate
from storage.watchlist import Watchlist, Wish
from tests.clients import Frame, HttpClient, SocketClient, Transport, new_code, socket_client, text_of
from tests.databases import fresh_database
from tests.node import TestNode, serving
from tests.standins.llm import LLMStandIn, error, fails, says, stalls
from tests.standins.server import Gate, serve
from tests.test_movies import raw_film
from wsserver.domains.watchlist_capture import WatchlistCapture

INCEPTION, INTERSTELLAR, MATRIX, TITANIC = 27205, 157336, 603, 597


async def listed(transport: Transport, **wanted: object) -> list[tuple[int, str]]:
    page = await transport.call({"type": "watchlist_list", **wanted})
    return [(item["tmdb_id"], item["state"]) for item in page["data"]["items"]]


async def some_films(transport: Transport, count: int) -> list[int]:
    feed = await transport.call({"type": "movies_feed", "feed": "popular", "limit": count})
    return [item["tmdb_id"] for item in feed["data"]["items"]]


async def test_a_film_that_is_added_is_listed_with_its_card(transport: Transport) -> None:
    reply = await transport.call({"type": "watchlist_add", "tmdb_id": MATRIX, "id": "w1"})
    assert (reply["type"], reply["code"], reply["id"]) == ("watchlist_add_response", 0, "w1")
    item = reply["data"]["item"]
    assert item.keys() == {"tmdb_id", "movie", "state", "source", "added_at", "changed_at"}
    assert (item["tmdb_id"], item["state"], item["source"]) == (MATRIX, "to_watch", "user")
    assert (item["movie"]["title"], item["movie"]["year"]) == ("黑客帝国", 1999)
    assert datetime.fromisoformat(item["added_at"]).tzinfo == UTC
    page = (await transport.call({"type": "watchlist_list"}))["data"]
    assert page == {"items": [item], "next_before": None}


async def test_said_again_it_changes_nothing_and_another_state_moves_it_to_the_top(transport: Transport) -> None:
    first = (await transport.call({"type": "watchlist_add", "tmdb_id": MATRIX}))["data"]["item"]
    await transport.call({"type": "watchlist_add", "tmdb_id": TITANIC, "state": "dismissed"})
    again = (await transport.call({"type": "watchlist_add", "tmdb_id": MATRIX}))["data"]["item"]
    assert again == first
    assert await listed(transport) == [(TITANIC, "dismissed"), (MATRIX, "to_watch")]
    seen = (await transport.call({"type": "watchlist_add", "tmdb_id": MATRIX, "state": "watched"}))["data"]["item"]
    assert (seen["state"], seen["added_at"]) == ("watched", first["added_at"])
    assert seen["changed_at"] > first["changed_at"]
    assert await listed(transport) == [(MATRIX, "watched"), (TITANIC, "dismissed")]
    assert await listed(transport, state="dismissed") == [(TITANIC, "dismissed")]
    assert await listed(transport, state="to_watch") == []


async def test_a_film_that_is_removed_is_gone_and_removing_it_again_is_fine(transport: Transport) -> None:
    await transport.call({"type": "watchlist_add", "tmdb_id": MATRIX})
    for removed in (True, False):
        reply = await transport.call({"type": "watchlist_remove", "tmdb_id": MATRIX})
        assert (reply["code"], reply["data"]) == (0, {"tmdb_id": MATRIX, "removed": removed})
    assert await listed(transport) == []


async def test_a_film_that_the_catalogue_has_not_cannot_be_added(transport: Transport) -> None:
    refused = await transport.call({"type": "watchlist_add", "tmdb_id": 999_999_999})
    assert (refused["code"], refused["reason"]) == (404, "movie_not_found_in_db")


async def test_pages_go_on_where_they_were_whatever_is_added_meanwhile(transport: Transport) -> None:
    films = await some_films(transport, 9)
    for tmdb_id in films[:7]:
        await transport.call({"type": "watchlist_add", "tmdb_id": tmdb_id})
    seen: list[int] = []
    before: dict[str, object] = {}
    for newcomer in (films[7], films[8], None):
        page = (await transport.call({"type": "watchlist_list", "limit": 3, **before}))["data"]
        seen += [item["tmdb_id"] for item in page["items"]]
        before = {"before": page["next_before"]}
        if newcomer is not None:
            await transport.call({"type": "watchlist_add", "tmdb_id": newcomer})
    assert seen == films[6::-1]
    assert before == {"before": None}


async def test_another_user_sees_removes_and_undoes_nothing_of_it(transport: Transport, client: SocketClient) -> None:
    await transport.call({"type": "watchlist_add", "tmdb_id": MATRIX})
    said = {"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True}
    capture_id = (await transport.call(said))["data"]["watchlist"]["capture_id"]
    assert await listed(client) == []
    assert (await client.call({"type": "watchlist_remove", "tmdb_id": MATRIX}))["data"]["removed"] is False
    for unknown in (capture_id, str(uuid.uuid4())):
        refused = await client.call({"type": "watchlist_undo", "capture_id": unknown})
        assert (refused["code"], refused["reason"], refused["retryable"]) == (404, "capture_not_found", False)
    assert await listed(transport) == [(INCEPTION, "to_watch"), (MATRIX, "to_watch")]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "watchlist_add"}, "tmdb_id"),
        ({"type": "watchlist_add", "tmdb_id": "603"}, "tmdb_id"),
        ({"type": "watchlist_add", "tmdb_id": 0}, "tmdb_id"),
        ({"type": "watchlist_add", "tmdb_id": 2**31}, "tmdb_id"),
        ({"type": "watchlist_add", "tmdb_id": 603, "state": "liked"}, "state"),
        ({"type": "watchlist_add", "tmdb_id": 603, "state": None}, "state"),
        ({"type": "watchlist_remove", "tmdb_id": -1}, "tmdb_id"),
        ({"type": "watchlist_list", "limit": 0}, "limit"),
        ({"type": "watchlist_list", "limit": 101}, "limit"),
        ({"type": "watchlist_list", "state": "all"}, "state"),
        ({"type": "watchlist_list", "before": "x"}, "before"),
        ({"type": "watchlist_list", "before": 0}, "before"),
        ({"type": "watchlist_undo"}, "capture_id"),
        ({"type": "watchlist_undo", "capture_id": "last"}, "capture_id"),
        ({"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": "yes"}, "watchlist_auto_capture"),
    ],
    ids=str,
)
async def test_bad_input_is_explained(transport: Transport, message: Frame, field: str) -> None:
    refused = await transport.call(message)
    assert (refused["code"], refused["reason"], refused["field"]) == (400, "invalid_field", field)


async def test_before_login_there_is_no_watchlist(node: TestNode) -> None:
    async with socket_client(node.url) as stranger:
        refused = await stranger.call({"type": "watchlist_list"})
    assert (refused["code"], refused["reason"]) == (401, "login_required")


async def test_the_routes_of_a_user_and_of_a_guest_under_the_same_name_are_two_lists(http: httpx.AsyncClient) -> None:
    login = (await http.post("/wechat/login", json={"code": new_code()})).json()["data"]
    bearer, path = {"Authorization": f"Bearer {login['token']}"}, "/api/v1/mp/watchlist"
    added = await http.post(path, json={"tmdb_id": MATRIX}, headers=bearer)
    assert (added.status_code, added.json()["item"]["state"]) == (200, "to_watch")
    name = login["openid"]
    assert (await http.get(path, params={"user_id": name})).json() == {"items": [], "next_before": None}
    await http.post(path, json={"tmdb_id": TITANIC, "state": "watched", "user_id": name})
    theirs = (await http.get(path, params={"user_id": name, "state": "watched", "limit": "1"})).json()
    assert [item["tmdb_id"] for item in theirs["items"]] == [TITANIC]
    removed = await http.delete(f"{path}/{TITANIC}", params={"user_id": name})
    assert removed.json() == {"tmdb_id": TITANIC, "removed": True}
    assert (await http.delete(f"{path}/{MATRIX}", params={"user_id": name})).json()["removed"] is False
    mine = (await http.get(path, headers=bearer)).json()
    assert [item["tmdb_id"] for item in mine["items"]] == [MATRIX]


async def test_a_guest_without_a_name_has_no_list_to_find_again(http: httpx.AsyncClient) -> None:
    refused = await http.post("/api/v1/mp/watchlist", json={"tmdb_id": MATRIX})
    assert (refused.status_code, refused.json()["error"]["reason"]) == (401, "login_required")
    named = await http.post("/api/v1/mp/watchlist", json={"tmdb_id": MATRIX}, headers={"X-User-ID": uuid.uuid4().hex})
    assert named.status_code == 200


async def test_what_a_guests_chat_noted_is_in_the_same_guests_list(http: httpx.AsyncClient) -> None:
    name = uuid.uuid4().hex
    body = {"message": "想看《盗梦空间》", "user_id": name, "session_id": "s", "watchlist_auto_capture": True}
    stream = (await http.post("/api/v1/mp/chat/stream", json=body)).text
    assert '"type":"watchlist"' in stream
    page = (await http.get("/api/v1/mp/watchlist", params={"user_id": name})).json()
    assert [(item["tmdb_id"], item["source"]) for item in page["items"]] == [(INCEPTION, "chat")]


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", "/api/v1/mp/watchlist?user_id=u&limit=0", None, "limit"),
        ("GET", "/api/v1/mp/watchlist?user_id=u&before=x", None, "before"),
        ("GET", "/api/v1/mp/watchlist?user_id=", None, "user_id"),
        ("POST", "/api/v1/mp/watchlist", {"user_id": "u"}, "tmdb_id"),
        ("POST", "/api/v1/mp/watchlist/undo", {"user_id": "u", "capture_id": 5}, "capture_id"),
        ("DELETE", "/api/v1/mp/watchlist/zero?user_id=u", None, "tmdb_id"),
    ],
)
async def test_bad_requests_to_the_routes_name_the_field(
    http: httpx.AsyncClient, method: str, path: str, body: Frame | None, field: str
) -> None:
    response = await http.request(method, path, json=body)
    assert (response.status_code, response.json()["error"].get("field")) == (422, field)


async def test_pages_from_listed_origins_may_delete(services: Services, data_dir: Path) -> None:
    origin = "https://app.example.com"
    async with (
        serving(services, data_dir, cors_origins=[origin]) as node,
        httpx.AsyncClient(base_url=node.url, trust_env=False) as http,
    ):
        asked = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
        assert (await http.options("/api/v1/mp/watchlist/603", headers=asked)).status_code == 200


# --- What chats note. ---


def frames_of(frames: list[Frame], type_: str) -> list[Frame]:
    return [frame for frame in frames if frame["type"] == type_]


async def test_a_streamed_chat_notes_the_film_and_says_so_in_one_frame(transport: Transport) -> None:
    await transport.call({"type": "watchlist_add", "tmdb_id": INCEPTION})
    question = "看过《盗梦空间》了，想看《星际穿越》"
    frames = await transport.stream({"type": "chat", "query": question, "watchlist_auto_capture": True, "id": "q"})
    (noted,) = frames_of(frames, "watchlist")
    assert noted.keys() == {"type", "request_id", "seq", "content", "id"}
    uuid.UUID(noted["content"]["capture_id"])
    assert noted["content"]["items"] == [
        {"tmdb_id": INCEPTION, "title": "盗梦空间", "state": "watched", "previous_state": "to_watch"},
        {"tmdb_id": INTERSTELLAR, "title": "星际穿越", "state": "to_watch", "previous_state": None},
    ]
    stream = frames[1:]
    assert [frame["seq"] for frame in stream] == list(range(1, len(stream) + 1))
    assert stream[-1]["type"] == "complete"
    assert stream[-1]["answer"] == text_of(stream)
    page = (await transport.call({"type": "watchlist_list"}))["data"]["items"]
    assert [(item["tmdb_id"], item["state"], item["source"]) for item in page] == [
        (INTERSTELLAR, "to_watch", "chat"),
        (INCEPTION, "watched", "chat"),
    ]


async def test_without_stream_it_is_in_the_one_reply(client: SocketClient) -> None:
    await client.send({"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True})
    assert (await client.receive())["type"] == "chat_processing"
    reply = await client.receive()
    assert reply["type"] == "chat_response"
    assert [item["tmdb_id"] for item in reply["data"]["watchlist"]["items"]] == [INCEPTION]
    await client.send({"type": "ping"})
    assert (await client.receive())["type"] == "pong"


async def test_without_stream_over_http_it_is_in_the_reply_too(http: httpx.AsyncClient) -> None:
    login = (await http.post("/wechat/login", json={"code": new_code()})).json()["data"]
    user = HttpClient(http, login["token"])
    reply = await user.call({"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True})
    assert [item["state"] for item in reply["data"]["watchlist"]["items"]] == ["to_watch"]


@pytest.mark.parametrize(
    "wish",
    [
        {"query": "想看《盗梦空间》"},
        {"query": "想看《盗梦空间》", "watchlist_auto_capture": True, "incognito": True},
        {"query": "有没有看过《盗梦空间》？", "watchlist_auto_capture": True},
    ],
    ids=["not wanted", "incognito", "only asked"],
)
async def test_nothing_is_noted(transport: Transport, wish: Frame) -> None:
    assert "watchlist" not in (await transport.call({"type": "chat", **wish}))["data"]
    assert frames_of(await transport.stream({"type": "chat", **wish}), "watchlist") == []
    assert await listed(transport) == []


async def test_what_the_list_says_already_is_no_news(transport: Transport) -> None:
    await transport.call({"type": "watchlist_add", "tmdb_id": INCEPTION})
    reply = await transport.call({"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True})
    assert "watchlist" not in reply["data"]
    page = await transport.call({"type": "watchlist_list"})
    assert [item["source"] for item in page["data"]["items"]] == ["user"]


async def capture(transport: Transport, query: str) -> str:
    reply = await transport.call({"type": "chat", "query": query, "watchlist_auto_capture": True})
    return str(reply["data"]["watchlist"]["capture_id"])


async def test_undone_every_film_is_what_it_was_before_and_undoing_twice_is_fine(transport: Transport) -> None:
    await transport.call({"type": "watchlist_add", "tmdb_id": INCEPTION})
    await transport.call({"type": "watchlist_add", "tmdb_id": TITANIC})
    before = (await transport.call({"type": "watchlist_list"}))["data"]
    capture_id = await capture(transport, "看过《盗梦空间》了，想看《星际穿越》")
    for _ in range(2):
        undone = await transport.call({"type": "watchlist_undo", "capture_id": capture_id})
        assert undone["data"] == {
            "capture_id": capture_id,
            "restored": [{"tmdb_id": INCEPTION, "state": "to_watch"}, {"tmdb_id": INTERSTELLAR, "state": None}],
            "kept": [],
        }
        assert (await transport.call({"type": "watchlist_list"}))["data"] == before


async def test_what_the_user_changed_since_is_kept(transport: Transport) -> None:
    question = "想看《盗梦空间》、《星际穿越》、《黑客帝国》和《泰坦尼克号》"
    capture_id = await capture(transport, question)
    await transport.call({"type": "watchlist_add", "tmdb_id": INCEPTION, "state": "watched"})
    await transport.call({"type": "watchlist_add", "tmdb_id": INTERSTELLAR})
    await transport.call({"type": "watchlist_remove", "tmdb_id": MATRIX})
    undone = (await transport.call({"type": "watchlist_undo", "capture_id": capture_id}))["data"]
    assert undone["restored"] == [{"tmdb_id": TITANIC, "state": None}]
    assert undone["kept"] == [INCEPTION, INTERSTELLAR, MATRIX]
    assert await listed(transport) == [(INCEPTION, "watched"), (INTERSTELLAR, "to_watch")]
    # Undone before, it does not take away what was added later.
    await transport.call({"type": "watchlist_add", "tmdb_id": TITANIC})
    await transport.call({"type": "watchlist_undo", "capture_id": capture_id})
    assert (TITANIC, "to_watch") in await listed(transport)


async def test_captures_are_undone_one_after_the_other(transport: Transport) -> None:
    first = await capture(transport, "想看《盗梦空间》")
    second = await capture(transport, "看过《盗梦空间》了")
    await transport.call({"type": "watchlist_undo", "capture_id": second})
    assert await listed(transport) == [(INCEPTION, "to_watch")]
    await transport.call({"type": "watchlist_undo", "capture_id": first})
    assert await listed(transport) == []


async def test_undo_has_a_route_of_its_own(http: httpx.AsyncClient) -> None:
    login = (await http.post("/wechat/login", json={"code": new_code()})).json()["data"]
    capture_id = await capture(HttpClient(http, login["token"]), "想看《盗梦空间》")
    bearer = {"Authorization": f"Bearer {login['token']}"}
    undone = await http.post("/api/v1/mp/watchlist/undo", json={"capture_id": capture_id}, headers=bearer)
    assert undone.json()["restored"] == [{"tmdb_id": INCEPTION, "state": None}]
    unknown = await http.post("/api/v1/mp/watchlist/undo", json={"capture_id": str(uuid.uuid4())}, headers=bearer)
    assert (unknown.status_code, unknown.json()["error"]["reason"]) == (404, "capture_not_found")


async def test_a_question_sent_again_is_noted_once(transport: Transport) -> None:
    chat = {"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True, "id": uuid.uuid4().hex}
    first = (await transport.call(chat))["data"]
    await transport.call({"type": "watchlist_remove", "tmdb_id": INCEPTION})
    again = (await transport.call(chat))["data"]
    assert again == first
    assert await listed(transport) == []


@dataclass(frozen=True, slots=True)
class ModelNode:
    """A server with a model and a database of its own, the demo catalogue in it."""

    url: str
    model: LLMStandIn
    postgres: Postgres


@pytest.fixture
async def model_node(services: Services, data_dir: Path) -> AsyncIterator[ModelNode]:
    model = LLMStandIn()
    assert services.database_url is not None
    async with serve(model.app) as model_url, fresh_database(services.database_url) as url:
        theirs = Services(url, services.redis_url, None)
        settings = {"llm_base_url": [f"{model_url}/v1"], "llm_model": ["stand-in"], "roll_up_ms": 0}
        async with serving(theirs, data_dir, **settings) as node, Postgres.open(url, size=2) as postgres:
            yield ModelNode(node.url, model, postgres)


@contextlib.asynccontextmanager
async def user(node: ModelNode) -> AsyncIterator[SocketClient]:
    async with socket_client(node.url) as client:
        await client.login()
        yield client


async def test_an_answer_that_another_owner_begins_anew_says_the_same_capture(model_node: ModelNode) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "第一次"), says("第二次"))
    async with user(model_node) as client:
        await client.send({"type": "chat", "query": "想看《盗梦空间》", "stream": True, "watchlist_auto_capture": True})
        await gate.reached.wait()
        frames = await client.receive_until("watchlist")
        await client.call({"type": "watchlist_remove", "tmdb_id": INCEPTION})
        async with model_node.postgres.connection() as connection:
            await connection.execute("UPDATE chat.runs SET node = 'dead' WHERE state = 'running'")
        after = await client.receive_until("complete", "error")
        gate.open()
        assert [frame["type"] for frame in after if frame["type"] in ("restart", "watchlist")] == [
            "restart",
            "watchlist",
        ]
        (again,) = frames_of(after, "watchlist")
        assert again["content"] == frames[-1]["content"]
        assert after[-1]["answer"] == "第二次"
        assert await listed(client) == []
    async with model_node.postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM watchlist.captures") == 1


async def test_what_was_noted_is_said_although_the_model_fails(model_node: ModelNode) -> None:
    model_node.model.default = lambda: fails(500, error("internal_error"))
    async with user(model_node) as client:
        frames = await client.stream({"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True})
        assert [frame["type"] for frame in frames] == ["chat_processing", "watchlist", "error"]
        assert await listed(client) == [(INCEPTION, "to_watch")]


async def test_an_answer_neither_waits_for_a_capture_nor_fails_with_it(model_node: ModelNode) -> None:
    model_node.model.queue(says("不等了"), says("还在"))
    chat = {"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True}
    async with user(model_node) as client:
        async with model_node.postgres.transaction() as connection:
            await connection.execute("LOCK TABLE watchlist.lists IN ACCESS EXCLUSIVE MODE")
            frames = await client.stream(chat)
        assert [frame["type"] for frame in frames] == ["chat_processing", "chunk", "complete"]
        async with model_node.postgres.connection() as connection:
            await connection.execute("ALTER TABLE watchlist.captures RENAME TO away")
        assert (await client.stream(chat))[-1]["answer"] == "还在"


# --- The table itself. ---


@pytest.fixture
def lists(postgres: Postgres) -> Watchlist:
    return Watchlist(postgres)


async def fill(postgres: Postgres, user_id: str, count: int) -> None:
    async with postgres.transaction() as connection:
        await connection.execute("INSERT INTO watchlist.lists (user_id, changes) VALUES ($1, $2)", user_id, count)
        await connection.execute(
            """
            INSERT INTO watchlist.items (user_id, tmdb_id, state, source, change)
            SELECT $1, 1000000 + n, 'to_watch', 'user', n FROM generate_series(1, $2::integer) AS n
            """,
            user_id,
            count,
        )


async def new_user_id(client: SocketClient, postgres: Postgres) -> str:
    """The id of a client whose list is empty, and is no more there afterwards."""
    await client.call({"type": "watchlist_add", "tmdb_id": MATRIX})
    async with postgres.connection() as connection:
        newest = "SELECT user_id FROM watchlist.items WHERE tmdb_id = $1 ORDER BY added_at DESC LIMIT 1"
        user_id = str(await connection.fetchval(newest, MATRIX))
        await connection.execute("DELETE FROM watchlist.lists WHERE user_id = $1", user_id)
    return user_id


async def test_a_list_holds_a_thousand_films_and_then_says_so(
    client: SocketClient, postgres: Postgres, lists: Watchlist
) -> None:
    user_id = await new_user_id(client, postgres)
    await fill(postgres, user_id, MAX_ITEMS - 1)
    refused, added = sorted(
        await asyncio.gather(
            *(lists.add(user_id=user_id, tmdb_id=tmdb_id, state="watched") for tmdb_id in (MATRIX, TITANIC)),
            return_exceptions=True,
        ),
        key=lambda outcome: not isinstance(outcome, OperationError),
    )
    assert isinstance(refused, OperationError)
    assert not isinstance(added, BaseException)
    full = await client.call({"type": "watchlist_add", "tmdb_id": INCEPTION})
    assert (full["code"], full["reason"], full["retryable"]) == (409, "watchlist_full", False)
    assert "1000" in full["message"]
    change = await client.call({"type": "watchlist_add", "tmdb_id": added.tmdb_id, "state": "dismissed"})
    assert change["code"] == 0
    # What finds no room is not noted, and does not keep the rest from being noted.
    chat = {
        "type": "chat",
        "query": "想看《盗梦空间》和《黑客帝国》、《泰坦尼克号》",
        "watchlist_auto_capture": True,
    }
    noted = (await client.call(chat))["data"]["watchlist"]["items"]
    assert [item["tmdb_id"] for item in noted] == [added.tmdb_id]


async def test_a_film_that_the_catalogue_lost_stays_in_the_list_without_its_card(
    client: SocketClient, postgres: Postgres
) -> None:
    user_id = await new_user_id(client, postgres)
    await fill(postgres, user_id, 2)
    page = (await client.call({"type": "watchlist_list"}))["data"]["items"]
    assert [(item["tmdb_id"], item["movie"], item["state"]) for item in page] == [
        (1_000_002, None, "to_watch"),
        (1_000_001, None, "to_watch"),
    ]
    assert (await client.call({"type": "watchlist_remove", "tmdb_id": 1_000_002}))["data"]["removed"] is True


@contextlib.asynccontextmanager
async def serving_lists(url: str) -> AsyncIterator[tuple[Watchlist, Movies]]:
    async with Postgres.open(url, size=4) as postgres:
        yield Watchlist(postgres), Movies(postgres)


async def test_one_statement_deletes_everything_of_a_user_and_nothing_of_others(
    postgres: Postgres, lists: Watchlist
) -> None:
    mine, theirs = uuid.uuid4().hex, uuid.uuid4().hex
    for user_id in (mine, theirs):
        await lists.add(user_id=user_id, tmdb_id=MATRIX, state="to_watch")
        wishes = [Wish(INCEPTION, "盗梦空间", "watched")]
        await lists.capture(user_id=user_id, request_id=uuid.uuid4().hex, wishes=wishes)
    async with postgres.connection() as connection:
        await connection.execute("DELETE FROM watchlist.lists WHERE user_id = $1", mine)
        for table in ("items", "captures"):
            left = await connection.fetch(
                f"SELECT user_id FROM watchlist.{table} WHERE user_id = ANY($1::text[])", [mine, theirs]
            )
            assert {row["user_id"] for row in left} == {theirs}
        assert not await connection.fetchval(
            "SELECT count(*) FROM watchlist.captured WHERE capture_id NOT IN (SELECT id FROM watchlist.captures)"
        )


async def test_two_nodes_that_note_the_same_question_note_it_once(lists: Watchlist) -> None:
    user_id, request_id = uuid.uuid4().hex, uuid.uuid4().hex
    wishes = [Wish(INCEPTION, "盗梦空间", "to_watch"), Wish(MATRIX, "黑客帝国", "watched")]
    noted = await asyncio.gather(
        *(lists.capture(user_id=user_id, request_id=request_id, wishes=wishes) for _ in range(4))
    )
    assert [one == noted[0] for one in noted] == [True] * 4
    assert [film.tmdb_id for film in noted[0].items] == [INCEPTION, MATRIX]


async def test_of_films_of_one_title_the_year_says_which_else_the_most_voted(services: Services) -> None:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        async with serving_lists(url) as (lists, movies):
            await movies.store(
                [
                    raw_film(1, title="小妇人", release_date="1994-12-21", vote_count=1308),
                    raw_film(2, title="小妇人", release_date="2019-12-25", vote_count=6000),
                ]
            )
            reader = WatchlistCapture(lists, movies, people_in_chinese())
            for query, expected in (
                ("想看《小妇人》", [2]),
                ("想看1994年的《小妇人》", [1]),
                ("想看1994版小妇人", [1]),
                ("想看《小妇人》（1994）", [1]),
                ("想看《小妇人》(2019)和《小妇人》(1994)", [2, 1]),
                ("想看1949年的《小妇人》", []),
            ):
                assert [wish.tmdb_id for wish in await reader.read(query)] == expected, query


async def test_without_postgresql_it_says_so(services: Services) -> None:
    assert services.database_url is not None
    async with contextlib.AsyncExitStack() as stack:
        lists = Watchlist(await stack.enter_async_context(Postgres.open(services.database_url)))
    with pytest.raises(OperationError) as raised:
        await lists.page(user_id="u", state=None, limit=1, before=None)
    assert raised.value.kind is STORAGE_UNAVAILABLE
