"""Answers made again and questions asked otherwise: what was said first is kept, and one branch of it is shown."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from protocol.chat import Message
from protocol.errors import OperationError
from storage.branches import Revision
from storage.chat import Conversations
from storage.embedded import Services
from storage.ownership import RunRow, RunTable
from storage.postgres import Postgres
from storage.redis import Redis
from storage.schema import migrate
from tests.clients import (
    PATIENCE_S,
    UNKNOWN_ID,
    Frame,
    HttpClient,
    SocketClient,
    Transport,
    events,
    new_code,
    socket_client,
)
from tests.clients import text_of as shown
from tests.conftest import ModelNode
from tests.databases import fresh_database
from tests.node import TestNode, serving
from tests.standins.llm import breaks_off, fails, says, stalls
from tests.standins.server import Gate


@pytest.fixture(params=["socket", "http"])
async def asker(request: pytest.FixtureRequest, model_node: ModelNode) -> AsyncIterator[Transport]:
    """Somebody new at a server with a model, over either transport."""
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        if request.param == "socket":
            yield client
            return
        async with httpx.AsyncClient(base_url=model_node.url, trust_env=False, timeout=PATIENCE_S) as http:
            yield HttpClient(http, client.token)


async def ask(transport: Transport, query: str, **fields: object) -> Frame:
    reply = await transport.call({"type": "chat", "query": query, **fields})
    assert reply["code"] == 0, reply
    data: Frame = reply["data"]
    return data


async def page(transport: Transport) -> list[Frame]:
    """The chosen branch."""
    reply = await transport.call({"type": "history"})
    items: list[Frame] = reply["data"]["items"]
    assert [item["parent_id"] for item in items] == [None, *(item["id"] for item in items[:-1])][: len(items)]
    assert all(item["chosen"] for item in items)
    return items


async def exported(transport: Transport) -> list[Frame]:
    """All of one's messages, in the order in which they were stored."""
    messages: list[Frame] = []
    after: dict[str, object] = {}
    while after.get("after", "") is not None:
        data = (await transport.call({"type": "account_export", **after}))["data"]
        messages += data["messages"]
        after = {"after": data["next_after"]}
    return messages


def said(items: list[Frame]) -> list[str]:
    return [item["content"] for item in items]


async def prompt(model_node: ModelNode, index: int) -> list[str]:
    """What the model was told in its call of this number, its instructions left out."""
    call = await model_node.model.call(index)
    return [message["content"] for message in call.json["messages"][1:]]


async def test_an_answer_made_again_takes_the_place_of_the_first_and_both_are_kept(
    asker: Transport, model_node: ModelNode
) -> None:
    model_node.model.queue(says("第一次"), says("第二次"))
    first = await ask(asker, "问题")
    again = await asker.call({"type": "regenerate", "message_id": first["id"], "id": "r1"})
    assert (again["type"], again["code"], again["id"]) == ("regenerate_response", 0, "r1")
    assert again["data"]["msg"] == "第二次"
    assert again["data"]["conversation_id"] == first["conversation_id"]
    question, answer = await page(asker)
    assert (question["content"], answer["content"]) == ("问题", "第二次")
    assert answer["siblings"] == [first["id"], again["data"]["id"]]
    assert "siblings" not in question
    assert await prompt(model_node, 1) == ["问题"]


async def test_a_regeneration_streams_as_a_chat_does(asker: Transport, model_node: ModelNode) -> None:
    model_node.model.queue(says("一"), says("二", "三"))
    first = await ask(asker, "问题")
    frames = await asker.stream({"type": "regenerate", "message_id": first["id"], "id": "r1", "stream": True})
    assert shown(frames) == frames[-1]["answer"] == "二三"
    assert frames[-1]["type"] == "complete"
    assert {frame["id"] for frame in frames} == {"r1"}
    assert said(await page(asker)) == ["问题", "二三"]


async def test_a_question_may_be_named_itself_and_so_one_whose_answer_failed(
    asker: Transport, model_node: ModelNode
) -> None:
    model_node.model.queue(fails(400), says("成了"))
    refused = await asker.call({"type": "chat", "query": "问题"})
    assert refused["code"] != 0
    (question,) = await page(asker)
    again = await asker.call({"type": "regenerate", "message_id": question["id"]})
    assert again["data"]["msg"] == "成了"
    assert said(await page(asker)) == ["问题", "成了"]


