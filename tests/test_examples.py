"""The examples run as they are against a server that was just started: scripts, talks, command lines, documents."""

import asyncio
import json
import re
import sys
from typing import Any

import httpx
import pytest

from protocol.operations import OPERATIONS
from tests.clients import PATIENCE_S, Frame, events, new_code, socket_client
from tests.examples import PROSE, ROOT, Curl, curls, learn, lived, made_real, talks
from tests.node import TestNode
from tests.schemas import examples_of, operations_of, problems
from wsserver.contract.openapi import openapi

DOCUMENT = openapi(OPERATIONS)
TALKS = [pytest.param(talk, id=f"{path.name}-{number}") for path in PROSE for number, talk in enumerate(talks(path))]
COMMANDS = [pytest.param(curl, id=f"{path.name}-{number}") for path in PROSE for number, curl in enumerate(curls(path))]


async def test_the_first_chat_runs_as_it_is(node: TestNode) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "first_chat.py"),
        node.url.replace("http", "ws") + "/wechat/ws",
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    assert process.returncode == 0
    lines = dict(line.split(": ", 1) for line in output.decode().splitlines())
    assert {name: json.loads(frame)["type"] for name, frame in lines.items()} == {
        "connected": "connected",
        "login": "login_response",
        "processing": "chat_processing",
        "answer": "chat_response",
    }
    assert json.loads(lines["answer"])["data"]["msg"]


