"""Conversations: making, listing, reading, naming, searching and deleting them."""

import asyncio
import uuid

import httpx
import pytest

from storage.conversations import ConversationTable
from storage.postgres import Postgres
from storage.redis import Redis
from tests.clients import PATIENCE_S, UNKNOWN_ID, Frame, Transport, new_code, socket_client, text_of
from tests.conftest import ModelNode
from tests.node import TestNode
from tests.standins.llm import stalls
from tests.standins.server import Gate
from wsserver.housekeeping import keep_house
from wsserver.tasks import Tasks

PATH = "/api/v1/conversations"


async def create(transport: Transport, **fields: object) -> str:
    reply = await transport.call({"type": "conversation_create", **fields})
    assert (reply["type"], reply["code"]) == ("conversation_create_response", 0), reply
    conversation_id: str = reply["data"]["id"]
    return conversation_id


async def listed(transport: Transport, **wanted: object) -> list[str]:
    reply = await transport.call({"type": "conversation_list", **wanted})
    return [item["id"] for item in reply["data"]["items"]]


async def ask(transport: Transport, query: str, **fields: object) -> Frame:
    reply = await transport.call({"type": "chat", "query": query, **fields})
    assert reply["code"] == 0, reply
    data: Frame = reply["data"]
    return data


async def test_a_conversation_that_is_made_is_listed_and_read(transport: Transport) -> None:
    reply = await transport.call({"type": "conversation_create", "title": "周末看什么", "id": "c1"})
    assert (reply["type"], reply["code"], reply["id"]) == ("conversation_create_response", 0, "c1")
    conversation = reply["data"]
    assert conversation.keys() == {"id", "title", "created_at", "updated_at"}
    assert conversation["title"] == "周末看什么"
    assert conversation["created_at"].endswith("Z")
    page = (await transport.call({"type": "conversation_list"}))["data"]
    assert page == {"items": [conversation], "next_before": None}
    read = await transport.call({"type": "conversation_get", "conversation_id": conversation["id"]})
    assert read["data"] == {"conversation": conversation, "items": [], "next_before": None}


async def test_the_conversation_that_got_a_message_last_comes_first(transport: Transport) -> None:
    first, second = await create(transport), await create(transport)
    assert await listed(transport) == [second, first]
    data = await ask(transport, "推荐一部电影", conversation_id=first)
    assert await listed(transport) == [first, second]
    page = (await transport.call({"type": "conversation_get", "conversation_id": first}))["data"]
    assert page["conversation"]["updated_at"] > page["conversation"]["created_at"]
    assert [(item["role"], item["content"]) for item in page["items"]] == [
        ("user", "推荐一部电影"),
        ("assistant", data["msg"]),
    ]


async def test_the_messages_of_a_conversation_are_paged_as_the_history_is(transport: Transport) -> None:
    conversation_id = await create(transport)
    for query in ("一", "二"):
        await ask(transport, query, conversation_id=conversation_id)
    get = {"type": "conversation_get", "conversation_id": conversation_id, "limit": 2}
    newest = (await transport.call(get))["data"]
    oldest = (await transport.call(get | {"before": newest["next_before"]}))["data"]
    assert [item["content"] for item in (oldest["items"] + newest["items"])[::2]] == ["一", "二"]
    assert oldest["next_before"] is None
    history = await transport.call({"type": "history", "conversation_id": conversation_id})
    assert history["data"]["items"] == oldest["items"] + newest["items"]


async def test_the_standing_conversation_is_listed_once_something_was_said_in_it(transport: Transport) -> None:
    assert await listed(transport) == []
    standing = (await ask(transport, "你好"))["conversation_id"]
    assert await listed(transport) == [standing]


async def test_pages_go_on_where_they_were_whatever_is_made_meanwhile(transport: Transport) -> None:
    made = [await create(transport) for _ in range(7)]
    seen: list[str] = []
    before: dict[str, object] = {}
    for _ in range(3):
        page = (await transport.call({"type": "conversation_list", "limit": 3, **before}))["data"]
        seen += [item["id"] for item in page["items"]]
        before = {"before": page["next_before"]}
        await create(transport)
    assert seen == made[::-1]
    assert before == {"before": None}