async def test_a_question_asked_otherwise_stands_beside_the_first_with_all_that_followed(
    asker: Transport, model_node: ModelNode
) -> None:
    model_node.model.queue(says("甲"), says("乙"), says("丙"), says("丁"))
    await ask(asker, "一")
    second = await ask(asker, "二")
    questions = await page(asker)
    edited = await asker.call({"type": "edit", "message_id": questions[2]["id"], "query": "二改"})
    assert (edited["type"], edited["code"], edited["data"]["msg"]) == ("edit_response", 0, "丙")
    items = await page(asker)
    assert said(items) == ["一", "甲", "二改", "丙"]
    assert items[2]["siblings"] == [questions[2]["id"], items[2]["id"]]
    assert await prompt(model_node, 2) == ["一", "甲", "二改"]
    # The very first one has no parent, and siblings all the same.
    await asker.call({"type": "edit", "message_id": questions[0]["id"], "query": "一改"})
    items = await page(asker)
    assert said(items) == ["一改", "丁"]
    assert items[0]["siblings"] == [questions[0]["id"], items[0]["id"]]
    assert await prompt(model_node, 3) == ["一改"]
    assert second["id"] not in [item["id"] for item in items]


async def test_a_conversation_goes_on_from_the_branch_that_was_chosen(asker: Transport, model_node: ModelNode) -> None:
    model_node.model.queue(says("甲"), says("乙"), says("丙"), says("丁"), says("戊"))
    await ask(asker, "一")
    await ask(asker, "二")
    items = await page(asker)
    await asker.call({"type": "edit", "message_id": items[2]["id"], "query": "二改"})
    chosen = await asker.call({"type": "branch_choose", "message_id": items[2]["id"]})
    assert (chosen["type"], chosen["code"]) == ("branch_choose_response", 0)
    assert chosen["data"]["id"] == items[0]["conversation_id"]
    assert said(await page(asker)) == ["一", "甲", "二", "乙"]
    await ask(asker, "三")
    assert await prompt(model_node, 3) == ["一", "甲", "二", "乙", "三"]
    # An answer of the other branch, made again, brings that branch back.
    other = (await page(asker))[2]["siblings"][1]
    await asker.call({"type": "regenerate", "message_id": other})
    assert said(await page(asker)) == ["一", "甲", "二改", "戊"]
    assert await prompt(model_node, 4) == ["一", "甲", "二改"]
    # Nothing of it was lost.
    messages = await exported(asker)
    assert sorted(said(messages)) == sorted(["一", "甲", "二", "乙", "二改", "丙", "三", "丁", "戊"])
    assert said([item for item in messages if item["chosen"]]) == ["一", "甲", "二改", "戊"]


async def test_without_a_new_answer_the_old_one_stays(asker: Transport, model_node: ModelNode) -> None:
    model_node.model.queue(says("旧"), fails(400))
    first = await ask(asker, "问题")
    refused = await asker.call({"type": "regenerate", "message_id": first["id"]})
    assert refused["code"] != 0
    assert said(await page(asker)) == ["问题", "旧"]


async def test_half_an_answer_is_kept_beside_the_whole_one(asker: Transport, model_node: ModelNode) -> None:
    model_node.model.queue(says("旧"), breaks_off("半个"))
    first = await ask(asker, "问题")
    refused = await asker.call({"type": "regenerate", "message_id": first["id"]})
    assert refused["reason"] == "model_interrupted"
    items = await page(asker)
    assert [(item["content"], item["finish_reason"]) for item in items] == [("问题", None), ("半个", "interrupted")]
    await asker.call({"type": "branch_choose", "message_id": first["id"]})
    assert said(await page(asker)) == ["问题", "旧"]


async def test_a_regeneration_sent_again_is_made_once(asker: Transport, model_node: ModelNode) -> None:
    model_node.model.queue(says("旧"), says("新"), says("不该有"))
    first = await ask(asker, "问题")
    message = {"type": "regenerate", "message_id": first["id"], "id": "r1"}
    one, two = await asker.call(message), await asker.call(message)
    assert one["data"]["request_id"] == two["data"]["request_id"]
    assert one["data"]["id"] == two["data"]["id"]
    assert len((await page(asker))[1]["siblings"]) == 2


