"""Sockets that are opened, asked one thing and closed, again and again: what taking a client in costs a server.

A protocol of our own on bytes that were made before, because a WebSocket library spends as long on a handshake as the
server does. `steps` are what is sent and what its answer contains; the first step's text may be empty.
"""

import asyncio
import base64
import itertools
import os
import time
from array import array
from collections.abc import Sequence
from typing import Any, cast

from tests.bench.histogram import counted
from tests.bench.talk import OPEN_S

SHORT, LONG = 125, 126  # RFC 6455 §5.2: from here on the length has two bytes more
MASKED = 0x80
TEXT, CLOSE = 0x81, 0x88


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros, which leave the payload as it is."""
    size = len(payload)
    length = bytes([MASKED | size]) if size <= SHORT else bytes([MASKED | LONG]) + size.to_bytes(2, "big")
    return bytes([opcode]) + length + bytes(4) + payload


GOODBYE = frame(CLOSE, (1000).to_bytes(2, "big"))


class Visit(asyncio.Protocol):
    """One socket's life. `left` is done when the server has closed it: True when all steps were answered."""

    def __init__(self, request: bytes, steps: Sequence[tuple[bytes, bytes]]) -> None:
        self._request = request
        self._steps = iter(steps)
        self._expected = b"101 "
        self._read = b""
        self._done = False
        self.left: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while not self._done and self._expected in self._read:
            step = next(self._steps, None)
            if step is None:
                self._done = True
                self._transport.write(GOODBYE)
                return
            say, self._expected = step
            self._read = b"" if say else self._read.partition(b"\r\n\r\n")[2]
            if say:
                self._transport.write(frame(TEXT, say))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.left.done():
            self.left.set_result(self._done)


class Knocks:
    """`at_once` clients that come and go."""

    def __init__(self, command: dict[str, Any]) -> None:
        self._host, self._port = "127.0.0.1", command["port"]
        self._path = command["path"]
        self._steps = command["steps"]
        self._authorizes = command.get("authorizes", False)
        self._tokens = itertools.cycle(command.get("tokens") or [""])
        self._sources = itertools.cycle(command.get("sources") or ["127.0.0.1"])
        self._at_once = command["at_once"]
        self._going_on = True
        self._tasks: list[asyncio.Task[None]] = []
        self.took_ns = array("q")
        self.failed = 0

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._come_and_go(next(self._tokens))) for _ in range(self._at_once)]

    async def _come_and_go(self, token: str) -> None:
        loop = asyncio.get_running_loop()
        while self._going_on:
            began = time.perf_counter_ns()
            request, steps = self._request(token), self._said(token)
            try:
                async with asyncio.timeout(OPEN_S):
                    _, visit = await loop.create_connection(
                        lambda request=request, steps=steps: Visit(request, steps),  # type: ignore[misc]
                        self._host,
                        self._port,
                        local_addr=(next(self._sources), 0),
                    )
                    fine = await visit.left
            except OSError:
                fine = False
            if fine:
                self.took_ns.append(time.perf_counter_ns() - began)
            else:
                self.failed += 1
                await asyncio.sleep(0.01)

    def _request(self, token: str) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        authorization = f"Authorization: Bearer {token}\r\n" if self._authorizes else ""
        return (
            f"GET {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{authorization}\r\n"
        ).encode()

    def _said(self, token: str) -> list[tuple[bytes, bytes]]:
        fresh = os.urandom(8).hex()
        return [
            (say.replace("{token}", token).replace("{code}", fresh).encode(), expected.encode())
            for say, expected in self._steps
        ]

    def mark(self) -> int:
        return len(self.took_ns)

    def since(self, first: int, last: int) -> dict[str, Any]:
        return {"operations": last - first, "latency": counted(self.took_ns[first:last]), "wrong": self.failed}

    async def finish(self) -> None:
        self._going_on = False
        await asyncio.wait(self._tasks, timeout=OPEN_S)
        for task in self._tasks:
            task.cancel()
