"""Frames good and bad, cut anywhere, by the million: the reader of frames against `websockets`' own.

`python -m tests.frame_fuzz --cases 5000000 --seed 1` ends by itself and says what it has seen; a difference is printed
with the command that shows it again.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from tests.frame_reference import Case, DifferenceError, compare
from tests.on_the_wire import GREEK, INVALID
from tests.raw_socket import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_with, encode

LIMITS = (125, 130, 300, 1000)
"""Of a message: small, so that short cases reach it, but not below what a control frame may have.

The real one has its turn once in BIG_EVERY cases.
"""

REAL_LIMIT, BIG_EVERY = 65_536, 400

BROKEN = tuple(bytes.fromhex(text) for texts in INVALID.values() for text in texts)
TEXTS = tuple(text.encode() for text in ("hello", '{"type":"ping","id":"1"}', GREEK, "推荐三部诺兰导演的电影🎬", ""))

CLOSE_CODES = (1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999)
WRONG_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535)

PROGRESS_S = 5.0


class Maker:
    """Makes cases of a seed: the same seed, the same cases."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._limit = LIMITS[0]
        self._made = 0
        self._frames: tuple[Callable[[], bytes], ...] = (
            *(self._text,) * 8,
            *(self._fragments,) * 5,
            *(self._ping, self._pong) * 2,
            self._binary,
            self._other_length_form,
            self._close,
        )
        self._damaged: tuple[Callable[[], bytes], ...] = (
            self._broken_text,
            self._broken_fragments,
            self._wrong_close,
            self._reserved_bits,
            self._unknown_opcode,
            self._no_mask,
            self._too_long,
            self._long_control,
            self._fragmented_control,
            self._continuation_of_nothing,
            self._message_within_another,
            self._noise,
        )

    def case(self) -> Case:
        """The next one."""
        chance = self._random
        self._made += 1
        self._limit = REAL_LIMIT if self._made % BIG_EVERY == 0 else chance.choice(LIMITS)
        frames = [chance.choice(self._frames)() for _ in range(chance.randrange(1, 7))]
        damage = chance.random()
        if damage < 0.45:
            frames.insert(chance.randrange(len(frames) + 1), chance.choice(self._damaged)())
        data = b"".join(frames)
        if damage > 0.85:
            data = self._mutated(data)
        elif damage > 0.75:
            data = data[: chance.randrange(len(data) + 1)]
        cuts = self._cuts(data, frames)
        closed_before = chance.randrange(len(cuts) + 1) if chance.random() < 0.1 else None
        return Case(data, cuts, self._limit, closed_before)

    def _cuts(self, data: bytes, frames: list[bytes]) -> tuple[int, ...]:
        chance, size = self._random, len(data)
        way = chance.randrange(6)
        if way == 0 or size < 2:
            return ()
        if way == 1 and size <= 2_000:
            return tuple(range(1, size))
        if way == 2:
            return tuple(sorted(chance.randrange(1, size) for _ in range(chance.randrange(1, 12))))
        if way == 3:
            step = chance.randrange(2, 40) if size <= 2_000 else chance.randrange(500, 5_000)
            return tuple(range(step, size, step))
        # At the edges of frames or beside them.
        edges, at = set(), 0
        for frame in frames:
            at += len(frame)
            edges.add(at if way == 4 else at + chance.randrange(-3, 12))
        return tuple(sorted(edge for edge in edges if 0 < edge < size))

    def _size(self) -> int:
        chance = self._random
        way = chance.randrange(8)
        if way == 0:
            return chance.choice((0, 1, 2, 3, 4, 124, 125, 126, 127, 128))
        if way == 1:
            return max(0, self._limit + chance.randrange(-3, 3))
        return chance.randrange(0, min(self._limit, 200) + 1)

    def _mask(self) -> bytes:
        return bytes(4) if self._random.random() < 0.1 else self._random.randbytes(4)

    def _words(self) -> bytes:
        """A text; now and then longer than the limit."""
        size = self._size()
        text = self._random.choice(TEXTS)
        if len(text) < size:
            text += b"x" * (size - len(text))
        return text if self._random.random() < 0.7 else text[::-1].decode(errors="ignore").encode()

    def _frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        return encode(opcode, payload, fin=fin, rsv=rsv, mask=self._mask())

    # Good frames.

    def _text(self) -> bytes:
        return self._frame(TEXT, self._words())

    def _binary(self) -> bytes:
        return self._frame(BINARY, self._random.randbytes(self._size()))

    def _control_payload(self) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 4, 125, self._random.randrange(126))))

    def _ping(self) -> bytes:
        return self._frame(PING, self._control_payload())

    def _pong(self) -> bytes:
        return self._frame(PONG, self._control_payload())

    def _other_length_form(self) -> bytes:
        chance = self._random
        opcode = chance.choice((TEXT, TEXT, BINARY, PING, PONG))
        payload = b"y" * chance.randrange(130)
        return encode(opcode, payload, mask=self._mask(), length_form=chance.choice((16, 64)))

    def _close(self) -> bytes:
        chance = self._random
        if chance.random() < 0.2:
            return self._frame(CLOSE)
        return self._frame(CLOSE, close_with(chance.choice(CLOSE_CODES), chance.choice((b"", b"bye", "再见".encode()))))

    def _fragments(self) -> bytes:
        words = self._words()
        return self._in_fragments(TEXT if self._random.random() < 0.85 else BINARY, words)

    def _in_fragments(self, opcode: int, payload: bytes, *, whole: bool = True) -> bytes:
        chance = self._random
        edges = sorted(chance.randrange(len(payload) + 1) for _ in range(chance.randrange(1, 6)))
        frames: list[bytes] = []
        for start, end in zip((0, *edges), (*edges, len(payload)), strict=True):
            last = whole and end == len(payload) and len(frames) == len(edges)
            frames.append(self._frame(CONT if frames else opcode, payload[start:end], fin=last))
            if not last and chance.random() < 0.3:
                frames.append(self._ping() if chance.random() < 0.6 else self._pong())
        return b"".join(frames)

    # Damaged ones.

    def _broken_words(self) -> bytes:
        words = self._random.choice(TEXTS)
        at = self._random.randrange(len(words) + 1)
        return words[:at] + self._random.choice(BROKEN) + words[at:]

    def _broken_text(self) -> bytes:
        return self._frame(TEXT, self._broken_words())

    def _broken_fragments(self) -> bytes:
        return self._in_fragments(TEXT, self._broken_words())

    def _wrong_close(self) -> bytes:
        chance = self._random
        way = chance.randrange(4)
        if way == 0:
            return self._frame(CLOSE, chance.randbytes(1))
        if way == 1:
            return self._frame(CLOSE, close_with(chance.choice(WRONG_CODES), b"reason"))
        if way == 2:
            return self._frame(CLOSE, close_with(1000, chance.choice(BROKEN)))
        # Right, but within a message.
        return self._in_fragments(TEXT, self._words(), whole=False) + self._close()

    def _reserved_bits(self) -> bytes:
        chance = self._random
        opcode = chance.choice((CONT, TEXT, BINARY, CLOSE, PING, PONG))
        return self._frame(opcode, self._control_payload(), rsv=chance.randrange(1, 8))

    def _unknown_opcode(self) -> bytes:
        opcode = self._random.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15))
        return self._frame(opcode, self._control_payload())

    def _no_mask(self) -> bytes:
        return encode(self._random.choice((CONT, TEXT, CLOSE, PING)), self._control_payload(), mask=None)

    def _too_long(self) -> bytes:
        chance = self._random
        opcode = chance.choice((TEXT, BINARY, CONT, PING))
        claims = chance.choice((self._limit + 1, 65_536, 2**31, 2**63 - 1, 2**63, 2**64 - 1))
        return encode(opcode, claims=claims, mask=self._mask(), length_form=64) + chance.randbytes(chance.randrange(20))

    def _long_control(self) -> bytes:
        return self._frame(
            self._random.choice((PING, PONG, CLOSE)), b"\x03\xe8" + b"z" * self._random.randrange(124, 200)
        )

    def _fragmented_control(self) -> bytes:
        return self._frame(self._random.choice((PING, PONG, CLOSE)), b"\x03\xe8", fin=False) + self._frame(CONT)

    def _continuation_of_nothing(self) -> bytes:
        return self._frame(CONT, self._words(), fin=self._random.random() < 0.5)

    def _message_within_another(self) -> bytes:
        within = self._frame(self._random.choice((TEXT, BINARY)), self._words(), fin=self._random.random() < 0.5)
        return self._in_fragments(TEXT, self._words(), whole=False) + within

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(1, 60))

    def _mutated(self, data: bytes) -> bytes:
        chance, changed = self._random, bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(changed)) if changed else 0
            way = chance.randrange(4)
            if way == 0 and changed:
                changed[at] ^= 1 << chance.randrange(8)
            elif way == 1 and changed:
                changed[at] = chance.randrange(256)
            elif way == 2:
                changed[at:at] = chance.randbytes(chance.randrange(1, 5))
            else:
                del changed[at : at + chance.randrange(1, 5)]
        return bytes(changed)


