"""What WeChat users ask and are answered is checked while they chat: over both transports, on one node and on two."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import structlog

from storage.embedded import Services
from storage.postgres import Postgres
from storage.redis import SESSION, WECHAT_TOKEN, Redis
from tests.clients import PATIENCE_S, Frame, HttpClient, SocketClient, Transport, socket_client, text_of
from tests.conftest import ModelNode
from tests.databases import fresh_database
from tests.node import TestNode, serving
from tests.standins import wechat as standin
from tests.standins.llm import LLMStandIn, error, event, fails, gated, says, sends, stalls, text
from tests.standins.server import Gate, serve
from tests.standins.wechat import CHECK, RISKY, TO_REVIEW, WeChatStandIn
from wsserver.domains.content_safety import OVERLAP_CHARACTERS, STEP_CHARACTERS, Pieces
from wsserver.vendors.wechat_safety import MAX_CHARACTERS

SENTENCE = "这部电影讲的是一个很长很长的故事，看完以后谁都会说好。"
PARAGRAPH = SENTENCE * 12
"""More than is waited for before a piece is checked."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Two nodes that have WeChat check, one that refuses whatever it cannot check or WeChat doubts; what they ask."""

    one: TestNode
    two: TestNode
    strict: TestNode
    model: LLMStandIn
    wechat: WeChatStandIn
    database_url: str


@pytest.fixture(scope="module")
async def _checked(services: Services, data_dir: Path) -> AsyncIterator[Checked]:
    model, wechat = LLMStandIn(), WeChatStandIn(appid=f"wx{uuid.uuid4().hex[:16]}")
    assert services.database_url is not None
    async with (
        serve(model.app) as model_url,
        serve(wechat.app) as wechat_url,
        # Databases of their own: nodes that share one take over each other's runs.
        fresh_database(services.database_url) as theirs,
        fresh_database(services.database_url) as strict_ones,
    ):
        settings = {
            "llm_base_url": [f"{model_url}/v1"],
            "llm_model": ["stand-in"],
            "roll_up_ms": 0,
            "wechat_appid": wechat.appid,
            "wechat_app_secret": wechat.secret,
            "wechat_api_base": wechat_url,
            "wechat_msg_sec_check": True,
        }
        refuse = {"wechat_msg_sec_check_review": "refuse", "wechat_msg_sec_check_outage": "refuse"}
        pair = Services(theirs, services.redis_url, None)
        alone = Services(strict_ones, services.redis_url, None)
        async with (
            serving(pair, data_dir, **settings) as one,
            serving(pair, data_dir, **settings) as two,
            serving(alone, data_dir, **settings, **refuse) as strict,
        ):
            yield Checked(one, two, strict, model, wechat, theirs)


@pytest.fixture
def checked(_checked: Checked) -> Checked:
    _checked.model.reset()
    _checked.wechat.reset()
    return _checked


@contextlib.asynccontextmanager
async def user(node: TestNode, code: str) -> AsyncIterator[SocketClient]:
    async with socket_client(node.url) as client:
        await client.login(code)
        yield client


@pytest.fixture
async def client(checked: Checked) -> AsyncIterator[SocketClient]:
    async with user(checked.one, checked.wechat.issue_code()) as opened:
        yield opened


@contextlib.asynccontextmanager
async def somebody(transport: str, node: TestNode, wechat: WeChatStandIn) -> AsyncIterator[Transport]:
    """A new WeChat user over one of the transports."""
    if transport == "socket":
        async with user(node, wechat.issue_code()) as client:
            yield client
        return
    async with httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=PATIENCE_S) as http:
        login = await http.post("/api/v1/messages", json={"type": "login", "code": wechat.issue_code()})
        yield HttpClient(http, login.json()["data"]["token"])


@pytest.fixture(params=["socket", "http"])
async def speaker(request: pytest.FixtureRequest, checked: Checked) -> AsyncIterator[Transport]:
    async with somebody(request.param, checked.one, checked.wechat) as opened:
        yield opened