async def test_a_conversation_that_is_being_answered_is_not_revised(model_node: ModelNode) -> None:
    gate, code = Gate(), model_node.wechat.issue_code()
    async with socket_client(model_node.url) as client:
        await client.login(code)
        model_node.model.queue(says("旧"), stalls(gate, "新"))
        first = await ask(client, "问题")
        await client.send({"type": "chat", "query": "下一个", "stream": True})
        await client.receive_until("chunk")
        for message in revisions(first["id"]):
            refused = await client.call(message)
            assert (refused["code"], refused["reason"]) == (409, "conversation_busy"), message
            assert refused["retryable"] is True
        gate.open()
        await client.receive_until("complete", "error")


def revisions(message_id: str) -> list[Frame]:
    return [
        {"type": "regenerate", "message_id": message_id},
        {"type": "edit", "message_id": message_id, "query": "改"},
        {"type": "branch_choose", "message_id": message_id},
    ]


async def test_what_is_somebody_elses_or_nobodys_cannot_be_revised(asker: Transport, model_node: ModelNode) -> None:
    model_node.model.queue(says("我的"))
    mine = await ask(asker, "问题")
    async with socket_client(model_node.url) as stranger:
        await stranger.login(model_node.wechat.issue_code())
        for message_id in (mine["id"], str(uuid.uuid4())):
            for message in revisions(message_id):
                refused = await stranger.call(message)
                assert (refused["code"], refused["reason"]) == (404, "message_not_found"), message
    assert said(await page(asker)) == ["问题", "我的"]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "regenerate"}, "message_id"),
        ({"type": "regenerate", "message_id": "1"}, "message_id"),
        ({"type": "edit", "message_id": UNKNOWN_ID}, "query"),
        ({"type": "edit", "message_id": UNKNOWN_ID, "query": " "}, "query"),
        ({"type": "edit", "message_id": UNKNOWN_ID, "query": "长" * 8_001}, "query"),
        ({"type": "branch_choose", "message_id": 7}, "message_id"),
    ],
)
async def test_bad_revisions_are_refused_with_the_field(transport: Transport, message: Frame, field: str) -> None:
    refused = await transport.call(message)
    assert (refused["code"], refused["reason"], refused["field"]) == (400, "invalid_field", field)


async def test_the_routes_of_revisions(model_node: ModelNode) -> None:
    model_node.model.queue(says("甲"), says("乙"), says("丙"), says("丁"))
    async with httpx.AsyncClient(base_url=model_node.url, trust_env=False, timeout=PATIENCE_S) as http:
        named = {"X-User-ID": new_code()}
        made = (await http.post("/api/v1/conversations", headers=named)).json()

        async def stream(path: str, body: Frame) -> list[Frame]:
            async with http.stream("POST", path, json=body, headers=named) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                return [frame async for frame in events(response)]

        asked = await stream("/api/v1/chat", {"conversation_id": made["id"], "content": "一"})
        again = await stream("/api/v1/chat/regenerate", {"message_id": asked[-1]["message_id"]})
        assert again[-1]["answer"] == "乙"
        path = f"/api/v1/conversations/{made['id']}"
        question = (await http.get(path, headers=named)).json()["items"][0]
        edited = await stream("/api/v1/chat/edit", {"message_id": question["id"], "content": "二"})
        assert edited[-1]["answer"] == "丙"
        back = await http.post("/api/v1/chat/branch", json={"message_id": asked[-1]["message_id"]}, headers=named)
        assert back.json()["id"] == made["id"]
        assert said((await http.get(path, headers=named)).json()["items"]) == ["一", "甲"]
        nobody = await http.post("/api/v1/chat/regenerate", json={"message_id": asked[-1]["message_id"]})
        assert nobody.status_code == 401
        stranger = {"X-User-ID": new_code()}
        for path, body in (
            ("/api/v1/chat/regenerate", {"message_id": question["id"]}),
            ("/api/v1/chat/edit", {"message_id": question["id"], "content": "改"}),
            ("/api/v1/chat/branch", {"message_id": question["id"]}),
        ):
            refused = await http.post(path, json=body, headers=stranger)
            assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "message_not_found")


