"""The command itself, as a process: it starts, says where, stops clean, survives kill -9, and leaves nothing behind."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus

from tests.clients import PATIENCE_S, new_code, socket_client

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


class Server:
    """`python3 run.py` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, family: list[psutil.Process]) -> None:
        self.process = process
        self.url = url
        self.family = family

    async def ended(self) -> int:
        """Wait for it and all that it started to be gone."""
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            while any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in self.family):
                await asyncio.sleep(0.02)
        return code


async def start(data_dir: Path, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "run.py"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=data_dir.parent,
        env={"PATH": os.environ["PATH"], "PORT": "0", "DATA_DIR": str(data_dir), **environment},
    )


@contextlib.asynccontextmanager
async def server(data_dir: Path, **environment: str) -> AsyncIterator[Server]:
    process = await start(data_dir, **environment)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+", line)
        assert found, line + (await process.stderr.read()).decode()
        draining = asyncio.create_task(process.stderr.read())
        yield Server(process, found[0], psutil.Process(process.pid).children(recursive=True))
        draining.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_says_where_it_serves_and_a_signal_stops_all_of_it(data_dir: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        async with server(data_dir / f"signal {number}") as started:
            assert len(started.family) >= 2
            async with socket_client(started.url) as client:
                await client.login()
                reply = await client.call({"type": "chat", "query": "《黑客帝国》是哪一年的？"})
                assert "1999" in reply["data"]["msg"]
                started.process.send_signal(number)
                goodbye = await client.receive()
                assert (goodbye["type"], goodbye["code"]) == ("goodbye", 1012)
                assert goodbye["retry_after_ms"] > 0
                assert await client.closed() == 1012
            assert await started.ended() == 0


async def test_after_kill_9_nothing_runs_on_and_nothing_committed_is_lost(data_dir: Path) -> None:
    folder, code = data_dir / "killed", new_code()
    async with server(folder) as first:
        async with socket_client(first.url) as client:
            await client.login(code)
            said = await client.call({"type": "chat", "query": "记住这句话"})
        first.process.kill()
        assert await first.ended() == -signal.SIGKILL
    async with server(folder) as second:
        async with socket_client(second.url) as client:
            await client.login(code)
            history = await client.call({"type": "history"})
        second.process.terminate()
        await second.ended()
    assert [item["content"] for item in history["data"]["items"]] == ["记住这句话", said["data"]["msg"]]


async def test_a_second_copy_shares_the_data_and_harms_nothing_when_it_stops(data_dir: Path) -> None:
    folder, code = data_dir / "shared", new_code()
    async with server(folder) as first:
        async with server(folder) as second:
            async with socket_client(second.url) as client:
                await client.login(code)
                await client.call({"type": "chat", "query": "在第二个里问的"})
            second.process.terminate()
            assert await second.ended() == 0
        async with socket_client(first.url) as client:
            await client.login(code)
            history = await client.call({"type": "history"})
            assert history["data"]["items"][0]["content"] == "在第二个里问的"
        first.process.terminate()
        assert await first.ended() == 0


async def test_an_answer_in_the_making_is_finished_before_the_stop(data_dir: Path) -> None:
    # A model that answers when it is told to: the stop comes first.
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def model(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(b'data: {"choices":[{"index":0,"delta":{"content":"one "}}]}\n\n')
        await go_on.wait()
        writer.write(b'data: {"choices":[{"index":0,"delta":{"content":"two"},"finish_reason":"stop"}]}\n\n')
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(model, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    folder, code = data_dir / "drained", new_code()
    model_settings = {"LLM_BASE_URL": f"http://127.0.0.1:{port}/v1", "LLM_MODEL": "m"}
    async with server(folder, **model_settings) as started, socket_client(started.url) as client:
        await client.login(code)
        await client.send({"type": "chat", "query": "count", "stream": True})
        await asked.wait()
        request_id = (await client.receive_until("chunk"))[-1]["request_id"]
        started.process.terminate()
        await client.receive_until("goodbye")
        assert await client.closed() == 1012
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"{started.url}/ready")).status_code == 503
            body = {"type": "chat", "query": "another"}
            refused = (await http.post(f"{started.url}/api/v1/messages", json=body)).json()
            assert (refused["reason"], refused["retryable"]) == ("draining", True)
        # Before the handshake, so that a balancer can give the client another node.
        with pytest.raises(InvalidStatus) as no_socket:
            async with socket_client(started.url):
                pass
        assert no_socket.value.response.status_code == 503
        assert no_socket.value.response.headers["Retry-After"] == "1"
        go_on.set()
        assert await started.ended() == 0
    async with server(folder, **model_settings) as again, socket_client(again.url) as client:
        await client.login(code)
        resumed = await client.call({"type": "resume", "request_id": request_id, "after_seq": 1})
        assert resumed["data"] == {"recovered": True, "last_seq": 3, "running": False}
        frames = await client.receive_until("complete")
        assert frames[-1]["answer"] == "one two"
        again.process.terminate()
        await again.ended()
    listening.close()


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({"PORT": "eighty"}, 2, "PORT: "),
        ({"APP_ENV": "production"}, 2, "WECHAT_APPID: needed when APP_ENV=production"),
        ({"DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x"}, 1, "DATABASE_URL: PostgreSQL cannot be used"),
        ({"REDIS_URL": "redis://:hush@127.0.0.1:1/0"}, 1, "REDIS_URL: Redis cannot be reached"),
    ],
)
async def test_what_stops_the_start_is_said_with_the_variables_name(
    data_dir: Path, environment: dict[str, str], code: int, said: str
) -> None:
    process = await start(data_dir / "wrong", **environment)
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    assert process.returncode == code, errors.decode()
    assert said in errors.decode()
    assert "Traceback" not in errors.decode()
    assert "hush" not in errors.decode()


async def test_a_taken_port_is_said_before_anything_is_started(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await start(data_dir / "never", PORT=str(taken.getsockname()[1]))
        async with asyncio.timeout(60):
            _, errors = await process.communicate()
    assert process.returncode == 1
    assert "PORT: cannot listen on" in errors.decode()
    assert not (data_dir / "never").exists()
