"""What people think of answers: of their own only, once each, and changeable."""

import uuid

import httpx
import pytest

from storage.postgres import Postgres
from tests.clients import UNKNOWN_ID, Frame, SocketClient, Transport, socket_client
from tests.node import TestNode

PATH = "/api/v1/feedback"


async def answered(transport: Transport, **fields: object) -> Frame:
    reply = await transport.call({"type": "chat", "query": "推荐一部电影", **fields})
    data: Frame = reply["data"]
    return data


async def test_what_one_thinks_of_an_answer_is_kept_and_may_change(transport: Transport, postgres: Postgres) -> None:
    message_id = (await answered(transport))["id"]
    first = await transport.call(
        {"type": "feedback", "message_id": message_id, "rating": 2, "comment": "太短", "id": "f"}
    )
    assert (first["type"], first["code"], first["id"]) == ("feedback_response", 0, "f")
    assert first["data"].keys() == {"id", "message_id", "rating", "comment", "created_at", "changed_at"}
    assert (first["data"]["message_id"], first["data"]["rating"], first["data"]["comment"]) == (message_id, 2, "太短")
    second = (await transport.call({"type": "feedback", "message_id": message_id, "rating": 5}))["data"]
    assert (second["id"], second["rating"], second["comment"]) == (first["data"]["id"], 5, None)
    assert second["created_at"] == first["data"]["created_at"]
    assert second["changed_at"] > first["data"]["changed_at"]
    async with postgres.connection() as connection:
        ratings = await connection.fetch(
            "SELECT rating FROM chat.feedback WHERE message_id = $1", uuid.UUID(message_id)
        )
    assert [row["rating"] for row in ratings] == [5]


async def test_only_answers_of_ones_own_can_be_rated(transport: Transport, client: SocketClient) -> None:
    theirs = (await answered(client))["id"]
    await answered(transport)
    question = (await transport.call({"type": "history"}))["data"]["items"][0]
    assert question["role"] == "user"
    for message_id in (theirs, question["id"], str(uuid.uuid4())):
        refused = await transport.call({"type": "feedback", "message_id": message_id, "rating": 1})
        assert (refused["code"], refused["reason"], refused["retryable"]) == (404, "message_not_found", False)


async def test_answers_of_a_deleted_conversation_cannot_be_rated(transport: Transport) -> None:
    data = await answered(transport)
    await transport.call({"type": "conversation_delete", "conversation_id": data["conversation_id"]})
    refused = await transport.call({"type": "feedback", "message_id": data["id"], "rating": 1})
    assert (refused["code"], refused["reason"]) == (404, "message_not_found")


async def test_a_guest_rates_its_own_and_nobody_rates_nothing(client: SocketClient, http: httpx.AsyncClient) -> None:
    theirs = (await answered(client))["id"]
    nobody = await http.post(PATH, json={"message_id": theirs, "rating": 1})
    assert (nobody.status_code, nobody.json()["error"]["reason"]) == (401, "login_required")
    headers = {"X-User-ID": client.openid}
    refused = await http.post(PATH, headers=headers, json={"message_id": theirs, "rating": 1})
    assert (refused.status_code, refused.json()["error"]["reason"]) == (404, "message_not_found")
    chat = await http.post("/api/v1/messages", headers=headers, json={"type": "chat", "query": "你好"})
    mine = chat.json()["data"]["id"]
    rated = await http.post(PATH, headers=headers, json={"message_id": mine, "rating": 4, "comment": "好"})
    assert (rated.status_code, rated.json()["rating"], rated.json()["comment"]) == (200, 4, "好")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"rating": 3}, "message_id"),
        ({"message_id": "x", "rating": 3}, "message_id"),
        ({"message_id": UNKNOWN_ID}, "rating"),
        ({"message_id": UNKNOWN_ID, "rating": 0}, "rating"),
        ({"message_id": UNKNOWN_ID, "rating": 6}, "rating"),
        ({"message_id": UNKNOWN_ID, "rating": "5"}, "rating"),
        ({"message_id": UNKNOWN_ID, "rating": True}, "rating"),
        ({"message_id": UNKNOWN_ID, "rating": 3, "comment": "长" * 1001}, "comment"),
        ({"message_id": UNKNOWN_ID, "rating": 3, "comment": "a\x00"}, "comment"),
    ],
    ids=str,
)
async def test_bad_input_is_explained(transport: Transport, fields: Frame, field: str) -> None:
    refused = await transport.call({"type": "feedback", **fields})
    assert (refused["code"], refused["reason"], refused["field"]) == (400, "invalid_field", field)


async def test_before_login_nothing_can_be_rated(node: TestNode) -> None:
    async with socket_client(node.url) as stranger:
        refused = await stranger.call({"type": "feedback", "message_id": str(uuid.uuid4()), "rating": 3})
    assert (refused["code"], refused["reason"]) == (401, "login_required")