async def test_a_long_branch_is_chosen_whole(client: SocketClient, postgres: Postgres) -> None:
    """A thousand exchanges deep, and back again."""
    first = await ask(client, "你好")
    conversation_id = uuid.UUID(first["conversation_id"])
    async with postgres.connection() as connection:
        await connection.execute(
            """
            WITH RECURSIVE said AS (
                SELECT $1::uuid AS id, $2::uuid AS parent_id, 1 AS number
                UNION ALL SELECT gen_random_uuid(), said.id, number + 1 FROM said WHERE number < 2000
            )
            INSERT INTO chat.messages (id, conversation_id, role, content, request_id, finish_reason, parent_id)
            SELECT id, $3, CASE number % 2 WHEN 1 THEN 'user' ELSE 'assistant' END, number::text, 'deep-' || number / 2,
                   CASE number % 2 WHEN 0 THEN 'stop' END, parent_id
            FROM said ORDER BY said.number
            """,
            uuid.uuid4(),
            uuid.UUID(first["id"]),
            conversation_id,
        )
    items = await page_of_newest(client)
    assert said(items)[-1] == "2000"
    root = (await client.call({"type": "history", "limit": 200}))["data"]
    while root["next_before"] is not None:
        root = (await client.call({"type": "history", "limit": 200, "before": root["next_before"]}))["data"]
    await client.call({"type": "edit", "message_id": root["items"][0]["id"], "query": "另一个"})
    assert said(await page(client))[0] == "另一个"
    await client.call({"type": "branch_choose", "message_id": items[-2]["id"]})
    assert said(await page_of_newest(client)) == said(items)


async def page_of_newest(client: SocketClient) -> list[Frame]:
    reply = await client.call({"type": "history", "limit": 10})
    items: list[Frame] = reply["data"]["items"]
    return items


async def test_two_who_answer_again_at_once_do_it_one_after_the_other(model_node: ModelNode) -> None:
    model_node.model.queue(says("旧"), says("新"), says("更新"))
    code = model_node.wechat.issue_code()
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(socket_client(model_node.url))
        await one.login(code)
        two = await stack.enter_async_context(socket_client(model_node.url))
        await two.call({"type": "auth", "token": one.token})
        first = await ask(one, "问题")
        message = {"type": "regenerate", "message_id": first["id"]}
        replies = await asyncio.gather(one.call(message), two.call(message))
        assert {reply["code"] for reply in replies} <= {0, 409}
        made = [reply for reply in replies if reply["code"] == 0]
        assert made
        items = await page(one)
        assert len(items[1]["siblings"]) == 1 + len(made)
        assert items[1]["id"] in [reply["data"]["id"] for reply in made]


