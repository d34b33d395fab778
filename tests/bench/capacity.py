"""How many answers at a time are not too many: steps upwards until one fails, then halves between.

A step is fine when 99 of 100 pieces are not older than `LIMIT_MS` at the client, nearly all came, and nothing failed.
"""

from tests.bench.loads import Seen
from tests.bench.records import Record
from tests.bench.scripted_model import RATE

LIMIT_MS = 120.0
"""From the model to the client: what a reader does not notice between one word and the next."""

NEARLY_ALL = 0.97
"""Of the pieces that are due in a window: between an answer's end and the next one's beginning there are some fewer."""

STEP, QUICK_STEP = 1.25, 1.5
MOST_STEPS, QUICK_MOST_STEPS = 14, 3
HALVES, QUICK_HALVES = 1, 1
MOST_CHATS = 15_000
"""A process of the load may open 20,000 files."""


class Search:
    """Where to look next, from what was found so far."""

    def __init__(self, begin: int, *, quick: bool) -> None:
        self.next = min(begin, MOST_CHATS)
        self.most = 0
        self._too_many: int | None = None
        self._step = QUICK_STEP if quick else STEP
        self._left = QUICK_MOST_STEPS if quick else MOST_STEPS
        self._halves = QUICK_HALVES if quick else HALVES

    @property
    def over(self) -> bool:
        return self._left <= 0

    def was(self, chats: int, *, fine: bool) -> None:
        """What came of a step."""
        self._left -= 1
        if fine:
            self.most = max(self.most, chats)
        else:
            self._too_many = min(chats, self._too_many or chats)
        if self._too_many is None:
            self.next = min(MOST_CHATS, round(self.most * self._step))
        elif self.most == 0:
            self.next = max(1, round(self._too_many / self._step))
        else:
            self._halves -= 1
            self.next = (self.most + self._too_many) // 2
        if self._halves < 0 or self.next in (self.most, 0):
            self._left = 0


def step_of(chats: int, seen: Seen) -> Record:
    """The figures of so many answers, and whether they were not too many."""
    more = seen.more
    frames = more["frames"]
    fine = (
        seen.ms(99) <= LIMIT_MS
        and seen.operations >= NEARLY_ALL * chats * RATE * seen.seconds
        and more["errors"] + more["missing"] + more["doubled"] + more["gone"] == 0
    )
    return {
        "chats": chats,
        "us": seen.us,
        "us_frame": seen.server_cpu_s / frames * 1e6 if frames else float("nan"),
        "pieces_in_frame": seen.operations / frames if frames else 0.0,
        "per_s": seen.per_s,
        "p50_ms": seen.ms(50),
        "p99_ms": seen.ms(99),
        "first_p50_ms": seen.first_ms(50),
        "first_p99_ms": seen.first_ms(99),
        "share": seen.server_share,
        "load": max(seen.load_shares),
        **{key: more[key] for key in ("errors", "missing", "doubled", "gone", "error")},
        "fine": fine,
    }
