"""The examples run as they are against a server that was just started."""

import asyncio
import json
import sys
from pathlib import Path

from tests.clients import PATIENCE_S, new_code
from tests.node import TestNode

ROOT = Path(__file__).resolve().parent.parent


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
