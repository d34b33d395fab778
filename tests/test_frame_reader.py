"""The reader of frames says what `websockets` says, however the bytes are cut, and keeps no more than a message may be.

Its millions of cases are in `frame_fuzz.py`; here are as many as a test may take, and what they cannot show.
"""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.protocol import Protocol

from tests.frame_fuzz import CLOSE_CODES, REAL_LIMIT, fuzz
from tests.frame_reference import Case, compare
from tests.on_the_wire import fragments, ping
from tests.raw_socket import BINARY, CLOSE, CONT, MASK, PING, PONG, TEXT, Bits, close_with, encode
from wsserver.frames import Binary, Closed, FrameReader, Pong

CASES = 20_000
KINDS = {
    *("text", "binary", "pong", "pong sent", "close sent", "closed by the server", "unfinished"),
    *("closed 1002", "closed 1005", "closed 1007", "closed 1009", "closed 3000 to 4999"),
    *(f"closed {code}" for code in CLOSE_CODES if code < 1016),
}

SLACK_BYTES = 16_384
"""What a reader may use beside the message: its parser, and what Python adds to a buffer that grows."""

LIMIT = 300

masks = st.sampled_from([MASK, bytes(4), b"\xff\x00\xff\x00"])
texts = st.text(max_size=80).map(str.encode)
sizes = st.sampled_from([0, 1, 124, 125, 126, 127, LIMIT - 1, LIMIT, LIMIT + 1])
payloads = st.one_of(texts, sizes.map(lambda size: b"x" * size), st.binary(max_size=12))
opcodes = st.sampled_from([CONT, TEXT, TEXT, TEXT, BINARY, CLOSE, PING, PONG])
forms = st.sampled_from([16, 64])


def framed(opcode: int, payload: bytes, fin: bool, mask: bytes) -> bytes:
    return encode(opcode, payload, fin=fin, mask=mask)


def odd(opcode: int, payload: bytes, rsv: int, mask: bytes | None, form: Bits, claims: int | None) -> bytes:
    return encode(opcode, payload, rsv=rsv, mask=mask, length_form=form, claims=claims)


good = st.one_of(
    st.builds(framed, st.sampled_from([TEXT, PING, PONG]), texts, st.just(True), masks),
    st.builds(lambda text, size: b"".join(fragments(text, size)), texts.filter(bool), st.integers(1, 40)),
)
closes = st.builds(
    lambda code, reason: encode(CLOSE, close_with(code, reason)), st.integers(0, 65_535), st.binary(max_size=20)
)
any_frame = st.builds(framed, opcodes, payloads, st.booleans(), masks)
odd_frame = st.builds(
    odd,
    st.integers(0, 15),
    payloads,
    st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
    st.one_of(masks, st.none()),
    forms,
    st.one_of(st.none(), st.sampled_from([0, 5, LIMIT + 1, 65_535])),
)
frames = st.lists(st.one_of(good, good, any_frame, closes, odd_frame, st.binary(max_size=8)), max_size=6)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    data = b"".join(draw(frames))
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=8)) if data else []
    if data and draw(st.booleans()):
        cuts = [*range(1, len(data))] if draw(st.booleans()) else []
    return Case(data, tuple(sorted(cuts)), LIMIT, draw(st.one_of(st.none(), st.integers(0, len(cuts)))))


@pytest.fixture
def traced() -> Iterator[None]:
    """Memory that is taken from here on is counted."""
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def kept_bytes() -> int:
    """What the reader and its parser hold; other threads of the tests take memory too."""
    ours = [tracemalloc.Filter(True, path) for path in ("*/wsserver/frames.py", "*/websockets/*")]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)


@settings(max_examples=1_500, deadline=None, derandomize=True)
@given(cases())
@example(Case(encode(TEXT, b"a") + encode(TEXT, b"b")[:3], (), LIMIT))
@example(Case(encode(TEXT, b"\xff") + encode(PING), (), LIMIT))
@example(Case(encode(TEXT, b"x", fin=False) + encode(CLOSE, close_with(1000)), (), LIMIT))
def test_any_frames_in_any_pieces_are_read_as_websockets_reads_them(case: Case) -> None:
    compare(case)