@pytest.fixture(params=["socket", "http"])
async def strict_speaker(request: pytest.FixtureRequest, checked: Checked) -> AsyncIterator[Transport]:
    async with somebody(request.param, checked.strict, checked.wechat) as opened:
        yield opened


def chat(query: str, **more: object) -> Frame:
    return {"type": "chat", "query": query, **more}


async def stored(transport: Transport) -> list[tuple[str, str, bool]]:
    history = await transport.call({"type": "history"})
    return [(item["role"], item["content"], item["aigc"]) for item in history["data"]["items"]]


def refused(end: Frame) -> bool:
    return (end["type"], end["code"], end["reason"], end["retryable"]) == ("error", 400, "content_refused", False)


# Questions.


async def test_a_question_that_is_refused_never_reaches_the_model_and_stays_as_it_was_asked(
    checked: Checked, speaker: Transport
) -> None:
    query = f"说说{RISKY}的事"
    frames = await speaker.stream(chat(query))
    assert refused(frames[-1])
    assert [frame["type"] for frame in frames[1:]] == ["error"]
    assert refused(await speaker.call(chat(query)))
    assert checked.model.calls == []
    assert await stored(speaker) == [("user", query, False)] * 2


async def test_no_model_hears_of_a_refused_question_later(checked: Checked, speaker: Transport) -> None:
    assert refused(await speaker.call(chat(f"说说{RISKY}的事")))
    checked.model.queue(says("好的。"), says("再见。"), says("又见。"))
    for query in ("你是谁", "好的", "还有吗"):
        assert (await speaker.call(chat(query)))["code"] == 0
    prompts = [[message["content"] for message in call.json["messages"][1:]] for call in checked.model.calls]
    assert prompts == [
        ["你是谁"],
        ["你是谁", "好的。", "好的"],
        ["你是谁", "好的。", "好的", "再见。", "还有吗"],
    ]
    # Who asked it still has it, and the conversation is not called after it.
    assert (await stored(speaker))[0] == ("user", f"说说{RISKY}的事", False)
    listed = await speaker.call({"type": "conversation_list"})
    assert RISKY not in (listed["data"]["items"][0]["title"] or "")


async def test_a_question_that_was_answered_is_told_whatever_was_refused_before_or_after(
    model_node: ModelNode,
) -> None:
    refuses = fails(400, error("data_inspection_failed"))
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        model_node.model.queue(refuses, says("甲"), refuses, refuses, says("乙"))
        assert refused(await client.call(chat("一")))
        question = (await client.call({"type": "history"}))["data"]["items"][0]
        regenerate = {"type": "regenerate", "message_id": question["id"]}
        assert (await client.call(regenerate))["data"]["msg"] == "甲"
        # It has its answer: refused this time, both are told all the same.
        assert refused(await client.call(regenerate))
        assert refused(await client.call(chat("二")))
        assert (await client.call(chat("三")))["data"]["msg"] == "乙"
    prompts = [[message["content"] for message in call.json["messages"][1:]] for call in model_node.model.calls]
    assert prompts == [["一"], ["一"], ["一"], ["一", "甲", "二"], ["一", "甲", "三"]]


async def test_a_long_question_is_checked_to_its_end(checked: Checked, speaker: Transport) -> None:
    query = SENTENCE * 250 + RISKY
    assert refused(await speaker.call(chat(query)))
    assert checked.model.calls == []
    contents = [check.content for check in checked.wechat.checks]
    assert max(map(len, contents)) <= MAX_CHARACTERS
    assert any(content.endswith(RISKY) for content in contents)


async def test_a_fine_question_and_its_answer_are_checked_and_labelled(checked: Checked, speaker: Transport) -> None:
    checked.model.queue(says("你好，", "我是电影助手。"), says("再见。"))
    frames = await speaker.stream(chat("你是谁"))
    assert frames[-1]["type"] == "complete"
    assert (frames[-1]["answer"], frames[-1]["aigc"]) == ("你好，我是电影助手。", True)
    assert [check.content for check in checked.wechat.checks] == ["你是谁", "你好，我是电影助手。"]
    reply = await speaker.call(chat("好的"))
    assert (reply["data"]["msg"], reply["data"]["aigc"]) == ("再见。", True)
    assert await stored(speaker) == [
        ("user", "你是谁", False),
        ("assistant", "你好，我是电影助手。", True),
        ("user", "好的", False),
        ("assistant", "再见。", True),
    ]


