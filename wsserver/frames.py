"""The frames of one WebSocket connection, without IO: the client's bytes in, events out (RFC 6455, section 5).

A text message in one frame, which is nearly everything that clients send, is read here. All else is read by
`websockets`, frame by frame: control frames, fragments, what is too long, what is wrong, and the end. Its object is
there only while it is needed: it would be a third of what an idle connection costs. The handshake is over before.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.frames import CloseCode, Frame, Opcode
from websockets.frames import apply_mask as unmask  # type: ignore[attr-defined]  # in C where there is a build of it
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

log = logging.getLogger("websockets.server")

TEXT_WHOLE = 0x81
"""The first byte of a text message in one frame: FIN, no extension's bits, opcode 1."""

MASKED = 0x80
"""In the second byte: set in whatever a client sends. The rest of that byte is the length, up to 125."""

LENGTH_16, LENGTH_64 = 126, 127
"""Lengths that say in how many more bytes the length is."""

CONTROL = 0x08
"""The bit of an opcode that says: no part of a message."""

MASK_BYTES = 4

OPCODES = frozenset(Opcode)
DATA_OPCODES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

REFUSED = 0
"""In place of a frame's size: it is refused by its header, and nothing is read after it."""

SHORT_HEADERS = tuple(bytes((TEXT_WHOLE, size)) for size in range(LENGTH_16))
"""What stands before a message of a server, by its length: a server masks nothing."""

PING_FRAME = b"\x89\x00"
"""A ping without a payload: whatever pong comes says that somebody is there."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A binary message. What was in it is not kept."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The client is there."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event: the client closed, or what it sent cannot be read any further. Code 1005: it named none."""

    code: int
    reason: str


Event = bytes | Binary | Pong | Closed
"""Bytes are a text message: whole, unmasked, and UTF-8."""


def framed(messages: Sequence[bytes]) -> bytes:
    """Text messages of a server as they go over the wire."""
    if len(messages) == 1:
        message = messages[0]
        size_bytes = len(message)
        return (SHORT_HEADERS[size_bytes] if size_bytes < LENGTH_16 else _header(size_bytes)) + message
    return b"".join([part for message in messages for part in (_header(len(message)), message)])


def _header(size_bytes: int) -> bytes:
    if size_bytes < LENGTH_16:
        return SHORT_HEADERS[size_bytes]
    if size_bytes < 1 << 16:
        return b"\x81\x7e" + size_bytes.to_bytes(2, "big")
    return b"\x81\x7f" + size_bytes.to_bytes(8, "big")


class FrameParser(ServerProtocol):
    """`websockets`' own, but what stands between the fragments of a message is no part of it (RFC 6455, 5.4).

    Its own would count a ping there up to the limit of the message, and take a close for an error.
    """

    _message_bytes: int | None = None
    _frame_is_here = False

    @property
    def current_size(self) -> int | None:
        """Bytes so far of the message in fragments; None without one, and for a control frame that begins.

        It is asked for when the first byte of a frame has come, and when the frame is all here.
        """
        if not self._frame_is_here and self.reader.buffer and self.reader.buffer[0] & CONTROL:
            return None
        return self._message_bytes

    @current_size.setter
    def current_size(self, size_bytes: int | None) -> None:
        self._message_bytes = size_bytes

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame."""
        self._frame_is_here = True
        if frame.opcode is Opcode.CLOSE:
            self._message_bytes = None
        super().recv_frame(frame)
        self._frame_is_here = False


class FrameReader:
    """Reads what one client sends. `to_send` has what must go back for it: pongs, and the closing frame."""

    __slots__ = (
        "_fragments",
        "_left",
        "_max_message_bytes",
        "_needed",
        "_rest",
        "_slow",
        "closing",
        "ended",
        "replies",
    )

    def __init__(self, max_message_bytes: int) -> None:
        """A limit below 125 bytes, which control frames may have, would not hold."""
        self.closing = False
        """Whether a closing frame was sent, or one came: no message is read any more."""
        self.ended = False
        """Whether nothing is read any more: the connection is to be closed once `to_send` is sent."""
        self._max_message_bytes = max_message_bytes
        self._slow: FrameParser | None = None
        self._left = 0  # bytes of the frame at hand that `websockets` has yet to get
        self._fragments: _Fragments | None = None
        self._rest: bytearray | None = None  # of a frame that is not all here yet
        self._needed = 0  # bytes of it to go on with
        self.replies = b""
        """What `to_send` has."""

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than by the client's close: more may be on its way."""
        return self.ended and (self._slow is None or self._slow.close_rcvd is None)

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete, in order."""
        if self._rest is None and self._slow is None and len(data) > 6 and data[0] == TEXT_WHOLE:
            # The ordinary case, by itself: one short message and nothing else.
            length = data[1] - MASKED
            if 0 <= length < LENGTH_16 and len(data) == length + 6:
                text = unmask(data[6:], data[2:6])
                if text.isascii():
                    return [text]
        events: list[Event] = []
        self._read(data, events)
        return events

    def close(self, code: int, reason: str) -> None:
        """Put a closing frame into `to_send`, unless there was one."""
        if not self.closing:
            slow = self._begin_slow()
            slow.send_close(code, reason)
            self.closing = True
            rest, self._rest = self._rest or b"", None
            # What had come of a frame is for `websockets` too: it reads on to the client's answer.
            self._hand_over(bytes(rest), [])

    def fail(self, code: int, reason: str) -> None:
        """Put a closing frame into `to_send`, unless there was one, and read nothing more."""
        slow = self._begin_slow()
        slow.fail(code, reason)
        self.closing = self.ended = True
        self.replies += b"".join(slow.data_to_send())

    def to_send(self) -> bytes:
        """What is to be sent now, in one piece. It is had once."""
        replies, self.replies = self.replies, b""
        return replies

    def _read(self, data: bytes, events: list[Event]) -> None:
        if self._rest is not None:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data, self._rest = bytes(self._rest), None
        at = 0
        while at < len(data):
            if self.closing:
                self._hand_over(data[at:], events)
                return
            if self._left == 0:
                size = self._frame_size(data, at)
                is_text = self._slow is None and data[at] == TEXT_WHOLE and size != REFUSED
                if size is None or (is_text and len(data) - at < size):
                    self._rest = bytearray(data[at:])
                    self._needed = size or len(self._rest) + 1
                    return
                if is_text:
                    self._take_text(data[at : at + size], events)
                    at += size
                    continue
                self._left = len(data) - at if size == REFUSED else size
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            self._hand_over(piece, events)
            if self._left == 0 and self._fragments is None and not self.closing:
                self._end_slow()

    def _frame_size(self, data: bytes, at: int) -> int | None:
        """Bytes of the frame that begins here, with its header; REFUSED by that header, or None while it is not here.

        These are the refusals for which `websockets` does not wait for the rest of the frame.
        """
        here = len(data) - at
        if here < 2:
            return None
        length = data[at + 1] - MASKED
        if length < 0 or data[at] & 0x0F not in OPCODES:
            return REFUSED
        header = 2 + MASK_BYTES
        if length >= LENGTH_16:
            more = 2 if length == LENGTH_16 else 8
            if here < 2 + more:
                return None
            length = int.from_bytes(data[at + 2 : at + 2 + more], "big")
            header += more
        return REFUSED if length > self._max_message_bytes else header + length

    def _take_text(self, frame: bytes, events: list[Event]) -> None:
        length = frame[1] - MASKED
        start = 2 if length < LENGTH_16 else 4 if length == LENGTH_16 else 10
        text = unmask(frame[start + MASK_BYTES :], frame[start : start + MASK_BYTES])
        self._take_message(text, events)

    def _take_message(self, text: bytes, events: list[Event]) -> None:
        try:
            text.decode()
        except UnicodeDecodeError as error:
            self.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
            events.append(Closed(CloseCode.INVALID_DATA, "not UTF-8"))
        else:
            events.append(text)

    # What follows goes through `websockets`.

    def _begin_slow(self) -> FrameParser:
        if self._slow is None:
            self._slow = FrameParser(state=OPEN, max_size=self._max_message_bytes, logger=log)
        return self._slow

    def _end_slow(self) -> None:
        if self._slow is not None:
            # Its parser is a generator that holds it: without this both would wait for the garbage collector.
            self._slow.parser.close()
            self._slow = None

    def _hand_over(self, data: bytes, events: list[Event]) -> None:
        if self.ended:
            return
        slow = self._begin_slow()
        if data:
            slow.receive_data(data)
        for frame in slow.events_received():
            if isinstance(frame, Frame) and not self.ended:
                self._take_frame(frame, events)
        self.replies += b"".join(slow.data_to_send())
        if not self.ended and (slow.close_rcvd is not None or slow.parser_exc is not None):
            self.closing = self.ended = True
            close = slow.close_rcvd if slow.parser_exc is None else slow.close_sent
            events.append(Closed(CloseCode.ABNORMAL_CLOSURE, "") if close is None else Closed(close.code, close.reason))

    def _take_frame(self, frame: Frame, events: list[Event]) -> None:
        if frame.opcode is Opcode.PONG:
            events.append(Pong())
        elif frame.opcode in DATA_OPCODES and not self.closing:
            if frame.opcode is not Opcode.CONT:
                self._fragments = _Fragments(is_text=frame.opcode is Opcode.TEXT)
            fragments = self._fragments
            assert fragments is not None  # noqa: S101 (a continuation of nothing is no event)
            if fragments.is_text:
                fragments.text += frame.data
            if frame.fin:
                self._fragments = None
                if fragments.is_text:
                    self._take_message(bytes(fragments.text), events)
                else:
                    events.append(Binary())


class _Fragments:
    """A message whose end has not come yet. Of a binary one nothing is kept.

    In one buffer: an object for each fragment, of which there may be one a byte, would be forty times the message.
    """

    __slots__ = ("is_text", "text")

    def __init__(self, *, is_text: bool) -> None:
        self.is_text = is_text
        self.text = bytearray()
