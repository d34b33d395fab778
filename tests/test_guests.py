"""Guests who log in: the secret that comes with their first answer, and what is the user's once it is adopted."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import pytest
import structlog

from protocol.chat import ChatAccepted, ChatReply
from protocol.guests import AdoptGuest
from storage import guests, watchlist
from storage.embedded import Services
from storage.enrichment import Enrichment, EnrichmentLog
from storage.postgres import Postgres
from storage.redis import HISTORY, RUN_META, Redis
from storage.runs import Appended, Entry, RunLogs
from tests.clients import PATIENCE_S, Frame, HttpClient, SocketClient, Transport, events, new_code, socket_client
from tests.conftest import ModelNode
from tests.node import TestNode, serving
from tests.standins.llm import says, stalls
from tests.standins.server import Gate
from tests.test_belongings import exported, rows_of
from wsserver.auth import GuestSecrets

INCEPTION, MATRIX, TITANIC = 27205, 603, 597
CAPTURING: Frame = {"query": "想看《盗梦空间》", "watchlist_auto_capture": True}


class Guest(HttpClient):
    """A guest who gives a name in each request's header."""

    def __init__(self, http: httpx.AsyncClient, name: str = "") -> None:
        super().__init__(http, "")
        self.guest_name = name or f"guest {uuid.uuid4().hex}"

    def _headers(self) -> dict[str, str]:
        return {"X-User-ID": self.guest_name}

    async def ask(self, query: str = "推荐三部诺兰导演的电影", **more: object) -> Frame:
        """The data of a whole answer."""
        reply = await self.call({"type": "chat", "query": query, **more})
        assert reply["code"] == 0, reply
        data: Frame = reply["data"]
        return data


@pytest.fixture
def guest(http: httpx.AsyncClient) -> Guest:
    return Guest(http)


def id_of(secret: str) -> str:
    return secret.partition(".")[0]


async def adopt(transport: Transport, secret: object) -> Frame:
    return await transport.call({"type": "adopt_guest", "secret": secret})


async def items(transport: Transport, type_: str, **more: object) -> list[Frame]:
    reply = await transport.call({"type": type_, **more})
    assert reply["code"] == 0, reply
    found: list[Frame] = reply["data"]["items"]
    return found


async def films(transport: Transport) -> list[tuple[int, str]]:
    return [(item["tmdb_id"], item["state"]) for item in await items(transport, "watchlist_list")]


async def kept_by(postgres: Postgres, guest_id: str) -> dict[str, int]:
    """How many rows of what a guest has there are in each table."""
    rows = await rows_of(postgres, guest_id)
    del rows["chat.users"]
    return rows


def contents(messages: list[Frame]) -> list[str]:
    return [message["content"] for message in messages]


# The whole story.