async def test_whatever_is_done_at_once_on_two_nodes_a_page_is_one_path_from_a_first_message(
    node: TestNode, services: Services, data_dir: Path, postgres: Postgres
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        second = await stack.enter_async_context(serving(services, data_dir))
        sockets = [await stack.enter_async_context(socket_client(url)) for url in (node.url, second.url, node.url)]
        await sockets[0].login()
        for other in sockets[1:]:
            assert (await other.call({"type": "auth", "token": sockets[0].token}))["code"] == 0
        first = await ask(sockets[0], "你好")
        conversation_id, known = first["conversation_id"], [first["id"]]

        async def act(socket: SocketClient, pick: random.Random) -> None:
            for _ in range(20):
                known.extend(item["id"] for item in await page(socket))
                kind = pick.choice(("chat", "regenerate", "edit", "branch_choose", "branch_choose"))
                message: Frame = {"type": kind}
                if kind != "chat":
                    message["message_id"] = pick.choice(known)
                if kind in ("chat", "edit"):
                    message["query"] = "你好"
                reply = await socket.call(message)
                assert reply["code"] == 0 or reply["reason"] == "conversation_busy", reply

        await asyncio.gather(*(act(socket, random.Random(seed)) for seed, socket in enumerate(sockets)))
        async with postgres.connection() as connection:
            rows = await connection.fetch(
                "SELECT id, parent_id, chosen FROM chat.messages WHERE conversation_id = $1 ORDER BY position",
                uuid.UUID(conversation_id),
            )
        branch = [row for row in rows if row["chosen"]]
        assert [row["parent_id"] for row in branch] == [None, *(row["id"] for row in branch[:-1])]


@pytest.fixture
async def apart(services: Services) -> AsyncIterator[Postgres]:
    """A database that no server looks after: nobody takes over what is left there."""
    assert services.database_url is not None
    async with fresh_database(services.database_url) as database_url:
        await migrate(database_url)
        async with Postgres.open(database_url, size=2) as opened:
            yield opened


async def begin(
    table: RunTable, user_id: str, conversation_id: uuid.UUID, question: str, revision: Revision | None = None
) -> RunRow:
    row, is_new = await table.begin(
        request_id=uuid.uuid4().hex,
        user_id=user_id,
        session_id="s",
        client_id=None,
        conversation_id=conversation_id,
        create_conversation=True,
        request={"query": question},
        question=question,
        node="one",
        enqueue=False,
        revision=revision,
    )
    assert is_new
    return row


async def finish(table: RunTable, row: RunRow) -> uuid.UUID:
    stored = await table.finish(
        request_id=row.request_id,
        epoch=row.epoch,
        state="done",
        message_id=uuid.uuid4(),
        content="答",
        finish_reason="stop",
        usage=None,
        recommendations=None,
    )
    assert stored is not None
    return stored.id


async def test_an_end_that_is_stored_again_changes_nothing_that_came_after_it(apart: Postgres, redis: Redis) -> None:
    table, conversation_id = RunTable(apart), uuid.uuid4()
    first = await begin(table, "u", conversation_id, "一")
    answer_id = await finish(table, first)
    again = await begin(table, "u", conversation_id, "一", Revision(answer_id, asks_otherwise=False))
    new_id = await finish(table, again)
    last_id = await finish(table, await begin(table, "u", conversation_id, "二"))
    # As after a commit whose answer was lost.
    assert await finish(table, again) == new_id
    assert await finish(table, first) == answer_id
    branch = await chosen(Conversations(apart, redis, history_characters=24_000), conversation_id)
    assert [message.id for message in branch][1::2] == [new_id, last_id]


async def test_a_revision_is_made_whole_by_who_takes_it_over(apart: Postgres, redis: Redis) -> None:
    table, conversation_id = RunTable(apart), uuid.uuid4()
    answer_id = await finish(table, await begin(table, "u", conversation_id, "一"))
    again = await begin(table, "u", conversation_id, "一", Revision(answer_id, asks_otherwise=False))
    await table.hand_over("one", [again.request_id])
    (taken,) = await table.take_over("two", timedelta(hours=1), 10)
    assert (taken.request_id, taken.place, taken.epoch) == (again.request_id, again.place, again.epoch + 1)
    with pytest.raises(OperationError, match="run_not_found"):
        await finish(table, again)
    new_id = await finish(table, taken)
    question, answer = await chosen(Conversations(apart, redis, history_characters=24_000), conversation_id)
    assert (question.content, answer.id, answer.siblings) == ("一", new_id, [answer_id, new_id])


async def test_what_an_older_node_stores_follows_what_was_said_before(apart: Postgres, redis: Redis) -> None:
    table, conversation_id = RunTable(apart), uuid.uuid4()
    await finish(table, await begin(table, "u", conversation_id, "一"))
    async with apart.connection() as connection:
        for role, reason in (("user", None), ("assistant", "stop")):
            # It knows no branches.
            await connection.execute(
                """
                INSERT INTO chat.messages (id, conversation_id, role, content, request_id, finish_reason)
                VALUES ($1, $2, $3, $3, 'old', $4)
                """,
                uuid.uuid4(),
                conversation_id,
                role,
                reason,
            )
    conversations = Conversations(apart, redis, history_characters=24_000)
    branch = await chosen(conversations, conversation_id)
    assert [message.parent_id for message in branch] == [None, *(message.id for message in branch[:-1])]
    assert [message.siblings for message in branch] == [[message.id] for message in branch]
    # It can be answered again, and asked otherwise.
    again = await begin(table, "u", conversation_id, "user", Revision(branch[-1].id, asks_otherwise=False))
    await finish(table, again)
    await finish(table, await begin(table, "u", conversation_id, "二改", Revision(branch[2].id, asks_otherwise=True)))
    assert [message.content for message in await chosen(conversations, conversation_id)] == ["一", "答", "二改", "答"]
    # A first question that is asked otherwise is a first one still.
    await finish(table, await begin(table, "u", conversation_id, "一改", Revision(branch[0].id, asks_otherwise=True)))
    first, _ = await chosen(conversations, conversation_id)
    assert (first.parent_id, len(first.siblings)) == (None, 2)


async def chosen(conversations: Conversations, conversation_id: uuid.UUID) -> list[Message]:
    messages, _ = await conversations.page(user_id="u", conversation_id=conversation_id, limit=9, before=None)
    return messages
