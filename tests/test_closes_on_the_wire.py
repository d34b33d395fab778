"""How sockets end, as bytes on TCP: closes right and wrong, messages beyond the limit, and connections that just end.

Groups 7 and 9 of the Autobahn test suite, and what happens to TCP.
"""

import asyncio
import json

import pytest

from tests.clients import PATIENCE_S, new_code, socket_client
from tests.conftest import both_loops
from tests.node import TestNode
from tests.on_the_wire import LIMIT, assert_answers, assert_open, assert_refused, ping
from tests.raw_socket import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawSocket,
    ServerFrame,
    close_with,
    encode,
    raw_socket,
)
from wsserver import wire as wire_module

pytestmark = both_loops

MAY_BE_SENT = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
MUST_NOT_BE_SENT = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


async def assert_closed(wire: RawSocket, code: int) -> None:
    """The server says nothing but its close, and ends TCP in order."""
    ending = await wire.ending()
    assert (ending.before, ending.code, ending.by) == ([], code, "FIN")


async def until_open(server: TestNode, count: int) -> None:
    """Wait until the server has so many sockets: those of the tests before end too."""
    async with asyncio.timeout(PATIENCE_S):
        while len(server.node.sockets) != count:
            await asyncio.sleep(0.01)


# 7: closing.


@pytest.mark.parametrize("code", MAY_BE_SENT)
@pytest.mark.parametrize("chop", [None, 1])
async def test_a_close_comes_back_with_its_code(wire: RawSocket, code: int, chop: int | None) -> None:
    await assert_open(wire)
    await wire.send_frame(CLOSE, close_with(code), chop=chop)
    await assert_closed(wire, code)


@pytest.mark.parametrize("reason", ["bye", "再见🎬", "x" * 123, "界" * 41], ids=lambda reason: f"{reason[:2]}…")
async def test_a_close_may_have_a_reason_of_123_bytes(wire: RawSocket, reason: str) -> None:
    await wire.send_frame(CLOSE, close_with(1000, reason.encode()))
    await assert_closed(wire, 1000)


@pytest.mark.parametrize("chop", [None, 1])
async def test_a_close_without_a_code_is_answered_by_one(wire: RawSocket, chop: int | None) -> None:
    await wire.send_frame(CLOSE, chop=chop)
    ending = await wire.ending()
    assert (ending.before, ending.by) == ([], "FIN")
    assert ending.code in (1005, 1000)


@pytest.mark.parametrize("code", MUST_NOT_BE_SENT)
async def test_a_code_that_must_not_be_sent_is_refused(wire: RawSocket, code: int) -> None:
    await wire.send_frame(CLOSE, close_with(code, b"reason"))
    await assert_refused(wire, 1002)


async def test_half_a_code_is_refused(wire: RawSocket) -> None:
    await wire.send_frame(CLOSE, b"\x03")
    await assert_refused(wire, 1002)


async def test_a_reason_of_124_bytes_is_refused(wire: RawSocket) -> None:
    await wire.send_frame(CLOSE, close_with(1000, b"x" * 124))
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("reason", ["ff", "c3", "cebae1bdb9cf83cebcceb5eda080656469746564", "f4908080", "c080"])
async def test_a_reason_that_is_not_utf8_is_refused(wire: RawSocket, reason: str) -> None:
    await wire.send_frame(CLOSE, close_with(1000, bytes.fromhex(reason)))
    await assert_refused(wire, 1007)


@pytest.mark.parametrize(
    "late",
    [
        encode(CLOSE, close_with(1001)),
        encode(CLOSE, b"\x03"),
        encode(TEXT, ping("late")),
        encode(TEXT, ping("late", LIMIT)),
        encode(BINARY, b"late"),
        encode(PING, b"late"),
        encode(PONG, b"late"),
        encode(TEXT, ping("late"), fin=False),
        encode(CONT, b"late"),
        encode(TEXT, b"\xff"),
        encode(3, b"late", rsv=7),
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(1000),
    ],
    ids=lambda late: late[:12].hex(" "),
)
async def test_whatever_comes_after_a_close_is_ignored(wire: RawSocket, late: bytes) -> None:
    await assert_open(wire)
    await wire.send_bytes(encode(CLOSE, close_with(1000)) + late)
    await assert_refused(wire, 1000)


async def test_a_message_and_a_close_at_once_end_in_that_close(wire: RawSocket) -> None:
    await wire.send_bytes(encode(TEXT, ping("last")) + encode(CLOSE, close_with(1000)))
    ending = await wire.ending()
    assert [frame.json()["id"] for frame in ending.before] in ([], ["last"])
    assert (ending.code, ending.by) == (1000, "FIN")


async def test_a_question_that_comes_with_a_close_is_answered_to_whoever_comes_back(
    wire: RawSocket, wire_server: TestNode
) -> None:
    code = new_code()
    await wire.send_frame(TEXT, json.dumps({"type": "login", "code": code}).encode())
    assert (await wire.text())["code"] == 0
    question = json.dumps({"type": "chat", "id": "last", "query": "你好"}).encode()
    await wire.send_bytes(encode(TEXT, question) + encode(CLOSE, close_with(1000)))
    assert (await wire.ending()).code == 1000
    async with socket_client(wire_server.url) as client, asyncio.timeout(PATIENCE_S):
        await client.login(code)
        while len(said := (await client.call({"type": "history"}))["data"]["items"]) < 2:
            await asyncio.sleep(0.01)
    assert [message["role"] for message in said] == ["user", "assistant"]
    assert said[0]["content"] == "你好"


async def test_pings_before_a_close_are_answered_before_it(wire: RawSocket) -> None:
    await wire.send_bytes(encode(PING, b"one") + encode(PING, b"two") + encode(CLOSE, close_with(1000)))
    ending = await wire.ending()
    assert ending.before == [ServerFrame(PONG, b"one"), ServerFrame(PONG, b"two")]
    assert (ending.code, ending.by) == (1000, "FIN")


@pytest.mark.parametrize("chop", [None, 1])
@pytest.mark.parametrize("code", [1000, 4000])
async def test_a_close_between_fragments_is_a_close(wire: RawSocket, chop: int | None, code: int) -> None:
    fragment = encode(TEXT, ping("late")[:9], fin=False)
    await wire.send_bytes(fragment + encode(CLOSE, close_with(code)) + encode(CONT, ping("late")[9:]), chop=chop)
    await assert_refused(wire, code)


async def closed_by_the_server(wire: RawSocket) -> None:
    """Make the server close first: nobody sends so many messages that are none."""
    await wire.send_bytes(encode(TEXT, b"no json") * 10)
    for _ in range(10):
        assert (await wire.text())["reason"] == "bad_json"
    close = await wire.frame()
    assert (close.opcode, close.payload[:2]) == (CLOSE, (4002).to_bytes(2))


@pytest.mark.parametrize("answer", [close_with(4002), close_with(1000), b""], ids=["its code", "1000", "no code"])
async def test_the_servers_close_is_answered_and_tcp_ends(wire: RawSocket, answer: bytes) -> None:
    await closed_by_the_server(wire)
    await wire.send_frame(CLOSE, answer)
    ending = await wire.ending()
    assert (ending.before, ending.close, ending.by) == ([], None, "FIN")


async def test_messages_after_the_servers_close_are_not_answered(wire: RawSocket) -> None:
    await closed_by_the_server(wire)
    for text in (ping("late"), ping("late", LIMIT), b"no json"):
        await wire.send_frame(TEXT, text)
    await wire.send_frame(TEXT, ping("late")[:9], fin=False)
    await wire.send_frame(CONT, ping("late")[9:])
    await wire.send_frame(BINARY, b"\xff")
    await wire.send_frame(CLOSE, close_with(4002))
    ending = await wire.ending()
    assert (ending.before, ending.close) == ([], None)


@pytest.mark.parametrize(
    "wrong",
    [encode(3), encode(TEXT, rsv=4), encode(TEXT, mask=None), encode(CLOSE, b"\x03"), encode(TEXT, claims=LIMIT + 1)],
    ids=["opcode", "reserved bit", "no mask", "half a code", "too long"],
)
async def test_a_wrong_frame_after_the_servers_close_ends_tcp_without_a_second_close(
    wire: RawSocket, wrong: bytes
) -> None:
    await closed_by_the_server(wire)
    await wire.send_bytes(wrong)
    ending = await wire.ending()
    assert (ending.before, ending.close) == ([], None)


# 9: limits.


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("chop", [None, 1])
async def test_a_message_beyond_the_limit_is_refused_before_it_came(
    wire: RawSocket, opcode: int, chop: int | None
) -> None:
    await wire.send_frame(opcode, claims=LIMIT + 1, chop=chop)
    await assert_refused(wire, 1009)


@pytest.mark.parametrize("claims", [LIMIT + 1, 2**31, 2**32 - 1, 2**32 + 5, 2**62, 2**63 - 1])
async def test_a_length_that_nobody_means_is_refused(wire: RawSocket, claims: int) -> None:
    await wire.send_frame(TEXT, claims=claims)
    await assert_refused(wire, 1009)


@pytest.mark.parametrize("claims", [2**63, 2**63 + 5, 2**64 - 1])
async def test_a_length_with_its_first_bit_set_is_refused(wire: RawSocket, claims: int) -> None:
    await wire.send_frame(TEXT, claims=claims)
    await assert_refused(wire, 1002, 1009)


async def test_a_message_beyond_the_limit_is_refused_when_it_all_comes_at_once(wire: RawSocket) -> None:
    await wire.send_bytes(encode(TEXT, ping("bad", LIMIT + 1)) + encode(TEXT, ping("late")))
    await assert_refused(wire, 1009)


@pytest.mark.parametrize("size_bytes", [LIMIT + 1, 1 << 20, 8 << 20])
async def test_a_message_beyond_the_limit_does_not_lose_the_close_that_refuses_it(
    wire_server: TestNode, size_bytes: int
) -> None:
    """TCP that is closed over bytes that came is reset, and the client of some systems never reads why."""
    async with raw_socket(wire_server.url) as wire:
        sending = asyncio.create_task(wire.send_frame(TEXT, ping("bad", size_bytes)))
        ending = await wire.ending()
        assert (ending.before, ending.code, ending.by) == ([], 1009, "FIN")
        await sending
        wire.half_close()
    await until_open(wire_server, 0)


@pytest.mark.parametrize(
    "late",
    [b"", encode(TEXT, ping("late")), encode(CLOSE, close_with(1002)), bytes(100_000)],
    ids=["nothing", "text", "close", "zeros"],
)
async def test_who_was_refused_is_not_listened_to_and_not_waited_for_without_end(
    wire_server: TestNode, late: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "LINGER_S", 0.05)
    async with raw_socket(wire_server.url) as wire:
        await wire.send_frame(3)
        await assert_refused(wire, 1002)
        await wire.send_bytes(late)
        await until_open(wire_server, 0)


@pytest.mark.parametrize("pieces", [1, 1000, 16_384, LIMIT - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_fragments_up_to_the_limit_are_a_message(wire: RawSocket, pieces: int, opcode: int) -> None:
    size_bytes = 3_000 if pieces == 1 else LIMIT
    text = ping("a", size_bytes)
    parts = [text[start : start + pieces] for start in range(0, size_bytes, pieces)]
    frames = [encode(CONT, part, fin=False) for part in parts]
    await wire.send_bytes(encode(opcode, fin=False) + b"".join(frames) + encode(CONT))
    if opcode == TEXT:
        await assert_answers(wire, "a")
    else:
        assert (await wire.text())["reason"] == "binary_refused"
    await assert_open(wire)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("before", [1, 1000, LIMIT - 1, LIMIT])
async def test_a_fragment_that_passes_the_limit_is_refused_before_it_came(
    wire: RawSocket, opcode: int, fin: bool, before: int
) -> None:
    await wire.send_frame(opcode, b" " * before, fin=False)
    await wire.send_frame(PONG)
    await wire.send_frame(CONT, fin=fin, claims=LIMIT - before + 1)
    await assert_refused(wire, 1009)


@pytest.mark.parametrize("payload", [b"", b"x" * 125])
@pytest.mark.parametrize("before", [LIMIT - 100, LIMIT])
@pytest.mark.parametrize("chop", [None, 1])
async def test_a_ping_between_fragments_is_no_part_of_the_message(
    wire: RawSocket, payload: bytes, before: int, chop: int | None
) -> None:
    text = ping("a", LIMIT)
    await wire.send_frame(TEXT, text[:before], fin=False)
    await wire.send_frame(PING, payload, chop=chop)
    assert await wire.frame() == ServerFrame(PONG, payload)
    await wire.send_frame(CONT, text[before:], chop=chop)
    await assert_answers(wire, "a")
    await assert_open(wire)


async def test_a_message_at_its_limit_may_be_given_up_by_a_close(wire: RawSocket) -> None:
    await wire.send_frame(TEXT, ping("a", LIMIT), fin=False)
    await wire.send_frame(CLOSE, close_with(1000))
    await assert_closed(wire, 1000)


MUCH = 64 << 20
"""More than fits into what systems keep for a connection."""


async def test_a_client_that_pings_and_reads_nothing_is_not_read_either(wire: RawSocket) -> None:
    pings = encode(PING, b"x" * 125) * 1_000
    sent = await wire.send_while_taken(pings, at_most=MUCH)
    assert sent < MUCH
    finishing = asyncio.create_task(wire.send_bytes(pings[sent % len(pings) :]))
    for _ in range(-(-sent // len(pings)) * 1_000):
        assert await wire.frame() == ServerFrame(PONG, b"x" * 125)
    await finishing
    await assert_open(wire)


# TCP.


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"\x81",
        encode(TEXT, ping("half"))[:-1],
        encode(TEXT, ping("half", LIMIT))[:-1],
        encode(TEXT, ping("half"), fin=False),
        encode(PING, b"half")[:-1],
        encode(CLOSE, close_with(1000))[:-1],
    ],
    ids=["between frames", "header", "text", "long text", "fragments", "ping", "close"],
)
@pytest.mark.parametrize("end", ["half-closed", "reset", "closed"])
async def test_a_client_that_ends_without_a_close_is_let_go_and_what_was_half_said_is_not_answered(
    wire_server: TestNode, begun: bytes, end: str
) -> None:
    async with raw_socket(wire_server.url) as wire:
        await until_open(wire_server, 1)
        await wire.send_bytes(begun)
        if end == "half-closed":
            wire.half_close()
            ending = await wire.ending()
            assert ending.before == []
        elif end == "reset":
            wire.reset()
    await until_open(wire_server, 0)
    async with raw_socket(wire_server.url) as another:
        await assert_open(another)


async def test_a_client_that_leaves_while_it_is_answered_harms_nobody(wire_server: TestNode) -> None:
    async with raw_socket(wire_server.url) as stays:
        async with raw_socket(wire_server.url) as wire:
            await wire.send_bytes(b"".join(encode(TEXT, ping("a", LIMIT)) for _ in range(20)))
            wire.reset()
        await until_open(wire_server, 1)
        await assert_open(stays)


async def test_many_messages_within_the_limit_are_no_message_beyond_it(wire: RawSocket) -> None:
    for index in range(20):
        await wire.send_frame(TEXT, ping(f"a{index}", LIMIT))
        await assert_answers(wire, f"a{index}")
    await wire.send_frame(CLOSE, close_with(1000))
    await assert_closed(wire, 1000)
