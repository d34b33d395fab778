"""Frames as bytes on TCP, right and wrong: each group of the Autobahn test suite, as far as it is about a server that
takes texts and answers requests. Where the length of a payload or its UTF-8 is to come back, requests carry them.
"""

import pytest

from tests.on_the_wire import (
    GREEK,
    INVALID,
    LIMIT,
    VALID,
    assert_answers,
    assert_open,
    assert_refused,
    fragments,
    ping,
    ping_around,
)
from tests.raw_socket import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawSocket,
    ServerFrame,
    encode,
)

KINDS = {"text": TEXT, "binary": BINARY, "close": CLOSE, "ping": PING, "pong": PONG}
NOT_UTF8 = [pytest.param(bytes.fromhex(text), id=f"{kind}: {text[:24]}") for kind in INVALID for text in INVALID[kind]]
WHOLE_AND_CHOPPED = pytest.mark.parametrize("chop", [None, 1], ids=["whole", "byte by byte"])


# 1: framing.


@pytest.mark.parametrize(
    ("size_bytes", "chop"),
    [(size, None) for size in (24, 125, 126, 127, 128, 1000, 65_535, LIMIT)]
    + [(size, 1) for size in (24, 125, 126, 127, 128, LIMIT)]
    + [(size, 997) for size in (65_535, LIMIT)],
)
async def test_a_text_of_any_length_in_any_pieces_is_answered(
    wire: RawSocket, size_bytes: int, chop: int | None
) -> None:
    await wire.send_frame(TEXT, ping("a", size_bytes), chop=chop)
    await assert_answers(wire, "a")
    await assert_open(wire)


@WHOLE_AND_CHOPPED
async def test_a_text_of_no_length_is_no_request_and_harms_nothing(wire: RawSocket, chop: int | None) -> None:
    await wire.send_frame(TEXT, chop=chop)
    assert (await wire.text())["reason"] == "bad_json"
    await assert_open(wire)


@pytest.mark.parametrize("size_bytes", [0, 125, 126, 127, 128, 65_535, LIMIT])
async def test_a_binary_message_is_refused_by_a_reply_and_harms_nothing(wire: RawSocket, size_bytes: int) -> None:
    await wire.send_frame(BINARY, b"\xfe" * size_bytes)
    assert (await wire.text())["reason"] == "binary_refused"
    await assert_open(wire)


async def test_a_text_is_answered_wherever_its_frame_was_cut_in_two(wire: RawSocket) -> None:
    frame = encode(TEXT, ping("a", 130))
    for cut in (*range(1, 12), len(frame) - 1):
        await wire.send_bytes(frame[:cut])
        await wire.send_bytes(frame[cut:])
        await assert_answers(wire, "a")


async def test_texts_that_come_together_are_all_answered(wire: RawSocket) -> None:
    await wire.send_bytes(b"".join(encode(TEXT, ping(f"a{index}", 100 + index)) for index in range(30)))
    assert {(await wire.text())["id"] for _ in range(30)} == {f"a{index}" for index in range(30)}
    await assert_open(wire)


async def test_texts_are_answered_when_the_bytes_of_one_end_with_the_beginning_of_the_next(wire: RawSocket) -> None:
    frame = encode(TEXT, ping("a", 130))
    await wire.send_bytes(frame + frame[:3])
    await assert_answers(wire, "a")
    await wire.send_bytes(frame[3:] + frame[:-1])
    await assert_answers(wire, "a")
    await wire.send_bytes(frame[-1:] + frame)
    await assert_answers(wire, "a")
    await assert_answers(wire, "a")


@pytest.mark.parametrize("length_form", [16, 64])
async def test_a_length_in_more_bytes_than_it_needs_is_taken(wire: RawSocket, length_form: int) -> None:
    """The RFC forbids to send it, not to take it; `websockets` takes it."""
    await wire.send_frame(TEXT, ping("a"), length_form=16 if length_form == 16 else 64)
    await assert_answers(wire, "a")
    await wire.send_frame(TEXT, ping("b", 126), length_form=64)
    await assert_answers(wire, "b")


