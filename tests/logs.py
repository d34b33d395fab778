"""What is logged of one subject. Servers that several tests share log too, whenever they have something to say."""

import contextlib
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, overload

from structlog.testing import capture_logs

Line = MutableMapping[str, Any]


class Lines(Sequence[Line]):
    """The lines whose event has the word in it, as they come."""

    def __init__(self, captured: Sequence[Line], word: str) -> None:
        self._captured = captured
        self._word = word

    def _now(self) -> list[Line]:
        return [line for line in self._captured if self._word in line["event"]]

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> list[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | list[Line]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())


@contextlib.contextmanager
def logged_of(word: str) -> Iterator[Lines]:
    """Capture what is logged in the block and has the word in its event."""
    with capture_logs() as captured:
        yield Lines(captured, word)