# Answers.


async def test_text_that_was_shown_is_taken_back_when_it_turns_out_risky(checked: Checked, speaker: Transport) -> None:
    checked.model.queue(says("好的，", "违", "禁", "的事。"), says("好的，违禁。"))
    frames = await speaker.stream(chat("说吧"))
    assert "好的，" in text_of(frames)
    assert [frame["type"] for frame in frames[-2:]] == ["retract", "error"]
    assert frames[-2]["content"] == {"reason": "content_refused"}
    assert refused(frames[-1])
    reply = await speaker.call(chat("再说一遍"))
    assert refused(reply)
    assert RISKY not in json.dumps(reply, ensure_ascii=False)
    assert await stored(speaker) == [("user", "说吧", False), ("user", "再说一遍", False)]


async def test_a_risky_beginning_ends_the_answer_while_the_model_still_speaks(
    checked: Checked, client: SocketClient
) -> None:
    plan, gates = gated(PARAGRAPH + RISKY + "。", "还有很多", "没有说完")
    gates[0].open()
    checked.model.queue(plan)
    frames = await client.stream(chat("说吧"))
    assert [frame["type"] for frame in frames[-2:]] == ["retract", "error"]
    assert refused(frames[-1])
    assert "没有说完" not in text_of(frames)
    async with asyncio.timeout(PATIENCE_S):
        await checked.model.calls[0].disconnected.wait()
    assert await stored(client) == [("user", "说吧", False)]


async def test_a_long_answer_is_found_risky_in_its_last_words(checked: Checked, client: SocketClient) -> None:
    checked.model.queue(says(*[SENTENCE] * 300, RISKY))
    frames = await client.stream(chat("说吧"))
    assert [frame["type"] for frame in frames[-2:]] == ["retract", "error"]
    contents = [check.content for check in checked.wechat.checks[1:]]
    assert max(map(len, contents)) <= MAX_CHARACTERS
    assert await stored(client) == [("user", "说吧", False)]


async def test_a_check_in_flight_does_not_stop_the_stream_and_the_end_waits_for_it(
    checked: Checked, client: SocketClient
) -> None:
    gate = checked.wechat.holds("开头")
    checked.model.queue(says("开头。" + PARAGRAPH, *["还有。"] * 20, "说完了。"))
    await client.send(chat("说吧", stream=True))
    shown = ""
    while not shown.endswith("说完了。"):
        frame = await client.receive()
        assert frame["type"] in ("chat_processing", "chunk")
        shown += frame["content"] if frame["type"] == "chunk" else ""
    await gate.reached.wait()
    ending = asyncio.create_task(client.receive())
    # A ping is answered, the answer's end is not there.
    await client.send({"type": "ping"})
    assert (await ending)["type"] == "pong"
    gate.open()
    assert (await client.receive())["answer"] == shown


async def test_what_is_said_while_a_check_is_under_way_is_checked_next(checked: Checked, client: SocketClient) -> None:
    gate = checked.wechat.holds("开头")
    plan, gates = gated("开头。" + PARAGRAPH, PARAGRAPH + RISKY + "。", "没有说完")
    for open_gate in gates[:2]:
        open_gate.open()
    checked.model.queue(plan)
    await client.send(chat("说吧", stream=True))
    await gates[2].reached.wait()
    await gate.reached.wait()
    gate.open()
    # The model says nothing more, and what it said is found out all the same.
    frames = await client.receive_until("complete", "error")
    assert [frame["type"] for frame in frames[-2:]] == ["retract", "error"]


