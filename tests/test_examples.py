"""The examples run as they are against a server that was just started."""

import asyncio
import json
import sys
from pathlib import Path

from tests.clients import PATIENCE_S
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
