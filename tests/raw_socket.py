"""A WebSocket client that does everything by hand and may do it wrongly, for tests of what is on the wire.

What it sends is what a test says, in pieces as the test says. What it reads must be without fault (RFC 6455), or the
test fails. It answers nothing by itself.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.clients import PATIENCE_S

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

MASK = bytes.fromhex("37fa213d")
"""RFC 6455, 5.7."""

KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455, 1.3."""

PATIENT_TURNS = 2_000
"""Of the event loop, in which a server that is going to read has read."""

Bits = Literal[7, 16, 64]
Headers = Sequence[tuple[str, str]]

HANDSHAKE: Headers = (
    ("Host", "cinewire.test"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


def encode(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_form: Bits | None = None,
    claims: int | None = None,
) -> bytes:
    """A client's frame. `rsv` is 0 to 7, RSV1 being 4; `length_form` is how many bits say the length.

    Without it they are as few as can be. `claims` is a length to be said instead of the payload's.
    """
    length = len(payload) if claims is None else claims
    bits = length_form or (7 if length < 126 else 16 if length < 65_536 else 64)
    masked = 0 if mask is None else 0x80
    first = fin << 7 | rsv << 4 | opcode
    if bits == 7:
        head = struct.pack("!BB", first, masked | length)
    elif bits == 16:
        head = struct.pack("!BBH", first, masked | 126, length)
    else:
        head = struct.pack("!BBQ", first, masked | 127, length)
    return head + payload if mask is None else head + mask + masked_with(mask, payload)


def masked_with(mask: bytes, payload: bytes) -> bytes:
    """The payload masked, or a masked one as it was."""
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(len(payload))


def close_with(code: int, reason: bytes = b"") -> bytes:
    """The payload of a close."""
    return struct.pack("!H", code) + reason


def handshake(path: str = "/ws", headers: Headers = HANDSHAKE, *, method: str = "GET", version: str = "1.1") -> bytes:
    """A request that asks for a socket."""
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in headers)]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def handshake_with(*changed: tuple[str, str | None]) -> Headers:
    """The usual headers with these in their place or after them, and without those that are None."""
    names = {name.lower() for name, _ in changed}
    kept = [(name, value) for name, value in HANDSHAKE if name.lower() not in names]
    return [*kept, *((name, value) for name, value in changed if value is not None)]


@dataclass(frozen=True, slots=True)
class Response:
    """What the server said to a handshake. Names of headers are in small letters."""

    status: int
    headers: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for known, value in self.headers if known == name.lower()]


@dataclass(frozen=True, slots=True)
class ServerFrame:
    """A whole message or a control frame from the server."""

    opcode: int
    payload: bytes

    def json(self) -> dict[str, Any]:
        """What a text says."""
        assert self.opcode == TEXT, self
        message: dict[str, Any] = json.loads(self.payload)
        return message


@dataclass(slots=True)
class Ending:
    """What still came before the server ended TCP, and how it did: `by` is FIN or RST."""

    by: Literal["FIN", "RST"] = "FIN"
    before: list[ServerFrame] = field(default_factory=list)
    close: bytes | None = None

    @property
    def code(self) -> int | None:
        """What the close frame said; None without one, 1005 where it said nothing."""
        if self.close is None:
            return None
        return int.from_bytes(self.close[:2]) if self.close else 1005


class EndOfStreamError(Exception):
    """The server has ended TCP, between two frames."""