@pytest.mark.parametrize("mask", ["00000000", "ffffffff", "00000001", "7b227479", "818181fe"])
async def test_any_mask_is_taken_off(wire: RawSocket, mask: str) -> None:
    for index, size_bytes in enumerate((25, 26, 27, 28, 126, 65_535)):
        await wire.send_frame(TEXT, ping(f"a{index}", size_bytes), mask=bytes.fromhex(mask))
        await assert_answers(wire, f"a{index}")


@pytest.mark.parametrize("opcode", [CONT, *KINDS.values()])
@pytest.mark.parametrize("payload", [b"", ping("a")], ids=["empty", "not empty"])
async def test_a_frame_without_a_mask_is_refused(wire: RawSocket, opcode: int, payload: bytes) -> None:
    await wire.send_frame(opcode, payload, mask=None)
    await assert_refused(wire, 1002)


# 2: pings and pongs.


@pytest.mark.parametrize("payload", [b"", b"hello", bytes.fromhex("00fffefdfcfb00ff"), b"\xfe" * 125])
@WHOLE_AND_CHOPPED
async def test_a_ping_comes_back_as_it_was(wire: RawSocket, payload: bytes, chop: int | None) -> None:
    await wire.send_frame(PING, payload, chop=chop)
    assert await wire.frame() == ServerFrame(PONG, payload)
    await assert_open(wire)


@pytest.mark.parametrize("kind", ["ping", "pong", "close"])
@pytest.mark.parametrize("size_bytes", [126, LIMIT])
async def test_a_control_frame_of_more_than_125_bytes_is_refused(wire: RawSocket, kind: str, size_bytes: int) -> None:
    payload = b"\x03\xe8" + b"x" * (size_bytes - 2)
    await wire.send_frame(KINDS[kind], payload)
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("payload", [b"", b"unsolicited", b"\xfe" * 125])
async def test_a_pong_that_nobody_asked_for_is_not_answered(wire: RawSocket, payload: bytes) -> None:
    for _ in range(3):
        await wire.send_frame(PONG, payload)
    await assert_open(wire)


@pytest.mark.parametrize("chop", [None, 1, 13])
async def test_ten_pings_are_answered_in_order(wire: RawSocket, chop: int | None) -> None:
    await wire.send_bytes(b"".join(encode(PING, b"%d" % index) for index in range(10)), chop=chop)
    assert [await wire.frame() for _ in range(10)] == [ServerFrame(PONG, b"%d" % index) for index in range(10)]
    await assert_open(wire)


async def test_thousands_of_pings_at_once_are_all_answered(wire: RawSocket) -> None:
    payloads = [(b"%d" % index).ljust(125) for index in range(3_000)]
    await wire.send_bytes(b"".join(encode(PING, payload) for payload in payloads))
    assert [(await wire.frame()).payload for _ in payloads] == payloads


# 3 and 4: reserved bits and opcodes.


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("kind", KINDS)
async def test_a_reserved_bit_is_refused(wire: RawSocket, rsv: int, kind: str) -> None:
    await wire.send_frame(KINDS[kind], b"\x03\xe8", rsv=rsv)
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("chop", [None, 1])
async def test_a_reserved_bit_is_refused_after_good_messages(wire: RawSocket, rsv: int, chop: int | None) -> None:
    await assert_open(wire)
    await wire.send_bytes(encode(TEXT, ping("bad"), rsv=rsv) + encode(TEXT, ping("late")), chop=chop)
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("rsv", range(1, 8))
async def test_a_reserved_bit_within_a_fragmented_message_is_refused(wire: RawSocket, rsv: int) -> None:
    await wire.send_frame(TEXT, ping("bad")[:5], fin=False)
    await wire.send_frame(CONT, ping("bad")[5:], rsv=rsv)
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)])
@pytest.mark.parametrize("payload", [b"", b"payload"], ids=["empty", "not empty"])
async def test_an_unknown_opcode_is_refused(wire: RawSocket, opcode: int, payload: bytes) -> None:
    await wire.send_frame(opcode, payload)
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)])
@pytest.mark.parametrize("chop", [None, 1])
async def test_an_unknown_opcode_is_refused_after_good_messages(wire: RawSocket, opcode: int, chop: int | None) -> None:
    await assert_open(wire)
    await wire.send_bytes(encode(opcode, b"payload") + encode(TEXT, ping("late")) + encode(PING), chop=chop)
    await assert_refused(wire, 1002)


