"""PostgreSQL and Valkey really go away under a running server and come back: errors say so, and nothing else breaks."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import psutil
import pytest
import structlog

from storage.embedded import Services, embedded_services
from tests.clients import PATIENCE_S, socket_client
from tests.node import TestNode, serving
from tests.standins.llm import LLMStandIn, stalls
from tests.standins.server import Gate, serve

pytestmark = pytest.mark.slow


class Service:
    """A server process of ours that can be stopped and started again as it was."""

    def __init__(self, process: psutil.Process, *options: str) -> None:
        # Valkey writes what it does over its command line: its options are given anew.
        self._command = [process.exe(), *options] if options else process.cmdline()
        self._user, self._folder = process.uids().real, process.cwd()
        self._process: psutil.Process | None = process
        self._restarted: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE_S)
        self._process = None

    def start(self) -> None:
        self._restarted = subprocess.Popen(
            self._command, user=self._user, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._process = psutil.Process(self._restarted.pid)

    def end(self) -> None:
        if self._restarted is not None and self._restarted.poll() is None:
            self._restarted.send_signal(signal.SIGINT)
            self._restarted.wait(PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Fragile:
    """A server whose PostgreSQL and Valkey are this test's alone."""

    url: str
    node: TestNode
    postgres: Service
    valkey: Service
    model: LLMStandIn


@contextlib.contextmanager
def own_services(data_dir: Path) -> Iterator[tuple[Services, Service, Service]]:
    known = {child.pid for child in psutil.Process().children()}
    with embedded_services(data_dir) as services:
        ours = [child for child in psutil.Process().children() if child.pid not in known]
        (postgres,) = [Service(child) for child in ours if "postgres" in child.name()]
        (child,) = [child for child in ours if "postgres" not in child.name()]
        socket = unquote(urlsplit(services.redis_url or "").path)
        options = ("--port", "0", "--unixsocket", socket, "--dir", child.cwd(), "--appendonly", "yes", "--save", "")
        valkey = Service(child, *options)
        try:
            yield services, postgres, valkey
        finally:
            postgres.end()
            valkey.end()


@pytest.fixture
async def fragile(data_dir: Path, request: pytest.FixtureRequest) -> AsyncIterator[Fragile]:
    model = LLMStandIn()
    with own_services(data_dir / request.node.name) as (services, postgres, valkey):
        async with (
            serve(model.app) as model_url,
            serving(services, data_dir, llm_base_url=[f"{model_url}/v1"], llm_model=["stand-in"]) as node,
        ):
            yield Fragile(node.url, node, postgres, valkey, model)


async def becomes_ready(url: str) -> dict[str, object]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http, asyncio.timeout(PATIENCE_S):
        while (response := await http.get("/ready")).status_code != 200:
            await asyncio.sleep(0.05)
    ready: dict[str, object] = response.json()
    return ready


async def readiness(url: str) -> tuple[int, dict[str, object]]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http:
        response = await http.get("/ready")
        assert (await http.get("/health")).status_code == 200
        return response.status_code, response.json()


async def test_without_postgresql_errors_say_so_and_its_return_is_enough(fragile: Fragile) -> None:
    async with socket_client(fragile.url) as client:
        await client.login()
        before = await client.call({"type": "chat", "query": "之前"})
        fragile.postgres.stop()
        for message in (
            {"type": "chat", "query": "现在"},
            {"type": "history"},
            {"type": "movie_detail", "tmdb_id": 603},
        ):
            error = await client.call(message)
            assert (error["code"], error["reason"], error["retryable"]) == (503, "storage_unavailable", True)
        assert (await client.call({"type": "ping"}))["type"] == "pong"
        status, ready = await readiness(fragile.url)
        assert (status, ready["postgres"], ready["redis"]) == (503, False, True)
        fragile.postgres.start()
        await becomes_ready(fragile.url)
        after = await client.call({"type": "chat", "query": "之后"})
        history = await client.call({"type": "history"})
    assert [item["content"] for item in history["data"]["items"]] == [
        "之前",
        before["data"]["msg"],
        "之后",
        after["data"]["msg"],
    ]


