"""The load's sockets, by picows: it costs a fifth of what any server costs."""

import asyncio
import itertools
from collections.abc import Sequence

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tests.bench.talk import OPEN_S, Talk, ask

READ_BUFFER_BYTES = 1024
"""A frame of these loads has about 100 bytes, and there are 15,000 sockets."""

LOGINS, RETRY_S = 5, 1.0


class Socket(WSListener, Talk):  # type: ignore[misc]  # untyped
    """A connection that talks."""

    def __init__(self, number: int, speech: str) -> None:
        Talk.__init__(self, number, speech)
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.connected()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.heard(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.disconnected()

    def say(self, payload: bytes) -> None:
        if not self.closed and self.transport is not None:
            self.transport.send(WSMsgType.TEXT, payload)

    def leave(self) -> None:
        if not self.closed and self.transport is not None:
            self.transport.disconnect()


class Opening:
    """Opens sockets, some at once; each may log in as somebody of its own, by a code that begins with `login`."""

    def __init__(self, url: str, speech: str, login: str | None, sources: Sequence[str]) -> None:
        self._url, self._speech, self._login = url, speech, login
        self._sources = itertools.cycle(sources or ["127.0.0.1"])

    async def open(self, count: int, *, first: int, at_once: int) -> list[Socket]:
        numbers = iter(range(first, first + count))
        opened: list[Socket] = []

        async def some() -> None:
            for number in numbers:
                opened.append(await self._one(number))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(at_once, count)):
                tasks.create_task(some())
        return sorted(opened, key=lambda socket: socket.number)

    async def _one(self, number: int) -> Socket:
        _, listener = await ws_connect(
            lambda: Socket(number, self._speech),
            self._url,
            websocket_handshake_timeout=OPEN_S,
            read_buffer_init_size=READ_BUFFER_BYTES,
            local_addr=(next(self._sources), 0),
        )
        socket: Socket = listener
        async with asyncio.timeout(OPEN_S):
            await socket.opened
        if self._login is not None:
            await self._log_in(socket, f"{self._login}-{number}")
        return socket

    async def _log_in(self, socket: Socket, code: str) -> None:
        """Again, when a busy machine took too long: the speed of logins is measured elsewhere."""
        for left in reversed(range(LOGINS)):
            try:
                await ask(socket, {"type": "login", "code": code}, "login_response")
            except RuntimeError:
                if left == 0:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return
