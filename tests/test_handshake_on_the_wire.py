"""The handshake as bytes on TCP: what opens a socket, what does not and why (RFC 6455, section 4)."""

import asyncio
import math

import pytest

from tests.clients import PATIENCE_S
from tests.conftest import both_loops
from tests.node import TestNode
from tests.on_the_wire import assert_open, assert_refused, fragments, ping
from tests.raw_socket import (
    ACCEPT,
    CLOSE,
    HANDSHAKE,
    KEY,
    PING,
    PONG,
    TEXT,
    Headers,
    RawSocket,
    Response,
    ServerFrame,
    close_with,
    encode,
    handshake,
    handshake_with,
    raw_socket,
    tcp,
)
from wsserver.serving import SocketProtocol
from wsserver.wire import Wire

pytestmark = both_loops


async def answer_to(server: TestNode, request: bytes, *, chop: int | None = None) -> Response:
    """What the server says to a request that opens no socket; then it ends TCP or would take another."""
    async with tcp(server.url) as connection:
        await connection.send_bytes(request, chop=chop)
        return await connection.response()


async def test_a_handshake_is_answered_as_the_rfc_says(wire_server: TestNode) -> None:
    response = await answer_to(wire_server, handshake())
    assert response.status == 101
    assert [value.lower() for value in response.all("Upgrade")] == ["websocket"]
    assert [value.lower() for value in response.all("Connection")] == ["upgrade"]
    assert response.all("Sec-WebSocket-Accept") == [ACCEPT]
    assert response.all("Sec-WebSocket-Extensions") == []
    assert response.all("Sec-WebSocket-Protocol") == []
    assert response.all("Content-Length") == []


@pytest.mark.parametrize("path", ["/ws", "/wechat/ws", "/ws?token=x&y", "/ws?", "/%77s"])
@pytest.mark.parametrize("chop", [None, 1, 7])
async def test_a_handshake_in_any_pieces_opens_a_socket(wire_server: TestNode, path: str, chop: int | None) -> None:
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake(path), chop=chop)
        assert (await connection.response()).status == 101
        assert (await connection.text())["type"] == "connected"
        await assert_open(connection)


@pytest.mark.parametrize(
    "headers",
    [
        [(name.lower(), value) for name, value in handshake_with()],
        [(name.upper(), value) for name, value in handshake_with()],
        handshake_with(("Connection", "keep-alive, Upgrade")),
        handshake_with(("Connection", "Upgrade,keep-alive")),
        handshake_with(("Connection", "upgrade")),
        handshake_with(("Upgrade", "WebSocket")),
        handshake_with(("Sec-WebSocket-Key", f"  {KEY}  ")),
        handshake_with(("Origin", "https://servicewechat.com")),
        handshake_with(("X-Long", "x" * 4_000), ("X-Longer", "x" * 4_000)),
        handshake_with(*((f"X-{index}", "x") for index in range(100))),
        handshake_with(("X-Latin", "caf\u00e9")),
        [*handshake_with(), ("Cookie", "a=b"), ("Cookie", "c=d")],
    ],
    ids=[
        "small letters",
        "capitals",
        "keep-alive first",
        "keep-alive last",
        "connection: upgrade",
        "WebSocket",
        "blanks around the key",
        "a mini program",
        "8 KiB of headers",
        "a hundred headers",
        "no ASCII",
        "the same header twice",
    ],
)
async def test_a_handshake_may_be_written_in_many_ways(wire_server: TestNode, headers: Headers) -> None:
    async with raw_socket(wire_server.url, headers=headers) as wire:
        await assert_open(wire)


@pytest.mark.parametrize(
    "headers",
    [
        handshake_with(("Sec-WebSocket-Key", None)),
        handshake_with(("Sec-WebSocket-Key", "")),
        handshake_with(("Sec-WebSocket-Key", "c2hvcnQ=")),
        handshake_with(("Sec-WebSocket-Key", "c2V2ZW50ZWVuIGJ5dGVzISE=")),
        handshake_with(("Sec-WebSocket-Key", KEY[:-1])),
        handshake_with(("Sec-WebSocket-Key", "?" * 24)),
        handshake_with(("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)),
        handshake_with(("Sec-WebSocket-Version", None)),
    ],
    ids=["no key", "empty key", "short key", "17 bytes", "no padding", "no base64", "two keys", "no version"],
)
async def test_a_handshake_without_what_it_needs_is_a_bad_request(wire_server: TestNode, headers: Headers) -> None:
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake(headers=headers))
        assert (await connection.response()).status == 400
        await connection.rest()


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "OPTIONS"])
async def test_only_get_opens_a_socket(wire_server: TestNode, method: str) -> None:
    response = await answer_to(wire_server, handshake(method=method))
    assert response.status in (400, 405)


