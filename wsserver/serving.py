"""uvicorn as this server needs it: on a socket of ours, without its signals, and with a way to drop a connection."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from protocol.envelope import MAX_MESSAGE_BYTES
from wsserver.connections import StartError
from wsserver.http_protocol import HttpProtocol
from wsserver.websocket import ABORT_EXTENSION

GRACEFUL_SHUTDOWN_S = 5
"""uvicorn's wait for connections that were told to close. A number, or it would wait for ever."""


class _Protocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, telling the application how to drop a socket whose client neither reads nor leaves."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        scope = getattr(self, "scope", None)
        if scope is not None:
            # The application's task has the same dictionary, and begins in the next turn of the loop.
            scope["extensions"][ABORT_EXTENSION] = {"abort": self.transport.abort}


class _Server(uvicorn.Server):
    """uvicorn, leaving signals to us: it would stop before the runs are finished. `up` is set when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def served(application: ASGIApp, listener: socket.socket) -> AsyncIterator[uvicorn.Server]:
    """Serve the application on the socket until the block ends."""
    server = _Server(
        uvicorn.Config(
            application,
            http=HttpProtocol,
            ws=_Protocol,
            ws_max_size=MAX_MESSAGE_BYTES,
            # Deflate costs about 50 KiB a connection, and small frames gain nothing.
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
    try:
        await server.up.wait()
        yield server
    finally:
        server.should_exit = True
        await serving


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections into its backlog. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError(f"HOST, PORT: cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener
