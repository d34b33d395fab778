"""Chats: exact frames, concurrency, storage, history, isolation; with the catalogue and with a model behind them."""

import asyncio
import uuid

import httpx
import pytest

from protocol.envelope import to_ascii
from storage.postgres import Postgres
from storage.redis import HISTORY, Redis
from storage.runs import RunLogs
from tests.clients import HttpClient, SocketClient, Transport, new_code, socket_client, text_of
from tests.conftest import ModelNode
from tests.node import TestNode
from tests.standins.llm import breaks_off, error, fails, stalls
from tests.standins.server import Gate


async def test_without_stream_a_chat_is_exactly_two_frames(client: SocketClient) -> None:
    await client.send({"type": "chat", "query": "你好", "use_auto_rag": False, "id": "c1"})
    processing = await client.receive()
    assert (processing["type"], processing["code"], processing["message"], processing["id"]) == (
        "chat_processing",
        0,
        "正在处理中...",
        "c1",
    )
    assert processing["data"].keys() == {"request_id", "conversation_id"}
    reply = await client.receive()
    assert (reply["type"], reply["code"], reply["message"], reply["id"]) == ("chat_response", 0, "成功", "c1")
    assert reply["data"]["msg"]
    assert reply["data"]["session_id"] == client.session_id
    assert reply["data"]["request_id"] == processing["data"]["request_id"]
    assert reply["data"]["conversation_id"] == processing["data"]["conversation_id"]
    uuid.UUID(reply["data"]["id"])
    await client.send({"type": "ping"})
    assert (await client.receive())["type"] == "pong"


async def test_a_stream_is_numbered_from_one_and_ends_with_the_whole_answer(transport: Transport) -> None:
    frames = await transport.stream({"type": "chat", "query": "介绍一下《盗梦空间》", "id": "c2"})
    opening, stream = frames[0], frames[1:]
    if transport.name == "socket":
        assert opening["type"] == "chat_processing"
        request_id = opening["data"]["request_id"]
    else:
        assert opening["type"] == "generate_start"
        request_id = opening["content"]["request_id"]
    assert opening["id"] == "c2"
    assert [frame["seq"] for frame in stream] == list(range(1, len(stream) + 1))
    assert {frame["request_id"] for frame in stream} == {request_id}
    assert {frame["id"] for frame in stream} == {"c2"}
    assert {frame["type"] for frame in stream[:-1]} <= {"chunk", "recommendations"}
    complete = stream[-1]
    assert (complete["type"], complete["content"], complete["finish_reason"]) == ("complete", None, "stop")
    assert complete["answer"] == text_of(stream)
    assert "诺兰" in complete["answer"] or "Christopher Nolan" in complete["answer"]
    assert complete.keys() >= {"answer", "message_id", "finish_reason", "usage"}


async def test_recommendations_name_films_that_exist(transport: Transport) -> None:
    frames = await transport.stream({"type": "chat", "query": "推荐几部近期热门的电影"})
    (recommended,) = [frame for frame in frames if frame["type"] == "recommendations"]
    assert recommended["content"].keys() == {"tmdb_ids", "title", "mode"}
    found = await transport.call({"type": "movies_bulk", "ids": recommended["content"]["tmdb_ids"]})
    assert found["data"]["missing_ids"] == []
    whole = await transport.call({"type": "chat", "query": "推荐几部近期热门的电影"})
    assert whole["data"]["recommendations"] == recommended["content"]


async def test_the_history_holds_question_and_answer_in_order(transport: Transport) -> None:
    first = await transport.call({"type": "chat", "query": "《星际穿越》的导演是谁？"})
    second = await transport.call({"type": "chat", "query": "谢谢"})
    page = (await transport.call({"type": "history"}))["data"]
    assert [(item["role"], item["content"]) for item in page["items"]] == [
        ("user", "《星际穿越》的导演是谁？"),
        ("assistant", first["data"]["msg"]),
        ("user", "谢谢"),
        ("assistant", second["data"]["msg"]),
    ]
    assert page["next_before"] is None
    assert page["items"][1]["id"] == first["data"]["id"]
    assert page["items"][1]["finish_reason"] == "stop"
    assert page["items"][1]["created_at"].endswith("Z")


