"""Everything that a user has: taken along in pages, and deleted as a whole."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from protocol.errors import OperationError
from storage import belongings
from storage.accounts import Sessions, StoredSession
from storage.embedded import Services
from storage.enrichment import Enrichment, EnrichmentLog
from storage.ownership import RunTable
from storage.postgres import Postgres
from storage.redis import SESSION, USER_SESSIONS, Redis
from storage.users import Users
from storage.watchlist import Watchlist
from tests.clients import PATIENCE_S, Frame, SocketClient, Transport, socket_client
from tests.conftest import ModelNode
from tests.node import TestNode, serving
from tests.standins.llm import stalls
from tests.standins.server import Gate

LISTS = ("conversations", "messages", "feedback", "watchlist")


async def exported(transport: Transport) -> tuple[Frame, int]:
    """The lists of everything, and of how many pages."""
    everything: Frame = {name: [] for name in LISTS}
    wanted: Frame = {}
    pages = 0
    while wanted.get("after", "") is not None:
        reply = await transport.call({"type": "account_export", **wanted})
        assert (reply["type"], reply["code"]) == ("account_export_response", 0), reply
        for name in LISTS:
            everything[name] += reply["data"][name]
        wanted = {"after": reply["data"]["next_after"]}
        pages += 1
    return everything, pages


async def fill(transport: Transport) -> tuple[str, str]:
    """Some of everything: the standing conversation, and the id of an answer."""
    await transport.call({"type": "conversation_create", "title": "空的"})
    reply = await transport.call({"type": "chat", "query": "想看《盗梦空间》", "watchlist_auto_capture": True})
    await transport.call({"type": "chat", "query": "第二个问题"})
    await transport.call({"type": "feedback", "message_id": reply["data"]["id"], "rating": 4, "comment": "好"})
    await transport.call({"type": "watchlist_add", "tmdb_id": 603, "state": "watched"})
    return reply["data"]["conversation_id"], reply["data"]["id"]


async def rows_of(postgres: Postgres, user_id: str) -> dict[str, int]:
    """How many rows each table that knows users has of this one."""
    async with postgres.connection() as connection:
        tables = await connection.fetch(
            """
            SELECT table_schema || '.' || table_name AS name FROM information_schema.columns
            WHERE column_name = 'user_id' ORDER BY 1
            """
        )
        rows = {
            table["name"]: await connection.fetchval(
                f"SELECT count(*) FROM {table['name']} WHERE user_id = $1", user_id
            )
            for table in tables
        }
        return rows | {
            "chat.users": await connection.fetchval(
                "SELECT count(*) FROM chat.users WHERE $1 IN (id, adopted_by) AND erased_at IS NULL", user_id
            )
        }


async def user_of(postgres: Postgres, conversation_id: str) -> str:
    async with postgres.connection() as connection:
        user_id: str = await connection.fetchval(
            "SELECT user_id FROM chat.conversations WHERE id = $1", uuid.UUID(conversation_id)
        )
    return user_id


async def test_an_export_has_everything_once(transport: Transport) -> None:
    standing, message_id = await fill(transport)
    everything, _ = await exported(transport)
    titles = {conversation["id"]: conversation["title"] for conversation in everything["conversations"]}
    assert len(titles) == 2
    assert "空的" in titles.values()
    assert everything["messages"] == (await transport.call({"type": "history"}))["data"]["items"]
    assert {message["conversation_id"] for message in everything["messages"]} == {standing}
    assert [(one["message_id"], one["rating"], one["comment"]) for one in everything["feedback"]] == [
        (message_id, 4, "好")
    ]
    assert [(film["tmdb_id"], film["state"]) for film in everything["watchlist"]] == [
        (27205, "to_watch"),
        (603, "watched"),
    ]


async def test_the_first_page_says_who_the_user_is(model_node: ModelNode, postgres: Postgres) -> None:
    model_node.wechat.unionids = True
    before = datetime.now(UTC)
    code = model_node.wechat.issue_code()
    async with socket_client(model_node.url) as client:
        await client.login(code)
        unionid = model_node.wechat.codes[code].unionid
        await client.call({"type": "conversation_create"})
        page = (await client.call({"type": "account_export"}))["data"]
        profile = page["profile"]
        assert (profile["openid"], profile["unionid"]) == (client.openid, unionid)
        assert before < datetime.fromisoformat(profile["created_at"]) < datetime.now(UTC)
        assert "profile" not in (await client.call({"type": "account_export", "after": page["next_after"]}))["data"]
        # WeChat leaves the unionid out where the account is bound to none; it is still the user's.
        model_node.wechat.unionids = False
        seen = "SELECT seen_at FROM chat.users WHERE openid = $1"
        async with postgres.connection() as connection:
            first = await connection.fetchval(seen, client.openid)
            await client.login(model_node.wechat.issue_code(client.openid))
            assert await connection.fetchval(seen, client.openid) > first
        assert (await client.call({"type": "account_export"}))["data"]["profile"] == profile


async def test_an_export_goes_on_from_page_to_page(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(transport)
    whole, few_pages = await exported(transport)
    monkeypatch.setattr(belongings, "EXPORT_ROWS", 1)
    assert await exported(transport) == (whole, few_pages + 1 + 3 + 1)
    monkeypatch.setattr(belongings, "EXPORT_ROWS", 100)
    monkeypatch.setattr(belongings, "EXPORT_BYTES", 1)
    assert await exported(transport) == (whole, few_pages + 3)


async def test_an_export_has_nothing_of_others_and_nothing_deleted(transport: Transport, client: SocketClient) -> None:
    await fill(client)
    assert await exported(transport) == ({name: [] for name in LISTS}, 1)
    standing, _ = await fill(transport)
    await transport.call({"type": "conversation_delete", "conversation_id": standing})
    everything, _ = await exported(transport)
    assert (everything["messages"], everything["feedback"]) == ([], [])
    assert [conversation["title"] for conversation in everything["conversations"]] == ["空的"]


@pytest.mark.parametrize("after", ["x", "messages:1", "watchlist:x", "conversations:" + "0" * 36, "watchlist:١", 1])
async def test_what_is_no_cursor_is_refused(transport: Transport, after: object) -> None:
    refused = await transport.call({"type": "account_export", "after": after})
    assert (refused["code"], refused["reason"], refused["field"]) == (400, "invalid_field", "after")


async def test_only_who_has_logged_in_has_an_account(node: TestNode, http: httpx.AsyncClient) -> None:
    for headers in ({}, {"X-User-ID": "somebody"}):
        for method, path in (("GET", "/api/v1/account/export"), ("DELETE", "/api/v1/account")):
            refused = await http.request(method, path, headers=headers)
            assert (refused.status_code, refused.json()["error"]["reason"]) == (401, "login_required")
    async with socket_client(node.url) as stranger:
        assert (await stranger.call({"type": "account_delete"}))["reason"] == "login_required"


async def test_a_deleted_account_leaves_no_row_and_others_keep_theirs(
    transport: Transport, client: SocketClient, postgres: Postgres
) -> None:
    standing, _ = await fill(transport)
    theirs, _ = await fill(client)
    user_id, other_id = await user_of(postgres, standing), await user_of(postgres, theirs)
    first = (await transport.call({"type": "conversation_list"}))["data"]["items"][-1]["id"]
    await transport.call({"type": "conversation_delete", "conversation_id": first})
    for one in (user_id, other_id):
        await EnrichmentLog(postgres).write(Enrichment(uuid.uuid4().hex, one, "问", "title", "found", 1))
    before = await rows_of(postgres, user_id)
    assert all(before.values()), before
    untouched = await rows_of(postgres, other_id)
    reply = await transport.call({"type": "account_delete", "id": "d"})
    assert (reply["type"], reply["code"], reply["id"]) == ("account_delete_response", 0, "d")
    assert not any((await rows_of(postgres, user_id)).values())
    assert await rows_of(postgres, other_id) == untouched


@contextlib.asynccontextmanager
async def two_sockets(first: TestNode, second: TestNode) -> AsyncIterator[tuple[SocketClient, SocketClient]]:
    """One user's, on two nodes."""
    async with socket_client(first.url) as one, socket_client(second.url) as other:
        await one.login()
        reply = await other.call({"type": "auth", "token": one.token})
        assert reply["code"] == 0
        yield one, other


async def test_deleting_an_account_ends_its_sessions_on_every_node(
    node: TestNode, services: Services, data_dir: Path, redis: Redis, postgres: Postgres
) -> None:
    async with serving(services, data_dir) as second, two_sockets(node, second) as (one, other):
        standing, _ = await fill(one)
        user_id = await user_of(postgres, standing)
        assert await redis.zrange(USER_SESSIONS(user_id), 0, -1) == [one.session_id.encode()]
        elsewhere = StoredSession("elsewhere" + one.session_id, user_id, one.openid, None, b"sealed")
        await Sessions(redis).create(elsewhere, 60)
        assert (await one.call({"type": "account_delete"}))["code"] == 0
        assert [await one.closed(), await other.closed()] == [4003, 4003]
        assert not await redis.exists(SESSION(elsewhere.session_id))
        async with socket_client(node.url) as again:
            refused = await again.call({"type": "auth", "token": one.token})
            assert (refused["code"], refused["reason"]) == (401, "session_revoked")


async def test_deleting_an_account_ends_the_answers_that_are_being_made(
    model_node: ModelNode, postgres: Postgres
) -> None:
    gates = [Gate(), Gate()]
    model_node.model.queue(*(stalls(gate, "第一句") for gate in gates))
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        await client.send({"type": "chat", "query": "讲个长故事", "stream": True})
        conversation_id = (await client.receive_until("chunk"))[0]["data"]["conversation_id"]
        await client.send({"type": "chat", "query": "还有一个", "stream": True, "incognito": True})
        await client.receive_until("chunk")
        for gate in gates:
            await gate.reached.wait()
        user_id = await user_of(postgres, conversation_id)
        await client.send({"type": "account_delete"})
        frames = await client.receive_until("account_delete_response")
        assert [frame["finish_reason"] for frame in frames if frame["type"] == "complete"] == ["cancelled"] * 2
        assert frames[-1]["code"] == 0
        assert await client.closed() == 4003
    async with asyncio.timeout(5):
        await asyncio.gather(*(call.disconnected.wait() for call in model_node.model.calls))
    assert not any((await rows_of(postgres, user_id)).values())


