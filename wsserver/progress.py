"""How far something is, for who looks at a terminal or at a log: done, rate, time left.

It knows nothing of what is being done.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TextIO

from wsserver.tasks import Tasks

REDRAW_S = 0.1
LINE_S = 5.0
"""Where lines stay, in a log or a pipe, few are enough."""

BAR_WIDTH = 24
NARROWEST = 20
"""Columns. Who has fewer gets a line that is broken."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is being done now, and how much of it. Without `total` it is not known yet how much there is."""

    what: str
    done: int
    total: int | None


class Progress:
    """One line that is written over when `stream` is a terminal, and else a line now and then."""

    def __init__(self, stream: TextIO, now: Callable[[], Step], *, line_s: float = LINE_S) -> None:
        self._stream = stream
        self._now = now
        self._is_terminal = stream.isatty()
        self._line_s = line_s
        self._written_at = time.monotonic()
        self._what = ""
        self._began_at = (0.0, 0)  # when this step was first seen, and how much of it was done already

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show it until the block ends; the last state stays on the terminal."""
        async with Tasks().open() as tasks:
            tasks.spawn(self._show(), name="progress")
            try:
                yield
            finally:
                self._write(self.text())
                if self._is_terminal:
                    self._stream.write("\n")
                    self._stream.flush()

    async def _show(self) -> None:
        while True:
            # Looked at more often than it is written: a rate counts from where its step began.
            text = self.text()
            if self._is_terminal or time.monotonic() - self._written_at >= self._line_s:
                self._write(text)
            await asyncio.sleep(REDRAW_S)

    def _write(self, text: str) -> None:
        self._written_at = time.monotonic()
        if self._is_terminal:
            self._stream.write(f"\r{text[: max(NARROWEST, _columns(self._stream)) - 1]}\x1b[K")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def text(self) -> str:
        """How it stands."""
        step, now = self._now(), time.monotonic()
        if step.what != self._what:
            self._what, self._began_at = step.what, (now, step.done)
        began, before = self._began_at
        rate = (step.done - before) / (now - began) if now > began else 0.0
        if step.total is None:
            return f"{step.what} {step.done}"
        filled = BAR_WIDTH * step.done // step.total if step.total else BAR_WIDTH
        left = f"{_clock((step.total - step.done) / rate)} left" if rate else "--:-- left"
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        return f"{step.what} [{bar}] {step.done}/{step.total}  {rate:.1f}/s  {left}"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