async def test_without_postgresql_logins_go_on_and_the_next_one_is_noted(fragile: Fragile) -> None:
    async with socket_client(fragile.url) as client:
        fragile.postgres.stop()
        with structlog.testing.capture_logs() as lines:
            reply = await client.login("mine")
        assert [line for line in lines if "noted" in line["event"]] == [
            {"event": "login is not noted", "log_level": "warning"}
        ]
        fragile.postgres.start()
        await becomes_ready(fragile.url)
        unknown = await client.call({"type": "account_export"})
        assert "profile" not in unknown["data"]
        await client.login("mine")
        known = await client.call({"type": "account_export"})
        assert known["data"]["profile"]["openid"] == reply["data"]["openid"]


async def test_without_redis_chats_go_on_and_logins_say_so(fragile: Fragile) -> None:
    async with socket_client(fragile.url) as client:
        await client.login()
        await client.call({"type": "chat", "query": "之前"})
        fragile.valkey.stop()
        during = await client.call({"type": "chat", "query": "现在"})
        assert during["code"] == 0
        contents = [turn["content"] for turn in fragile.model.calls[-1].json["messages"]]
        assert (contents[1], contents[-1]) == ("之前", "现在")
        async with socket_client(fragile.url) as other:
            error = await other.call({"type": "login", "code": "new"})
            assert (error["type"], error["code"], error["reason"], error["retryable"]) == (
                "login_response",
                503,
                "storage_unavailable",
                True,
            )
            status, ready = await readiness(fragile.url)
            assert (status, ready["postgres"], ready["redis"]) == (503, True, False)
            fragile.valkey.start()
            await becomes_ready(fragile.url)
            assert (await other.login())["code"] == 0
        history = await client.call({"type": "history"})
    assert [item["content"] for item in history["data"]["items"] if item["role"] == "user"] == ["之前", "现在"]


async def test_an_answer_waits_for_postgresql_to_be_stored(fragile: Fragile) -> None:
    gate = Gate()
    fragile.model.queue(stalls(gate, "回答"))
    async with socket_client(fragile.url) as client:
        await client.login()
        await client.send({"type": "chat", "query": "问题", "stream": True})
        await gate.reached.wait()
        fragile.postgres.stop()
        gate.open()
        frames = await client.receive_until("chunk")
        fragile.postgres.start()
        frames += await client.receive_until("complete", "error")
        assert frames[-1]["type"] == "complete"
        await becomes_ready(fragile.url)
        history = await client.call({"type": "history"})
    assert [item["content"] for item in history["data"]["items"]] == ["问题", "回答"]
    assert history["data"]["items"][1]["id"] == frames[-1]["message_id"]


async def test_a_cancel_needs_no_redis(fragile: Fragile) -> None:
    gate = Gate()
    fragile.model.queue(stalls(gate, "说到一半"))
    async with socket_client(fragile.url) as client:
        await client.login()
        await client.send({"type": "chat", "query": "问题", "stream": True, "id": "mine"})
        await gate.reached.wait()
        fragile.valkey.stop()
        await client.send({"type": "cancel", "chat_id": "mine"})
        frames = await client.receive_until("complete", "error")
        assert "cancel_response" in {frame["type"] for frame in frames}
        assert (frames[-1]["answer"], frames[-1]["finish_reason"]) == ("说到一半", "cancelled")
        fragile.valkey.start()
        await becomes_ready(fragile.url)
        request_id = frames[0]["data"]["request_id"]
        resumed = await client.call({"type": "resume", "request_id": request_id, "after_seq": 0})
        assert resumed["data"]["recovered"] is True
        replayed = await client.receive_until("complete")
    assert replayed == [frame for frame in frames if "seq" in frame]
