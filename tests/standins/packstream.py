"""PackStream, the bytes of Bolt: neo4j.com/docs/bolt/current/packstream. Written from the specification.

Only what a client sends that uses no dates, no points and no graph types: null, booleans, numbers, bytes, texts, lists,
maps, and the structures that messages are.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """A message: what it is, and its fields."""

    tag: int
    fields: list[Any]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        assert len(taken) == count, "the message ends too early"
        self.at += count
        return taken

    def number(self, form: str) -> Any:
        return struct.unpack(f">{form}", self.take(struct.calcsize(f">{form}")))[0]

    def value(self) -> Any:
        marker = self.number("B")
        if marker < 0x80:
            return marker
        if marker >= 0xF0:
            return marker - 0x100
        if marker < 0xC0:
            return self._sized(marker & 0xF0, marker & 0x0F)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in _NUMBERS:
            return self.number(_NUMBERS[marker])
        kind, form = _SIZED[marker]
        return self._sized(kind, self.number(form))

    def _sized(self, kind: int, size: int) -> Any:
        if kind == 0x80:
            return self.take(size).decode()
        if kind == 0x90:
            return [self.value() for _ in range(size)]
        if kind == 0xA0:
            return {self.value(): self.value() for _ in range(size)}
        if kind == 0xC0:
            return self.take(size)
        return Structure(self.number("B"), [self.value() for _ in range(size)])


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {0xC1: "d", 0xC8: "b", 0xC9: "h", 0xCA: "i", 0xCB: "q"}
_SIZED = {
    **{0xCC: (0xC0, "B"), 0xCD: (0xC0, "H"), 0xCE: (0xC0, "I")},
    **{0xD0: (0x80, "B"), 0xD1: (0x80, "H"), 0xD2: (0x80, "I")},
    **{0xD4: (0x90, "B"), 0xD5: (0x90, "H"), 0xD6: (0x90, "I")},
    **{0xD8: (0xA0, "B"), 0xD9: (0xA0, "H"), 0xDA: (0xA0, "I")},
}


def unpack(data: bytes) -> Any:
    """The one value that these bytes are."""
    reader = _Reader(data)
    value = reader.value()
    assert reader.at == len(data), "more than one value"
    return value


def pack(value: object) -> bytes:  # noqa: PLR0911 - one for each type
    """The bytes of a value that a server answers with."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return b"\xcb" + struct.pack(">q", value)
        case str():
            return b"\xd2" + struct.pack(">I", len(value.encode())) + value.encode()
        case Structure(tag, fields):
            return bytes([0xB0 + len(fields), tag]) + b"".join(pack(each) for each in fields)
        case Mapping():
            pairs = (pack(key) + pack(each) for key, each in value.items())
            return b"\xda" + struct.pack(">I", len(value)) + b"".join(pairs)
        case Sequence():
            return b"\xd6" + struct.pack(">I", len(value)) + b"".join(pack(each) for each in value)
    raise TypeError(type(value).__name__)