class RawSocket:
    """One TCP connection. Every wait ends after PATIENCE_S."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._ended: Literal["FIN", "RST"] | None = None
        self._closed = False

    async def send_bytes(self, data: bytes, *, chop: int | None = None) -> None:
        """Send bytes, `chop` at a time: the server reads each piece before the next leaves, unless it is busy.

        What a server that has ended TCP does not take is dropped: what it said before can still be read.
        """
        size = chop or max(1, len(data))
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for start in range(0, len(data), size):
                    await self._loop.sock_sendall(self._connection, data[start : start + size])
                    # The other end is in this process too.
                    await asyncio.sleep(0)

    async def send_while_taken(self, data: bytes, *, at_most: int) -> int:
        """Send the same bytes again and again until the server takes no more; how many bytes it took."""
        sent, refused = 0, 0
        while sent < at_most and refused < PATIENT_TURNS:
            try:
                sent += self._connection.send(data[sent % len(data) :])
                refused = 0
            except BlockingIOError:
                refused += 1
            await asyncio.sleep(0)
        return sent

    async def send_frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv: int = 0,
        mask: bytes | None = MASK,
        length_form: Bits | None = None,
        claims: int | None = None,
        chop: int | None = None,
    ) -> None:
        """Send a frame; see `encode`."""
        encoded = encode(opcode, payload, fin=fin, rsv=rsv, mask=mask, length_form=length_form, claims=claims)
        await self.send_bytes(encoded, chop=chop)

    async def response(self) -> Response:
        """The head of the answer to a handshake, and nothing of what follows it."""
        async with asyncio.timeout(PATIENCE_S):
            while (end := self._received.find(b"\r\n\r\n")) < 0:
                await self._more()
        status_line, *lines = bytes(self._received[:end]).decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        version, status, _ = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [tuple(line.split(":", 1)) for line in lines]
        return Response(int(status), [(name.lower(), value.strip()) for name, value in headers])

    async def frame(self) -> ServerFrame:
        """The next frame. Raises EndOfStreamError when the server ended TCP after the last one."""
        async with asyncio.timeout(PATIENCE_S):
            while (frame := self._parse()) is None:
                await self._more()
        return frame

    async def text(self) -> dict[str, Any]:
        """The next frame, which must be a text: what it says."""
        return (await self.frame()).json()

    async def ending(self) -> Ending:
        """Everything until the server ends TCP."""
        ending = Ending()
        try:
            while True:
                frame = await self.frame()
                if frame.opcode == CLOSE:
                    ending.close = frame.payload
                else:
                    ending.before.append(frame)
        except EndOfStreamError:
            assert self._ended is not None
            ending.by = self._ended
        return ending

    async def rest(self) -> bytes:
        """Every byte until the server ends TCP, whatever it means."""
        with contextlib.suppress(EndOfStreamError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self._more(whole=False)
        return bytes(self._received)

    def half_close(self) -> None:
        """Send FIN: nothing more will be sent, something may still be read."""
        self._connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    async def _more(self, *, whole: bool = True) -> None:
        if self._ended is None:
            try:
                received = await self._loop.sock_recv(self._connection, 65_536)
            except ConnectionResetError:
                self._ended = "RST"
            else:
                self._received += received
                if received:
                    return
                self._ended = "FIN"
        assert not (whole and self._received), f"TCP ended within a frame: {bytes(self._received[:64]).hex(' ')}"
        raise EndOfStreamError

    def _parse(self) -> ServerFrame | None:
        received = self._received
        if len(received) < 2:
            return None
        first, second = received[0], received[1]
        opcode, length, start = first & 0x0F, second, 2
        assert first & 0xF0 == 0x80, f"fragmented or with reserved bits: {first:08b}"
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG), f"opcode {opcode}"
        assert second & 0x80 == 0, "masked by a server"
        if length > 125:
            start = 4 if length == 126 else 10
            if len(received) < start:
                return None
            length = int.from_bytes(received[2:start])
            assert length > (125 if start == 4 else 65_535), f"{length} said in too many bytes"
            assert opcode < CLOSE, f"a control frame of {length} bytes"
        if len(received) < start + length:
            return None
        payload = bytes(received[start : start + length])
        del received[: start + length]
        self._check(opcode, payload)
        return ServerFrame(opcode, payload)

    def _check(self, opcode: int, payload: bytes) -> None:
        assert not (self._closed and opcode in (TEXT, BINARY, CLOSE)), f"after its close: {opcode} {payload!r}"
        if opcode == TEXT:
            payload.decode()
        elif opcode == CLOSE:
            self._closed = True
            assert len(payload) != 1
            if payload:
                code = int.from_bytes(payload[:2])
                assert 1000 <= code <= 1014 or 3000 <= code <= 4999, code
                assert code not in (1004, 1005, 1006), code
                payload[2:].decode()


@contextlib.asynccontextmanager
async def tcp(url: str) -> AsyncIterator[RawSocket]:
    """A connection to the server, over which nothing was said."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, (address.hostname, address.port))
        yield RawSocket(connection)


@contextlib.asynccontextmanager
async def raw_socket(
    url: str, path: str = "/ws", headers: Headers = HANDSHAKE, *, impatient: bool = False
) -> AsyncIterator[RawSocket]:
    """A socket that is open and was greeted. An impatient client sent its first message with the handshake."""
    async with tcp(url) as opened:
        first = encode(TEXT, b'{"type":"ping"}') if impatient else b""
        await opened.send_bytes(handshake(path, headers) + first)
        response = await opened.response()
        assert response.status == 101
        assert response.all("Sec-WebSocket-Accept") == [ACCEPT]
        for due in ("connected", "pong") if impatient else ("connected",):
            assert (await opened.text())["type"] == due
        yield opened
