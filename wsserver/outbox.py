"""What waits to be sent to one client, bounded in bytes: a reader that stalls costs what was agreed and no more."""

import asyncio
from typing import Protocol

MAX_OUTBOX_BYTES = 1_048_576
"""Per client: several long answers. Past it the client is given up, and comes back for what it missed."""


class Taker(Protocol):
    """Who sends what is put in."""

    def wake(self) -> None:
        """There is something to take, or nothing will be put in any more. It is not to be taken within this call."""


class Outbox:
    """A queue of encoded frames with one taker: a `taker`, which is woken and drains, or who waits in `take`.

    Full, it empties and says so; nothing is put in it from then on. Empty, it is little more than its fields.
    """

    __slots__ = ("_frames", "_limit_bytes", "_room", "_something", "closed", "overflowed", "size_bytes", "taker")

    def __init__(self, limit_bytes: int = MAX_OUTBOX_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._frames: list[bytes] = []
        self._something: asyncio.Event | None = None
        self._room: asyncio.Event | None = None
        self.size_bytes = 0
        """What waits to be taken."""
        self.taker: Taker | None = None
        self.closed = False
        """Whether it takes nothing more in."""
        self.overflowed = False

    def put(self, frame: bytes) -> bool:
        """Add a frame; False when it did not fit and everything was dropped, or when the outbox is closed.

        A frame that is longer than the limit by itself, as a page of long messages may be, fits when nothing waits.
        """
        if self.closed:
            return False
        frames = self._frames
        size_bytes = self.size_bytes + len(frame)
        if size_bytes > self._limit_bytes and frames:
            self.overflowed = True
            self._frames = []
            self.size_bytes = 0
            self.close()
            return False
        self.size_bytes = size_bytes
        frames.append(frame)
        if len(frames) == 1:
            self._wake()
        return True

    def close(self) -> None:
        """Take nothing more in. What is there can still be taken."""
        self.closed = True
        self._wake()
        if self._room is not None:
            self._room.set()

    async def room(self, size_bytes: int) -> None:
        """Wait until at most half of the limit waits with so much more, or nothing does, or the outbox is closed.

        The other half is for what cannot wait. Between the return and the next await nobody else takes the room.
        """
        while not self.closed and self._frames and self.size_bytes + size_bytes > self._limit_bytes // 2:
            if self._room is None:
                self._room = asyncio.Event()
            self._room.clear()
            await self._room.wait()

    def drain(self, limit_bytes: int) -> list[bytes]:
        """The first frames that wait: as many as have so many bytes together, and at least one if there is one."""
        frames = self._frames
        if self.size_bytes <= limit_bytes:
            if frames:
                self._frames = []
                self.size_bytes = 0
        else:
            count, size_bytes = 1, len(frames[0])
            while count < len(frames) and size_bytes + len(frames[count]) <= limit_bytes:
                size_bytes += len(frames[count])
                count += 1
            self._frames = frames[count:]
            self.size_bytes -= size_bytes
            frames = frames[:count]
        if self._room is not None:
            self._room.set()
        return frames

    async def take(self) -> list[bytes]:
        """Everything that waits, at least one frame; empty only when closed and nothing is left."""
        if self._something is None:
            self._something = asyncio.Event()
        while not self._frames and not self.closed:
            self._something.clear()
            await self._something.wait()
        return self.drain(max(self._limit_bytes, self.size_bytes))

    def _wake(self) -> None:
        if self.taker is not None:
            self.taker.wake()
        elif self._something is not None:
            self._something.set()
