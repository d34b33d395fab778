"""A conversation from its making to what one thinks of its answers, as web pages and as sockets live it.

The routes are those that a page of a chat app calls, with the header `X-User-ID` for who it is; the socket sends the
same operations. What each of them refuses besides is in `test_conversations.py` and `test_feedback.py`.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any, Protocol

import httpx
import pytest

from tests.clients import PATIENCE_S, Frame, SocketClient, events, socket_client, text_of
from tests.conftest import ModelNode
from tests.standins.llm import fails, says, stalls
from tests.standins.server import Gate

CHAT, CONVERSATIONS, FEEDBACK = "/api/v1/chat", "/api/v1/conversations", "/api/v1/feedback"


class Person(Protocol):
    """Somebody with conversations. What is refused is a code like HTTP's and a reason."""

    async def create(self, **fields: object) -> Frame: ...
    def chat(self, content: str, **fields: object) -> contextlib.AbstractAsyncContextManager[AsyncIterator[Frame]]:
        """The frames of an answer, without the first, which says that it is made. To leave it early is to vanish."""

    async def refused_chat(self, content: str, **fields: object) -> tuple[int, str]: ...
    async def list(self) -> list[Frame]: ...
    async def get(self, conversation_id: str) -> Frame: ...
    async def rate(self, **fields: object) -> Frame: ...


class OnSocket:
    def __init__(self, node: ModelNode, client: SocketClient, opened: contextlib.AsyncExitStack) -> None:
        self.node, self.client, self.opened = node, client, opened

    async def call(self, type_: str, **fields: object) -> Frame:
        reply = await self.client.call({"type": type_, **fields})
        data: Frame = reply["data"] if reply["code"] == 0 else reply
        return data

    async def create(self, **fields: object) -> Frame:
        return await self.call("conversation_create", **fields)

    @contextlib.asynccontextmanager
    async def chat(self, content: str, **fields: object) -> AsyncIterator[AsyncIterator[Frame]]:
        await self.client.send({"type": "chat", "query": content, "stream": True, **fields})
        assert (await self.client.receive())["type"] == "chat_processing"
        ended = False

        async def frames() -> AsyncIterator[Frame]:
            nonlocal ended
            while not ended:
                frame = await self.client.receive()
                ended = frame["type"] in ("complete", "error")
                yield frame

        yield frames()
        if not ended:
            await self.client.socket.close()
            token = self.client.token
            self.client = await self.opened.enter_async_context(socket_client(self.node.url))
            assert (await self.client.call({"type": "auth", "token": token}))["code"] == 0

    async def refused_chat(self, content: str, **fields: object) -> tuple[int, str]:
        refused = await self.call("chat", query=content, stream=True, **fields)
        return refused["code"], refused["reason"]

    async def list(self) -> list[Frame]:
        items: list[Frame] = (await self.call("conversation_list"))["items"]
        return items

    async def get(self, conversation_id: str) -> Frame:
        return await self.call("conversation_get", conversation_id=conversation_id)

    async def rate(self, **fields: object) -> Frame:
        return await self.call("feedback", **fields)


class OnRoutes:
    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.named = {"X-User-ID": uuid.uuid4().hex}

    async def request(self, method: str, path: str, **said: Any) -> Frame:
        response = await self.http.request(method, path, headers=self.named, **said)
        answer: Frame = response.json()
        if response.status_code == 200:
            return answer
        assert answer["error"]["code"] == response.status_code
        error: Frame = answer["error"]
        return error

    async def create(self, **fields: object) -> Frame:
        return await self.request("POST", CONVERSATIONS, json=fields)

    @contextlib.asynccontextmanager
    async def chat(self, content: str, **fields: object) -> AsyncIterator[AsyncIterator[Frame]]:
        body = {"content": content, **fields}
        async with self.http.stream("POST", CHAT, json=body, headers=self.named) as response:
            assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            frames = events(response)
            assert (await anext(frames))["type"] == "generate_start"
            yield frames

    async def refused_chat(self, content: str, **fields: object) -> tuple[int, str]:
        refused = await self.request("POST", CHAT, json={"content": content, **fields})
        return refused["code"], refused["reason"]

    async def list(self) -> list[Frame]:
        items: list[Frame] = (await self.request("GET", CONVERSATIONS))["items"]
        return items

    async def get(self, conversation_id: str) -> Frame:
        return await self.request("GET", f"{CONVERSATIONS}/{conversation_id}")

    async def rate(self, **fields: object) -> Frame:
        return await self.request("POST", FEEDBACK, json=fields)