def test_thousands_of_mutated_streams_are_read_as_websockets_reads_them() -> None:
    seen = fuzz(CASES, seed=20)
    assert seen["cases"] == CASES
    assert KINDS - seen.keys() == set()


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
def test_a_length_that_lies_is_refused_by_its_header(opcode: int) -> None:
    for header in (encode(opcode, claims=REAL_LIMIT + 1), encode(opcode, claims=2**64 - 1)):
        for cuts in ((), tuple(range(1, len(header)))):
            reader = FrameReader(REAL_LIMIT)
            events = [event for piece in Case(header, cuts, REAL_LIMIT).pieces() for event in reader.feed(piece)]
            assert [event.code for event in events if isinstance(event, Closed)] == [1009]
            assert reader.ended
            assert reader.to_send()[2:4] == (1009).to_bytes(2)


@pytest.mark.usefixtures("traced")
def test_a_message_that_is_only_announced_costs_nothing() -> None:
    readers = [FrameReader(REAL_LIMIT) for _ in range(100)]
    for reader in readers:
        assert reader.feed(encode(TEXT, claims=REAL_LIMIT)) == []
    assert kept_bytes() < 100 * 512


def test_a_peer_that_drips_costs_no_more_for_a_byte_the_more_it_has_said() -> None:
    """A copy of what had come for each byte would be half a terabyte: this test would never end."""
    size_bytes = 1 << 20
    frame = encode(TEXT, b"x" * size_bytes)
    reader = FrameReader(size_bytes)
    events = [event for at in range(len(frame)) for event in reader.feed(frame[at : at + 1])]
    assert events == [b"x" * size_bytes]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(("opcode", "chop"), [(TEXT, 1), (TEXT, 997), (BINARY, 1), (BINARY, 997)])
def test_a_peer_that_drips_costs_its_message_and_no_more(opcode: int, chop: int) -> None:
    frame = encode(opcode, b"x" * REAL_LIMIT)
    reader = FrameReader(REAL_LIMIT)
    for start in range(0, len(frame) - 1, chop):
        assert reader.feed(frame[start : min(start + chop, len(frame) - 1)]) == []
    assert kept_bytes() < REAL_LIMIT * 1.25 + SLACK_BYTES
    assert len(reader.feed(frame[-1:])) == 1


@pytest.mark.parametrize(
    ("opcode", "payload", "most_bytes"),
    [(TEXT, b"", 0), (TEXT, b"x", REAL_LIMIT * 1.25), (BINARY, b"xy", 0)],
    ids=["empty", "one byte each", "binary"],
)
@pytest.mark.usefixtures("traced")
def test_fragments_without_end_cost_what_is_in_them_and_of_a_binary_message_nothing(
    opcode: int, payload: bytes, most_bytes: float
) -> None:
    reader = FrameReader(REAL_LIMIT)
    count = 30_000
    reader.feed(encode(opcode, fin=False))
    many = encode(CONT, payload, fin=False) * 100
    for _ in range(count // 100):
        assert reader.feed(many) == []
    assert kept_bytes() < most_bytes + SLACK_BYTES
    assert len(reader.feed(encode(CONT))) == 1


def test_what_other_frames_need_is_given_back_when_they_are_over() -> None:
    """Without the garbage collector: tens of thousands of idle connections were pinged before it comes by."""
    reader = FrameReader(REAL_LIMIT)
    gc.collect()
    gc.disable()
    try:
        assert reader.feed(encode(PONG)) == [Pong()]
        assert reader.feed(b"".join(fragments(ping("a"), 7))) == [ping("a")]
        assert reader.feed(encode(BINARY, b"x")) == [Binary()]
        assert reader.feed(encode(PING, b"x")) == []
        assert reader.to_send() == b"\x8a\x01x"
        assert [one for one in gc.get_objects() if isinstance(one, Protocol)] == []
    finally:
        gc.enable()


def test_the_server_closes_once_and_the_first_reason_is_the_one_that_is_sent() -> None:
    reader = FrameReader(REAL_LIMIT)
    reader.close(4002, "first")
    reader.close(4003, "second")
    assert reader.to_send() == b"\x88\x07" + close_with(4002, b"first")
    reader.close(4003, "third")
    assert reader.feed(encode(TEXT, ping("late"))) == []
    assert reader.to_send() == b""
    assert not reader.ended
    assert reader.feed(encode(CLOSE, close_with(4002))) == [Closed(4002, "")]
    assert reader.ended
    assert reader.to_send() == b""


def test_a_connection_that_is_given_up_says_why_and_reads_nothing_more() -> None:
    reader = FrameReader(REAL_LIMIT)
    reader.fail(1011, "gone")
    assert reader.to_send() == b"\x88\x06" + close_with(1011, b"gone")
    assert reader.ended
    for late in (encode(TEXT, ping("late")), encode(PING), encode(CLOSE, close_with(1000)), b"\xff"):
        assert reader.feed(late) == []
        assert reader.to_send() == b""
