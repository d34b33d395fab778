"""What all tests share: one PostgreSQL, one Valkey, and servers that are started once for many tests."""

import io
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from storage.embedded import Services, embedded_services
from storage.postgres import Postgres
from storage.redis import Redis, open_redis
from tests.clients import HttpClient, SocketClient, Transport, new_code, socket_client
from tests.node import TestNode, serving, serving_on_uvloop, serving_through_asgi
from tests.parts import PARTS
from tests.raw_socket import RawSocket, raw_socket
from tests.standins.llm import LLMStandIn
from tests.standins.server import serve
from tests.standins.wechat import WeChatStandIn
from wsserver.telemetry import QUIET_LOGGERS, configure_logging


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that shares out the tests, where there is one, which parts ran in this one."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["parts"] = PARTS


def pytest_testnodedown(node: Any) -> None:
    """Hear it, from one of those processes."""
    PARTS.update(getattr(node, "workeroutput", {}).get("parts", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which parts ran that need more than Python."""
    for part, outcome in sorted(PARTS.items()):
        terminalreporter.write_line(f"{part}: {outcome}")


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Iterator[None]:
    """Settings of the shell that runs the tests are not the tests' business."""
    patch = pytest.MonkeyPatch()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell starts what shall run in the background, and what we start would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        if name.startswith(("LLM_", "QWEN_", "WECHAT_", "TMDB_", "RATE_", "NEO4J_", "OTEL_")) or name in (
            "DATABASE_URL",
            "POSTGRES_DSN",
            "REDIS_URL",
            "JWT_SECRET",
            "APP_ENV",
            "PORT",
            "WORKERS",
            "PROMETHEUS_MULTIPROC_DIR",
            "HOST",
            "DATA_DIR",
            "ALLOW_GUESTS",
            "CORS_ORIGINS",
            "ENRICHMENT_ENABLE",
            "PUBLIC_URL",
            "FORWARDED_ALLOW_IPS",
        ):
            patch.delenv(name)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def data_dir() -> Iterator[Path]:
    """A folder that the servers' own user may enter too, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="cinewire-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def services(data_dir: Path) -> Iterator[Services]:
    with embedded_services(data_dir / "services") as started:
        yield started


@pytest.fixture(scope="session")
async def node(services: Services, data_dir: Path) -> AsyncIterator[TestNode]:
    """A server as `python3 run.py` starts it: local login, the demo catalogue and its assistant."""
    async with serving(services, data_dir) as started:
        yield started


@pytest.fixture(scope="module")
async def asgi_node(services: Services, data_dir: Path) -> AsyncIterator[TestNode]:
    """The same, on a server that has nothing but ASGI for a socket: any other than ours."""
    async with serving_through_asgi(services, data_dir) as started:
        yield started


@pytest.fixture(scope="session")
def uvloop_node(services: Services, data_dir: Path) -> Iterator[TestNode]:
    """The same on the event loop that servers run on, in a thread of its own."""
    with serving_on_uvloop(services, data_dir) as started:
        yield started


@pytest.fixture
def wire_server(request: pytest.FixtureRequest) -> TestNode:
    """What tests of the wire speak to: `node`, or the fixture that they name."""
    server: TestNode = request.getfixturevalue(getattr(request, "param", "node"))
    return server


both_loops = pytest.mark.parametrize("wire_server", ["node", "uvloop_node"], indirect=True)
"""For tests in which TCP is ended, held back or handed over: each event loop has its own ways there."""


@pytest.fixture(params=["direct", "asgi"])
async def wire(request: pytest.FixtureRequest, wire_server: TestNode) -> AsyncIterator[RawSocket]:
    """A socket to speak bytes on, which was greeted; in both ways that there are between it and the application.

    A message that did not wait for the handshake is for ASGI, which has the socket then for good.
    """
    async with raw_socket(wire_server.url, impatient=request.param == "asgi") as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class ModelNode:
    """A server with a language model and WeChat, and the stand-ins that play them."""

    url: str
    node: TestNode
    model: LLMStandIn
    wechat: WeChatStandIn


@pytest.fixture(scope="session")
async def _model_node(services: Services, data_dir: Path) -> AsyncIterator[ModelNode]:
    model, wechat = LLMStandIn(), WeChatStandIn()
    async with (
        serve(model.app) as model_url,
        serve(wechat.app) as wechat_url,
        serving(
            services,
            data_dir,
            llm_base_url=[f"{model_url}/v1"],
            llm_model=["stand-in"],
            llm_api_key=["key"],
            wechat_appid=wechat.appid,
            wechat_app_secret=wechat.secret,
            wechat_api_base=wechat_url,
        ) as started,
    ):
        yield ModelNode(started.url, started, model, wechat)


@pytest.fixture
def model_node(_model_node: ModelNode) -> ModelNode:
    """The same server for all tests, its stand-ins as new."""
    _model_node.model.reset()
    _model_node.wechat.reset()
    return _model_node


@pytest.fixture
async def client(node: TestNode) -> AsyncIterator[SocketClient]:
    """A socket that has logged in as somebody new."""
    async with socket_client(node.url) as opened:
        await opened.login()
        yield opened


@pytest.fixture
async def http(node: TestNode) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=15) as opened:
        yield opened


@pytest.fixture(params=["socket", "http"])
async def transport(
    request: pytest.FixtureRequest, node: TestNode, http: httpx.AsyncClient
) -> AsyncIterator[Transport]:
    """Somebody new, over either transport."""
    if request.param == "socket":
        async with socket_client(node.url) as opened:
            await opened.login()
            yield opened
        return
    reply = await http.post("/api/v1/messages", json={"type": "login", "code": new_code()})
    yield HttpClient(http, reply.json()["data"]["token"])


@pytest.fixture
async def postgres(node: TestNode, services: Services) -> AsyncIterator[Postgres]:
    """The database of `node`, its schema up to date and the demo catalogue loaded."""
    assert services.database_url is not None
    async with Postgres.open(services.database_url, size=4) as opened:
        yield opened


@pytest.fixture(scope="session")
async def redis_of_services(services: Services) -> AsyncIterator[Redis]:
    """The same Valkey for fixtures that outlive a test."""
    assert services.redis_url is not None
    async with open_redis(services.redis_url) as opened:
        yield opened


@pytest.fixture
async def redis(services: Services) -> AsyncIterator[Redis]:
    assert services.redis_url is not None
    async with open_redis(services.redis_url) as opened:
        yield opened


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged in production, at level debug."""
    root = logging.getLogger()
    before = root.handlers, root.level, structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in QUIET_LOGGERS}
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    configure_logging(level="debug", json=True)
    # Loggers keep what they were first configured with; these must not.
    structlog.configure(cache_logger_on_first_use=False)
    yield written
    root.handlers, root.level = before[0], before[1]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.configure(**before[2])
