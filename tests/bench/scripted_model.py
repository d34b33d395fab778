"""A model in the server's own process, the same for all Python servers: steady pieces that say when they were due.

A piece is due by the clock, however busy the loop is: a server that falls behind makes its pieces old, it does not make
the model slower. Its text carries its number and that time, so a client knows of each piece how old it came, rolled up
with others or not. The clock is the machine's (`CLOCK_MONOTONIC`), the same in all processes.
"""

import asyncio
import time
from collections.abc import AsyncGenerator

RATE = 50
"""Pieces a second of one answer: a fast model."""

EVERY_NS = 1_000_000_000 // RATE
SLOTS = 20
"""Answers are spread over the time between two pieces, a millisecond apart: they do not all speak at once."""

SLOT_NS = EVERY_NS // SLOTS


def piece(number: int, due_ns: int) -> str:
    """The text of a piece, about as long as a token; `load_sockets.py` reads it."""
    return f"影@{number}.{due_ns};"


class ScriptedModel:
    """One clock for all answers of a process. It runs while somebody waits for it."""

    def __init__(self) -> None:
        self._waiting: list[list[asyncio.Future[None]]] = [[] for _ in range(SLOTS)]
        self._waiters = 0
        self._next_slot = 0
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def answer(self, seconds: float) -> AsyncGenerator[list[str], None]:
        """The first piece at once, then `RATE` a second: each time all that are due and were not had yet."""
        slot = self._next_slot = (self._next_slot + 1) % SLOTS
        now = time.monotonic_ns()
        yield [piece(0, now)]
        tick = now // SLOT_NS + 1
        due_ns = (tick + (slot - tick) % SLOTS) * SLOT_NS
        number, last = 1, round(seconds * RATE)
        while number < last:
            now = time.monotonic_ns()
            if now < due_ns:
                await self._turn(slot)
                continue
            pieces = []
            while due_ns <= now and number < last:
                pieces.append(piece(number, due_ns))
                number += 1
                due_ns += EVERY_NS
            yield pieces

    def _turn(self, slot: int) -> asyncio.Future[None]:
        # Asked for once: each time it is a call of the kernel.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting[slot].append(turn)
        self._waiters += 1
        if self._timer is None:
            self._tick = time.monotonic_ns() // SLOT_NS
            self._wake()
        return turn

    def _wake(self) -> None:
        """Let everybody go on whose time has come, and come again when the next millisecond begins."""
        now_tick = time.monotonic_ns() // SLOT_NS
        # After a pause longer than a round every slot has had its turn.
        for tick in range(max(self._tick + 1, now_tick - SLOTS + 1), now_tick + 1):
            waiting = self._waiting[tick % SLOTS]
            if waiting:
                self._waiting[tick % SLOTS] = []
                self._waiters -= len(waiting)
                for turn in waiting:
                    if not turn.done():
                        turn.set_result(None)
        self._tick = now_tick
        if self._waiters:
            left_s = ((now_tick + 1) * SLOT_NS - time.monotonic_ns()) / 1e9
            assert self._loop is not None
            self._timer = self._loop.call_later(max(0.0, left_s), self._wake)
        else:
            self._timer = None