async def test_the_routes_export_and_delete(http: httpx.AsyncClient) -> None:
    code = uuid.uuid4().hex
    login = (await http.post("/wechat/login", json={"code": code})).json()["data"]
    bearer = {"Authorization": f"Bearer {login['token']}"}
    made = (await http.post("/api/v1/conversations", headers=bearer)).json()
    page = (await http.get("/api/v1/account/export", headers=bearer)).json()
    assert page["conversations"] == [made]
    assert page["profile"]["openid"] == login["openid"]
    last = await http.get("/api/v1/account/export", headers=bearer, params={"after": page["next_after"]})
    assert last.json() == {**{name: [] for name in LISTS}, "next_after": None}
    gone = await http.delete("/api/v1/account", headers=bearer)
    assert (gone.status_code, gone.json()) == (200, None)
    refused = await http.get("/api/v1/account/export", headers=bearer)
    assert (refused.status_code, refused.json()["error"]["reason"]) == (401, "session_revoked")
    # Who logs in again begins anew.
    again = (await http.post("/wechat/login", json={"code": code})).json()["data"]
    assert again["openid"] == login["openid"]
    fresh = {"Authorization": f"Bearer {again['token']}"}
    assert (await http.get("/api/v1/conversations", headers=fresh)).json()["items"] == []


async def test_a_login_does_not_wait_for_who_holds_the_table(node: TestNode, postgres: Postgres) -> None:
    async with postgres.transaction() as connection, socket_client(node.url) as client:
        await connection.execute("LOCK TABLE chat.users IN ACCESS EXCLUSIVE MODE")
        assert (await client.login())["code"] == 0


async def test_nothing_is_kept_for_a_deleted_account_until_its_next_login(
    model_node: ModelNode, postgres: Postgres, redis: Redis
) -> None:
    openid = f"o{uuid.uuid4().hex}"
    async with socket_client(model_node.url) as client, socket_client(model_node.url) as guest:
        await client.login(model_node.wechat.issue_code(openid))
        made = (await client.call({"type": "conversation_create"}))["data"]
        user_id = await user_of(postgres, made["id"])
        # As a deletion on another device, of which this socket has not heard.
        await belongings.Belongings(postgres, redis).erase(user_id)
        secret = await guests_secret(model_node)
        for message in (
            {"type": "chat", "query": "你好"},
            {"type": "chat", "query": "你好", "stream": True, "incognito": True},
            {"type": "conversation_create"},
            {"type": "watchlist_add", "tmdb_id": 603, "state": "watched"},
            {"type": "adopt_guest", "secret": secret},
        ):
            refused = await client.call(message)
            assert (refused["code"], refused["reason"], refused["retryable"]) == (401, "login_required", False)
        with pytest.raises(OperationError, match="login_required"):
            await Watchlist(postgres).capture(user_id=user_id, request_id="r", wishes=[])
        await EnrichmentLog(postgres).write(Enrichment(uuid.uuid4().hex, user_id, "问", "title", "found", 1))
        assert not any((await rows_of(postgres, user_id)).values())
        assert "profile" not in (await client.call({"type": "account_export"}))["data"]
        # Who logs in again begins anew.
        await guest.login(model_node.wechat.issue_code(openid))
        assert (await guest.call({"type": "conversation_create"}))["code"] == 0
        assert (await guest.call({"type": "adopt_guest", "secret": secret}))["data"]["conversations"] == 1
        assert (await guest.call({"type": "account_export"}))["data"]["profile"]["openid"] == openid