async def run_client(node: TestNode, *arguments: str) -> tuple[int | None, str, str]:
    """The example client's command line: its exit code, what it printed, and what it complained of."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "client.py"),
        node.url.replace("http", "ws") + "/wechat/ws",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
    )
    async with asyncio.timeout(PATIENCE_S):
        output, complaints = await process.communicate()
    return process.returncode, output.decode(), complaints.decode()


async def test_the_client_asks_and_prints_the_answer_and_its_films(node: TestNode) -> None:
    exit_code, output, _ = await run_client(node, "推荐三部诺兰导演的电影", "--code", new_code())
    assert exit_code == 0
    answer, films = output.split("（本回答由 AI 生成）")
    assert "诺兰" in answer
    assert films.count("Christopher Nolan") >= 3


async def test_the_client_shows_a_film_or_says_that_there_is_none(node: TestNode) -> None:
    exit_code, output, _ = await run_client(node, "--film", "603")
    assert exit_code == 0
    assert output.startswith("黑客帝国 (1999) 136 min\n")
    assert "- Keanu Reeves: Neo" in output
    exit_code, output, complaints = await run_client(node, "--film", "999999999")
    assert (exit_code, output) == (1, "")
    assert complaints.startswith("movie_not_found_in_db: ")


# ---- what the READMEs say goes over a socket ----


def keys_of(line: str) -> set[str]:
    """The keys of a line in which … stands for what is left out."""
    return set(re.findall(r'"(\w+)":', line))


def all_keys(frame: object) -> set[str]:
    if isinstance(frame, list):
        return {key for one in frame for key in all_keys(one)}
    if isinstance(frame, dict):
        return set(frame) | {key for one in frame.values() for key in all_keys(one)}
    return set()


def test_what_is_written_for_developers_has_examples() -> None:
    for path in PROSE:
        assert talks(path), path.name
        assert curls(path), path.name


FRAME = re.compile(r'{"type":"(\w+)".*?(?= < |$)')
"""A frame in a line, in which … stands for what is left out."""


@pytest.mark.parametrize("talk", TALKS)
async def test_a_talk_of_the_readmes_goes_as_they_say(node: TestNode, talk: list[tuple[str, str]]) -> None:
    names: dict[str, object] = {}
    async with asyncio.timeout(PATIENCE_S), socket_client(node.url) as client:
        if talk[0][0] == "<":
            # `socket_client` has had its first frame.
            assert talk.pop(0)[1].startswith('{"type":"connected"')
            exists: dict[str, object] = {}
        else:
            await client.login()
            exists = await lived(client, node.url)
        for side, line in talk:
            if side == ">":
                message, _ = json.JSONDecoder().raw_decode(line)
                await client.send(made_real(message, exists, names) | logs_in(message))
                continue
            for said in FRAME.finditer(line):
                frame = await client.receive()
                # Of what comes many times the READMEs show one, and leave out what need not come.
                while frame["type"] != said[1] and frame["type"] in ("chunk", "recommendations", "watchlist"):
                    frame = await client.receive()
                assert (frame["type"], frame.get("code", 0)) == (said[1], 0), frame
                assert keys_of(said[0]) <= all_keys(frame), said[0]
                learn(names, said[0], [frame])


def logs_in(message: Frame) -> Frame:
    """Each test is somebody else."""
    return {"code": new_code()} if message["type"] == "login" else {}


# ---- curl ----


@pytest.mark.parametrize("block", COMMANDS)
async def test_command_lines_of_the_readmes_are_answered(
    http: httpx.AsyncClient, node: TestNode, block: list[Curl]
) -> None:
    names: dict[str, object] = {}
    async with socket_client(node.url) as client:
        await client.login()
        exists = await lived(client, node.url)
    for curl in block:
        headers = {name: value.replace("$TOKEN", client.token) for name, value in curl.headers.items()}
        path = re.sub(r"[0-9a-f]{4}…", lambda found: str(names[found[0]]), curl.path)
        path = re.sub(r"\$([A-Z_]+)", lambda found: str(exists[found[1].lower()]), path)
        content = None if curl.body is None else json.dumps(made_real(json.loads(curl.body), exists, names)).encode()
        # What curl says of a body by itself is not what the server takes.
        assert content is None or "Content-Type" in headers, curl.line
        frames = await answered(http, curl.method, path, headers=headers, content=content)
        for frame in frames:
            assert not isinstance(frame, dict) or frame.get("code", 0) == 0, frame
        assert {key for key in keys_of(curl.note) if key != "id"} <= all_keys(frames), curl.line
        learn(names, curl.note, frames)


async def answered(http: httpx.AsyncClient, method: str, path: str, **request: Any) -> list[Any]:
    """The body, or the JSON of its events, of a request that is not refused."""
    async with http.stream(method, path, **request) as response:
        if response.headers["content-type"].startswith("text/event-stream"):
            frames = [frame async for frame in events(response)]
            assert frames[-1].get("type", frames[-1].get("status")) in ("complete", "done"), frames[-1]
            return frames
        text = (await response.aread()).decode()
        assert response.status_code == 200, text
        return [json.loads(text) if response.headers["content-type"] == "application/json" else text]


# ---- OpenAPI ----


def routes() -> list[Any]:
    """Each route with each example of its body."""
    found = []
    for name, described in operations_of(DOCUMENT):
        body = described.get("requestBody", {}).get("content", {}).get("application/json")
        for number, example in enumerate([None] if body is None else examples_of(body)):
            kind = example["type"] if name == "POST /api/v1/messages" else number
            found.append(pytest.param(name, described, example, id=f"{name} {kind}"))
    return found


@pytest.mark.parametrize(("name", "described", "body"), routes())
async def test_an_example_of_a_route_is_answered_as_the_document_says(
    http: httpx.AsyncClient, node: TestNode, name: str, described: dict[str, Any], body: dict[str, Any] | None
) -> None:
    async with socket_client(node.url) as client:
        await client.login()
        exists = await lived(client, node.url)
    method, path = name.split(" ")
    given = {one["name"]: (one["in"], one["example"]) for one in described.get("parameters", []) if "example" in one}
    values = {key: exists.get(key, value) for key, (_, value) in given.items()}
    for key, (where, _) in given.items():
        if where == "path":
            path = re.sub(rf"{{{key}[^}}]*}}", str(values[key]), path)
    query = {key: str(values[key]) for key, (where, _) in given.items() if where == "query"}
    headers = {"Authorization": f"Bearer {client.token}"} if described["security"] else {}
    asked = {} if body is None else {"json": made_real(body, exists)}
    frames = await answered(http, method, path, params=query, headers=headers, **asked)
    # Where there is a choice and none is asked for, it is JSON, which stands first.
    media = next(iter(described["responses"]["200"]["content"].values()))
    schema = media["schema"].get("contentSchema", media["schema"])
    for frame in frames:
        assert problems(DOCUMENT, schema, frame) == [], frame
        assert not isinstance(frame, dict) or frame.get("code", 0) == 0, frame
