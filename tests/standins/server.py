"""Runs an ASGI app on a real port, inside the loop of the test that uses it, and lets an app misbehave on its socket.

It knows nothing about any vendor.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.types import ASGIApp, Receive

STOP_TIMEOUT_S = 2  # uvicorn wants whole seconds; answers that a test left stalled are cancelled after this


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, and stopped by an event: its own loop looks only ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.stop.wait()


@asynccontextmanager
async def serve(app: ASGIApp) -> AsyncIterator[str]:
    """Serves `app` on 127.0.0.1 and yields its base URL; on the way out every connection is closed, in bounded time."""
    # Bound and listening before the server runs: a connection made too early waits in the backlog.
    # The protocol is named because asyncio sets TCP_NODELAY only then: else a delta waits 40 ms for an ACK.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=STOP_TIMEOUT_S)
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.stop.set()
            await running
            for connection in list(server.server_state.connections):
                if connection.transport is not None:
                    connection.transport.abort()


@dataclass(slots=True, eq=False)
class Gate:
    """A place in an answer where the server waits: `reached` tells the test, `open` lets the answer go on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> None:
        self.released.set()

    async def wait(self) -> None:
        self.reached.set()
        await self.released.wait()


async def unless_left(receive: Receive, answering: Coroutine[object, object, None]) -> bool:
    """Runs `answering` while the client stays; True when it stayed. The request's body must have been read."""
    answer, leaving = asyncio.create_task(answering), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if stayed := answer.done():
            answer.result()
        return stayed
    finally:
        answer.cancel()
        leaving.cancel()
        await asyncio.wait({answer, leaving})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def cut(receive: Receive) -> None:
    """Closes the TCP connection under an answer. ASGI has no word for it, so uvicorn's own cycle is asked."""
    receive.__self__.transport.close()  # type: ignore[attr-defined]