@pytest.mark.parametrize(
    "headers",
    [
        handshake_with(("Upgrade", None)),
        handshake_with(("Connection", None)),
        handshake_with(("Connection", "keep-alive")),
        handshake_with(("Upgrade", "h2c")),
        handshake_with(("Upgrade", None), ("Connection", None)),
    ],
    ids=["no Upgrade", "no Connection", "keep-alive", "h2c", "neither"],
)
async def test_a_request_that_asks_for_no_socket_gets_none(wire_server: TestNode, headers: Headers) -> None:
    response = await answer_to(wire_server, handshake(headers=headers))
    assert response.status in (400, 404, 405, 426)


@pytest.mark.parametrize("path", ["/nothing", "/", "/ws/", "/wechat/ws/more", "/health", "/%00", "/..", "//ws"])
async def test_a_socket_is_had_at_its_paths_only(wire_server: TestNode, path: str) -> None:
    response = await answer_to(wire_server, handshake(path))
    assert response.status in (403, 404)


async def test_a_page_from_elsewhere_is_refused_before_the_handshake(wire_server: TestNode) -> None:
    response = await answer_to(wire_server, handshake(headers=handshake_with(("Origin", "https://evil.example"))))
    assert response.status == 403


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["cinewire.v1"], ["cinewire.v1"]),
        (["other, cinewire.v1, another"], ["cinewire.v1"]),
        (["other,cinewire.v1"], ["cinewire.v1"]),
        (["other", "cinewire.v1"], ["cinewire.v1"]),
        (["other"], []),
        (["cinewire.v2"], []),
        ([], []),
    ],
    ids=str,
)
async def test_a_subprotocol_is_chosen_when_it_was_offered(
    wire_server: TestNode, offered: list[str], chosen: list[str]
) -> None:
    headers = handshake_with(*(("Sec-WebSocket-Protocol", value) for value in offered))
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake(headers=headers))
        assert (await connection.response()).all("Sec-WebSocket-Protocol") == chosen
        assert (await connection.text())["type"] == "connected"
        await assert_open(connection)


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits; server_no_context_takeover, permessage-deflate",
        "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits=15",
    ],
)
async def test_compression_is_not_agreed_to_and_a_compressed_message_is_refused(
    wire_server: TestNode, offer: str
) -> None:
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake(headers=handshake_with(("Sec-WebSocket-Extensions", offer))))
        assert (await connection.response()).all("Sec-WebSocket-Extensions") == []
        assert (await connection.text())["type"] == "connected"
        await assert_open(connection)
        await connection.send_frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=4)
        await assert_refused(connection, 1002)


@pytest.mark.parametrize("cut", [1, 20, len(handshake()) - 1])
async def test_a_handshake_that_ends_in_the_middle_opens_nothing(wire_server: TestNode, cut: int) -> None:
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake()[:cut])
        connection.half_close()
        assert b"101 Switching" not in await connection.rest()
    assert len(wire_server.node.sockets) == 0


@pytest.mark.parametrize(
    "headers",
    [
        handshake_with(("X-Long", "x" * 100_000)),
        handshake_with(*((f"X-{index}", "x") for index in range(1_000))),
    ],
    ids=["one long header", "a thousand headers"],
)
async def test_headers_without_measure_are_refused_and_harm_nobody(wire_server: TestNode, headers: Headers) -> None:
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake(headers=headers))
        assert b"101 Switching" not in await connection.rest()
    async with raw_socket(wire_server.url) as wire:
        await assert_open(wire)


@pytest.mark.parametrize("version", ["7", "8", "12", "14", "0", "-13", "13x", "x"])
async def test_another_version_is_refused_with_the_one_that_is_spoken(wire_server: TestNode, version: str) -> None:
    response = await answer_to(wire_server, handshake(headers=handshake_with(("Sec-WebSocket-Version", version))))
    assert response.status == 426
    assert response.all("Sec-WebSocket-Version") == ["13"]


