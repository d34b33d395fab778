"""What tests of the wire say and expect: requests that come back as they were, texts that are UTF-8 and that are not.

The kinds of texts are those of Markus Kuhn's UTF-8 decoder stress test, which the Autobahn test suite goes by too.
"""

import json
from itertools import product

from tests.raw_socket import CONT, PING, PONG, TEXT, RawSocket, ServerFrame, encode

LIMIT = 65_536
"""Of a client's message, in bytes."""

GREEK = "κόσμε"
"""Two and three bytes a character."""

VALID = {
    "one byte": "hello$world",
    "two bytes": "hello\u00a2world",
    "three bytes": "hello\u20acworld",
    "four bytes": "hello\U00024b62world",
    "Greek": GREEK,
    "Chinese and a film": "推荐🎬",
    "the first of two bytes": "\u0080",
    "the first of three bytes": "\u0800",
    "the first of four bytes": "\U00010000",
    "the last of one byte": "\u007f",
    "the last of two bytes": "\u07ff",
    "the last of three bytes": "\uffff",
    "the last of four bytes": "\U0010ffff",
    "the last before the surrogates": "\ud7ff",
    "the first after the surrogates": "\ue000",
    "replacement and other specials": "\ufff9\ufffa\ufffb\ufffc\ufffd",
    "no characters, by Unicode": "\ufffe\uffff",
    "no characters, in every plane": "".join(
        chr(plane << 16 | low) for plane in range(1, 17) for low in (0xFFFE, 0xFFFF)
    ),
}

_SURROGATES = ("eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf")
_PAIRS = product(_SURROGATES[:4], (_SURROGATES[4], _SURROGATES[6]))
_CUT_SHORT = (
    "c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf",
)  # fmt: skip

INVALID = {
    "five or six bytes": ("f888808080", "fc8480808080", "fbbfbfbfbf", "fdbfbfbfbfbf"),
    "beyond the last character": ("f7bfbfbf", "f4908080", "f5808080"),
    "continuations of nothing": ("80", "bf", "80bf", "80bf80", "80bf80bf80bf", bytes(range(0x80, 0xC0)).hex()),
    "begun and not continued": tuple(
        b"".join(bytes((lead, 0x20)) for lead in range(*leads)).hex()
        for leads in ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))
    ),
    "cut short": (*_CUT_SHORT, "".join(_CUT_SHORT)),
    "impossible": ("fe", "ff", "fefeffff"),
    "overlong slash": ("c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"),
    "overlong at most": ("c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"),
    "overlong zero": ("c080", "e08080", "f0808080", "f880808080", "fc8080808080"),
    "a surrogate": _SURROGATES,
    "a pair of surrogates": tuple(high + low for high, low in _PAIRS),
}
"""In hexadecimal digits."""


def ping(message_id: str, size_bytes: int | None = None) -> bytes:
    """A request that is answered with its id, filled up to a size."""
    message = json.dumps({"type": "ping", "id": message_id}, ensure_ascii=False, separators=(",", ":")).encode()
    if size_bytes is None:
        return message
    assert size_bytes >= len(message)
    return message + b" " * (size_bytes - len(message))


def ping_around(broken: bytes) -> bytes:
    """The same with bytes in its id that may be no text."""
    return b'{"type":"ping","id":"' + broken + b'"}'


def fragments(message: bytes, size_bytes: int) -> list[bytes]:
    """The frames of a text in fragments of so many bytes."""
    starts = range(0, len(message), size_bytes)
    return [
        encode(TEXT if start == 0 else CONT, message[start : start + size_bytes], fin=start == starts[-1])
        for start in starts
    ]


async def assert_answers(wire: RawSocket, message_id: str) -> None:
    """The next frame answers that request."""
    reply = await wire.text()
    assert (reply["type"], reply.get("id")) == ("pong", message_id), reply


async def assert_open(wire: RawSocket) -> None:
    """The server said nothing more, and answers."""
    await wire.send_frame(PING, b"open?")
    assert await wire.frame() == ServerFrame(PONG, b"open?")
    await wire.send_frame(TEXT, ping("open"))
    await assert_answers(wire, "open")


async def assert_refused(wire: RawSocket, *codes: int) -> None:
    """The server answers nothing, says why in its close, and ends TCP."""
    ending = await wire.ending()
    assert ending.before == []
    assert ending.code in codes
