"""uvicorn as this server needs it: on a socket of ours, without its signals, and with a way to drop a connection."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from protocol.envelope import MAX_MESSAGE_BYTES
from wsserver.connections import StartError
from wsserver.frames import FrameParser
from wsserver.http_protocol import HttpProtocol
from wsserver.outbox import Outbox
from wsserver.websocket import ABORT_EXTENSION
from wsserver.wire import DIRECT_EXTENSION, Cork, Receiver, Wire

GRACEFUL_SHUTDOWN_S = 5
"""uvicorn's wait for connections that were told to close. A number, or it would wait for ever."""


VERSION = "13"
"""Of the WebSocket protocol: RFC 6455's."""


class _HandedOver(asyncio.Transport):
    """What a protocol has left of a transport that another one has taken: a closed one."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        """It was closed when it was handed over."""


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol. An application that knows our extension takes an accepted socket over, and this ends.

    Any other has plain ASGI, with a way to drop a socket whose client neither reads nor leaves.
    """

    def __init__(self, *arguments: Any, cork: Cork, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._cork = cork
        self._early = b""
        self._frames_begun = False
        # The same object, which has begun to read: it only takes control frames otherwise.
        self.conn.__class__ = FrameParser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection, with what its protocol has asked the kernel already."""
        before = cast(HttpProtocol, cast(asyncio.Transport, transport).get_protocol())
        self.connections.add(self)
        self.transport = cast(asyncio.Transport, transport)
        self.server, self.client = before.server, before.client
        self.scheme = "wss" if before.scheme == "https" else "ws"

    def data_received(self, data: bytes) -> None:
        """Read the handshake, and frames once it was answered: a pong before that would be no answer to it."""
        if self.handshake_initiated and not self.handshake_complete:
            self._early += data
            self.transport.pause_reading()
            return
        self._frames_begun = self.handshake_complete
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            # Headers beyond measure, or a body: uvicorn would neither send what `websockets` has to say to it, nor end.
            self._end_handshake()

    async def send(self, message: Any) -> None:
        """Take an ASGI message; once it has answered the handshake, read what did not wait for that."""
        await super().send(message)
        if self._early and self.handshake_complete:
            early, self._early = self._early, b""
            if not self.transport.is_closing():
                self.transport.resume_reading()
                self._frames_begun = True
                super().data_received(early)

    def handle_connect(self, event: Any) -> None:
        versions = event.headers.get_all("Sec-WebSocket-Version")
        if versions and versions != [VERSION]:
            # RFC 6455, 4.4: who speaks another version is told ours.
            response = self.conn.reject(HTTPStatus.UPGRADE_REQUIRED, f"WebSocket version {VERSION} is spoken here.\n")
            response.headers["Upgrade"] = "websocket"
            response.headers["Sec-WebSocket-Version"] = VERSION
            self.conn.send_response(response)
            self._end_handshake()
            return
        super().handle_connect(event)
        scope = getattr(self, "scope", None)
        if scope is not None:
            # The application's task has the same dictionary, and begins in the next turn of the loop.
            scope["extensions"][ABORT_EXTENSION] = {"abort": self.transport.abort}
            scope["extensions"][DIRECT_EXTENSION] = {"attach": self._attach}

    def _end_handshake(self) -> None:
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        no_request = self.conn.reject(HTTPStatus.BAD_REQUEST, "No handshake of a WebSocket.\n")
        self.transport.write(b"".join(self.conn.data_to_send()) or no_request.serialize())
        self.transport.close()

    def handle_ping(self) -> None:
        """Answer a ping. Who reads no pongs is not read either, until there is room."""
        super().handle_ping()
        if not self.writable.is_set() and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """There is room."""
        super().resume_writing()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self.transport.resume_reading()

    def _attach(self, receiver: Receiver, outbox: Outbox) -> Wire | None:
        if not self._can_be_left():
            return None
        self.stop_keepalive()
        self.connections.discard(self)
        transport, self.transport = self.transport, _HandedOver()
        # Each holds this object, which would wait for the garbage collector with them.
        self.scope["extensions"].clear()
        self.conn.parser.close()
        return Wire(
            transport,
            receiver,
            outbox,
            max_message_bytes=MAX_MESSAGE_BYTES,
            cork=self._cork,
            connections=self.connections,
            now=time.monotonic(),
        )

    def _can_be_left(self) -> bool:
        """Whether the handshake is all that there was: more that a client sent has begun to be read here."""
        return (
            self.handshake_complete
            and not (self.close_sent or self.disconnected or self.transport.is_closing())
            and self.queue.empty()
            and not self._frames_begun
        )


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
            ws=cast("type[asyncio.Protocol]", partial(SocketProtocol, cork=Cork(asyncio.get_running_loop()))),
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