async def test_the_history_is_paged_backwards(transport: Transport) -> None:
    for text in ("一", "二", "三"):
        await transport.call({"type": "chat", "query": text})
    newest = (await transport.call({"type": "history", "limit": 4}))["data"]
    oldest = (await transport.call({"type": "history", "limit": 4, "before": newest["next_before"]}))["data"]
    questions = [item["content"] for item in oldest["items"] + newest["items"] if item["role"] == "user"]
    assert questions == ["一", "二", "三"]
    assert oldest["next_before"] is None


async def test_a_follow_up_is_understood_from_the_conversation(transport: Transport) -> None:
    await transport.call({"type": "chat", "query": "介绍一下《黑客帝国》"})
    reply = await transport.call({"type": "chat", "query": "它的片长是多少？"})
    assert "136" in reply["data"]["msg"]


async def test_somebody_elses_conversation_is_as_unknown_as_one_that_is_not_there(
    transport: Transport, client: SocketClient
) -> None:
    theirs = (await client.call({"type": "chat", "query": "这是我的秘密"}))["data"]["conversation_id"]
    for conversation_id in (theirs, str(uuid.uuid4())):
        for message in ({"type": "history"}, {"type": "chat", "query": "你好"}):
            refused = await transport.call(message | {"conversation_id": conversation_id})
            assert (refused["code"], refused["reason"], refused["message"]) == (
                404,
                "conversation_not_found",
                "没有找到这个会话",
            )


async def test_nothing_of_an_incognito_chat_is_stored(transport: Transport, postgres: Postgres) -> None:
    secret = f"无痕 {uuid.uuid4().hex}"
    reply = (await transport.call({"type": "chat", "query": secret, "incognito": True}))["data"]
    assert reply["msg"]
    assert (reply["id"], reply["conversation_id"]) == (None, None)
    assert (await transport.call({"type": "history"}))["data"]["items"] == []
    async with postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM chat.messages WHERE content = $1", secret) == 0


async def test_debug_shows_where_an_answer_stands(transport: Transport) -> None:
    frames = await transport.stream({"type": "chat", "query": "你好", "debug": True})
    stages = [frame["content"]["stage"] for frame in frames if frame["type"] == "status"]
    assert "generation" in stages
    quiet = await transport.stream({"type": "chat", "query": "你好"})
    assert "status" not in {frame["type"] for frame in quiet}


async def test_a_ping_is_answered_while_three_chats_are_streaming(model_node: ModelNode) -> None:
    gates = [Gate() for _ in range(3)]
    model_node.model.queue(*(stalls(gate, "等一下") for gate in gates))
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        for number in range(3):
            chat = {"type": "chat", "query": f"问题 {number}", "stream": True, "id": str(number), "incognito": True}
            await client.send(chat)
        for gate in gates:
            await gate.reached.wait()
        await client.send({"type": "ping", "id": "now"})
        before = await client.receive_until("pong")
        assert before[-1]["id"] == "now"
        assert "complete" not in {frame["type"] for frame in before}
        for gate in gates:
            gate.open()
        ended: set[str] = set()
        while len(ended) < 3:
            frame = await client.receive()
            if frame["type"] == "complete":
                ended.add(frame["id"])
    assert ended == {"0", "1", "2"}


async def test_two_hundred_sockets_stream_at_once_and_each_gets_its_own_answer(node: TestNode) -> None:
    films = ["盗梦空间", "星际穿越", "黑客帝国", "阿甘正传"]

    async def one(number: int) -> None:
        async with socket_client(node.url, open_timeout=30) as client:
            await client.login()
            film = films[number % len(films)]
            frames = await client.stream({"type": "chat", "query": f"介绍一下《{film}》", "id": str(number)})
            assert film in frames[-1]["answer"]
            assert {frame["id"] for frame in frames} == {str(number)}

    async with asyncio.timeout(45):
        await asyncio.gather(*(one(number) for number in range(200)))


