"""What became of a conversation is told to every socket of its user, on whatever node, and to nobody else."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from structlog.testing import capture_logs

from protocol.conversations import EXAMPLE_CONVERSATION
from protocol.unasked import ConversationUpdated
from storage.news import Telling, UserNews
from storage.postgres import Postgres
from storage.redis import NEWS, USER_SOCKETS, Redis
from tests.clients import PATIENCE_S, Frame, SocketClient, socket_client
from tests.conftest import ModelNode
from tests.node import TestNode
from tests.standins.llm import breaks_off, fails, says, stalls
from tests.standins.server import Gate
from wsserver.news import News
from wsserver.websocket import MAX_RUNS_KNOWN

CHAT = "/api/v1/chat"


@dataclass(frozen=True, slots=True)
class Devices:
    """Three sockets of one user, the last on another node, a fourth of somebody else, and a conversation."""

    asking: SocketClient
    beside: SocketClient
    elsewhere: SocketClient
    stranger: SocketClient
    conversation_id: str

    @property
    def all(self) -> tuple[SocketClient, ...]:
        return self.asking, self.beside, self.elsewhere

    def chat(self, query: str = "问题", **fields: object) -> Frame:
        return {"type": "chat", "query": query, "conversation_id": self.conversation_id, **fields}

    async def nothing_before(self, *sockets: SocketClient) -> None:
        """That these sockets were told nothing that they have not heard: the next that all are told comes next."""
        await self.asking.call({"type": "conversation_rename", "conversation_id": self.conversation_id, "title": "尾"})
        for socket in sockets:
            assert (await socket.hear())["data"]["change"] == "renamed"
        await self.stranger.call({"type": "ping"})
        assert self.stranger.news == []


@pytest.fixture
async def devices(model_node: ModelNode, node: TestNode, postgres: Postgres, redis: Redis) -> AsyncIterator[Devices]:
    async with (
        socket_client(model_node.url) as asking,
        socket_client(model_node.url) as beside,
        socket_client(node.url) as elsewhere,
        socket_client(node.url) as stranger,
    ):
        await asking.login(model_node.wechat.issue_code())
        for other in (beside, elsewhere):
            assert (await other.call({"type": "auth", "token": asking.token}))["code"] == 0
        await stranger.login()
        made = (await asking.call({"type": "conversation_create", "title": "头"}))["data"]["id"]
        async with postgres.connection() as connection:
            user_id = await connection.fetchval("SELECT user_id FROM chat.conversations WHERE id = $1", uuid.UUID(made))
        async with asyncio.timeout(PATIENCE_S):
            while len((await UserNews(redis).nodes_of([user_id]))[user_id]) < 2:
                await asyncio.sleep(0.01)
        yield Devices(asking, beside, elsewhere, stranger, made)


async def test_a_new_name_and_a_deletion_are_told_to_every_socket(devices: Devices) -> None:
    conversation_id = devices.conversation_id
    rename = {"type": "conversation_rename", "conversation_id": conversation_id, "title": "新"}
    renamed = (await devices.beside.call(rename))["data"]
    told = {"conversation_id": conversation_id, "title": "新", "updated_at": renamed["updated_at"]}
    for socket in devices.all:
        assert await socket.hear() == {
            "type": "conversation_updated",
            "code": 0,
            "message": "会话已更新",
            "data": told | {"change": "renamed"},
        }
    await devices.elsewhere.call({"type": "conversation_delete", "conversation_id": conversation_id})
    for socket in devices.all:
        assert (await socket.hear())["data"] == told | {"change": "deleted"}
    await devices.stranger.call({"type": "ping"})
    assert devices.stranger.news == []


async def test_what_an_older_node_leaves_keeps_nobody_from_being_told(
    devices: Devices, node: TestNode, redis: Redis
) -> None:
    older = f"cw:news:{node.node.ownership.node}"
    # It knew nothing of runs.
    await redis.rpush(older, b'["nobody","{}"]')
    await redis.expire(older, 60)
    await devices.asking.call(
        {"type": "conversation_rename", "conversation_id": devices.conversation_id, "title": "新"}
    )
    assert (await devices.elsewhere.hear())["data"]["change"] == "renamed"


async def test_a_conversation_without_a_title_is_told_without_one(client: SocketClient) -> None:
    made = (await client.call({"type": "conversation_create"}))["data"]["id"]
    await client.call({"type": "conversation_delete", "conversation_id": made})
    assert (await client.hear())["data"].items() >= {"title": None, "change": "deleted"}.items()


async def test_what_was_refused_is_not_told(devices: Devices) -> None:
    conversation_id = devices.conversation_id
    for refused in (
        {"type": "conversation_rename", "conversation_id": conversation_id, "title": "她的"},
        {"type": "conversation_delete", "conversation_id": conversation_id},
        {"type": "branch_choose", "message_id": str(uuid.uuid4())},
    ):
        assert (await devices.stranger.call(refused))["code"] == 404
    await devices.nothing_before(*devices.all)


async def test_an_answer_is_told_to_the_sockets_that_did_not_follow_it(devices: Devices, model_node: ModelNode) -> None:
    model_node.model.queue(says("甲"))
    await devices.asking.stream(devices.chat())
    listed = (await devices.asking.call({"type": "conversation_list"}))["data"]["items"][0]
    told = {"conversation_id": devices.conversation_id, "title": "头", "updated_at": listed["updated_at"]}
    for socket in (devices.beside, devices.elsewhere):
        assert (await socket.hear())["data"] == told | {"change": "answered"}
    await devices.nothing_before(*devices.all)


async def test_who_waits_for_the_reply_and_who_resumed_elsewhere_have_had_the_answer(
    devices: Devices, model_node: ModelNode
) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "甲"))
    await devices.asking.send(devices.chat())
    request_id = (await devices.asking.receive())["data"]["request_id"]
    await gate.reached.wait()
    await devices.elsewhere.call({"type": "resume", "request_id": request_id})
    gate.open()
    assert (await devices.asking.receive())["type"] == "chat_response"
    assert (await devices.elsewhere.receive_until("complete"))[-1]["finish_reason"] == "stop"
    assert (await devices.beside.hear())["data"]["change"] == "answered"
    await devices.nothing_before(*devices.all)


async def test_an_answer_over_http_is_told_to_every_socket(devices: Devices, model_node: ModelNode) -> None:
    model_node.model.queue(says("甲"))
    bearer = {"Authorization": f"Bearer {devices.asking.token}"}
    async with httpx.AsyncClient(base_url=model_node.url, trust_env=False, timeout=PATIENCE_S) as http:
        body = {"conversation_id": devices.conversation_id, "content": "问题"}
        assert (await http.post(CHAT, json=body, headers=bearer)).status_code == 200
    for socket in devices.all:
        assert (await socket.hear())["data"]["change"] == "answered"
    await devices.nothing_before(*devices.all)


async def test_an_answer_that_was_cut_short_is_told_as_far_as_it_is_kept(
    devices: Devices, model_node: ModelNode
) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "甲"), breaks_off("乙"), fails(400))
    await devices.asking.send(devices.chat(stream=True, id="q1"))
    await devices.asking.receive_until("chunk")
    await devices.elsewhere.call({"type": "cancel", "chat_id": "q1"})
    assert (await devices.asking.receive_until("complete"))[-1]["finish_reason"] == "cancelled"
    assert (await devices.asking.stream(devices.chat()))[-1]["type"] == "error"
    for _ in range(2):
        for socket in (devices.beside, devices.elsewhere):
            assert (await socket.hear())["data"]["change"] == "answered"
    # Of the last one nothing is kept.
    assert (await devices.asking.stream(devices.chat()))[-1]["type"] == "error"
    await devices.nothing_before(*devices.all)
    gate.open()


async def test_an_incognito_answer_is_told_to_nobody(devices: Devices, model_node: ModelNode) -> None:
    model_node.model.queue(says("甲"))
    await devices.asking.stream({"type": "chat", "query": "秘密", "incognito": True})
    await devices.nothing_before(*devices.all)


async def test_another_branch_is_told_to_every_socket(devices: Devices, model_node: ModelNode) -> None:
    model_node.model.queue(says("甲"), says("乙"))
    first = (await devices.asking.call(devices.chat()))["data"]["id"]
    await devices.asking.call({"type": "regenerate", "message_id": first})
    for _ in range(2):
        for socket in (devices.beside, devices.elsewhere):
            assert (await socket.hear())["data"]["change"] == "answered"
    assert (await devices.beside.call({"type": "branch_choose", "message_id": first}))["code"] == 0
    for socket in devices.all:
        assert (await socket.hear())["data"].items() >= {"change": "branched", "title": "头"}.items()


async def test_a_socket_remembers_the_runs_that_it_may_have_at_once(devices: Devices, model_node: ModelNode) -> None:
    model_node.model.queue(*(says("甲") for _ in range(MAX_RUNS_KNOWN + 1)))
    for _ in range(MAX_RUNS_KNOWN + 1):
        await devices.asking.call(devices.chat())
    await devices.nothing_before(devices.asking)


# ---- between nodes ----

UPDATED = ConversationUpdated.of(EXAMPLE_CONVERSATION, "renamed")


@contextlib.asynccontextmanager
async def speaking(redis: Redis, user_id: str) -> AsyncIterator[News]:
    """A node whose user has a socket on `a-node`."""
    await redis.hset(USER_SOCKETS(user_id), "seat", "1 1 a-node")
    async with News(UserNews(redis), "another-node").open() as news:
        yield news
    await redis.delete(USER_SOCKETS(user_id), NEWS("a-node"))


async def left(redis: Redis, count: int) -> list[str | None]:
    """The run ids of what is left for `a-node`, once it is that many."""
    taken: list[Telling] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(taken) < count:
            taken += await UserNews(redis).take("a-node", 100)
            await asyncio.sleep(0.01)
    return [telling.request_id for telling in taken]


async def test_many_tellings_are_passed_on_in_batches_and_in_order(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsserver.news.BATCH", 3)
    user_id, runs = uuid.uuid4().hex, [f"run-{number}" for number in range(10)]
    async with speaking(redis, user_id) as news:
        for run in runs:
            news.tell(user_id, UPDATED, request_id=run)
        news.tell("somebody without sockets", UPDATED)
        assert await left(redis, len(runs)) == runs


async def test_what_waits_to_be_passed_on_is_bounded_and_the_oldest_is_dropped(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsserver.news.MAX_WAITING", 3)
    user_id = uuid.uuid4().hex
    async with speaking(redis, user_id) as news:
        for number in range(10):
            news.tell(user_id, UPDATED, request_id=f"run-{number}")
        assert await left(redis, 3) == ["run-7", "run-8", "run-9"]


async def test_a_node_that_stops_passes_on_what_it_has_left_to_tell(redis: Redis) -> None:
    user_id = uuid.uuid4().hex
    await redis.hset(USER_SOCKETS(user_id), "seat", "1 1 a-node")
    async with News(UserNews(redis), "another-node").open() as news:
        news.tell(user_id, UPDATED, request_id="last words")
    assert await left(redis, 1) == ["last words"]
    await redis.delete(USER_SOCKETS(user_id))


async def test_a_redis_that_refuses_costs_what_it_refused_and_nothing_after_it(redis: Redis) -> None:
    user_id = uuid.uuid4().hex
    async with speaking(redis, user_id) as news:
        await redis.set(NEWS("a-node"), "no list")
        with capture_logs() as logs:
            news.tell(user_id, UPDATED, request_id="refused")
            async with asyncio.timeout(PATIENCE_S):
                while not any(line["event"] == "sockets on other nodes are not told" for line in logs):
                    await asyncio.sleep(0.01)
        await redis.delete(NEWS("a-node"))
        news.tell(user_id, UPDATED, request_id="after")
        assert await left(redis, 1) == ["after"]