async def test_conversations_of_the_same_moment_are_each_listed_once(transport: Transport, postgres: Postgres) -> None:
    made = [uuid.UUID(await create(transport)) for _ in range(5)]
    async with postgres.connection() as connection:
        await connection.execute("UPDATE chat.conversations SET updated_at = now() WHERE id = ANY($1::uuid[])", made)
    seen: list[str] = []
    before: dict[str, object] = {}
    while before.get("before", "") is not None:
        page = (await transport.call({"type": "conversation_list", "limit": 2, **before}))["data"]
        seen += [item["id"] for item in page["items"]]
        before = {"before": page["next_before"]}
    assert sorted(seen) == sorted(str(one) for one in made)


async def test_a_conversation_gets_another_title_and_keeps_its_place(transport: Transport) -> None:
    first, second = await create(transport, title="旧"), await create(transport)
    rename = {"type": "conversation_rename", "conversation_id": first, "title": "新"}
    renamed = await transport.call(rename)
    assert (renamed["type"], renamed["data"]["id"]) == ("conversation_rename_response", first)
    assert renamed["data"]["title"] == "新"
    assert await listed(transport) == [second, first]


async def test_a_deleted_conversation_is_gone_whatever_one_asks_of_it(transport: Transport) -> None:
    conversation_id = await create(transport)
    data = await ask(transport, "这是一个秘密", conversation_id=conversation_id)
    gone = await transport.call({"type": "conversation_delete", "conversation_id": conversation_id})
    assert (gone["type"], gone["data"]) == ("conversation_delete_response", {"conversation_id": conversation_id})
    assert await listed(transport) == []
    for refused in [await transport.call(message) for message in everything_of(conversation_id)]:
        assert (refused["code"], refused["reason"], refused["retryable"]) == (404, "conversation_not_found", False)
    again = await transport.call({"type": "chat", "query": "又来", "conversation_id": conversation_id})
    assert (again["code"], again["reason"]) == (404, "conversation_not_found")
    assert data["msg"]


def everything_of(conversation_id: str) -> list[Frame]:
    return [
        {"type": "conversation_get", "conversation_id": conversation_id},
        {"type": "conversation_rename", "conversation_id": conversation_id, "title": "我的"},
        {"type": "conversation_delete", "conversation_id": conversation_id},
        {"type": "history", "conversation_id": conversation_id},
        {"type": "chat", "query": "你好", "conversation_id": conversation_id},
    ]


async def test_a_standing_conversation_that_was_deleted_begins_anew(transport: Transport) -> None:
    standing = (await ask(transport, "介绍一下《黑客帝国》", id="first"))["conversation_id"]
    await transport.call({"type": "conversation_delete", "conversation_id": standing})
    assert await listed(transport) == []
    assert (await transport.call({"type": "history"}))["data"]["items"] == []
    # What was said before the deletion is not known any more: nothing says what "it" is.
    reply = await ask(transport, "它的片长是多少？", id="first")
    assert reply["conversation_id"] == standing
    assert "136" not in reply["msg"]
    await ask(transport, "谢谢")
    items = (await transport.call({"type": "history"}))["data"]["items"]
    assert [item["content"] for item in items if item["role"] == "user"] == ["它的片长是多少？", "谢谢"]
    assert await listed(transport) == [standing]