async def arrived(node: ModelNode, way: str, opened: contextlib.AsyncExitStack) -> Person:
    """Somebody new."""
    if way == "socket":
        client = await opened.enter_async_context(socket_client(node.url))
        await client.login(node.wechat.issue_code())
        return OnSocket(node, client, opened)
    http = httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=PATIENCE_S)
    return OnRoutes(await opened.enter_async_context(http))


async def arrived_again(person: Person, node: ModelNode, opened: contextlib.AsyncExitStack) -> Person:
    """The same person on a second device."""
    if not isinstance(person, OnSocket):
        return person
    client = await opened.enter_async_context(socket_client(node.url))
    assert (await client.call({"type": "auth", "token": person.client.token}))["code"] == 0
    return OnSocket(node, client, opened)


@pytest.fixture
async def opened() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=["socket", "routes"])
async def person(request: pytest.FixtureRequest, model_node: ModelNode, opened: contextlib.AsyncExitStack) -> Person:
    return await arrived(model_node, request.param, opened)


async def asked(person: Person, content: str, **fields: object) -> list[Frame]:
    """All frames of an answer."""
    async with person.chat(content, **fields) as frames:
        return [frame async for frame in frames]


async def said(person: Person, conversation_id: str) -> list[tuple[str, str]]:
    return [(item["role"], item["content"]) for item in (await person.get(conversation_id))["items"]]


async def test_a_conversation_from_its_beginning_to_what_one_thinks_of_it(
    person: Person, model_node: ModelNode
) -> None:
    model_node.model.queue(says("《盗梦", "空间》"), says("2010 年"), says("另一个"))
    made = await person.create(title="周末")
    assert (await person.list(), (await person.get(made["id"]))["items"]) == ([made], [])
    first = await asked(person, "推荐一部", conversation_id=made["id"])
    assert text_of(first) == first[-1]["answer"] == "《盗梦空间》"
    second = await asked(person, "哪年的？", conversation_id=made["id"])
    # The model is told all of this conversation, in its order, and nothing of another one.
    turns = (await model_node.model.call(1)).json["messages"][1:]
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("user", "推荐一部"),
        ("assistant", "《盗梦空间》"),
        ("user", "哪年的？"),
    ]
    other = await person.create(title="别的")
    await asked(person, "你好", conversation_id=other["id"])
    assert [turn["content"] for turn in (await model_node.model.call(2)).json["messages"][1:]] == ["你好"]

    listed = await person.list()
    assert [(one["id"], one["title"]) for one in listed] == [(other["id"], "别的"), (made["id"], "周末")]
    read = await person.get(made["id"])
    assert read["conversation"] == listed[1]
    assert await said(person, made["id"]) == [
        *((turn["role"], turn["content"]) for turn in turns),
        ("assistant", "2010 年"),
    ]
    question, answer = read["items"][2:]
    assert (answer["id"], answer["finish_reason"]) == (second[-1]["message_id"], "stop")
    assert answer["parent_id"] == question["id"]
    assert question["created_at"] <= answer["created_at"] <= read["conversation"]["updated_at"]

    rated = await person.rate(message_id=answer["id"], rating=2, comment="太短")
    changed = await person.rate(message_id=answer["id"], rating=5)
    assert (rated["id"], rated["rating"], rated["comment"]) == (changed["id"], 2, "太短")
    assert (changed["rating"], changed["comment"]) == (5, None)
    assert (await person.rate(message_id=question["id"], rating=5))["reason"] == "message_not_found"
    for rating in (0, 6):
        refused = await person.rate(message_id=answer["id"], rating=rating)
        assert (refused["reason"], refused["field"]) == ("invalid_field", "rating")


async def test_a_question_is_stored_at_once_and_its_answer_when_it_is_whole(
    person: Person, model_node: ModelNode, opened: contextlib.AsyncExitStack
) -> None:
    silent, half = Gate(), Gate()
    model_node.model.queue(stalls(silent), stalls(half, "一半"))
    conversation_id = (await person.create())["id"]
    reader = await arrived_again(person, model_node, opened)
    async with person.chat("第一问", conversation_id=conversation_id) as frames:
        await model_node.model.call(0)
        # The model has not said a word.
        assert await said(reader, conversation_id) == [("user", "第一问")]
        silent.open()
        assert [frame async for frame in frames][-1]["answer"] == "late"
    async with person.chat("第二问", conversation_id=conversation_id) as frames:
        assert (await anext(frames))["content"] == "一半"
        assert (await said(reader, conversation_id))[2:] == [("user", "第二问")]
        half.open()
        assert [frame async for frame in frames][-1]["answer"] == "一半"
        # Whoever has had the end of it finds it there.
        assert (await said(reader, conversation_id))[2:] == [("user", "第二问"), ("assistant", "一半")]


