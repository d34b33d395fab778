"""A TCP proxy that does to connections what networks do: cuts them, with or without a word, or lets nothing through."""

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Literal, cast

How = Literal["fin", "rst"]
"""Closed in good order, what was sent before still arriving; or reset, what is on its way being lost."""

BACKLOG = 2048


class Proxy:
    """Listens on a port of its own and passes bytes on to `target`, the port of a server on this machine.

    With `cut_every_s` each connection is cut at random after about that time. `counts` has: accepted, refused (the
    target was not there), fin, rst.
    """

    def __init__(self, target: int | None, *, cut_every_s: float | None = None, seed: int = 0) -> None:
        self.target = target
        self.cut_every_s = cut_every_s
        self.counts: Counter[str] = Counter()
        self.port = 0
        self.stalled = False
        self._random = random.Random(seed)
        self._links: set[_Link] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Proxy"]:
        """Serve until the block ends; then every connection is reset."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Link(self), "127.0.0.1", 0, backlog=BACKLOG)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.stalled = False
            for link in tuple(self._links):
                link.cut("rst")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __len__(self) -> int:
        return len(self._links)

    def cut_all(self, how: How = "rst") -> int:
        """Cut every connection. Gives how many there were."""
        links = tuple(self._links)
        for link in links:
            link.cut(how)
        return len(links)

    def cut_some(self, share: float) -> int:
        """Cut this share of the connections, picked at random, some of them in good order. Gives how many."""
        links = self._random.sample(sorted(self._links, key=id), round(share * len(self._links)))
        for link in links:
            link.cut(self._pick())
        return len(links)

    def stall(self) -> None:
        """Let nothing through, in either direction, on what is connected and on what will be."""
        self.stalled = True
        for link in self._links:
            link.near.hold()
            link.far.hold()

    def flow(self) -> None:
        """Let it through again, from where it stood."""
        self.stalled = False
        for link in self._links:
            link.near.let_go()
            link.far.let_go()

    def joined(self, link: "_Link") -> None:
        self.counts["accepted"] += 1
        self._links.add(link)
        if self.cut_every_s is not None:
            # Exponential: a cut is as likely in the handshake as anywhere else.
            lives_s = self._random.expovariate(1 / self.cut_every_s)
            asyncio.get_running_loop().call_later(lives_s, self._cut_if_there, link)

    def left(self, link: "_Link") -> None:
        self._links.discard(link)

    def _cut_if_there(self, link: "_Link") -> None:
        if link in self._links:
            link.cut(self._pick())

    def _pick(self) -> How:
        return self._random.choice(("fin", "rst"))


class _End(asyncio.Protocol):
    """One side of a connection; `other` is where its bytes go."""

    def __init__(self, link: "_Link") -> None:
        self.link = link
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None
        self._waiting = bytearray()
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by what it does, and not by its class.
        self.transport = cast(asyncio.Transport, transport)
        # Small frames leave at once, as they do on the way without a proxy.
        _socket(transport).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.link.made(self)

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None or self.link.proxy.stalled:
            self._waiting += data
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)

    def join(self, other: "_End") -> None:
        """From here on bytes go to the other end, those first that came already."""
        self.other = other
        self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            self.data_received(bytes(waiting))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self.link.cut("fin", counted=False)

    def pause_writing(self) -> None:
        self._is_full = True
        if self.other is not None:
            self.other.hold()

    def resume_writing(self) -> None:
        self._is_full = False
        if self.other is not None:
            self.other.let_go()

    def hold(self) -> None:
        if self.transport is not None and self.transport.is_reading():
            self.transport.pause_reading()

    def let_go(self) -> None:
        self._pass_on()
        may_read = not self.link.proxy.stalled and not (self.other is not None and self.other._is_full)
        if may_read and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def end(self, how: How) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if how == "fin":
            self.transport.close()
            return
        # Linger for no time at all: the kernel drops what it has and sends a reset.
        _socket(self.transport).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class _Link(_End):
    """A connection through the proxy: this is its near end, where the client is."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(self)
        self.proxy = proxy
        self.near: _End = self
        self.far = _End(self)
        self.is_cut = False
        self._connecting: asyncio.Task[None] | None = None

    def made(self, end: _End) -> None:
        if end is self:
            self.proxy.joined(self)
            self._connecting = asyncio.create_task(self._connect(), name="connection to the target")
        else:
            self.far.join(self.near)
            self.near.join(self.far)
        if self.proxy.stalled:
            end.hold()

    async def _connect(self) -> None:
        try:
            if self.proxy.target is None:
                raise ConnectionRefusedError
            await asyncio.get_running_loop().create_connection(lambda: self.far, "127.0.0.1", self.proxy.target)
        except OSError:
            self.proxy.counts["refused"] += 1
            self.cut("rst", counted=False)
        if self.is_cut:
            self.far.end("rst")

    def cut(self, how: How, *, counted: bool = True) -> None:
        if self.is_cut:
            return
        self.is_cut = True
        self.proxy.left(self)
        if counted:
            self.proxy.counts[how] += 1
        self.near.end(how)
        self.far.end(how)


def _socket(transport: asyncio.BaseTransport) -> socket.socket:
    found: socket.socket = transport.get_extra_info("socket")
    return found