async def test_deleting_a_conversation_cancels_the_answer_that_is_being_made(model_node: ModelNode) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "第一句"))
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        await client.send({"type": "chat", "query": "讲个长故事", "stream": True})
        frames = await client.receive_until("chunk")
        await gate.reached.wait()
        conversation_id = frames[0]["data"]["conversation_id"]
        await client.send({"type": "conversation_delete", "conversation_id": conversation_id})
        frames = [await client.receive() for _ in range(2)]
        types = {frame["type"]: frame for frame in frames}
        assert types["conversation_delete_response"]["code"] == 0
        assert types["complete"]["finish_reason"] == "cancelled"
        # Neither the old answer nor its end stands in the way of the new beginning.
        after = await client.stream({"type": "chat", "query": "换个话题"})
        assert after[0]["data"]["conversation_id"] == conversation_id
        assert after[-1]["type"] == "complete"
        turns = model_node.model.calls[-1].json["messages"]
        assert [turn["content"] for turn in turns if turn["role"] == "user"] == ["换个话题"]
        items = (await client.call({"type": "history"}))["data"]["items"]
        assert [item["content"] for item in items] == ["换个话题", text_of(after)]
    gate.open()


async def test_a_question_that_waits_in_a_conversation_goes_with_it(model_node: ModelNode) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "第一句"))
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        await client.send({"type": "chat", "query": "讲个长故事", "stream": True})
        conversation_id = (await client.receive_until("chunk"))[0]["data"]["conversation_id"]
        await client.send({"type": "chat", "query": "然后呢", "stream": True, "on_busy": "enqueue"})
        await client.receive_until("chat_processing")
        await client.send({"type": "conversation_delete", "conversation_id": conversation_id})
        ends: list[str] = []
        while len(ends) < 2:
            frame = await client.receive()
            ends += [frame["finish_reason"]] if frame["type"] == "complete" else []
        assert ends == ["cancelled"] * 2
        assert len(model_node.model.calls) == 1
        assert (await client.call({"type": "history"}))["data"]["items"] == []


async def test_another_node_deletes_the_conversation_and_the_account(model_node: ModelNode, node: TestNode) -> None:
    gates = [Gate(), Gate()]
    model_node.model.queue(*(stalls(gate, "第一句") for gate in gates))
    async with socket_client(model_node.url) as client, socket_client(node.url) as other:
        await client.login(model_node.wechat.issue_code())
        assert (await other.call({"type": "auth", "token": client.token}))["code"] == 0
        for message in ("conversation_delete", "account_delete"):
            await client.send({"type": "chat", "query": "讲个长故事", "stream": True})
            conversation_id = (await client.receive_until("chunk"))[0]["data"]["conversation_id"]
            assert (await other.call({"type": message, "conversation_id": conversation_id}))["code"] == 0
            assert (await client.receive_until("complete"))[-1]["finish_reason"] == "cancelled"
        assert [await client.closed(), await other.closed()] == [4003, 4003]


async def test_deleting_asking_and_answering_at_once_leave_no_message_behind(node: TestNode) -> None:
    async with socket_client(node.url) as client, socket_client(node.url) as other:
        code = new_code()
        await client.login(code)
        await other.login(code)
        standing = (await ask(client, "你好"))["conversation_id"]
        for number in range(10):
            replies = await asyncio.gather(
                client.call({"type": "chat", "query": f"问题 {number}"}),
                other.call({"type": "conversation_delete", "conversation_id": standing}),
            )
            assert {reply["code"] for reply in replies} <= {0, 404}, replies
        await other.call({"type": "conversation_delete", "conversation_id": standing})
        assert (await client.call({"type": "history"}))["data"]["items"] == []