async def test_who_vanishes_in_mid_answer_finds_it_whole_in_the_conversation(
    person: Person, model_node: ModelNode
) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "还没说完"))
    conversation_id = (await person.create())["id"]
    async with person.chat("讲个故事", conversation_id=conversation_id) as frames:
        assert (await anext(frames))["type"] == "chunk"
    assert await said(person, conversation_id) == [("user", "讲个故事")]
    gate.open()
    async with asyncio.timeout(PATIENCE_S):
        while len(items := (await person.get(conversation_id))["items"]) < 2:
            await asyncio.sleep(0.01)
    assert (items[1]["content"], items[1]["finish_reason"]) == ("还没说完", "stop")


async def test_a_question_whose_answer_fails_is_kept_and_the_model_hears_of_it_again(
    person: Person, model_node: ModelNode
) -> None:
    model_node.model.queue(fails(400), says("好了"))
    conversation_id = (await person.create())["id"]
    failed = await asked(person, "一", conversation_id=conversation_id)
    assert (failed[-1]["type"], len(failed)) == ("error", 1)
    assert await said(person, conversation_id) == [("user", "一")]
    await asked(person, "二", conversation_id=conversation_id)
    turns = (await model_node.model.call(1)).json["messages"][1:]
    assert [turn["content"] for turn in turns] == ["一", "二"]
    assert await said(person, conversation_id) == [("user", "一"), ("user", "二"), ("assistant", "好了")]


async def test_a_second_question_meanwhile_is_refused_and_leaves_nothing(
    person: Person, model_node: ModelNode, opened: contextlib.AsyncExitStack
) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "慢慢来"))
    conversation_id = (await person.create())["id"]
    other = await arrived_again(person, model_node, opened)
    async with person.chat("一", conversation_id=conversation_id) as frames:
        assert (await anext(frames))["type"] == "chunk"
        refused = await other.refused_chat("二", conversation_id=conversation_id)
        assert refused == (409, "conversation_busy")
        gate.open()
        assert [frame async for frame in frames][-1]["type"] == "complete"
    assert await said(person, conversation_id) == [("user", "一"), ("assistant", "慢慢来")]
    assert len(model_node.model.calls) == 1


@pytest.mark.parametrize("way", ["socket", "routes"])
async def test_another_person_finds_nothing_of_it(
    person: Person, model_node: ModelNode, opened: contextlib.AsyncExitStack, way: str
) -> None:
    conversation_id = (await person.create(title="我的"))["id"]
    answer = (await asked(person, "我的秘密", conversation_id=conversation_id))[-1]["message_id"]
    other = await arrived(model_node, way, opened)
    assert await other.list() == []
    for unknown in (conversation_id, str(uuid.uuid4())):
        assert (await other.get(unknown))["reason"] == "conversation_not_found"
        assert await other.refused_chat("你说过什么？", conversation_id=unknown) == (404, "conversation_not_found")
    assert (await other.rate(message_id=answer, rating=1))["reason"] == "message_not_found"
    # What it asks itself begins with nothing.
    await asked(other, "你好")
    assert [turn["content"] for turn in model_node.model.calls[-1].json["messages"][1:]] == ["你好"]
    assert len(await said(person, conversation_id)) == 2
    assert len(model_node.model.calls) == 2


async def test_without_a_conversation_a_question_goes_to_the_standing_one(person: Person) -> None:
    for content in ("一", "二"):
        await asked(person, content)
    (standing,) = await person.list()
    assert [text for role, text in await said(person, standing["id"]) if role == "user"] == ["一", "二"]


# ---- what the route alone can be told ----


