"""The mini program of the examples, and its client library, on a phone made of Node against real servers.

The tests themselves are JavaScript, in `tests/miniprogram/`. Here the servers are started that they talk to, and what
they cannot do to those: issue WeChat's codes, restart the node, revoke a session.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from storage.demo.load import load_demo
from storage.embedded import Services
from storage.movies import Movies
from storage.postgres import Postgres
from storage.redis import Redis
from tests.databases import fresh_database
from tests.faults.model import ScriptedModel, scripted_model
from tests.faults.nodes import Fleet, fleet
from tests.node import TestNode
from tests.parts import INSTALL_S, PARTS, RAN, node_with
from tests.standins.server import serve
from tests.standins.wechat import WeChatStandIn

ROOT = Path(__file__).resolve().parent
FOLDER = ROOT / "miniprogram"
PART = "mini program (Node)"
RUN_S = 100
"""How long one file of tests may take; its own waits end earlier."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_S + 2 * RUN_S)]


@pytest.fixture(scope="module")
def javascript() -> str:
    """The path of a Node that has what the tests need."""
    node = node_with(PART, FOLDER)
    PARTS[PART] = RAN
    return node


@dataclass(frozen=True, slots=True)
class Remote:
    """What the JavaScript tests may have done to the server."""

    fleet: Fleet
    model: ScriptedModel
    wechat: WeChatStandIn
    redis: Redis

    def app(self) -> Starlette:
        routes = {"code": self.code, "restart": self.restart, "revoke": self.revoke, "calls": self.calls}
        return Starlette(routes=[Route(f"/{name}", endpoint, methods=["POST"]) for name, endpoint in routes.items()])

    async def code(self, http: Request) -> JSONResponse:
        """What `wx.login` gives the holder of this openid."""
        return JSONResponse({"code": self.wechat.issue_code((await http.json())["openid"])})

    async def restart(self, _http: Request) -> JSONResponse:
        old, proxy = self.fleet.nodes[0], self.fleet.proxies[0]
        old.terminate()
        proxy.target = None  # as a balancer does with a node that is not ready
        assert await old.ended() == 0
        await self.fleet.replace(0)
        return JSONResponse({})

    async def revoke(self, http: Request) -> JSONResponse:
        await self.redis.delete(f"cw:session:{(await http.json())['session_id']}")
        return JSONResponse({})

    async def calls(self, _http: Request) -> JSONResponse:
        """How often the model was asked each question."""
        return JSONResponse(await self.model.calls())


@pytest.fixture(scope="module")
async def environment(
    javascript: str, services: Services, node: TestNode, data_dir: Path, redis_of_services: Redis
) -> AsyncIterator[dict[str, str]]:
    """A node that logs in with WeChat and asks a paced model, another with the catalogue assistant, and the remote."""
    del javascript  # first of all: without it nothing is started
    assert services.database_url is not None
    wechat = WeChatStandIn()
    async with contextlib.AsyncExitStack() as stack:
        database_url = await stack.enter_async_context(fresh_database(services.database_url))
        model = await stack.enter_async_context(scripted_model())
        started = await stack.enter_async_context(
            fleet(
                1,
                data_dir / "miniprogram",
                database_url=database_url,
                redis_url=services.redis_url,
                model_url=model.url,
                wechat_appid=wechat.appid,
                wechat_app_secret=wechat.secret,
                wechat_api_base=await stack.enter_async_context(serve(wechat.app)),
                enrichment_extraction="false",
                drain_timeout_s="5",
                rate_limit_chats_per_min="1000",
                rate_limit_logins_per_min="10000",
                rate_limit_sockets_per_min="10000",
            )
        )
        async with Postgres.open(database_url, size=1) as postgres:
            await load_demo(Movies(postgres))
        remote = Remote(started, model, wechat, redis_of_services)
        yield {
            "PATH": os.environ["PATH"],
            "CINEWIRE_URL": started.urls[0],
            "CINEWIRE_ASSISTANT_URL": node.url,
            "CINEWIRE_CONTROL": await stack.enter_async_context(serve(remote.app())),
        }
        assert started.complaints() == []


async def run_javascript(node: str, name: str, environment: dict[str, str]) -> None:
    """Run one file of tests. What it says is shown where it fails."""
    process = await asyncio.create_subprocess_exec(
        node,
        "--test",
        f"{name}.test.js",
        cwd=FOLDER,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    print(output.decode())
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", ["text", "frames", "client", "pages"])
async def test_the_mini_program_on_a_phone(javascript: str, environment: dict[str, str], name: str) -> None:
    await run_javascript(javascript, name, environment)