async def test_what_was_deleted_a_month_ago_is_purged(
    transport: Transport, postgres: Postgres, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.conversations.PURGE_AT_ONCE", 3)
    table = ConversationTable(postgres, redis)
    kept, purged, living = f"留 {uuid.uuid4()}", f"清 {uuid.uuid4()}", f"活 {uuid.uuid4()}"
    for text in (kept, purged, living):
        conversation_id = await create(transport)
        for number in range(3):
            await ask(transport, f"{text} {number}", conversation_id=conversation_id)
        if text != living:
            await transport.call({"type": "conversation_delete", "conversation_id": conversation_id})
    async with postgres.connection() as connection:
        await connection.execute(
            """
            UPDATE chat.conversations SET deleted_at = now() - interval '31 days'
            WHERE id IN (SELECT conversation_id FROM chat.messages WHERE content LIKE $1)
            """,
            f"{purged}%",
        )
        # Not a bare task: a cancellation that a library swallows would leave it to the tests that come after.
        async with asyncio.timeout(PATIENCE_S), Tasks().open() as tasks:
            tasks.spawn(keep_house({"conversations": table.purge}, every_s=0.01), name="housekeeping")
            while await connection.fetchval("SELECT count(*) FROM chat.messages WHERE content LIKE $1", f"{purged}%"):
                await asyncio.sleep(0.01)
        for text, count in ((kept, 3), (purged, 0), (living, 3)):
            found = await connection.fetchval("SELECT count(*) FROM chat.messages WHERE content LIKE $1", f"{text}%")
            assert found == count


async def found(transport: Transport, query: str, **wanted: object) -> list[str]:
    reply = await transport.call({"type": "conversation_search", "query": query, **wanted})
    assert reply["type"] == "conversation_search_response", reply
    return [item["message"]["content"] for item in reply["data"]["items"]]


async def test_what_was_said_is_found_by_any_part_of_it_the_newest_first(transport: Transport) -> None:
    conversation_id = await create(transport, title="夜里")
    reply = await ask(transport, "Zebra 100% 好看吗", conversation_id=conversation_id)
    await ask(transport, "那只 zEBRA 呢_x")
    item = (await transport.call({"type": "conversation_search", "query": "100%"}))["data"]["items"][-1]
    assert (item["title"], item["message"]["role"]) == ("夜里", "user")
    assert (item["message"]["conversation_id"], item["message"]["content"]) == (conversation_id, "Zebra 100% 好看吗")
    questions = [text for text in await found(transport, "zebra") if text in ("Zebra 100% 好看吗", "那只 zEBRA 呢_x")]
    assert questions == ["那只 zEBRA 呢_x", "Zebra 100% 好看吗"]
    assert len(await found(transport, "zebra", limit=1)) == 1
    # Nothing in the text means more than itself.
    assert await found(transport, "100_") == []
    assert await found(transport, "z%a") == []
    assert reply["msg"] in await found(transport, reply["msg"][:20])
    await transport.call({"type": "conversation_delete", "conversation_id": conversation_id})
    assert await found(transport, "100%") == []


async def test_a_named_guest_goes_through_the_routes(http: httpx.AsyncClient) -> None:
    mine = {"X-User-ID": uuid.uuid4().hex}
    made = (await http.post(PATH, headers=mine)).json()
    assert made["title"] is None
    titled = (await http.post(PATH, headers=mine, json={"title": "二"})).json()
    page = (await http.get(PATH, headers=mine, params={"limit": "1"})).json()
    assert [item["id"] for item in page["items"]] == [titled["id"]]
    rest = (await http.get(PATH, headers=mine, params={"before": page["next_before"]})).json()
    assert rest == {"items": [made], "next_before": None}
    renamed = await http.post(f"{PATH}/{made['id']}/rename", headers=mine, json={"title": "一"})
    assert (renamed.status_code, renamed.json()["title"]) == (200, "一")
    chat = {"type": "chat", "query": "你好", "conversation_id": made["id"]}
    assert (await http.post("/api/v1/messages", headers=mine, json=chat)).json()["code"] == 0
    read = (await http.get(f"{PATH}/{made['id']}", headers=mine, params={"limit": "1"})).json()
    assert (read["conversation"]["title"], [item["role"] for item in read["items"]]) == ("一", ["assistant"])
    hits = (await http.get(f"{PATH}/search", headers=mine, params={"query": "你好"})).json()["items"]
    assert "你好" in [hit["message"]["content"] for hit in hits]
    gone = await http.delete(f"{PATH}/{made['id']}", headers=mine)
    assert (gone.status_code, gone.json()) == (200, {"conversation_id": made["id"]})
    assert (await http.get(f"{PATH}/{made['id']}", headers=mine)).status_code == 404


async def test_the_mini_programs_guest_sees_its_chats_under_its_name(http: httpx.AsyncClient) -> None:
    name = uuid.uuid4().hex
    for session in ("s1", "s2"):
        body = {"message": "你好", "user_id": name, "session_id": session}
        assert (await http.post("/api/v1/mp/chat/stream", json=body)).status_code == 200
    assert len((await http.get(PATH, params={"user_id": name})).json()["items"]) == 2
    # The same name elsewhere is somebody else.
    assert (await http.get(PATH, headers={"X-User-ID": name})).json()["items"] == []


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "conversation_create", "title": ""}, "title"),
        ({"type": "conversation_create", "title": " "}, "title"),
        ({"type": "conversation_create", "title": "长" * 101}, "title"),
        ({"type": "conversation_create", "title": "a\x00"}, "title"),
        ({"type": "conversation_create", "title": 1}, "title"),
        ({"type": "conversation_list", "limit": 0}, "limit"),
        ({"type": "conversation_list", "limit": 101}, "limit"),
        ({"type": "conversation_list", "before": "x"}, "before"),
        ({"type": "conversation_list", "before": "_" * 32}, "before"),
        ({"type": "conversation_list", "before": "é" * 32}, "before"),
        ({"type": "conversation_list", "before": "!" * 32}, "before"),
        ({"type": "conversation_list", "before": 7}, "before"),
        ({"type": "conversation_get"}, "conversation_id"),
        ({"type": "conversation_get", "conversation_id": "x"}, "conversation_id"),
        ({"type": "conversation_get", "conversation_id": UNKNOWN_ID, "limit": 201}, "limit"),
        ({"type": "conversation_get", "conversation_id": UNKNOWN_ID, "before": "x"}, "before"),
        ({"type": "conversation_rename", "conversation_id": UNKNOWN_ID}, "title"),
        ({"type": "conversation_rename", "conversation_id": UNKNOWN_ID, "title": ""}, "title"),
        ({"type": "conversation_search"}, "query"),
        ({"type": "conversation_search", "query": " "}, "query"),
        ({"type": "conversation_search", "query": "长" * 101}, "query"),
        ({"type": "conversation_search", "query": "a", "limit": 51}, "limit"),
        ({"type": "conversation_delete", "conversation_id": None}, "conversation_id"),
    ],
    ids=str,
)
async def test_bad_input_is_explained(transport: Transport, message: Frame, field: str) -> None:
    refused = await transport.call(message)
    assert (refused["code"], refused["reason"], refused["field"]) == (400, "invalid_field", field)