def fuzz(cases: int, seed: int, *, progress_s: float | None = None) -> Counter[str]:
    """Compare so many cases, and count what was seen. Raises DifferenceError."""
    maker, seen = Maker(seed), Counter[str]()
    begun = told = time.monotonic()
    for index in range(cases):
        case = maker.case()
        compare(case, seen)
        seen["pieces"] += len(case.cuts) + 1
        seen["bytes"] += len(case.data)
        if progress_s is not None and index % 1000 == 0 and time.monotonic() - told > progress_s:
            told = time.monotonic()
            print(f"{index:,} cases, {index / (told - begun):,.0f}/s", file=sys.stderr)
    seen["cases"] = cases
    return seen


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.frame_fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hex", help="one case: its bytes")
    parser.add_argument("--cuts", default="", help="one case: where it is cut")
    parser.add_argument("--limit", type=int, default=REAL_LIMIT, help="one case: the longest message")
    parser.add_argument("--closed-before", type=int, help="one case: the piece before which the server closes")
    chosen = parser.parse_args()
    try:
        if chosen.hex is not None:
            cuts = tuple(int(cut) for cut in chosen.cuts.split(",") if cut)
            compare(Case(bytes.fromhex(chosen.hex), cuts, chosen.limit, chosen.closed_before))
        else:
            seen = fuzz(chosen.cases, chosen.seed, progress_s=PROGRESS_S)
            for what, count in sorted(seen.items()):
                print(f"{count:>14,}  {what}")
    except DifferenceError as difference:
        print(difference)
        return 1
    print("no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
