"""The AsyncAPI document says what goes over the running server's sockets."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft7Validator
from websockets.asyncio.client import connect

from protocol.errors import CLOSE_CODES, ERRORS
from protocol.operation import StreamingOperation
from protocol.operations import OPERATIONS
from protocol.unasked import UNASKED
from tests.clients import PATIENCE_S, SocketClient, socket_client
from tests.examples import lived, made_real
from tests.node import TestNode
from tests.schemas import problems
from wsserver.contract.asyncapi import SOCKETS, asyncapi
from wsserver.contract.meanings import MEANINGS, meaning

DOCUMENT = asyncapi(OPERATIONS)
MESSAGES = DOCUMENT["components"]["messages"]
OFFICIAL = Path(__file__).parent / "official" / "asyncapi-3.0.0.json"


def named(reference: dict[str, str]) -> dict[str, Any]:
    message: dict[str, Any] = MESSAGES[reference["$ref"].rsplit("/", 1)[1]]
    return message


def test_the_document_is_asyncapi() -> None:
    official = Draft7Validator(json.loads(OFFICIAL.read_text()))
    assert [f"{error.json_path}: {error.message[:300]}" for error in official.iter_errors(DOCUMENT)] == []
    assert list(official.iter_errors(DOCUMENT | {"channels": []}))


def test_every_reference_leads_somewhere() -> None:
    def look(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                target: Any = DOCUMENT
                for part in reference.removeprefix("#/").split("/"):
                    target = target[part]
            for child in node.values():
                look(child)
        elif isinstance(node, list):
            for child in node:
                look(child)

    look(DOCUMENT)


@pytest.mark.parametrize("name", MESSAGES)
def test_examples_are_what_their_schemas_say(name: str) -> None:
    assert MESSAGES[name]["examples"]
    for example in MESSAGES[name]["examples"]:
        assert problems(DOCUMENT, MESSAGES[name]["payload"], example["payload"]) == [], example


def test_every_socket_has_every_operation_with_its_replies_and_errors() -> None:
    for channel in SOCKETS:
        here = [each for each in DOCUMENT["operations"].values() if each["channel"]["$ref"] == f"#/channels/{channel}"]
        received = {each["title"]: each for each in here if each["action"] == "receive"}
        assert set(received) == set(OPERATIONS)
        for name, operation in OPERATIONS.items():
            answers = [named(reference) for reference in received[name]["reply"]["messages"]]
            types = {answer["name"] for answer in answers}
            assert {operation.reply_type, operation.error_type} <= types
            if isinstance(operation, StreamingOperation):
                assert {operation.accepted_type, *(frame.TYPE for frame in operation.frames)} <= types
            said = json.dumps(answers[-1]["payload"])
            for kind in (*operation.errors, *getattr(operation, "run_errors", ())):
                assert f'"{kind.reason}"' in said, (name, kind.reason)
        sent = {named(each["messages"][0])["name"] for each in here if each["action"] == "send"}
        assert sent == {noun.model_dump()["type"] for noun in UNASKED} | {"error"}


def test_every_close_code_says_what_to_do() -> None:
    for channel in DOCUMENT["channels"].values():
        assert {each["code"] for each in channel["x-close-codes"]} == set(CLOSE_CODES)
        assert all(each["do"] for each in channel["x-close-codes"])


def test_every_field_says_what_it_means_and_every_error_what_to_do() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            assert meaning(name, field), f"{name}.{field} has no meaning: add it to wsserver/contract/meanings.py"
            assert described.get("description") or "$ref" in described
    assert {each["reason"] for each in DOCUMENT["x-errors"]} == set(ERRORS)
    assert all(each["do"] for each in DOCUMENT["x-errors"])


def test_no_meaning_is_of_a_field_that_there_is_not() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    fields = {field for schema in schemas.values() for field in schema.get("properties", {})}
    fields |= {f"{name}.{field}" for name, schema in schemas.items() for field in schema.get("properties", {})}
    assert set(MEANINGS) <= fields


@pytest.mark.parametrize("name", OPERATIONS)
async def test_example_requests_are_answered_as_the_document_says(node: TestNode, name: str) -> None:
    described = DOCUMENT["operations"][name]
    (example,) = named(described["messages"][0])["examples"]
    answers = {"anyOf": [named(reference)["payload"] for reference in described["reply"]["messages"]]}
    async with socket_client(node.url) as client:
        await client.login()
        await client.send(made_real(example["payload"], await lived(client, node.url)))
        operation = OPERATIONS[name]
        last = {operation.reply_type, operation.error_type, "error"}
        if isinstance(operation, StreamingOperation) and operation.example is not None and operation.example.follows:
            last = {"complete", "error"}
        frames = await client.receive_until(*last)
    for frame in frames:
        assert problems(DOCUMENT, answers, frame) == [], frame
    assert frames[-1].get("code", 0) == 0, f"the example of {name} is refused: {frames[-1]}"


async def test_what_is_no_request_is_refused_as_the_document_says(client: SocketClient) -> None:
    for text in ("{", "[]", '{"type":"nothing"}', '{"type":"ping","id":""}', '{"type":"ping","id":"a","id":"b"}'):
        assert problems(DOCUMENT, MESSAGES["refused"]["payload"], await client.call_text(text)) == []


async def test_an_operation_that_fails_says_so_as_the_document_says(node: TestNode) -> None:
    async with socket_client(node.url) as stranger:
        failed = await stranger.call({"type": "auth", "token": "x.y.z"})
        assert problems(DOCUMENT, MESSAGES["auth_failed"]["payload"], failed) == []
        refused = await stranger.call({"type": "history", "id": "h1"})
        assert problems(DOCUMENT, MESSAGES["history_failed"]["payload"], refused) == []


async def test_the_first_frame_is_as_the_document_says(node: TestNode) -> None:
    async with connect(node.url.replace("http://", "ws://") + "/ws", proxy=None) as socket, asyncio.timeout(PATIENCE_S):
        connected = json.loads(await socket.recv())
    assert connected["type"] == "connected"
    assert problems(DOCUMENT, MESSAGES["Connected"]["payload"], connected) == []


async def test_what_a_user_is_told_unasked_is_as_the_document_says(client: SocketClient) -> None:
    await client.call({"type": "chat", "query": "推荐三部诺兰导演的电影"})
    assert problems(DOCUMENT, MESSAGES["ConversationUpdated"]["payload"], await client.hear()) == []


async def test_the_document_is_served(http: httpx.AsyncClient) -> None:
    served = await http.get("/asyncapi.json")
    assert served.status_code == 200
    assert served.json() == json.loads(json.dumps(DOCUMENT))