async def test_the_model_is_given_the_conversation_and_its_answer_is_streamed_and_stored(
    model_node: ModelNode,
) -> None:
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        first = await client.call({"type": "chat", "query": "第一个问题"})
        frames = await client.stream({"type": "chat", "query": "第二个问题"})
        history = await client.call({"type": "history"})
    turns = model_node.model.calls[-1].json["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert [turn["content"] for turn in turns[1:]] == ["第一个问题", first["data"]["msg"], "第二个问题"]
    assert frames[-1]["usage"]["completion_tokens"] > 0
    assert text_of(frames) == frames[-1]["answer"] == history["data"]["items"][-1]["content"]


async def test_the_hot_history_is_rebuilt_when_redis_lost_it(
    model_node: ModelNode, redis: Redis, postgres: Postgres
) -> None:
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        for text in ("甲", "乙"):
            conversation_id = (await client.call({"type": "chat", "query": text}))["data"]["conversation_id"]
        key = HISTORY(conversation_id)
        whole = await redis.lrange(key, 0, -1)
        assert len(whole) == 4
        await redis.delete(key)
        await client.call({"type": "chat", "query": "丙"})
        assert [turn["content"] for turn in model_node.model.calls[-1].json["messages"][1::2]] == ["甲", "乙", "丙"]
        # A hole in the middle is noticed too: it is no history at all.
        second = (await redis.lrange(key, 0, -1))[1]
        assert isinstance(second, bytes)
        await redis.lrem(key, 1, second.decode())
        await client.call({"type": "chat", "query": "丁"})
    contents = [turn["content"] for turn in model_node.model.calls[-1].json["messages"][1:]]
    assert contents[0::2] == ["甲", "乙", "丙", "丁"]
    assert len(contents) == 7


async def test_the_log_of_a_run_holds_every_frame_that_was_sent(client: SocketClient, redis: Redis) -> None:
    frames = (await client.stream({"type": "chat", "query": "推荐三部科幻片"}))[1:]
    logs = RunLogs(redis)
    request_id = frames[0]["request_id"]
    async with asyncio.timeout(10):
        while (await logs.meta(request_id)).get("state") != "complete":
            await asyncio.sleep(0.02)
    logged = await logs.read(request_id, after_seq=0)
    assert [frame.seq for frame in logged] == [frame["seq"] for frame in frames]
    assert [httpx.Response(200, content=to_ascii(frame.encoded)).json() for frame in logged] == frames
    middle = len(frames) // 2
    assert [frame.seq for frame in await logs.read(request_id, after_seq=middle)] == list(
        range(middle + 1, len(frames) + 1)
    )
    assert 0 < await redis.ttl(f"cw:{{run:{request_id}}}:log") <= 600


async def test_the_answer_is_made_and_stored_although_its_socket_is_gone(model_node: ModelNode) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "还在"))
    code = model_node.wechat.issue_code()
    async with socket_client(model_node.url) as client:
        await client.login(code)
        await client.send({"type": "chat", "query": "离开之前的问题", "stream": True})
        await gate.reached.wait()
    gate.open()
    async with socket_client(model_node.url) as client:
        await client.login(code)
        async with asyncio.timeout(10):
            while len(items := (await client.call({"type": "history"}))["data"]["items"]) < 2:
                await asyncio.sleep(0.1)
    assert items[0]["content"] == "离开之前的问题"
    assert items[1]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_models_outage_is_an_error_that_says_to_retry_and_the_question_is_kept(
    model_node: ModelNode, stream: bool
) -> None:
    model_node.model.default = lambda: fails(500, error("internal_error"))
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        await client.send({"type": "chat", "query": "有人吗", "stream": stream, "id": "m"})
        frames = await client.receive_until("error")
        history = await client.call({"type": "history"})
    said = frames[-1]
    assert (said["code"], said["reason"], said["retryable"], said["id"]) == (502, "model_unavailable", True, "m")
    assert said["request_id"] == frames[0]["data"]["request_id"]
    assert said.get("seq") == (1 if stream else None)
    assert [item["content"] for item in history["data"]["items"]] == ["有人吗"]


async def test_an_answer_that_breaks_off_is_an_error_and_what_there_was_is_kept(model_node: ModelNode) -> None:
    model_node.model.queue(breaks_off("这个", "故事", "讲的是"))
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        frames = await client.stream({"type": "chat", "query": "请说完"})
        history = await client.call({"type": "history"})
    assert (frames[-1]["type"], frames[-1]["reason"], frames[-1]["retryable"]) == ("error", "model_interrupted", True)
    assert text_of(frames)
    kept = history["data"]["items"][-1]
    assert (kept["role"], kept["content"], kept["finish_reason"]) == ("assistant", text_of(frames), "interrupted")


async def test_a_user_of_http_and_of_the_socket_is_the_same_user(node: TestNode, http: httpx.AsyncClient) -> None:
    async with socket_client(node.url) as client:
        await client.login(new_code())
        await client.call({"type": "chat", "query": "从插座里问的"})
        page = await HttpClient(http, client.token).call({"type": "history"})
    assert page["data"]["items"][0]["content"] == "从插座里问的"
