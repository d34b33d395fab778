"""Bytes to requests and back: nothing that arrives breaks the decoder, nothing that leaves is broken."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chat import Chunk
from protocol.envelope import BadMessageError, ChunkEncoder, Decoder, encode_error, encode_frame, to_ascii
from protocol.errors import CLOSE_CODES, ERRORS, INVALID_FIELD, OperationError
from protocol.operation import OperationTable, merge
from protocol.operations import OPERATIONS

DECODER = Decoder(OPERATIONS)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {"type": st.sampled_from(sorted(OPERATIONS)) | st.text(max_size=8)},
    optional=dict.fromkeys(("id", "query", "ids", "tmdb_id", "code", "token", "limit", "feed", "stream"), anything),
)


@given(st.text())
def test_any_text_is_a_request_or_a_bad_message(text: str) -> None:
    try:
        DECODER.decode(text.encode())
    except BadMessageError as bad:
        json.loads(encode_error(bad, message_id=bad.message_id))


@given(messages)
def test_any_object_is_a_request_or_a_bad_message_that_names_its_field(message: dict[str, Any]) -> None:
    try:
        request = DECODER.decode(json.dumps(message).encode())
    except BadMessageError as bad:
        assert bad.kind is not INVALID_FIELD or bad.field
        json.loads(encode_error(bad, message_id=bad.message_id))
    else:
        assert request.type == message["type"]
        assert request.id == message.get("id")


@given(st.dictionaries(st.text(max_size=6), anything, max_size=5), st.data())
def test_a_key_that_comes_twice_is_always_found(extra: dict[str, Any], data: st.DataObject) -> None:
    pairs = [("type", "ping"), *((key, value) for key, value in extra.items() if key not in ("type", "id"))]
    twice = data.draw(st.sampled_from(pairs))
    text = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in [*pairs, twice])
    with pytest.raises(BadMessageError) as bad:
        DECODER.decode(f"{{{text}}}".encode())
    assert bad.value.kind.reason in ("duplicate_key", "invalid_field")


@given(st.text())
def test_frames_say_the_same_in_ascii(text: str) -> None:
    encoded = encode_frame("run", 7, Chunk(text), "mine")
    assert ChunkEncoder("run", "mine")(7, text) == encoded
    assert ChunkEncoder("run", None)(7, text) == encode_frame("run", 7, Chunk(text), None)
    assert json.loads(encoded) == {"type": "chunk", "request_id": "run", "seq": 7, "content": text, "id": "mine"}
    assert json.loads(to_ascii(encoded)) == json.loads(encoded)
    assert to_ascii(encoded).isascii()
    assert b"\n" not in encoded


def test_an_error_frame_has_everything_that_is_promised() -> None:
    frame = json.loads(encode_error(OperationError(ERRORS["rate_limited"], retry_after_ms=50), message_id="m"))
    assert frame == {
        "type": "error",
        "code": 429,
        "message": "消息太频繁，请稍后再试",
        "data": None,
        "reason": "rate_limited",
        "retryable": True,
        "retry_after_ms": 50,
        "content": {"message": "消息太频繁，请稍后再试"},
        "id": "m",
    }


def test_every_error_kind_has_an_http_code_and_every_close_code_is_usable() -> None:
    assert all(400 <= kind.code <= 599 and kind.message for kind in ERRORS.values())
    assert all(code in (1000, 1009, 1012, 1013) or 4000 <= code <= 4999 for code in CLOSE_CODES)
    assert all(len(close.reason.encode()) <= 123 for close in CLOSE_CODES.values())


def test_an_operation_declared_twice_is_refused_at_import() -> None:
    ping = OPERATIONS["ping"]
    table = OperationTable()
    table.declare("ping", ping.request, type(None), summary="", access=ping.access)
    with pytest.raises(ValueError, match="declared twice"):
        table.declare("ping", ping.request, type(None), summary="", access=ping.access)
    with pytest.raises(ValueError, match="two domains"):
        merge(table, table)