async def test_what_came_before_a_wrong_frame_is_answered_or_not_but_never_by_half(wire: RawSocket) -> None:
    await wire.send_bytes(encode(TEXT, ping("before")) + encode(5) + encode(TEXT, ping("after")))
    ending = await wire.ending()
    assert [frame.json()["id"] for frame in ending.before] in ([], ["before"])
    assert ending.code == 1002


# 5: fragmentation.


@pytest.mark.parametrize("kind", ["ping", "pong", "close"])
async def test_a_fragmented_control_frame_is_refused(wire: RawSocket, kind: str) -> None:
    await wire.send_frame(KINDS[kind], b"\x03\xe8", fin=False)
    await wire.send_frame(CONT, b"rest")
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("chop", [None, 1, 7])
@pytest.mark.parametrize("pieces", [1, 3, 60], ids=lambda size: f"{size} bytes each")
@pytest.mark.parametrize("together", [True, False], ids=["together", "one after the other"])
async def test_a_text_in_fragments_is_answered_once_it_is_whole(
    wire: RawSocket, chop: int | None, pieces: int, together: bool
) -> None:
    frames = fragments(ping("a", 120), pieces)
    for part in [b"".join(frames)] if together else frames:
        await wire.send_bytes(part, chop=chop)
    await assert_answers(wire, "a")
    await assert_open(wire)


@pytest.mark.parametrize("chop", [None, 1])
async def test_pings_between_fragments_are_answered_at_once(wire: RawSocket, chop: int | None) -> None:
    for index, fragment in enumerate(fragments(ping("a"), 6)):
        await wire.send_frame(PING, b"%d" % index, chop=chop)
        assert await wire.frame() == ServerFrame(PONG, b"%d" % index)
        await wire.send_frame(PONG, b"of nothing")
        await wire.send_bytes(fragment, chop=chop)
    await assert_answers(wire, "a")
    await assert_open(wire)


@pytest.mark.parametrize("chop", [None, 1])
async def test_pings_that_come_together_with_fragments_are_answered_first(wire: RawSocket, chop: int | None) -> None:
    frames = fragments(ping("a"), 6)
    await wire.send_bytes(b"".join(encode(PING, b"%d" % at) + frame for at, frame in enumerate(frames)), chop=chop)
    assert [(await wire.frame()).payload for _ in frames] == [b"%d" % index for index in range(len(frames))]
    await assert_answers(wire, "a")


async def test_empty_fragments_add_nothing(wire: RawSocket) -> None:
    text = ping("a")
    await wire.send_frame(TEXT, fin=False)
    await wire.send_bytes(encode(CONT, fin=False) * 1000)
    await wire.send_frame(CONT, text, fin=False)
    await wire.send_bytes(encode(CONT, fin=False) * 1000)
    await wire.send_frame(CONT)
    await assert_answers(wire, "a")
    await assert_open(wire)


async def test_a_text_of_empty_fragments_is_no_request(wire: RawSocket) -> None:
    await wire.send_bytes(encode(TEXT, fin=False) + encode(CONT, fin=False) + encode(CONT))
    assert (await wire.text())["reason"] == "bad_json"
    await assert_open(wire)


