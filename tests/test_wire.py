"""What a wire does by itself, without a network: when it writes and waits, when it asks whether anybody is there."""

import asyncio
import time
from typing import Any

import pytest

from tests.raw_socket import CLOSE, PONG, TEXT, encode
from wsserver.outbox import Outbox
from wsserver.wire import PING_AFTER_S, PONG_WITHIN_S, WRITE_BYTES, Cork, Wire

PING = b"\x89\x00"


class Line(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.buffered_bytes = 0
        self.ended: list[str] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return bool(self.ended)

    def get_write_buffer_size(self) -> int:
        return self.buffered_bytes

    def write_eof(self) -> None:
        self.ended.append("eof")

    def close(self) -> None:
        self.ended.append("close")

    def abort(self) -> None:
        self.ended.append("abort")


class Ear:
    """A receiver that notes what it hears, and answers each message with itself."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.heard: list[bytes] = []
        self.sends = 0
        self.code: int | None = None

    def feed(self, message: bytes) -> None:
        self.heard.append(message)
        self.outbox.put(message)

    def feed_binary(self) -> None:
        self.heard.append(b"binary")

    def sent(self) -> None:
        self.sends += 1

    def closing(self) -> tuple[int, str]:
        return 4001, "why"

    def gone(self, code: int) -> None:
        self.code = code


class Connected:
    """A wire between the two, at time 0."""

    def __init__(self) -> None:
        self.line, self.ear, self.connections = Line(), Ear(), set[Any]()
        self.wire = Wire(
            self.line,
            self.ear,
            self.ear.outbox,
            max_message_bytes=65_536,
            cork=Cork(asyncio.get_running_loop()),
            connections=self.connections,
            now=0.0,
        )
        self.wire.listen()


@pytest.fixture
async def it() -> Connected:
    return Connected()


async def a_turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_what_is_put_within_one_turn_goes_out_in_one_write(it: Connected) -> None:
    for text in (b"one", b"two", b"three"):
        it.ear.outbox.put(text)
    assert it.line.written == []
    await a_turn()
    assert it.line.written == [b"\x81\x03one\x81\x03two\x81\x05three"]
    assert it.ear.sends == 1


async def test_a_mistake_with_one_connection_is_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    mistakes: list[Any] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_exception_handler", mistakes.append)
    cork, lines, ears = Cork(loop), [Line(), Line(), Line()], [Ear(), Ear(), Ear()]
    for line, ear in zip(lines, ears, strict=True):
        Wire(line, ear, ear.outbox, max_message_bytes=9, cork=cork, connections=set(), now=0.0)
        ear.outbox.put(b"x")

    def refuse(_data: Any) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(lines[1], "write", refuse)
    await a_turn()
    assert [line.written for line in lines] == [[b"\x81\x01x"], [], [b"\x81\x01x"]]
    assert len(mistakes) == 1
    ears[0].outbox.put(b"y")
    await a_turn()
    assert lines[0].written[1:] == [b"\x81\x01y"]


async def test_answers_to_what_came_together_go_out_together_and_at_once(it: Connected) -> None:
    it.wire.data_received(encode(TEXT, b"one") + encode(TEXT, b"two"))
    assert it.ear.heard == [b"one", b"two"]
    assert it.line.written == [b"\x81\x03one\x81\x03two"]
    await a_turn()
    assert len(it.line.written) == 1


@pytest.mark.parametrize(
    ("size_bytes", "header"),
    [
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f" + bytes(5) + b"\x01\x00\x00"),
    ],
)
async def test_a_text_of_any_length_has_the_shortest_header(it: Connected, size_bytes: int, header: bytes) -> None:
    it.ear.outbox.put(b"x" * size_bytes)
    await a_turn()
    assert it.line.written == [header + b"x" * size_bytes]


async def test_what_a_client_does_not_read_waits_in_the_outbox_and_keeps_its_order(it: Connected) -> None:
    it.wire.pause_writing()
    it.ear.outbox.put(b"one")
    await a_turn()
    it.ear.outbox.put(b"two")
    await a_turn()
    assert (it.line.written, it.ear.outbox.size_bytes, it.ear.sends) == ([], 6, 0)
    it.wire.resume_writing()
    assert (it.line.written, it.ear.outbox.size_bytes, it.ear.sends) == ([b"\x81\x03one\x81\x03two"], 0, 1)


async def test_a_transport_that_asks_for_a_pause_gets_no_more_than_one_piece(
    it: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_pause(data: Any) -> None:
        it.line.written.append(bytes(data))
        it.wire.pause_writing()

    monkeypatch.setattr(it.line, "write", write_and_pause)
    frame = b"x" * (WRITE_BYTES // 2)
    for _ in range(6):
        it.ear.outbox.put(frame)
    await a_turn()
    assert [len(piece) for piece in it.line.written] == [2 * (len(frame) + 4)]
    assert it.ear.outbox.size_bytes == 4 * len(frame)
    assert it.ear.sends == 0


async def test_a_close_goes_out_after_what_was_said_before_it_and_the_clients_answer_ends_it(it: Connected) -> None:
    it.ear.outbox.put(b"last")
    it.ear.outbox.close()
    await a_turn()
    assert it.line.written == [b"\x81\x04last", b"\x88\x05\x0f\xa1why"]
    assert it.line.ended == []
    it.wire.data_received(encode(TEXT, b"too late"))
    assert it.ear.heard == []
    it.wire.data_received(encode(CLOSE, b"\x0f\xa1"))
    assert it.line.ended == ["close"]
    it.wire.connection_lost(None)
    assert it.ear.code == 4001
    assert it.connections == set()


async def test_a_client_that_keeps_speaking_is_never_asked_whether_it_is_there(it: Connected) -> None:
    for second in range(0, 200, 25):
        it.wire.data_received(encode(TEXT, b"x"))
        it.wire.check(float(second))
    assert PING not in it.line.written


async def test_a_silent_client_is_asked_and_whatever_it_says_is_an_answer(it: Connected) -> None:
    it.wire.check(PING_AFTER_S)
    assert it.line.written == []
    it.wire.check(PING_AFTER_S + 1)
    it.wire.check(PING_AFTER_S + 2)
    assert it.line.written == [PING]
    it.wire.data_received(encode(PONG, b""))
    for second in range(3, round(PING_AFTER_S)):
        it.wire.check(PING_AFTER_S + second)
    assert it.line.written == [PING]
    assert it.line.ended == []
    assert it.ear.heard == []


async def test_a_client_that_does_not_answer_is_given_up_and_counted_as_such(it: Connected) -> None:
    it.wire.check(PING_AFTER_S + 1)
    it.wire.check(PING_AFTER_S + PONG_WITHIN_S + 2)
    assert it.line.written[0] == PING
    assert it.line.written[1][2:4] == (1011).to_bytes(2, "big")
    assert it.line.ended
    it.wire.connection_lost(None)
    assert it.ear.code == 1011


@pytest.mark.parametrize(("buffered_bytes", "ended"), [(0, "close"), (1, "abort")])
async def test_who_is_dropped_loses_only_what_it_would_not_take(it: Connected, buffered_bytes: int, ended: str) -> None:
    it.line.buffered_bytes = buffered_bytes
    it.wire.drop()
    assert it.line.ended == [ended]


async def test_nothing_is_written_on_a_connection_that_ends(it: Connected) -> None:
    it.line.close()
    it.ear.outbox.put(b"x")
    await a_turn()
    it.wire.check(time.monotonic())
    assert it.line.written == []