@pytest.fixture
async def page(model_node: ModelNode) -> AsyncIterator[httpx.AsyncClient]:
    named = {"X-User-ID": uuid.uuid4().hex}
    async with httpx.AsyncClient(base_url=model_node.url, trust_env=False, timeout=PATIENCE_S, headers=named) as opened:
        yield opened


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "content"),
        ({"content": None}, "content"),
        ({"content": ""}, "content"),
        ({"content": " \n"}, "content"),
        ({"content": 5}, "content"),
        ({"content": ["你好"]}, "content"),
        ({"content": "长" * 8_001}, "content"),
        ({"content": "a\x00b"}, "content"),
        ({"content": "a", "conversation_id": "mine"}, "conversation_id"),
        ({"content": "a", "conversation_id": 7}, "conversation_id"),
        ({"content": "a", "conversation_id": ""}, "conversation_id"),
        ({"content": "a", "user_id": ""}, "user_id"),
        ({"content": "a", "user_id": "u" * 129}, "user_id"),
    ],
    ids=str,
)
async def test_a_bad_body_names_its_field_and_asks_nobody(
    page: httpx.AsyncClient, model_node: ModelNode, body: Frame, field: str
) -> None:
    refused = await page.post(CHAT, json=body)
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/json")
    error = refused.json()["error"]
    assert (error["reason"], error["field"], error["retryable"]) == ("invalid_field", field, False)
    assert error["request_id"] == refused.headers["x-request-id"]
    assert (await page.get(CONVERSATIONS)).json()["items"] == []
    assert model_node.model.calls == []


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        ({"content": b""}, 422, "invalid_field"),
        ({"content": b"{"}, 400, "bad_json"),
        ({"content": b"[]"}, 400, "not_an_object"),
        ({"content": b'{"content":"a","content":"b"}'}, 400, "duplicate_key"),
        ({"content": b'{"content":"' + b"a" * 65_536 + b'"}'}, 413, "too_large"),
        ({"data": {"content": "a"}}, 415, "unsupported_media_type"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_no_body_is_refused_as_such(
    page: httpx.AsyncClient, sent: dict[str, Any], status: int, reason: str
) -> None:
    refused = await page.post(CHAT, **sent)
    assert (refused.status_code, refused.json()["error"]["reason"]) == (status, reason)


async def test_a_busy_conversation_says_when_to_come_back(page: httpx.AsyncClient, model_node: ModelNode) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "慢慢来"))
    conversation_id = (await page.post(CONVERSATIONS)).json()["id"]
    body = {"conversation_id": conversation_id, "content": "一"}
    async with page.stream("POST", CHAT, json=body) as response:
        await gate.reached.wait()
        refused = await page.post(CHAT, json=body)
        assert (refused.status_code, refused.headers["content-type"]) == (409, "application/json")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["retryable"] is True
        gate.open()
        assert '"type":"complete"' in (await response.aread()).decode()


async def test_the_name_in_the_header_is_whose_conversation_it_is(page: httpx.AsyncClient) -> None:
    conversation_id = (await page.post(CONVERSATIONS)).json()["id"]
    body = {"conversation_id": conversation_id, "content": "你好"}
    for name in (page.headers["X-User-ID"].upper(), page.headers["X-User-ID"][:-1], "u1"):
        refused = await page.post(CHAT, json=body, headers={"X-User-ID": name})
        assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "conversation_not_found")
    for name in ("", "u" * 129):
        refused = await page.post(CHAT, json=body, headers={"X-User-ID": name})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "X-User-ID")
    async with httpx.AsyncClient(base_url=page.base_url, trust_env=False, timeout=PATIENCE_S) as nameless:
        refused = await nameless.post(CHAT, json=body)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "conversation_not_found")
        bad_token = await nameless.post(CHAT, json=body, headers={"Authorization": "Bearer x.y.z"})
        assert (bad_token.status_code, bad_token.json()["error"]["reason"]) == (401, "token_invalid")
    assert (await page.get(f"{CONVERSATIONS}/{conversation_id}")).json()["items"] == []


STORY = [
    ("post", CONVERSATIONS, {"409"}),
    ("get", CONVERSATIONS, set()),
    ("get", f"{CONVERSATIONS}/{{conversation_id}}", {"404"}),
    ("post", CHAT, {"404", "409", "413", "415", "429"}),
    ("post", FEEDBACK, {"404"}),
]


async def test_the_swagger_page_shows_all_of_it(page: httpx.AsyncClient) -> None:
    shown = (await page.get("/docs")).text
    (script,) = [part.split('"')[0] for part in shown.split('src="')[1:] if "start-swagger" in part]
    assert "openapi.json" in (await page.get(f"/{script}")).text
    paths = (await page.get("/openapi.json")).json()["paths"]
    for method, path, failures in STORY:
        described = paths[path][method]
        assert described["summary"]
        assert described["description"]
        assert described["responses"].keys() >= {"200", "401", "422", "500"} | failures
        assert "X-User-ID" in [parameter["name"] for parameter in described["parameters"]]
        for response in described["responses"].values():
            assert all("example" in media or media["examples"] for media in response["content"].values())
        if method == "post":
            media = described["requestBody"]["content"]["application/json"]
            assert media["example"] is not None