async def test_a_binary_message_in_fragments_is_refused_once(wire: RawSocket) -> None:
    await wire.send_frame(BINARY, b"\xfe", fin=False)
    await wire.send_frame(CONT, b"\xff", fin=False)
    await wire.send_frame(CONT, ping("no text"))
    assert (await wire.text())["reason"] == "binary_refused"
    await assert_open(wire)


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("chop", [None, 1])
async def test_a_continuation_of_nothing_is_refused(wire: RawSocket, fin: bool, chop: int | None) -> None:
    await wire.send_bytes(encode(CONT, ping("bad"), fin=fin) + encode(TEXT, ping("late")), chop=chop)
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("fin", [True, False])
async def test_a_continuation_of_a_message_that_is_over_is_refused(wire: RawSocket, fin: bool) -> None:
    for fragment in fragments(ping("a"), 10):
        await wire.send_bytes(fragment)
    await assert_answers(wire, "a")
    await wire.send_frame(CONT, ping("bad"), fin=fin)
    await assert_refused(wire, 1002)


@pytest.mark.parametrize("kind", ["text", "binary"])
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("chop", [None, 1])
async def test_a_message_within_a_fragmented_one_is_refused(
    wire: RawSocket, kind: str, fin: bool, chop: int | None
) -> None:
    await wire.send_frame(TEXT, ping("a")[:5], fin=False)
    await wire.send_frame(KINDS[kind], ping("within"), fin=fin, chop=chop)
    await wire.send_frame(CONT, ping("a")[5:])
    await assert_refused(wire, 1002)


# 6: UTF-8.


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
@pytest.mark.parametrize("way", ["whole", "chopped", "a fragment for each byte", "a chopped fragment for each byte"])
async def test_every_character_comes_back_however_it_was_cut(wire: RawSocket, text: str, way: str) -> None:
    message, chop = ping(text), 1 if "chopped" in way else None
    parts = fragments(message, 1) if "fragment" in way else [encode(TEXT, message)]
    await wire.send_bytes(b"".join(parts), chop=chop)
    await assert_answers(wire, text)


async def test_a_text_that_is_no_json_is_refused_by_a_reply_and_harms_nothing(wire: RawSocket) -> None:
    for text in ("\x00", "\x7f", GREEK, "\U0010ffff", "\ufffe", "\ufeff{}"):
        await wire.send_frame(TEXT, text.encode())
        assert (await wire.text())["reason"] == "bad_json"
    await assert_open(wire)


@pytest.mark.parametrize("broken", NOT_UTF8)
@pytest.mark.parametrize("way", ["whole", "chopped", "a fragment for each byte"])
async def test_what_is_not_utf8_is_refused_however_it_was_cut(wire: RawSocket, broken: bytes, way: str) -> None:
    message = ping_around(broken)
    parts = fragments(message, 1) if "fragment" in way else [encode(TEXT, message)]
    await wire.send_bytes(b"".join(parts), chop=1 if way == "chopped" else None)
    await assert_refused(wire, 1007)


@pytest.mark.parametrize("size_bytes", range(1, len(GREEK.encode())))
async def test_a_text_that_ends_within_a_character_is_refused_and_another_is_no_json(
    wire: RawSocket, size_bytes: int
) -> None:
    text = GREEK.encode()[:size_bytes]
    await wire.send_frame(TEXT, text)
    if text.decode(errors="ignore").encode() == text:
        assert (await wire.text())["reason"] == "bad_json"
    else:
        await assert_refused(wire, 1007)


@pytest.mark.parametrize("split", ["before the character", "within it", "after it"])
@pytest.mark.parametrize("chop", [None, 1])
async def test_what_is_not_utf8_is_refused_at_the_latest_when_it_is_whole(
    wire: RawSocket, split: str, chop: int | None
) -> None:
    message = ping_around(GREEK.encode() + bytes.fromhex("f4908080") + b"edited")
    at = message.index(0xF4) + {"before the character": 0, "within it": 2, "after it": 4}[split]
    await wire.send_frame(TEXT, message[:at], fin=False, chop=chop)
    await wire.send_frame(CONT, message[at:], chop=chop)
    await assert_refused(wire, 1007)


async def test_what_is_no_text_need_not_be_utf8(wire: RawSocket) -> None:
    await wire.send_frame(BINARY, bytes(range(256)))
    assert (await wire.text())["reason"] == "binary_refused"
    await wire.send_frame(PING, bytes(range(200, 256)))
    assert await wire.frame() == ServerFrame(PONG, bytes(range(200, 256)))