@pytest.mark.slow
async def test_an_answer_does_not_wait_for_a_check_longer_than_its_deadline(
    checked: Checked, client: SocketClient
) -> None:
    checked.wechat.holds("你好。")
    checked.model.queue(says("你好。"))
    assert (await client.call(chat("说吧")))["data"]["msg"] == "你好。"


async def test_an_answer_that_was_stopped_is_kept_only_when_it_is_fine(checked: Checked, client: SocketClient) -> None:
    for said in ("一半。", f"一半{RISKY}。"):
        gate = Gate()
        checked.model.queue(stalls(gate, said))
        await client.send(chat("说吧", stream=True))
        accepted = (await client.receive_until("chat_processing"))[-1]
        await gate.reached.wait()
        assert (await client.receive())["content"] == said
        await client.send({"type": "cancel", "request_id": accepted["data"]["request_id"]})
        frames = await client.receive_until("complete", "error")
        gate.open()
    assert [frame["type"] for frame in frames if frame["type"] != "cancel_response"] == ["retract", "error"]
    assert await stored(client) == [("user", "说吧", False), ("assistant", "一半。", True), ("user", "说吧", False)]


async def test_what_broke_off_in_the_middle_is_kept_only_when_it_is_fine(
    checked: Checked, client: SocketClient
) -> None:
    checked.model.queue(sends(text(f"一半{RISKY}。"), event(error("server_error"))))
    frames = await client.stream(chat("说吧"))
    assert [frame["type"] for frame in frames[-2:]] == ["retract", "error"]
    assert refused(frames[-1])
    assert await stored(client) == [("user", "说吧", False)]


async def test_what_the_models_vendor_refuses_in_mid_answer_is_taken_back_too(model_node: ModelNode) -> None:
    model_node.model.queue(sends(text("一半"), event(error("data_inspection_failed"))))
    async with user(model_node.node, model_node.wechat.issue_code()) as client:
        frames = await client.stream(chat("说吧"))
    assert [frame["type"] for frame in frames[1:]] == ["chunk", "retract", "error"]
    assert refused(frames[-1])


async def test_who_comes_back_is_told_to_take_back_what_was_shown(checked: Checked) -> None:
    code = checked.wechat.issue_code()
    checked.model.queue(says("好的。", f"{RISKY}。"))
    async with user(checked.one, code) as client, user(checked.two, code) as other:
        frames = await client.stream(chat("说吧"))
        request_id = frames[0]["data"]["request_id"]
        await other.send({"type": "resume", "request_id": request_id, "after_seq": 1})
        again = await other.receive_until("error")
    assert again[0]["data"]["recovered"]
    assert again[1:] == frames[2:]


# Who is checked.


async def test_guests_are_not_checked(checked: Checked) -> None:
    async with httpx.AsyncClient(base_url=checked.one.url, trust_env=False, timeout=PATIENCE_S) as http:
        body = {"message": RISKY, "user_id": "u1", "session_id": "s1"}
        response = await http.post("/api/v1/mp/chat/stream", json=body)
    assert '"type":"complete"' in response.text
    assert not checked.wechat.checks


async def test_a_guest_who_names_a_users_session_is_nobody_to_wechat(checked: Checked, client: SocketClient) -> None:
    async with httpx.AsyncClient(base_url=checked.one.url, trust_env=False, timeout=PATIENCE_S) as http:
        body = {"message": RISKY, "user_id": "u1", "session_id": client.session_id}
        response = await http.post("/api/v1/mp/chat/stream", json=body)
    assert '"type":"complete"' in response.text
    assert checked.wechat.checks == []


async def test_chats_without_the_check_ask_wechat_nothing(model_node: ModelNode) -> None:
    async with user(model_node.node, model_node.wechat.issue_code()) as client:
        reply = await client.call(chat(f"说说{RISKY}"))
    assert reply["code"] == 0
    assert not model_node.wechat.checks
    assert not model_node.wechat.token_requests


async def test_a_user_whom_wechat_has_not_seen_lately_is_answered(checked: Checked, speaker: Transport) -> None:
    checked.wechat.queue_for(CHECK, *standin.refuses(61010, times=2))
    assert (await speaker.call(chat("你好")))["code"] == 0
    assert len(checked.model.calls) == 1


