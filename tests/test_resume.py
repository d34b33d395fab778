"""Answers that survive: resume, cancel, resend, busy conversations and dead owners, on two nodes."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from storage.embedded import Services
from storage.ownership import RunTable
from storage.postgres import Postgres
from storage.redis import RUN_LOG, RUN_META, Redis
from storage.runs import Claim
from tests.clients import PATIENCE_S, Frame, SocketClient, new_code, socket_client, text_of
from tests.databases import fresh_database
from tests.node import TestNode, serving, serving_through_asgi
from tests.standins.llm import LLMStandIn, gated, says, stalls
from tests.standins.server import Gate, serve

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nodes, the second with sockets through ASGI, and the model that both ask."""

    one: TestNode
    two: TestNode
    model: LLMStandIn
    database_url: str


@pytest.fixture(scope="module")
async def _pair(services: Services, data_dir: Path) -> AsyncIterator[Pair]:
    model = LLMStandIn()
    assert services.database_url is not None
    # A database of their own: nodes that share one take over each other's runs.
    async with serve(model.app) as url, fresh_database(services.database_url) as database_url:
        settings = {"llm_base_url": [f"{url}/v1"], "llm_model": ["stand-in"], "roll_up_ms": 0}
        theirs = Services(database_url, services.redis_url, None)
        async with (
            serving(theirs, data_dir, **settings) as one,
            serving_through_asgi(theirs, data_dir, **settings) as two,
        ):
            yield Pair(one, two, model, database_url)


@pytest.fixture
def pair(_pair: Pair) -> Pair:
    _pair.model.reset()
    return _pair


@pytest.fixture
async def postgres(pair: Pair) -> AsyncIterator[Postgres]:
    async with Postgres.open(pair.database_url, size=2) as opened:
        yield opened


@contextlib.asynccontextmanager
async def user(node: TestNode, code: str) -> AsyncIterator[SocketClient]:
    async with socket_client(node.url) as client:
        await client.login(code)
        yield client


async def ask(client: SocketClient, query: str = "问题", **more: object) -> str:
    """Ask for a streamed answer and give its request id."""
    await client.send({"type": "chat", "query": query, "stream": True, **more})
    accepted = (await client.receive_until("chat_processing", "error"))[-1]
    assert accepted["type"] == "chat_processing", accepted
    return str(accepted["data"]["request_id"])


async def resume(client: SocketClient, request_id: str, after_seq: int = 0) -> list[Frame]:
    """The frames from there to the end."""
    reply = await client.call({"type": "resume", "request_id": request_id, "after_seq": after_seq})
    assert (reply["type"], reply["data"]["recovered"]) == ("resume_response", True), reply
    return await client.receive_until("complete", "error")


@pytest.mark.parametrize("node", ["one", "two"])
async def test_an_answer_is_resumed_from_any_seq_again_and_again_while_it_runs_and_after(pair: Pair, node: str) -> None:
    plan, gates = gated(*(f"第{number}段 " for number in range(12)))
    pair.model.queue(plan)
    code = new_code()
    async with user(pair.one, code) as client, user(getattr(pair, node), code) as other:
        request_id = await ask(client, id="mine")
        for gate in gates[:6]:
            await gate.reached.wait()
            gate.open()
        seen = [await client.receive() for _ in range(3)]
        followers = [asyncio.create_task(resume(other, request_id, 2))]
        await gates[6].reached.wait()
        for gate in gates[6:]:
            gate.open()
        whole = seen + await client.receive_until("complete")
        assert await followers[0] == whole[2:]
        for after in (0, 1, len(whole) - 1):
            assert await resume(other, request_id, after) == whole[after:]
        stands = await other.call({"type": "resume", "request_id": request_id, "after_seq": len(whole)})
        assert stands["data"] == {"recovered": True, "last_seq": len(whole), "running": False}
    assert [frame["seq"] for frame in whole] == list(range(1, len(whole) + 1))
    assert {frame["id"] for frame in whole} == {"mine"}
    assert text_of(whole) == whole[-1]["answer"]


async def test_who_has_had_more_than_the_log_gets_the_stored_message(pair: Pair) -> None:
    async with user(pair.one, new_code()) as client:
        request_id = await ask(client)
        whole = await client.receive_until("complete")
        reply = await client.call({"type": "resume", "request_id": request_id, "after_seq": 1_000_000})
    assert reply["data"]["recovered"] is False
    assert reply["data"]["message"]["content"] == whole[-1]["answer"]


