"""WORKERS: several processes behave as one, also when one of them, or the one above them, dies."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.clients import PATIENCE_S, SocketClient, new_code, socket_client
from tests.test_process import Server, server, start

pytestmark = pytest.mark.slow

SOCKETS = 24
"""That all of them come to one of two workers happens once in eight million times."""


@contextlib.asynccontextmanager
async def crew(data_dir: Path, **environment: str) -> AsyncIterator[Server]:
    """Two workers and what is above them."""
    async with server(data_dir / "workers", WORKERS="2", **environment) as started:
        yield started


def workers(started: Server) -> list[psutil.Process]:
    children = psutil.Process(started.process.pid).children()
    found = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end while it is looked at
            if "wsserver.app" in child.cmdline():
                found.append(child)
    return found


def sockets_of(worker: psutil.Process) -> set[int]:
    """The ports of the clients that are connected to it."""
    return {each.raddr.port for each in worker.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED}


@contextlib.asynccontextmanager
async def sockets(url: str, number: int = SOCKETS) -> AsyncIterator[dict[int, SocketClient]]:
    """That many sockets, by their ports."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(socket_client(url)) for _ in range(number)]
        yield {client.socket.local_address[1]: client for client in opened}


async def metric(url: str, name: str) -> float:
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{url}/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


async def test_every_worker_gets_connections_and_all_behave_as_one(data_dir: Path) -> None:
    async with crew(data_dir) as started, sockets(started.url) as clients:
        first, second = workers(started)
        by_worker = [sockets_of(first) & clients.keys(), sockets_of(second) & clients.keys()]
        assert all(by_worker)
        assert sorted(port for ports in by_worker for port in ports) == sorted(clients)
        one, other = (clients[ports.pop()] for ports in by_worker)
        code = new_code()
        login, again = await one.login(code), await other.login(code)
        assert login["data"]["openid"] == again["data"]["openid"]
        said = []
        for client in (one, other):
            reply = await client.call({"type": "chat", "query": "《黑客帝国》是哪一年的？"})
            assert "1999" in reply["data"]["msg"]
            said += ["《黑客帝国》是哪一年的？", reply["data"]["msg"]]
        for client in (one, other):
            history = await client.call({"type": "history"})
            assert [item["content"] for item in history["data"]["items"]] == said
        # A token of one is good at the other: they sign with one secret.
        reply = await other.call({"type": "auth", "token": one.token})
        assert reply["code"] == 0
        assert await metric(started.url, "cinewire_connections") == SOCKETS
        counted = 'cinewire_operation_seconds_count{operation="login",outcome="ok"}'
        # One answers for both, and hears of the other's within a second.
        async with asyncio.timeout(PATIENCE_S):
            while await metric(started.url, counted) != 2:
                await asyncio.sleep(0.05)
        started.process.terminate()
        assert await started.ended() == 0