# When WeChat cannot or will not say.


@pytest.mark.parametrize("faults", [standin.refuses(45009), standin.refuses(40164)], ids=["quota", "address"])
async def test_what_cannot_be_checked_passes_where_outages_pass(
    checked: Checked, speaker: Transport, faults: list[standin.Fault]
) -> None:
    checked.wechat.queue_for(CHECK, *faults, *faults)
    checked.model.queue(says("好的。"))
    assert (await speaker.call(chat("你好")))["data"]["msg"] == "好的。"


async def test_what_cannot_be_checked_is_refused_where_outages_refuse(
    checked: Checked, strict_speaker: Transport
) -> None:
    checked.wechat.queue_for(CHECK, *standin.refuses(45009))
    reply = await strict_speaker.call(chat("你好"))
    assert (reply["code"], reply["reason"], reply["retryable"]) == (503, "content_unchecked", True)
    assert checked.model.calls == []
    assert (await strict_speaker.call(chat("你好")))["code"] == 0


async def test_an_answer_that_cannot_be_checked_is_taken_back_where_outages_refuse(
    checked: Checked, strict_speaker: Transport
) -> None:
    gate = Gate()
    checked.model.queue(stalls(gate, "好的。"))
    asking = asyncio.create_task(strict_speaker.stream(chat("你好")))
    await gate.reached.wait()
    checked.wechat.queue_for(CHECK, *standin.refuses(45009))
    gate.open()
    frames = await asking
    assert [frame["type"] for frame in frames[1:]] == ["chunk", "retract", "error"]
    assert (frames[-2]["content"], frames[-1]["reason"]) == ({"reason": "content_unchecked"}, "content_unchecked")
    assert await stored(strict_speaker) == [("user", "你好", False)]


async def test_what_a_person_should_look_at_passes_or_is_refused_as_it_is_set(checked: Checked) -> None:
    for node, code in ((checked.one, 0), (checked.strict, 400)):
        async with user(node, checked.wechat.issue_code()) as client:
            assert (await client.call(chat(f"有{TO_REVIEW}的问题")))["code"] == code


async def test_who_logged_out_while_a_question_waited_cannot_be_checked(checked: Checked, redis: Redis) -> None:
    gate, openid = Gate(), "o" + uuid.uuid4().hex
    checked.model.queue(stalls(gate, "答一"), says("答三"))
    async with user(checked.strict, checked.wechat.issue_code(openid)) as client:
        await client.send(chat("问一", stream=True))
        await gate.reached.wait()
        await client.send(chat("问二", stream=True, on_busy="enqueue", id="two"))
        while (await client.receive()).get("id") != "two":
            pass
        await redis.delete(SESSION(client.session_id))
        await client.closed()
    gate.open()
    async with user(checked.strict, checked.wechat.issue_code(openid)) as again:
        assert (await again.call(chat("问三", on_busy="enqueue")))["data"]["msg"] == "答三"
        told = [(role, content) for role, content, _ in await stored(again)]
    assert told == [("user", "问一"), ("assistant", "答一"), ("user", "问二"), ("user", "问三"), ("assistant", "答三")]
    assert len(checked.model.calls) == 2


# One token, two nodes, and what happens to them.


async def test_two_nodes_share_one_token_and_its_renewal_in_mid_answer(checked: Checked, redis: Redis) -> None:
    await redis.delete(WECHAT_TOKEN(checked.wechat.appid))
    checked.wechat.end_token()
    gate, code = Gate(), checked.wechat.issue_code()
    async with user(checked.one, code) as client, user(checked.two, checked.wechat.issue_code()) as other:
        checked.model.queue(stalls(gate, "好的。"))
        await client.send(chat("问一", stream=True))
        await gate.reached.wait()
        assert (await other.call(chat("问二")))["code"] == 0
        assert len(checked.wechat.token_requests) == 1
        checked.wechat.end_token()
        gate.open()
        assert (await client.receive_until("complete", "error"))[-1]["type"] == "complete"
        assert (await other.call(chat("问三")))["code"] == 0
    assert [asked["force_refresh"] for asked in checked.wechat.token_requests] == [False, False]