async def test_several_sockets_follow_one_run_at_once(pair: Pair) -> None:
    gate, code = Gate(), new_code()
    pair.model.queue(stalls(gate, "一", "二"))
    async with contextlib.AsyncExitStack() as stack:
        nodes = (pair.one, pair.one, pair.two, pair.two)
        clients = [await stack.enter_async_context(user(node, code)) for node in nodes]
        request_id = await ask(clients[0])
        await gate.reached.wait()
        others = [asyncio.create_task(resume(client, request_id)) for client in clients[1:]]
        gate.open()
        whole = await clients[0].receive_until("complete")
        for other in others:
            assert await other == whole


@pytest.mark.parametrize("node", ["one", "two"])
async def test_an_answer_is_resumed_over_sse(pair: Pair, node: str) -> None:
    code = new_code()
    async with user(pair.one, code) as client:
        request_id = await ask(client)
        whole = await client.receive_until("complete")
        headers = {"Authorization": f"Bearer {client.token}"}
    async with httpx.AsyncClient(base_url=getattr(pair, node).url, trust_env=False, headers=headers) as http:
        for extra, query, after in (({}, "", 0), ({"Last-Event-ID": "2"}, "", 2), ({}, "?after_seq=3", 3)):
            response = await http.get(f"/api/v1/streams/{request_id}{query}", headers=extra)
            events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
            ids = [int(line.removeprefix("id: ")) for line in response.text.splitlines() if line.startswith("id: ")]
            assert [json.loads(event) for event in events][1:] == whole[after:]
            assert ids == [frame["seq"] for frame in whole[after:]]
            assert json.loads(events[0])["type"] == "resume_response"
        for request in ("nonsense", uuid.uuid4().hex):
            refused = await http.get(f"/api/v1/streams/{request}")
            assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "run_not_found")


async def test_after_the_window_the_stored_message_is_given(pair: Pair, redis: Redis) -> None:
    code = new_code()
    async with user(pair.one, code) as client:
        request_id = await ask(client)
        whole = await client.receive_until("complete")
        await redis_has_all(redis, request_id)
        async with asyncio.timeout(PATIENCE_S):
            while pair.one.node.hub.run(request_id) is not None:
                await asyncio.sleep(0.01)
        await redis.delete(RUN_LOG(request_id), RUN_META(request_id))
        reply = await client.call({"type": "resume", "request_id": request_id, "after_seq": 1})
    assert reply["data"]["recovered"] is False
    assert reply["data"]["message"]["content"] == whole[-1]["answer"]
    assert reply["data"]["message"]["id"] == whole[-1]["message_id"]


async def redis_has_all(redis: Redis, request_id: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await redis.hget(RUN_META(request_id), "state")) in (None, b"running"):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("node", ["one", "two"])
@pytest.mark.parametrize("by", ["request_id", "chat_id"])
async def test_a_cancel_from_anywhere_ends_the_run_and_keeps_what_there_is(pair: Pair, node: str, by: str) -> None:
    gate, code = Gate(), new_code()
    pair.model.queue(stalls(gate, "说到", "一半"))
    async with user(pair.one, code) as client, user(getattr(pair, node), code) as other:
        request_id = await ask(client, id="chat-1")
        await gate.reached.wait()
        name = {"request_id": request_id} if by == "request_id" else {"chat_id": "chat-1"}
        reply = await other.call({"type": "cancel", **name})
        assert (reply["type"], reply["data"]) == ("cancel_response", {"request_id": request_id, "running": True})
        frames = await client.receive_until("complete")
        assert frames[-1]["finish_reason"] == "cancelled"
        assert frames[-1]["answer"] == text_of(frames) == "说到一半"
        async with asyncio.timeout(PATIENCE_S):
            await (await pair.model.call()).disconnected.wait()
        again = await other.call({"type": "cancel", **name})
        assert again["data"] == {"request_id": request_id, "running": False}
        history = await other.call({"type": "history"})
    assert [(item["content"], item["finish_reason"]) for item in history["data"]["items"]] == [
        ("问题", None),
        ("说到一半", "cancelled"),
    ]


