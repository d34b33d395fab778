"""What waits to be sent to one client, bounded in bytes: a reader that stalls costs what was agreed and no more."""

import asyncio
from collections import deque

MAX_OUTBOX_BYTES = 1_048_576
"""Per client: several long answers. Past it the client is given up, and comes back for what it missed."""


class Outbox:
    """A queue of encoded frames with one taker. Full, it empties and says so; nothing is put in it from then on."""

    __slots__ = ("_closed", "_frames", "_limit_bytes", "_size_bytes", "_something", "_taken", "overflowed")

    def __init__(self, limit_bytes: int = MAX_OUTBOX_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._frames: deque[bytes] = deque()
        self._size_bytes = 0
        self._something = asyncio.Event()
        self._taken = asyncio.Event()
        self._closed = False
        self.overflowed = False

    @property
    def size_bytes(self) -> int:
        """What waits to be taken."""
        return self._size_bytes if self._frames else 0

    def put(self, frame: bytes) -> bool:
        """Add a frame; False when it did not fit and everything was dropped, or when the outbox is closed.

        A frame that is longer than the limit by itself, as a page of long messages may be, fits when nothing waits.
        """
        if self._closed:
            return False
        self._size_bytes += len(frame)
        if self._size_bytes > self._limit_bytes and self._frames:
            self.overflowed = True
            self._frames.clear()
            self.close()
            return False
        self._frames.append(frame)
        self._something.set()
        return True

    def close(self) -> None:
        """Take nothing more in. What is there can still be taken."""
        self._closed = True
        self._something.set()
        self._taken.set()

    async def room(self, size_bytes: int) -> None:
        """Wait until at most half of the limit waits with so much more, or nothing does, or the outbox is closed.

        The other half is for what cannot wait. Between the return and the next await nobody else takes the room.
        """
        while not self._closed and self._frames and self._size_bytes + size_bytes > self._limit_bytes // 2:
            self._taken.clear()
            await self._taken.wait()

    async def take(self) -> list[bytes]:
        """Everything that waits, at least one frame; empty only when closed and nothing is left."""
        await self._something.wait()
        frames = list(self._frames)
        self._frames.clear()
        self._size_bytes = 0
        self._taken.set()
        if not self._closed:
            self._something.clear()
        return frames