async def test_a_run_that_is_taken_over_is_checked_by_who_makes_it_anew(checked: Checked) -> None:
    gate = Gate()
    checked.model.queue(stalls(gate, "第一次"), says("第二次", RISKY, "。"))
    async with (
        user(checked.one, checked.wechat.issue_code()) as client,
        Postgres.open(checked.database_url, size=1) as postgres,
    ):
        await client.send(chat("问题", stream=True))
        accepted = (await client.receive_until("chat_processing"))[-1]
        await gate.reached.wait()
        # The owner's rows say that a node made it which has not been heard of for long.
        async with postgres.connection() as connection:
            request_id = accepted["data"]["request_id"]
            await connection.execute("UPDATE chat.runs SET node = 'dead' WHERE request_id = $1", request_id)
        frames = await client.receive_until("complete", "error")
        gate.open()
        assert "restart" in [frame["type"] for frame in frames]
        assert [frame["type"] for frame in frames[-2:]] == ["retract", "error"]
        assert refused(frames[-1])
        assert await stored(client) == [("user", "问题", False)]
    assert len(checked.model.calls) == 2
    assert [check.content for check in checked.wechat.checks].count("问题") == 2


# What nobody may read, and what everybody may count.


async def test_checks_are_counted_and_nothing_said_is_logged(checked: Checked) -> None:
    query, said = f"秘密{uuid.uuid4().hex}", f"答案{uuid.uuid4().hex}{RISKY}"
    checked.model.queue(says(said))
    with structlog.testing.capture_logs() as lines:
        async with user(checked.one, checked.wechat.issue_code()) as client:
            frames = await client.stream(chat(query))
    async with httpx.AsyncClient(base_url=checked.one.url, trust_env=False) as http:
        metrics = (await http.get("/metrics")).text
    assert refused(frames[-1])
    outcomes = [line["outcome"] for line in lines if line.get("what") == "msg_sec_check"]
    assert outcomes == ["pass", "risky"]
    for outcome in outcomes:
        assert f'cinewire_vendor_calls_total{{outcome="{outcome}",vendor="wechat_msg_sec_check"}}' in metrics
    (token,) = {check.token for check in checked.wechat.checks}
    for secret in (query, said, client.openid, token, checked.wechat.secret):
        assert secret not in repr(lines)


# Pieces.


@pytest.mark.parametrize("delta", [1, 7, 600, 9000])
@pytest.mark.parametrize("border", ["。", ". ", "", "\n"], ids=["full stop", "period", "none", "line"])
def test_every_stretch_of_a_text_is_in_one_piece_whole(delta: int, border: str) -> None:
    whole = "".join(f"{number:05d}字{border}" for number in range(1500))
    pieces, cut = Pieces(), list[str]()
    for start in range(0, len(whole), delta):
        pieces.add(whole[start : start + delta])
        while (piece := pieces.next(idle=start % 3 == 0)) is not None:
            cut.append(piece)
    while (piece := pieces.next(ended=True)) is not None:
        cut.append(piece)
    assert max(map(len, cut)) <= MAX_CHARACTERS
    for start in range(0, len(whole) - OVERLAP_CHARACTERS + 1, 97):
        stretch = whole[start : start + OVERLAP_CHARACTERS]
        assert any(stretch in piece for piece in cut)
    if border:
        assert all(piece.endswith(border.strip(" ")) for piece in cut[:-1])
    assert cut[-1].endswith(whole[-1])


def test_a_little_text_waits_for_its_end() -> None:
    pieces = Pieces()
    pieces.add("短。" * (STEP_CHARACTERS // 2 - 1))
    assert pieces.next() is None
    assert pieces.next(ended=True) == "短。" * (STEP_CHARACTERS // 2 - 1)
    assert pieces.next(ended=True) is None