async def test_a_cancel_before_the_first_token_ends_the_run(pair: Pair) -> None:
    gate = Gate()
    pair.model.queue(stalls(gate))
    async with user(pair.one, new_code()) as client:
        request_id = await ask(client)
        await gate.reached.wait()
        await client.send({"type": "cancel", "request_id": request_id})
        frames = [await client.receive(), await client.receive()]
        ends = [frame for frame in frames if frame["type"] == "complete"]
        history = await client.call({"type": "history"})
    assert [(end["answer"], end["finish_reason"], end["message_id"]) for end in ends] == [("", "cancelled", None)]
    assert len(history["data"]["items"]) == 1


async def test_a_chat_that_is_sent_again_leads_to_the_same_run_on_any_node(pair: Pair, postgres: Postgres) -> None:
    gate, code = Gate(), new_code()
    pair.model.queue(stalls(gate, "只", "一次"))
    chat = {"type": "chat", "query": "问题", "stream": True, "id": "again"}
    async with user(pair.one, code) as client, user(pair.one, code) as same, user(pair.two, code) as other:
        request_id = await ask(client, id="again")
        await gate.reached.wait()
        for socket in (same, other):
            await socket.send(chat)
            assert (await socket.receive())["data"]["request_id"] == request_id
        gate.open()
        whole = await client.receive_until("complete")
        assert await same.receive_until("complete") == whole
        assert await other.receive_until("complete") == whole
        # And when it is over, also for who did not ask for a stream.
        reply = await other.call({"type": "chat", "query": "问题", "id": "again"})
        assert reply["data"]["msg"] == whole[-1]["answer"]
        assert reply["data"]["id"] == whole[-1]["message_id"]
    assert len(pair.model.calls) == 1
    async with postgres.connection() as connection:
        stored = await connection.fetchval("SELECT count(*) FROM chat.messages WHERE request_id = $1", request_id)
    assert stored == 2


async def test_a_chat_sent_twice_at_once_is_one_run(pair: Pair) -> None:
    code = new_code()
    async with user(pair.one, code) as client, user(pair.two, code) as other:
        chat = {"type": "chat", "query": "问题", "stream": True, "id": "twice"}
        await asyncio.gather(client.send(chat), other.send(chat))
        one, two = await asyncio.gather(client.receive_until("complete"), other.receive_until("complete"))
    assert one[0]["data"]["request_id"] == two[0]["data"]["request_id"]
    assert one[1:] == two[1:]
    assert len(pair.model.calls) == 1