async def test_a_handshake_in_http_1_0_opens_nothing(wire_server: TestNode) -> None:
    response = await answer_to(wire_server, handshake(version="1.0"))
    assert response.status in (400, 404, 426, 505)


async def test_a_handshake_without_a_host_is_a_bad_request(wire_server: TestNode) -> None:
    response = await answer_to(wire_server, handshake(headers=handshake_with(("Host", None))))
    assert response.status == 400


async def test_connection_may_be_said_in_two_headers(wire_server: TestNode) -> None:
    for tokens in (("Upgrade", "keep-alive"), ("keep-alive", "Upgrade")):
        headers = handshake_with(*(("Connection", token) for token in tokens))
        async with raw_socket(wire_server.url, headers=headers) as wire:
            await assert_open(wire)


EARLY = {
    "text": (encode(TEXT, ping("early", 200)), [], ["early"]),
    "ping": (encode(PING, b"early"), [b"early"], []),
    "ping and text": (encode(PING, b"early") + encode(TEXT, ping("early", 200)), [b"early"], ["early"]),
    "fragments": (b"".join(fragments(ping("early", 200), 50)), [], ["early"]),
}
"""Frames, the pongs that are due for them, and the ids of messages that are."""


@pytest.mark.parametrize(("early", "pongs", "ids"), EARLY.values(), ids=EARLY)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0], ids="{:.0%} with it".format)
@pytest.mark.parametrize("rest_waits", [False, True], ids=["the rest at once", "the rest later"])
async def test_frames_that_do_not_wait_for_the_handshake_are_answered_after_it(
    wire_server: TestNode, early: bytes, pongs: list[bytes], ids: list[str], share: float, rest_waits: bool
) -> None:
    """A client has to wait; who does not is not left without an answer, nor with one before the server's handshake."""
    at = math.ceil(len(early) * share)
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake() + early[:at])
        frames: list[ServerFrame] = []
        if rest_waits:
            assert (await connection.response()).status == 101
            while not (frames and frames[-1].opcode == TEXT):
                frames.append(await connection.frame())
        await connection.send_bytes(early[at:])
        if not rest_waits:
            assert (await connection.response()).status == 101
        frames += [await connection.frame() for _ in range(1 + len(pongs) + len(ids) - len(frames))]
        greeting, *answers = [frame.json() for frame in frames if frame.opcode == TEXT]
        assert greeting["type"] == "connected"
        assert [answer["id"] for answer in answers] == ids
        assert [frame.payload for frame in frames if frame.opcode == PONG] == pongs
        await assert_open(connection)


async def test_tests_of_the_wire_speak_to_the_application_in_both_ways(
    wire: RawSocket, wire_server: TestNode, request: pytest.FixtureRequest
) -> None:
    await assert_open(wire)
    way = Wire if request.node.callspec.params["wire"] == "direct" else SocketProtocol
    async with asyncio.timeout(PATIENCE_S):
        # Those of the tests before end too.
        while {type(connection) for connection in wire_server.node.uvicorn.server_state.connections} != {way}:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/nothing", HANDSHAKE), ("/ws", handshake_with(("Origin", "https://evil.example")))],
    ids=["unknown path", "page from elsewhere"],
)
async def test_frames_behind_a_handshake_that_is_refused_are_not_read(
    wire_server: TestNode, path: str, headers: Headers
) -> None:
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake(path, headers) + encode(PING, b"early") + encode(TEXT, ping("early")))
        assert (await connection.response()).status in (403, 404)
        assert b"early" not in await connection.rest()


async def test_a_handshake_with_a_body_is_a_bad_request(wire_server: TestNode) -> None:
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake(headers=handshake_with(("Content-Length", "5"))) + b"hello")
        assert (await connection.response()).status == 400
        await connection.rest()


async def test_a_close_that_does_not_wait_for_the_handshake_is_answered_after_it(wire_server: TestNode) -> None:
    async with tcp(wire_server.url) as connection:
        await connection.send_bytes(handshake() + encode(CLOSE, close_with(1000)) + encode(PING))
        assert (await connection.response()).status == 101
        ending = await connection.ending()
        assert (ending.code, [frame.opcode for frame in ending.before if frame.opcode != TEXT]) == (1000, [])
    async with raw_socket(wire_server.url) as wire:
        await assert_open(wire)