async def guests_secret(model_node: ModelNode) -> str:
    """That of a guest who has one answer."""
    async with httpx.AsyncClient(base_url=model_node.url, trust_env=False) as http:
        reply = await http.post("/wechat/chat", json={"query": "你好", "openid": uuid.uuid4().hex})
    secret: str = reply.json()["data"]["guest_secret"]
    return secret


async def test_that_an_account_was_deleted_is_forgotten_too(postgres: Postgres, redis: Redis) -> None:
    lately, before = (f"wx_{uuid.uuid4().hex}" for _ in range(2))
    erasing = belongings.Belongings(postgres, redis)
    for user_id in (lately, before):
        await erasing.erase(user_id)
    async with postgres.connection() as connection:
        await connection.execute("UPDATE chat.users SET erased_at = now() - interval '2 h' WHERE id = $1", before)
        assert await Users(postgres).forget_erased() >= 1
        kept = await connection.fetch("SELECT id FROM chat.users WHERE id = ANY($1)", [lately, before])
    assert [row["id"] for row in kept] == [lately]


async def test_who_came_back_unnoted_is_not_forgotten(postgres: Postgres, redis: Redis) -> None:
    user_id = f"wx_{uuid.uuid4().hex}"
    await belongings.Belongings(postgres, redis).erase(user_id)
    async with postgres.connection() as connection:
        await connection.execute("UPDATE chat.users SET erased_at = now() - interval '2 min' WHERE id = $1", user_id)
        await begun(RunTable(postgres), user_id, uuid.uuid4())
        assert await connection.fetchval("SELECT erased_at IS NULL FROM chat.users WHERE id = $1", user_id)


async def begun(table: RunTable, user_id: str, conversation_id: uuid.UUID) -> str:
    node = uuid.uuid4().hex
    await table.beat(node)  # or a server would take the run over
    row, _ = await table.begin(
        request_id=uuid.uuid4().hex,
        user_id=user_id,
        session_id="s",
        client_id=None,
        conversation_id=conversation_id,
        create_conversation=True,
        request={"query": "?"},
        question="?",
        node=node,
        enqueue=False,
    )
    return row.request_id


async def waiting_for_rows(postgres: Postgres) -> int:
    async with postgres.connection() as connection:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        )
    return count


async def test_stopping_all_answers_never_waits_in_a_circle_with_who_holds_some(
    postgres: Postgres, redis: Redis
) -> None:
    table, user_id = RunTable(postgres), f"wx_{uuid.uuid4().hex}"
    last = await begun(table, user_id, uuid.UUID(int=2**128 - 1 - uuid.uuid4().int // 2**64))
    first = await begun(table, user_id, uuid.UUID(int=uuid.uuid4().int // 2**64))
    hold = "SELECT FROM chat.runs WHERE request_id = $1 FOR UPDATE"
    async with asyncio.TaskGroup() as tasks, postgres.transaction() as connection:
        await connection.execute(hold, first)
        stopping = tasks.create_task(belongings.Belongings(postgres, redis).stop_answers(user_id))
        async with asyncio.timeout(PATIENCE_S):
            while await waiting_for_rows(postgres) == 0:
                await asyncio.sleep(0.01)
        await connection.execute(hold, last)
    assert set(stopping.result()) == {first, last}


async def test_who_loses_a_deadlock_may_try_again(postgres: Postgres) -> None:
    table, user_id = RunTable(postgres), f"wx_{uuid.uuid4().hex}"
    names = [await begun(table, user_id, uuid.uuid4()) for _ in range(2)]
    both = asyncio.Barrier(2)

    async def hold(*request_ids: str) -> None:
        async with postgres.transaction() as connection:
            for request_id in request_ids:
                await connection.execute("SELECT FROM chat.runs WHERE request_id = $1 FOR UPDATE", request_id)
                if request_id == request_ids[0]:
                    await both.wait()

    async with asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(hold(*names), hold(*reversed(names)), return_exceptions=True)
    (lost,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(lost, OperationError)
    assert (lost.kind.reason, lost.kind.retryable) == ("storage_unavailable", True)