async def test_what_a_guest_asked_and_kept_becomes_the_users_and_its_name_begins_anew(
    transport: Transport, guest: Guest, postgres: Postgres
) -> None:
    own = (await transport.call({"type": "chat", "query": "我自己的问题"}))["data"]
    first = await guest.ask(**CAPTURING)
    made = (await guest.call({"type": "conversation_create", "title": "诺兰"}))["data"]["id"]
    streamed = await guest.stream({"type": "chat", "query": "推荐三部诺兰导演的电影", "conversation_id": made})
    await guest.call({"type": "watchlist_add", "tmdb_id": MATRIX, "state": "watched"})
    await guest.call({"type": "feedback", "message_id": first["id"], "rating": 5})
    said = {one: await items(guest, "history", conversation_id=one) for one in (first["conversation_id"], made)}
    guest_id = id_of(first["guest_secret"])
    await EnrichmentLog(postgres).write(Enrichment(uuid.uuid4().hex, guest_id, "问", "title", "found", 1))
    assert all((await kept_by(postgres, guest_id)).values())

    adopted = await adopt(transport, first["guest_secret"])
    assert (adopted["type"], adopted["code"], adopted["data"]) == (
        "adopt_guest_response",
        0,
        {"conversations": 2, "films": 2},
    )
    # It is all there: listed, read, found, exported.
    listed = {each["id"] for each in await items(transport, "conversation_list")}
    assert {own["conversation_id"], made} < listed
    (standing,) = listed - {own["conversation_id"], made}
    assert standing != first["conversation_id"]
    assert await items(transport, "history", conversation_id=made) == said[made]
    moved = await items(transport, "history", conversation_id=standing)
    assert moved == [{**message, "conversation_id": standing} for message in said[first["conversation_id"]]]
    assert contents(await items(transport, "history")) == ["我自己的问题", own["msg"]]
    found = await items(transport, "conversation_search", query="想看《盗梦空间》")
    assert [each["message"]["conversation_id"] for each in found] == [standing]
    assert await films(transport) == [(MATRIX, "watched"), (INCEPTION, "to_watch")]
    everything, _ = await exported(transport)
    assert [(each["message_id"], each["rating"]) for each in everything["feedback"]] == [(first["id"], 5)]
    undone = await transport.call({"type": "watchlist_undo", "capture_id": first["watchlist"]["capture_id"]})
    assert undone["data"]["restored"] == [{"tmdb_id": INCEPTION, "state": None}]

    # The guest's name finds nothing of it, and begins anew where it began.
    assert not any((await kept_by(postgres, guest_id)).values())
    for type_ in ("conversation_list", "history", "watchlist_list"):
        assert await items(guest, type_) == []
    assert await items(guest, "conversation_search", query="盗梦") == []
    for message, reason in (
        ({"type": "conversation_get", "conversation_id": made}, "conversation_not_found"),
        ({"type": "conversation_get", "conversation_id": standing}, "conversation_not_found"),
        ({"type": "history", "conversation_id": made}, "conversation_not_found"),
        ({"type": "chat", "query": "接着说", "conversation_id": made}, "conversation_not_found"),
        ({"type": "regenerate", "message_id": first["id"]}, "message_not_found"),
        ({"type": "feedback", "message_id": first["id"], "rating": 1}, "message_not_found"),
        ({"type": "resume", "request_id": streamed[1]["request_id"]}, "run_not_found"),
        ({"type": "cancel", "request_id": streamed[1]["request_id"]}, "run_not_found"),
        ({"type": "watchlist_undo", "capture_id": first["watchlist"]["capture_id"]}, "capture_not_found"),
    ):
        refused = await guest.call(message)
        assert (refused["code"], refused["reason"]) == (404, reason)
    anew = await guest.ask("重新开始")
    assert anew["conversation_id"] == first["conversation_id"]
    assert "guest_secret" not in anew
    assert contents(await items(guest, "history")) == ["重新开始", anew["msg"]]
    assert await items(transport, "history", conversation_id=standing) == moved


async def by_messages(http: httpx.AsyncClient, name: str) -> Frame:
    return await Guest(http, name).ask()


async def by_messages_streamed(http: httpx.AsyncClient, name: str) -> Frame:
    started: Frame = (await Guest(http, name).stream({"type": "chat", "query": "推荐三部诺兰导演的电影"}))[0]["content"]
    return started


async def by_mini_program(http: httpx.AsyncClient, name: str) -> Frame:
    return await started_by(http, "/api/v1/mp/chat/stream", {"message": "你好", "user_id": name, "session_id": "s1"})


async def by_web_page(http: httpx.AsyncClient, name: str) -> Frame:
    return await started_by(http, "/api/v1/chat/stream", {"message": "你好", "user_id": name, "session_id": "s1"})


async def by_conversation_chat(http: httpx.AsyncClient, name: str) -> Frame:
    return await started_by(http, "/api/v1/chat", {"content": "你好", "user_id": name})


async def by_wechat_chat(http: httpx.AsyncClient, name: str) -> Frame:
    response = await http.post("/wechat/chat", json={"query": "你好", "openid": name})
    data: Frame = response.json()["data"]
    return data


async def started_by(http: httpx.AsyncClient, path: str, body: Frame) -> Frame:
    async with http.stream("POST", path, json=body) as response:
        frames = [frame async for frame in events(response)]
    assert (frames[0].get("type") or frames[0]["status"]) in ("generate_start", "start")
    assert not any("guest_secret" in json.dumps(frame) for frame in frames[1:])
    started: Frame = frames[0]["content"]
    return started