async def test_bad_input_in_a_path_is_explained(http: httpx.AsyncClient) -> None:
    mine = {"X-User-ID": "g"}
    for response in (
        await http.get(f"{PATH}/x", headers=mine),
        await http.delete(f"{PATH}/x", headers=mine),
        await http.post(f"{PATH}/x/rename", headers=mine, json={"title": "a"}),
    ):
        assert (response.status_code, response.json()["error"]["field"]) == (422, "conversation_id")
    refused = await http.post(f"{PATH}/{uuid.uuid4()}/rename", headers=mine, content=b"{")
    assert (refused.status_code, refused.json()["error"]["reason"]) == (400, "bad_json")


async def test_before_login_there_are_no_conversations(node: TestNode) -> None:
    async with socket_client(node.url) as stranger:
        refused = await stranger.call({"type": "conversation_list"})
    assert (refused["code"], refused["reason"]) == (401, "login_required")


async def test_there_is_an_end_to_how_many_one_may_have(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.conversations.MAX_CONVERSATIONS", 2)
    first = await create(transport)
    await create(transport)
    refused = await transport.call({"type": "conversation_create"})
    assert (refused["code"], refused["reason"]) == (409, "too_many_conversations")
    await transport.call({"type": "conversation_delete", "conversation_id": first})
    await create(transport)