async def test_a_signal_stops_all_of_them_in_order(data_dir: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        async with crew(data_dir) as started, sockets(started.url) as clients:
            # A Ctrl-C goes to the whole session of the terminal: it reaches the workers only through their parent.
            assert os.getsid(started.process.pid) not in {os.getsid(worker.pid) for worker in workers(started)}
            started.process.send_signal(number)
            for client in clients.values():
                goodbye = await client.receive()
                assert (goodbye["type"], goodbye["code"]) == ("goodbye", 1012)
                assert await client.closed() == 1012
            assert await started.ended() == 0
        assert not list((data_dir / "workers").glob("metrics-*"))


async def test_a_second_signal_stops_at_once(data_dir: Path) -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    model = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with model:
        url = f"http://127.0.0.1:{model.sockets[0].getsockname()[1]}/v1"
        async with (
            crew(data_dir, LLM_BASE_URL=url, LLM_MODEL="m", LLM_TITLES="false", DRAIN_TIMEOUT_S="60") as started,
            socket_client(started.url) as client,
        ):
            await client.login()
            await client.send({"type": "chat", "query": "wait", "stream": True})
            await asked.wait()
            started.process.terminate()
            await client.receive_until("goodbye")
            assert started.process.returncode is None
            began = time.monotonic()
            started.process.terminate()
            assert await started.ended() == 0
            assert time.monotonic() - began < PATIENCE_S


async def test_after_kill_9_of_the_parent_nothing_runs_on(data_dir: Path) -> None:
    async with crew(data_dir) as started:
        assert len(workers(started)) == 2
        started.process.kill()
        assert await started.ended() == -signal.SIGKILL
    async with crew(data_dir) as started:
        # What the killed one left of its metrics is gone, and its numbers with it.
        assert len(list((data_dir / "workers").glob("metrics-*"))) == 1
        assert await metric(started.url, "cinewire_connections") == 0
        started.process.terminate()
        assert await started.ended() == 0


async def test_a_worker_that_dies_is_replaced_and_the_others_go_on(data_dir: Path) -> None:
    async with crew(data_dir) as started, sockets(started.url) as clients:
        dying, staying = workers(started)
        cut, kept = sockets_of(dying) & clients.keys(), sockets_of(staying) & clients.keys()
        client = clients[next(iter(kept))]
        await client.login()
        dying.kill()
        for port in cut:
            assert await clients[port].closed() == 1006
        chat = await client.call({"type": "chat", "query": "《黑客帝国》是哪一年的？"})
        assert "1999" in chat["data"]["msg"]
        # Meanwhile whoever comes is served by the others.
        async with socket_client(started.url) as meanwhile:
            assert (await meanwhile.call({"type": "ping"}))["type"] == "pong"
        async with asyncio.timeout(PATIENCE_S):
            while await metric(started.url, "cinewire_connections") != len(kept):
                await asyncio.sleep(0.05)
            while not (fresh := [one for one in workers(started) if one not in (dying, staying)]):
                await asyncio.sleep(0.05)
            while not fresh[0].net_connections("tcp"):  # it listens
                await asyncio.sleep(0.05)
        async with sockets(started.url) as more:
            assert sockets_of(fresh[0]) & more.keys()
            assert sockets_of(staying) & more.keys()
        started.family.append(fresh[0])
        started.process.terminate()
        assert await started.ended() == 0


async def test_all_workers_at_once_are_replaced_too(data_dir: Path) -> None:
    async with crew(data_dir) as started:
        old = workers(started)
        for worker in old:
            worker.kill()
        async with asyncio.timeout(PATIENCE_S):
            while not (fresh := [one for one in workers(started) if one not in old]) or not all(
                one.net_connections("tcp") for one in fresh
            ):
                await asyncio.sleep(0.05)
        async with socket_client(started.url) as client:
            await client.login()
        started.family.extend(fresh)
        started.process.terminate()
        assert await started.ended() == 0


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({"WORKERS": "two"}, 2, "WORKERS: "),
        ({"WORKERS": "0"}, 2, "WORKERS: "),
        ({"WORKERS": "65"}, 2, "WORKERS: "),
        ({"DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x"}, 1, "DATABASE_URL: PostgreSQL cannot be used"),
        ({"REDIS_URL": "redis://:hush@127.0.0.1:1/0"}, 1, "REDIS_URL: Redis cannot be reached"),
        ({"DATA_DIR": "/dev/null/x"}, 1, "DATA_DIR"),
    ],
)
async def test_what_stops_the_start_is_said_once(
    data_dir: Path, environment: dict[str, str], code: int, said: str
) -> None:
    process = await start(data_dir / "wrong workers", **{"WORKERS": "2", **environment})
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    text = errors.decode()
    assert process.returncode == code, text
    assert text.count(said) == 1
    assert ("No worker could be started" in text) == ("_URL" in said)
    assert "Traceback" not in text
    assert "hush" not in text
    assert not output


async def test_a_port_that_workers_of_another_server_share_is_taken(data_dir: Path) -> None:
    async with crew(data_dir) as started:
        port = started.url.rpartition(":")[2]
        for number in ("1", "2"):
            process = await start(data_dir / "never", PORT=port, WORKERS=number)
            async with asyncio.timeout(60):
                _, errors = await process.communicate()
            assert process.returncode == 1
            assert "PORT: cannot listen on" in errors.decode()
        started.process.terminate()
        assert await started.ended() == 0
    assert not (data_dir / "never").exists()
