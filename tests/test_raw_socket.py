"""The client that tests of the wire read with takes nothing that RFC 6455 forbids a server."""

import asyncio
import socket

import pytest

from tests.raw_socket import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    TEXT,
    EndOfStreamError,
    RawSocket,
    ServerFrame,
    close_with,
    encode,
    masked_with,
)

WRONG = {
    "masked": encode(TEXT, b"hello"),
    "reserved bit": encode(TEXT, b"hello", rsv=4, mask=None),
    "fragment": encode(TEXT, b"hello", fin=False, mask=None),
    "continuation": encode(CONT, b"hello", mask=None),
    "unknown opcode": encode(3, mask=None),
    "length in two bytes for one": encode(TEXT, b"hello", length_form=16, mask=None),
    "length in eight bytes for two": encode(TEXT, bytes(126), length_form=64, mask=None),
    "long ping": encode(PING, bytes(126), mask=None),
    "half a code": encode(CLOSE, b"\x03", mask=None),
    "a code that must not be sent": encode(CLOSE, close_with(1005), mask=None),
    "an unknown code": encode(CLOSE, close_with(1016), mask=None),
    "a reason that is not UTF-8": encode(CLOSE, close_with(1000, b"\xff"), mask=None),
    "a text that is not UTF-8": encode(TEXT, b"\xff", mask=None),
    "a message after the close": encode(CLOSE, mask=None) + encode(TEXT, b"{}", mask=None),
    "a second close": encode(CLOSE, mask=None) + encode(CLOSE, mask=None),
    "half a header": b"\x81",
    "half a frame": encode(TEXT, b"hello", mask=None)[:-1],
}


async def read_all(sent: bytes) -> list[ServerFrame]:
    """The frames of a server that says these bytes and ends TCP."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        reader, frames = RawSocket(ours), []
        try:
            while True:
                frames.append(await reader.frame())
        except EndOfStreamError:
            return frames


@pytest.mark.parametrize("sent", WRONG.values(), ids=WRONG)
async def test_what_a_server_must_not_send_is_not_taken(sent: bytes) -> None:
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        await read_all(sent)


async def test_what_a_server_may_send_is_taken() -> None:
    payloads = [b"x" * size for size in (0, 1, 125, 126, 65_535, 65_536)]
    sent = b"".join(encode(BINARY, payload, mask=None) for payload in payloads) + encode(CLOSE, mask=None)
    assert [frame.payload for frame in await read_all(sent)] == [*payloads, b""]


async def test_a_reset_is_told_from_an_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        client.setblocking(False)
        with client:
            RawSocket(server).reset()
            ending = await asyncio.wait_for(RawSocket(client).ending(), 15)
    assert (ending.by, ending.close, ending.code) == ("RST", None, None)


def test_masks_are_put_on_as_the_rfc_shows() -> None:
    """RFC 6455, 5.7: a single-frame masked text message."""
    assert encode(TEXT, b"Hello") == bytes.fromhex("8185 37fa213d 7f9f4d5158")
    assert masked_with(bytes.fromhex("37fa213d"), bytes.fromhex("7f9f4d5158")) == b"Hello"