async def test_a_chat_sent_again_to_another_node_before_the_end_is_logged_gets_the_same_frames(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, writing, looked = new_code(), pair.one.node.hub.logs, asyncio.Event()
    own_all = writing.own_all

    async def own_late(claims: Sequence[Claim]) -> list[int]:
        async with asyncio.timeout(PATIENCE_S):
            await looked.wait()
        return await own_all(claims)

    def noticed(read: Callable[[str], Awaitable[T]]) -> Callable[[str], Awaitable[T]]:
        async def noticing(request_id: str) -> T:
            found = await read(request_id)
            looked.set()
            return found

        return noticing

    monkeypatch.setattr(writing, "own_all", own_late)
    for name in ("meta", "newest"):
        monkeypatch.setattr(pair.two.node.hub.logs, name, noticed(getattr(pair.two.node.hub.logs, name)))
    async with user(pair.one, code) as client, user(pair.two, code) as other:
        chat = {"type": "chat", "query": "问题", "stream": True, "id": "again"}
        await client.send(chat)
        one = await client.receive_until("complete")
        assert not looked.is_set()
        await other.send(chat)
        two = await other.receive_until("complete")
    assert one == two
    assert len(pair.model.calls) == 1


async def test_the_same_id_of_another_user_is_another_run(pair: Pair) -> None:
    async with user(pair.one, new_code()) as client, user(pair.one, new_code()) as other:
        assert await ask(client, id="same") != await ask(other, id="same")


@pytest.mark.parametrize("node", ["one", "two"])
async def test_a_busy_conversation_refuses_by_default(pair: Pair, node: str) -> None:
    gate, code = Gate(), new_code()
    pair.model.queue(stalls(gate, "还没完"))
    async with user(pair.one, code) as client, user(getattr(pair, node), code) as other:
        await ask(client)
        await gate.reached.wait()
        refused = await other.call({"type": "chat", "query": "插一句"})
        assert (refused["code"], refused["reason"], refused["retryable"]) == (409, "conversation_busy", True)
        gate.open()
        await client.receive_until("complete")
        assert (await other.call({"type": "chat", "query": "现在呢"}))["code"] == 0
        history = await client.call({"type": "history"})
    assert [item["content"] for item in history["data"]["items"] if item["role"] == "user"] == ["问题", "现在呢"]


@pytest.mark.parametrize("node", ["one", "two"])
async def test_an_interrupting_question_cuts_the_answer_short_and_keeps_it(pair: Pair, node: str) -> None:
    gate, code = Gate(), new_code()
    pair.model.queue(stalls(gate, "说来话长"), says("好的"))
    async with user(pair.one, code) as client, user(getattr(pair, node), code) as other:
        await ask(client)
        await gate.reached.wait()
        reply = await other.call({"type": "chat", "query": "换个话题", "on_busy": "interrupt"})
        assert reply["data"]["msg"] == "好的"
        ended = (await client.receive_until("complete"))[-1]
        assert (ended["finish_reason"], ended["answer"]) == ("interrupted", "说来话长")
        history = await client.call({"type": "history"})
    assert [item["content"] for item in history["data"]["items"]] == ["问题", "说来话长", "换个话题", "好的"]


async def test_queued_questions_are_answered_in_turn_and_see_the_answers_before_them(pair: Pair) -> None:
    gate, code = Gate(), new_code()
    pair.model.queue(stalls(gate, "答一"), says("答二"), says("答三"))
    async with user(pair.one, code) as client, user(pair.two, code) as other:
        await ask(client, "问一")
        await gate.reached.wait()
        await ask(other, "问二", on_busy="enqueue")
        third = await ask(client, "问三", on_busy="enqueue", id="three")
        for number in range(4, 7):
            await ask(other, f"问{number}", on_busy="enqueue", id=str(number))
        await other.send({"type": "chat", "query": "问七", "on_busy": "enqueue"})
        refused = (await other.receive_until("error"))[-1]
        assert (refused["code"], refused["reason"]) == (429, "queue_full")
        for number in range(4, 7):
            await other.call({"type": "cancel", "chat_id": str(number)})
        gate.open()
        async with asyncio.timeout(PATIENCE_S):
            while (await client.receive_until("complete"))[-1]["request_id"] != third:
                pass
        history = await client.call({"type": "history"})
    contents = [item["content"] for item in history["data"]["items"]]
    assert contents == ["问一", "答一", "问二", "答二", "问三", "答三"]
    assert [turn["content"] for turn in pair.model.calls[2].json["messages"][1:]] == contents[:5]


async def test_a_user_has_three_answers_made_at_once(pair: Pair) -> None:
    gates = [Gate() for _ in range(3)]
    pair.model.queue(*(stalls(gate, "慢") for gate in gates))
    async with user(pair.one, new_code()) as client:
        for _ in gates:
            await ask(client, incognito=True)
        for gate in gates:
            await gate.reached.wait()
        await client.send({"type": "chat", "query": "第四个", "incognito": True, "id": "four"})
        while (frame := await client.receive())["type"] == "chunk":
            pass
        assert (frame["code"], frame["reason"], frame["retryable"], frame["id"]) == (429, "too_many_runs", True, "four")
        for gate in gates:
            gate.open()


async def test_a_dead_owners_run_is_begun_anew_and_a_follower_sees_a_whole_answer(
    pair: Pair, postgres: Postgres
) -> None:
    gate, code = Gate(), new_code()
    pair.model.queue(stalls(gate, "第一", "次"), says("第二", "次"))
    async with user(pair.one, code) as client, user(pair.two, code) as other:
        request_id = await ask(client)
        await gate.reached.wait()
        # The owner's rows say that a node made it which has not been heard of for long.
        async with postgres.connection() as connection:
            await connection.execute("UPDATE chat.runs SET node = 'dead' WHERE request_id = $1", request_id)
        first = await client.receive_until("complete", "error")
        followed = await resume(other, request_id)
        history = await client.call({"type": "history"})
        gate.open()
    assert "restart" in [frame["type"] for frame in first]
    for frames in (first, followed):
        restart = next(at for at, frame in enumerate(frames) if frame["type"] == "restart")
        assert frames[restart]["content"] == {"reason": "node_lost"}
        assert frames[restart]["seq"] > 1_000
        assert text_of(frames[restart:]) == frames[-1]["answer"] == "第二次"
        seqs = [frame["seq"] for frame in frames]
        assert seqs == sorted(set(seqs))
    assert [item["content"] for item in history["data"]["items"]] == ["问题", "第二次"]


async def test_a_run_that_costs_two_owners_their_lives_ends_with_an_error(pair: Pair, postgres: Postgres) -> None:
    gates, code = [Gate(), Gate()], new_code()
    pair.model.queue(*(stalls(gate, "又") for gate in gates))
    async with user(pair.one, code) as client:
        request_id = await ask(client)
        for gate in gates:
            await gate.reached.wait()
            async with postgres.connection() as connection:
                await connection.execute("UPDATE chat.runs SET node = 'dead' WHERE request_id = $1", request_id)
        frames = await client.receive_until("complete", "error")
        again = await client.call({"type": "chat", "query": "再问一次"})
        for gate in gates:
            gate.open()
    assert (frames[-1]["reason"], frames[-1]["retryable"]) == ("run_lost", True)
    assert again["code"] == 0
    assert len(pair.model.calls) == 3


async def test_a_run_whose_question_cannot_be_read_ends_with_an_error_and_nothing_of_it_is_logged(
    pair: Pair, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    gate, code, secret = Gate(), new_code(), f"秘密{uuid.uuid4().hex}"
    pair.model.queue(stalls(gate, "没说完"))
    async with user(pair.one, code) as client, user(pair.two, code) as other:
        request_id = await ask(client)
        await gate.reached.wait()
        async with postgres.connection() as connection:
            await connection.execute(
                "UPDATE chat.runs SET node = 'dead', request = jsonb_build_object('question', $2::text)"
                " WHERE request_id = $1",
                request_id,
                secret,
            )
        frames = await client.receive_until("complete", "error")
        followed = await resume(other, request_id)
        again = await client.call({"type": "chat", "query": "再问一次"})
        gate.open()
    for last in (frames[-1], followed[-1]):
        assert (last["type"], last["reason"], last["retryable"]) == ("error", "run_lost", True)
    assert again["code"] == 0
    said = "".join(capsys.readouterr())
    assert "question of a run cannot be read" in said
    assert secret not in said


@pytest.mark.parametrize("name", ["resume", "cancel"])
async def test_somebody_elses_run_is_as_unknown_as_one_that_is_not_there(pair: Pair, name: str) -> None:
    gate = Gate()
    pair.model.queue(stalls(gate, "我的"))
    async with (
        user(pair.one, new_code()) as client,
        user(pair.one, new_code()) as near,
        user(pair.two, new_code()) as far,
    ):
        theirs = await ask(client, id="theirs")
        await gate.reached.wait()
        for stranger in (near, far):
            for request_id in (theirs, uuid.uuid4().hex, "x", "../../etc"):
                refused = await stranger.call({"type": name, "request_id": request_id})
                assert (refused["code"], refused["reason"]) == (404, "run_not_found")
        refused = await near.call({"type": "cancel", "chat_id": "theirs"})
        assert (refused["code"], refused["reason"]) == (404, "run_not_found")
        gate.open()
        assert (await client.receive_until("complete"))[-1]["finish_reason"] == "stop"


async def test_nothing_of_an_incognito_question_is_left_when_it_was_answered(pair: Pair, postgres: Postgres) -> None:
    secret = f"无痕 {uuid.uuid4().hex}"
    async with user(pair.one, new_code()) as client:
        request_id = await ask(client, secret, incognito=True)
        whole = await client.receive_until("complete")
        assert await resume(client, request_id) == whole
    async with postgres.connection() as connection:
        rows = await connection.fetch("SELECT * FROM chat.runs WHERE request_id = $1", request_id)
        assert [row["request"] for row in rows] == [None]
        assert secret not in str(rows)
        past = "UPDATE chat.runs SET ended_at = now() - interval '11 minutes' WHERE request_id = $1"
        await connection.execute(past, request_id)
    await RunTable(postgres).forget()
    async with postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM chat.runs WHERE request_id = $1", request_id) == 0
