"""Things to do at a time, thousands of them: what falls due within one tick is had together.

No clock and no timer: whoever turns the wheel says what time it is.
"""

from typing import Generic, TypeVar

T = TypeVar("T")


class Wheel(Generic[T]):
    """What is put in comes out in the first look at or after its time, at most `tick_s` late."""

    def __init__(self, tick_s: float) -> None:
        self.tick_s = tick_s
        self._slots: dict[int, list[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._slots)

    def put(self, thing: T, at: float) -> None:
        """Have `thing` fall due at `at`. It may be in the wheel more than once, and comes out as often."""
        number = int(at / self.tick_s) + 1
        slot = self._slots.get(number)
        if slot is None:
            self._slots[number] = [thing]
        else:
            slot.append(thing)

    def due(self, now: float) -> list[T]:
        """Take out what is due, what fell due first before the rest."""
        number = now / self.tick_s
        ready = sorted(slot for slot in self._slots if slot <= number)
        return [thing for slot in ready for thing in self._slots.pop(slot)]
