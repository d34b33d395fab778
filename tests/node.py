"""Starts servers for tests: the real application on a real uvicorn, on any free port."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

import wsserver.app
from storage.embedded import Services
from wsserver.app import Node, running
from wsserver.serving import listen, served
from wsserver.settings import Settings
from wsserver.wire import DIRECT_EXTENSION

START_S = 30.0
"""For a server in another thread to be up, or down."""


@dataclass(frozen=True, slots=True)
class TestNode:
    """A server under test."""

    __test__ = False

    url: str
    node: Node
    settings: Settings


def settings_for_tests(data_dir: Path, **settings: Any) -> Settings:
    """Settings that come from the test alone, not from this shell or a `.env` that lies about.

    One client in a test asks more in a second and in a minute than a person does, and a model is asked only what the
    test says.
    """
    chosen = {
        "rate_limit_burst": 1000,
        "rate_limit_chats_per_min": 1000,
        "enrichment_extraction": False,
        "llm_titles": False,
        **settings,
    }
    return Settings(_env_file=None, data_dir=data_dir, port=0, **chosen)


@contextlib.asynccontextmanager
async def serving(services: Services, data_dir: Path, **settings: Any) -> AsyncIterator[TestNode]:
    """Serve until the block ends."""
    with listen("127.0.0.1", 0) as listener:
        chosen = settings_for_tests(data_dir, **settings)
        async with running(chosen, listener, services) as node:
            yield TestNode(f"http://127.0.0.1:{node.port}", node, chosen)


@contextlib.asynccontextmanager
async def serving_through_asgi(services: Services, data_dir: Path, **settings: Any) -> AsyncIterator[TestNode]:
    """The same with sockets as a server has them that does not know our extension."""
    async with contextlib.AsyncExitStack() as stack:
        with _without_extension():
            node = await stack.enter_async_context(serving(services, data_dir, **settings))
        yield node


@contextlib.contextmanager
def _without_extension() -> Iterator[None]:
    def plain(application: ASGIApp) -> ASGIApp:
        async def served_plainly(scope: Scope, receive: Receive, send: Send) -> None:
            scope.get("extensions", {}).pop(DIRECT_EXTENSION, None)
            await application(scope, receive, send)

        return served_plainly

    def serve(application: ASGIApp, listener: socket.socket) -> contextlib.AbstractAsyncContextManager[uvicorn.Server]:
        return served(plain(application), listener)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wsserver.app, "served", serve)
        yield


@contextlib.contextmanager
def serving_on_uvloop(services: Services, data_dir: Path) -> Iterator[TestNode]:
    """The same in a thread of its own, on the event loop that servers run on; tests have asyncio's."""
    started: Future[TestNode] = Future()
    stopping: Future[None] = Future()

    async def run() -> None:
        try:
            async with serving(services, data_dir) as node:
                started.set_result(node)
                await asyncio.wrap_future(stopping)
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    with ThreadPoolExecutor(1, "uvloop") as thread:
        ended = thread.submit(uvloop.run, run())
        try:
            yield started.result(START_S)
        finally:
            stopping.set_result(None)
        ended.result(START_S)
