"""What a reader of frames owes: `websockets`' own parser, with messages put together and their UTF-8 looked at.

In one thing it is wrong, and put right here: what stands between the fragments of a message is no part of it.

`compare` feeds both the same bytes in the same pieces, and raises DifferenceError at the first piece after which they
do not say the same.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from wsserver.frames import Binary, Closed, Event, FrameReader, Pong

QUIET = logging.getLogger("tests.frame_reference")

CLOSE_OF_OURS = 4002, "no protocol of ours"


NOT_UTF8 = Closed(1007, "not UTF-8")


@dataclass(frozen=True, slots=True)
class Case:
    """Bytes of a client, where they are cut, and the piece before which the server closes, if it does."""

    data: bytes
    cuts: tuple[int, ...]
    max_message_bytes: int
    closed_before: int | None = None

    def pieces(self) -> list[bytes]:
        """The bytes in the pieces that they come in; none is empty."""
        edges = (0, *self.cuts, len(self.data))
        return [self.data[start:end] for start, end in pairwise(edges) if start < end]

    def command(self) -> str:
        """What to type to see it again."""
        cuts = ",".join(map(str, self.cuts))
        closed = "" if self.closed_before is None else f" --closed-before {self.closed_before}"
        one = f"--hex {self.data.hex()} --cuts '{cuts}' --limit {self.max_message_bytes}{closed}"
        return f"python -m tests.frame_fuzz {one}"


class DifferenceError(AssertionError):
    """The reader says something else than the reference."""


@dataclass(slots=True)
class Said:
    """What came of some bytes: events, and the frames that go back."""

    events: list[Event]
    replies: list[tuple[int, bytes]]
    ended: bool


class Parser(Protocol):
    """`websockets`' own, but a control frame between fragments is neither counted to the message nor an end within it.

    Its `current_size` is of the message in fragments, None when there is none. It is asked for when the first byte of
    a frame has come, and when a frame is whole.
    """

    _frame_is_whole = False
    _size: int | None = None

    @property
    def current_size(self) -> int | None:
        between = not self._frame_is_whole and bool(self.reader.buffer)
        return None if between and self.reader.buffer[0] & 0x08 else self._size

    @current_size.setter
    def current_size(self, size: int | None) -> None:
        self._size = size

    def recv_frame(self, frame: Frame) -> None:
        """Take a whole frame."""
        if frame.opcode is Opcode.CLOSE:
            self._size = None
        self._frame_is_whole = True
        super().recv_frame(frame)
        self._frame_is_whole = False


class Reference:
    """Reads frames by `websockets` alone."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._protocol = self._new_protocol()
        self._fed = b""
        self._text: list[bytes] | None = None
        self._closing = False
        self._ended = False

    def _new_protocol(self) -> Protocol:
        return Parser(SERVER, state=OPEN, max_size=self._max_message_bytes, logger=QUIET)

    def close(self) -> Said:
        """The server closes, unless that was done."""
        if not self._closing and not self._ended:
            self._protocol.send_close(*CLOSE_OF_OURS)
            self._closing = True
        return self._said([])

    def feed(self, data: bytes) -> Said:
        """What these bytes complete."""
        if self._ended:
            return self._said([])
        text = None if self._text is None else list(self._text)
        events = self._feed(data)
        if not (events and events[-1] == NOT_UTF8):
            self._fed += data
            return self._said(events)
        # `websockets`, which does not look, has read on and answered what came after it: once more, byte by byte.
        self._protocol, self._text, self._ended = self._new_protocol(), text, False
        self._protocol.receive_data(self._fed)
        self._protocol.events_received()
        self._protocol.data_to_send()
        events = []
        for at in range(len(data)):
            events += self._feed(data[at : at + 1])
            if self._ended:
                break
        return self._said(events)

    def _feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        protocol = self._protocol
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            self._take(frame, events)
            if self._ended:
                protocol.fail(1007)
                return events
        if protocol.close_rcvd is not None or protocol.parser_exc is not None:
            self._ended = True
            close = protocol.close_sent if protocol.parser_exc is not None else protocol.close_rcvd
            assert close is not None
            events.append(Closed(close.code, close.reason))
        return events

    def _take(self, frame: Frame, events: list[Event]) -> None:
        if frame.opcode is Opcode.PONG:
            events.append(Pong())
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) and not self._closing:
            if frame.opcode is not Opcode.CONT:
                self._text = [] if frame.opcode is Opcode.TEXT else None
            if self._text is not None:
                self._text.append(bytes(frame.data))
            if frame.fin:
                self._end_message(events)

    def _end_message(self, events: list[Event]) -> None:
        if self._text is None:
            events.append(Binary())
            return
        message, self._text = b"".join(self._text), None
        try:
            message.decode()
        except UnicodeDecodeError:
            self._ended = True
            events.append(NOT_UTF8)
        else:
            events.append(message)

    def _said(self, events: list[Event]) -> Said:
        return Said(events, replies_in(b"".join(self._protocol.data_to_send())), self._ended)


def replies_in(sent: bytes) -> list[tuple[int, bytes]]:
    """Pongs with what is in them, closes with their code: the words of a reason are everybody's own."""
    replies = []
    at = 0
    while at < len(sent):
        assert sent[at] in (0x88, 0x8A), f"no control frame: {sent[at:].hex(' ')}"
        assert sent[at + 1] < 126
        end = at + 2 + sent[at + 1]
        assert end <= len(sent)
        payload = sent[at + 2 : end]
        replies.append((sent[at], payload[:2] if sent[at] == 0x88 else payload))
        at = end
    return replies


def compare(case: Case, seen: Counter[str] | None = None) -> None:
    """Raise DifferenceError unless the reader says of each piece what the reference does; count what was said."""
    reader, reference = FrameReader(case.max_message_bytes), Reference(case.max_message_bytes)
    for index, piece in enumerate(case.pieces()):
        try:
            if index == case.closed_before:
                _compare_said(_close(reader), reference.close(), index)
                if seen is not None:
                    seen["closed by the server"] += 1
            expected = reference.feed(piece)
            events = reader.feed(piece)
            _compare_said(Said(events, replies_in(reader.to_send()), reader.ended), expected, index)
        except Exception as error:
            raise DifferenceError(f"{error!r}\n{case.command()}") from error
        if seen is not None:
            _count(expected, seen)
    if seen is not None and not reader.ended:
        seen["unfinished"] += 1


def _close(reader: FrameReader) -> Said:
    if not reader.ended:
        reader.close(*CLOSE_OF_OURS)
    return Said([], replies_in(reader.to_send()), reader.ended)


def _compare_said(said: Said, expected: Said, index: int) -> None:
    same = (
        said.replies == expected.replies
        and said.ended == expected.ended
        and [_code_alone(event) for event in said.events] == [_code_alone(event) for event in expected.events]
    )
    assert same, f"after piece {index}:\nsaid     {said}\nexpected {expected}"


def _code_alone(event: Event) -> Event:
    return Closed(event.code, "") if isinstance(event, Closed) and event.code in (1002, 1007, 1009) else event


def _count(said: Said, seen: Counter[str]) -> None:
    for event in said.events:
        if isinstance(event, Closed):
            seen[f"closed {event.code if event.code < 1016 else '3000 to 4999'}"] += 1
        else:
            seen["text" if isinstance(event, bytes) else type(event).__name__.lower()] += 1
    for first, _ in said.replies:
        seen["pong sent" if first == 0x8A else "close sent"] += 1