ROUTES = [by_messages, by_messages_streamed, by_mini_program, by_web_page, by_conversation_chat, by_wechat_chat]


@pytest.mark.parametrize("ask", ROUTES, ids=lambda ask: ask.__name__)
async def test_each_route_gives_the_secret_with_the_first_answer_only_and_it_is_good(
    transport: Transport, http: httpx.AsyncClient, ask: Callable[[httpx.AsyncClient, str], Awaitable[Frame]]
) -> None:
    name = uuid.uuid4().hex
    first, second = await ask(http, name), await ask(http, name)
    assert "guest_secret" not in second
    assert second["conversation_id"] == first["conversation_id"]
    assert (await adopt(transport, first["guest_secret"]))["data"] == {"conversations": 1, "films": 0}
    # Under both the guest has asked the same twice.
    (adopted,) = await items(transport, "conversation_list")
    assert len(await items(transport, "history", conversation_id=adopted["id"])) == 4
    third = await ask(http, name)
    assert "guest_secret" not in third
    assert third["conversation_id"] == first["conversation_id"]


async def test_the_user_resumes_an_answer_of_the_guest_on_any_node_and_the_guest_does_not(
    node: TestNode,
    http: httpx.AsyncClient,
    services: Services,
    data_dir: Path,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append, may_log = RunLogs.append, asyncio.Event()

    async def append_later(logs: RunLogs, entries: Sequence[Entry]) -> list[Appended]:
        await may_log.wait()
        return await append(logs, entries)

    monkeypatch.setattr(RunLogs, "append", append_later)
    async with (
        serving(services, data_dir) as second,
        httpx.AsyncClient(base_url=second.url, trust_env=False, timeout=PATIENCE_S) as far_http,
        socket_client(second.url) as far,
    ):
        await far.login()
        near, guest = HttpClient(http, far.token), Guest(http)
        frames = await guest.stream({"type": "chat", "query": "推荐三部诺兰导演的电影"})
        request_id = frames[0]["content"]["request_id"]
        assert (await adopt(far, frames[0]["content"]["guest_secret"]))["code"] == 0

        async def is_resumed_by(user: Transport) -> None:
            resumed = await user.stream({"type": "resume", "request_id": request_id, "after_seq": 0})
            assert resumed[0]["data"]["recovered"] is True
            assert resumed[1:] == frames[1:]

        async def is_unknown_to(name: Guest) -> None:
            refused = await name.call({"type": "resume", "request_id": request_id})
            assert (refused["code"], refused["reason"]) == (404, "run_not_found")

        # The node that made it still has it, and knows it as the guest's.
        await is_resumed_by(near)
        await is_unknown_to(guest)
        may_log.set()
        await is_logged(node, redis, request_id)
        for user in (near, far):
            await is_resumed_by(user)
        for name in (guest, Guest(far_http, guest.guest_name)):
            await is_unknown_to(name)


async def is_logged(node: TestNode, redis: Redis, request_id: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await redis.hget(RUN_META(request_id), "state") != b"complete" or node.node.hub.run(request_id):
            await asyncio.sleep(0.02)


async def test_the_log_of_an_adopted_answer_names_the_user(
    client: SocketClient, guest: Guest, node: TestNode, redis: Redis
) -> None:
    answer = await guest.ask()
    await is_logged(node, redis, answer["request_id"])
    own = (await client.call({"type": "chat", "query": "问"}))["data"]["request_id"]
    await is_logged(node, redis, own)
    assert await redis.exists(HISTORY(answer["conversation_id"]))
    assert (await adopt(client, answer["guest_secret"]))["code"] == 0
    assert await redis.hget(RUN_META(answer["request_id"]), "user_id") == await redis.hget(RUN_META(own), "user_id")
    assert not await redis.exists(HISTORY(answer["conversation_id"]))


async def test_a_model_is_told_what_the_guest_said_when_the_user_goes_on_and_not_when_the_name_does(
    model_node: ModelNode,
) -> None:
    model_node.model.queue(says("一"), says("二"), says("三"))
    async with (
        httpx.AsyncClient(base_url=model_node.url, trust_env=False, timeout=PATIENCE_S) as http,
        socket_client(model_node.url) as client,
    ):
        await client.login(model_node.wechat.issue_code())
        guest = Guest(http)
        first = await guest.ask("访客的问题")
        await adopt(client, first["guest_secret"])
        (moved,) = await items(client, "conversation_list")
        await client.call({"type": "chat", "query": "用户的问题", "conversation_id": moved["id"]})
        await guest.ask("另一个人的问题")
    asked = [[turn["content"] for turn in call.json["messages"][1:]] for call in model_node.model.calls]
    assert asked == [["访客的问题"], ["访客的问题", "一", "用户的问题"], ["另一个人的问题"]]


# Once, and by one.


async def test_adopted_again_by_the_same_user_it_answers_the_same_and_changes_nothing(
    transport: Transport, guest: Guest
) -> None:
    secret = (await guest.ask(**CAPTURING))["guest_secret"]
    first = await adopt(transport, secret)
    await guest.ask("访客的名字又有人用")
    await guest.call({"type": "watchlist_add", "tmdb_id": TITANIC})
    assert await adopt(transport, secret) == first
    assert len(await items(transport, "conversation_list")) == 1
    assert await films(transport) == [(INCEPTION, "to_watch")]
    assert len(await items(guest, "conversation_list")) == 1


async def test_of_two_users_who_adopt_a_guest_at_once_one_has_it(node: TestNode, guest: Guest) -> None:
    secret = (await guest.ask())["guest_secret"]
    async with socket_client(node.url) as one, socket_client(node.url) as other:
        for client in (one, other):
            await client.login()
        replies = await asyncio.gather(adopt(one, secret), adopt(other, secret))
        winner, loser = (one, other) if replies[0]["code"] == 0 else (other, one)
        assert sorted(reply["code"] for reply in replies) == [0, 409]
        assert {reply.get("reason") for reply in replies} == {None, "guest_adopted"}
        assert len(await items(winner, "conversation_list")) == 1
        assert await items(loser, "conversation_list") == []
        again = await adopt(loser, secret)
        assert (again["code"], again["reason"], again["retryable"]) == (409, "guest_adopted", False)


async def test_a_user_adopts_several_guests_at_once(client: SocketClient, http: httpx.AsyncClient) -> None:
    several = [Guest(http) for _ in range(4)]
    secrets = [(await guest.ask(**CAPTURING))["guest_secret"] for guest in several]
    user = HttpClient(http, client.token)
    replies = await asyncio.gather(*(adopt(user, secret) for secret in secrets))
    assert [reply["code"] for reply in replies] == [0] * 4
    assert sorted(reply["data"]["films"] for reply in replies) == [0, 0, 0, 1]
    assert len(await items(user, "conversation_list")) == 4


async def test_a_secret_that_is_not_the_guests_finds_nothing(
    transport: Transport, http: httpx.AsyncClient, node: TestNode
) -> None:
    mine, theirs = [(await Guest(http).ask())["guest_secret"] for _ in range(2)]
    right = GuestSecrets(node.settings.signing_secret())
    wrong = GuestSecrets("another secret of as many characters")
    for secret in (
        mine[:-1] + ("A" if mine[-1] != "A" else "B"),
        mine + "A",
        id_of(mine),
        id_of(mine) + ".",
        f"{id_of(theirs)}.{mine.partition('.')[2]}",
        f"{id_of(mine)}.{theirs.partition('.')[2]}",
        right.of("guest_nobody", uuid.uuid4()),
        right.of(id_of(mine), uuid.uuid4()),
        wrong.of(id_of(mine), uuid.uuid4()),
        right.of("wx_somebody", uuid.uuid4()),
        "guest_秘密.秘密",
        "x",
        ".",
    ):
        refused = await adopt(transport, secret)
        assert (refused["code"], refused["reason"], refused["retryable"]) == (404, "guest_not_found", False)
    assert await items(transport, "conversation_list") == []
    assert (await adopt(transport, mine))["code"] == 0


async def test_a_users_own_id_is_no_guest(client: SocketClient, node: TestNode, postgres: Postgres) -> None:
    await client.call({"type": "chat", "query": "问"})
    async with postgres.connection() as connection:
        user = await connection.fetchrow("SELECT id, nonce FROM chat.users WHERE openid = $1", client.openid)
    assert user is not None
    forged = GuestSecrets(node.settings.signing_secret()).of(user["id"], user["nonce"])
    assert (await adopt(client, forged))["reason"] == "guest_not_found"


@pytest.mark.parametrize("secret", [None, "", "  ", 1, ["x"], "a\x00b", "x" * 257])
async def test_what_is_no_secret_is_refused(transport: Transport, secret: object) -> None:
    refused = await adopt(transport, secret)
    assert (refused["code"], refused["reason"], refused["field"]) == (400, "invalid_field", "secret")


async def test_only_who_has_logged_in_adopts(node: TestNode, guest: Guest, http: httpx.AsyncClient) -> None:
    secret = (await guest.ask())["guest_secret"]
    assert (await adopt(guest, secret))["reason"] == "login_required"
    for headers in ({}, {"X-User-ID": guest.guest_name}):
        refused = await http.post("/api/v1/guests/adopt", json={"secret": secret}, headers=headers)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (401, "login_required")
    async with socket_client(node.url) as stranger:
        assert (await adopt(stranger, secret))["reason"] == "login_required"


async def test_the_route_answers_as_the_message_does(
    client: SocketClient, guest: Guest, http: httpx.AsyncClient
) -> None:
    secret = (await guest.ask())["guest_secret"]
    bearer = {"Authorization": f"Bearer {client.token}"}
    adopted = await http.post("/api/v1/guests/adopt", json={"secret": secret}, headers=bearer)
    assert (adopted.status_code, adopted.json()) == (200, {"conversations": 1, "films": 0})
    refused = await http.post("/api/v1/guests/adopt", json={"secret": "x"}, headers=bearer)
    assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "guest_not_found")
    invalid = await http.post("/api/v1/guests/adopt", json={}, headers=bearer)
    assert (invalid.status_code, invalid.json()["error"]["field"]) == (422, "secret")


# What stands in the way.


async def test_while_the_guest_is_being_answered_nothing_is_adopted(model_node: ModelNode) -> None:
    async with (
        httpx.AsyncClient(base_url=model_node.url, trust_env=False, timeout=PATIENCE_S) as http,
        socket_client(model_node.url) as client,
    ):
        await client.login(model_node.wechat.issue_code())
        guest = Guest(http)
        secret = (await guest.ask("第一个"))["guest_secret"]
        for incognito in (False, True):
            gate = Gate()
            model_node.model.queue(stalls(gate, "还没完"))
            answering = asyncio.create_task(guest.ask("第二个", incognito=incognito))
            await gate.reached.wait()
            busy = await adopt(client, secret)
            assert (busy["code"], busy["reason"], busy["retryable"]) == (409, "conversation_busy", True)
            assert busy["retry_after_ms"] > 0
            assert await items(client, "conversation_list") == []
            gate.open()
            await answering
        assert (await adopt(client, secret))["data"] == {"conversations": 1, "films": 0}
        (moved,) = await items(client, "conversation_list")
        assert contents(await items(client, "history", conversation_id=moved["id"]))[2:] == ["第二个", "还没完"]


async def test_too_many_conversations_or_films_adopt_nothing(
    transport: Transport, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await transport.call({"type": "conversation_create"})
    await transport.call({"type": "watchlist_add", "tmdb_id": MATRIX})
    secret = (await guest.ask(**CAPTURING))["guest_secret"]
    for module, limit, reason in (
        (guests, "MAX_CONVERSATIONS", "too_many_conversations"),
        (watchlist, "MAX_ITEMS", "watchlist_full"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, 1)
            refused = await adopt(transport, secret)
            assert (refused["code"], refused["reason"]) == (409, reason)
        assert len(await items(transport, "conversation_list")) == len(await items(guest, "conversation_list")) == 1
        assert (await films(transport), await films(guest)) == ([(MATRIX, "to_watch")], [(INCEPTION, "to_watch")])
    with monkeypatch.context() as patch:
        patch.setattr(guests, "MAX_CONVERSATIONS", 2)
        patch.setattr(watchlist, "MAX_ITEMS", 2)
        assert (await adopt(transport, secret))["data"] == {"conversations": 1, "films": 1}


async def test_films_that_both_have_stay_as_the_user_has_them_and_undoing_the_guests_wish_leaves_them(
    transport: Transport, guest: Guest
) -> None:
    await transport.call({"type": "chat", **CAPTURING})
    await transport.call({"type": "watchlist_add", "tmdb_id": TITANIC, "state": "dismissed"})
    first = await guest.ask("想看《盗梦空间》和《黑客帝国》", watchlist_auto_capture=True)
    assert len(first["watchlist"]["items"]) == 2
    await guest.call({"type": "watchlist_add", "tmdb_id": TITANIC, "state": "watched"})
    assert (await adopt(transport, first["guest_secret"]))["data"]["films"] == 1
    whole = [(MATRIX, "to_watch"), (TITANIC, "dismissed"), (INCEPTION, "to_watch")]
    assert await films(transport) == whole
    undone = await transport.call({"type": "watchlist_undo", "capture_id": first["watchlist"]["capture_id"]})
    assert undone["data"]["restored"] == [{"tmdb_id": MATRIX, "state": None}]
    assert undone["data"]["kept"] == [INCEPTION]
    assert await films(transport) == whole[1:]


async def test_a_question_that_both_have_sent_under_one_id_leads_the_user_to_its_own_answer(
    client: SocketClient, http: httpx.AsyncClient
) -> None:
    user, guest = HttpClient(http, client.token), Guest(http)
    own = (await user.call({"type": "chat", "query": "问", "id": "q1"}))["data"]
    first = await guest.ask(id="q1")
    second = await guest.ask(id="q2")
    assert (await adopt(user, first["guest_secret"]))["code"] == 0
    assert (await user.call({"type": "chat", "query": "问", "id": "q1"}))["data"]["request_id"] == own["request_id"]
    again = (await user.call({"type": "chat", "query": "问", "id": "q2"}))["data"]
    assert again["request_id"] == second["request_id"]


async def test_where_guests_are_switched_off_nobody_gets_a_secret_and_earlier_ones_are_good(
    guest: Guest, services: Services, data_dir: Path
) -> None:
    secret = (await guest.ask())["guest_secret"]
    async with (
        serving(services, data_dir, allow_guests=False) as strict,
        httpx.AsyncClient(base_url=strict.url, trust_env=False, timeout=PATIENCE_S) as http,
        socket_client(strict.url) as client,
    ):
        refused = await Guest(http).call({"type": "chat", "query": "问"})
        assert (refused["code"], refused["reason"]) == (401, "guests_off")
        await client.login()
        assert (await adopt(client, secret))["data"] == {"conversations": 1, "films": 0}


async def test_a_guest_that_an_account_adopted_stays_adopted_when_the_account_is_deleted(
    node: TestNode, guest: Guest, client: SocketClient, postgres: Postgres
) -> None:
    secret = (await guest.ask())["guest_secret"]
    code = new_code()
    async with socket_client(node.url) as former:
        await former.login(code)
        await adopt(former, secret)
        async with postgres.connection() as connection:
            user_id = await connection.fetchval("SELECT id FROM chat.users WHERE openid = $1", former.openid)
        await former.call({"type": "account_delete"})
    assert not any((await rows_of(postgres, user_id)).values())
    assert (await adopt(client, secret))["reason"] == "guest_adopted"
    async with socket_client(node.url) as again:
        await again.login(code)
        assert (await adopt(again, secret))["reason"] == "guest_adopted"
        assert await items(again, "conversation_list") == []
    async with postgres.connection() as connection:
        known = await connection.fetchrow("SELECT * FROM chat.users WHERE id = $1", id_of(secret))
    assert user_id not in repr(known)


async def test_what_a_guest_thinks_of_an_answer_that_is_being_adopted_is_not_kept_under_its_name(
    guest: Guest, postgres: Postgres
) -> None:
    answer = await guest.ask()
    async with postgres.connection() as looking, postgres.transaction() as connection:
        moving = "UPDATE chat.conversations SET user_id = 'wx_somebody' WHERE id = $1"
        await connection.execute(moving, uuid.UUID(answer["conversation_id"]))
        waiting = """
            SELECT true FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO chat.feedback%'
        """
        rating = asyncio.create_task(guest.call({"type": "feedback", "message_id": answer["id"], "rating": 1}))
        async with asyncio.timeout(PATIENCE_S):
            while not rating.done() and not await looking.fetchval(waiting):
                await asyncio.sleep(0.01)
    assert (await rating)["reason"] == "message_not_found"


# Who gets the secret.


async def test_the_first_question_sent_again_gives_the_secret_again_and_no_other_does(guest: Guest) -> None:
    first = await guest.ask(id="first")
    assert "guest_secret" not in await guest.ask(id="second")
    again = await guest.ask(id="first")
    assert (again["request_id"], again["guest_secret"]) == (first["request_id"], first["guest_secret"])
    streamed = await guest.stream({"type": "chat", "query": "推荐三部诺兰导演的电影", "id": "first"})
    assert streamed[0]["content"]["guest_secret"] == first["guest_secret"]
    assert "guest_secret" not in await guest.ask(id="second")
    # The same name in another API is another guest.
    other = await by_mini_program(guest.http, guest.guest_name)
    assert id_of(other["guest_secret"]) != id_of(first["guest_secret"])


async def test_of_questions_that_begin_a_guest_together_one_gets_the_secret(guest: Guest) -> None:
    made = [(await guest.call({"type": "conversation_create"}))["data"]["id"] for _ in range(3)]
    answers = await asyncio.gather(*(guest.ask(conversation_id=one) for one in made))
    assert sum("guest_secret" in answer for answer in answers) == 1


async def test_an_incognito_question_gives_no_secret_and_takes_none_away(guest: Guest, postgres: Postgres) -> None:
    assert "guest_secret" not in await guest.ask(incognito=True)
    first = await guest.ask()
    assert "guest_secret" in first
    async with postgres.connection() as connection:
        known = await connection.fetchrow("SELECT * FROM chat.users WHERE id = $1", id_of(first["guest_secret"]))
    assert known is not None
    assert (known["kind"], known["first_answer"]) == ("guest", first["request_id"])
    assert first["guest_secret"].partition(".")[2] not in repr(known)


async def test_a_guest_without_a_name_may_bring_its_one_conversation(
    client: SocketClient, http: httpx.AsyncClient
) -> None:
    reply = (await http.post("/wechat/chat", json={"query": "你好"})).json()["data"]
    assert (await adopt(client, reply["guest_secret"]))["data"] == {"conversations": 1, "films": 0}


async def test_who_has_logged_in_gets_no_secret(transport: Transport) -> None:
    frames = await transport.stream({"type": "chat", "query": "问"})
    reply = await transport.call({"type": "chat", "query": "问"})
    assert "guest_secret" not in json.dumps([frames, reply])


async def test_a_guest_that_an_older_node_began_gets_no_secret(guest: Guest, postgres: Postgres) -> None:
    first = await guest.ask()
    async with postgres.connection() as connection:
        await connection.execute("DELETE FROM chat.users WHERE id = $1", id_of(first["guest_secret"]))
    assert "guest_secret" not in await guest.ask("名字谁都知道")


# What nobody may read.


async def test_no_secret_is_logged_or_shown(client: SocketClient, guest: Guest) -> None:
    with structlog.testing.capture_logs() as lines:
        first = await guest.ask(id="first")
        secret = first["guest_secret"]
        await guest.ask(id="first")
        await adopt(client, secret + "x")
        await adopt(client, [secret])
        await adopt(client, secret)
        await adopt(client, secret)
    assert [line["outcome"] for line in lines if line.get("operation") == "adopt_guest"] == [
        "guest_not_found",
        "ok",
        "ok",
    ]
    nouns = (
        AdoptGuest(type="adopt_guest", secret=secret),
        ChatAccepted(request_id="r", conversation_id=None, guest_secret=secret),
        ChatReply(msg="", id=None, session_id="", conversation_id=None, request_id="r", guest_secret=secret),
    )
    for part in secret.split("."):
        assert part not in repr(lines)
        assert part not in repr(nouns)
