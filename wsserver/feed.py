"""The frames of one run for whoever follows it on this node: the missing ones first, then each as it comes.

Where the frames come from is another's business: a run that this node makes, the log of one that another node makes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from protocol.envelope import Frame, encode_frame
from protocol.errors import OperationError
from storage.runs import LoggedFrame

PAGE_FRAMES = 100
"""Frames handed to a follower at once while it catches up: a few kilobytes to some tens of them."""

LOOK_AGAIN_S = 0.04
"""How often a log is read that does not have yet what others had: as often as a run sends text."""

RETRY_S = 0.5
"""The same while Redis is away."""


class Follower:
    """Somebody who gets a run's frames, each once and in order. In a replay `room` for so many bytes is waited for."""

    __slots__ = ("_put", "at", "live", "on_last", "room")

    def __init__(
        self,
        put: Callable[[LoggedFrame], None],
        room: Callable[[int], Awaitable[None]],
        *,
        after_seq: int = 0,
        on_last: Callable[[], None] | None = None,
    ) -> None:
        self._put = put
        self.room = room
        self.at = after_seq
        self.live = False
        self.on_last = on_last

    def deliver(self, frame: LoggedFrame) -> None:
        """Take a frame, unless it was had before."""
        if frame.seq > self.at:
            self.at = frame.seq
            self._put(frame)
        if frame.last and self.on_last is not None:
            self.on_last()


class Feed:
    """The frames of one run for its followers on this node: the missing ones first, then each as it comes."""

    def __init__(self, request_id: str, spawn: Callable[..., object]) -> None:
        self.request_id = request_id
        self.position = 0
        self.ended = False
        self.followers: tuple[Follower, ...] = ()
        """Replaced and never changed: a follower may leave while it is handed a frame."""
        self._spawn = spawn

    async def page(self, after_seq: int) -> Sequence[LoggedFrame]:
        """Some of the frames after `after_seq`, in order; none when there are no more yet."""
        raise NotImplementedError

    def follow(self, follower: Follower) -> Callable[[], None]:
        """Hand over the frames that the follower has not had, then each new one. Gives the way to stop it."""
        self.followers = (*self.followers, follower)
        if follower.at >= self.position and not self.ended:
            follower.live = True
        else:
            self._spawn(self._catch_up(follower), name=f"replay of {self.request_id}")

        def unfollow() -> None:
            self.followers = tuple(other for other in self.followers if other is not follower)

        return unfollow

    async def _catch_up(self, follower: Follower) -> None:
        while follower in self.followers:
            try:
                page = await self.page(follower.at)
            except OperationError:
                await asyncio.sleep(RETRY_S)
                continue
            for frame in page:
                await follower.room(len(frame.encoded))
                follower.deliver(frame)
            # Nothing is awaited between the look and the joining, so no frame can come in between.
            if follower.at >= self.position:
                follower.live = True
                if self.ended and follower.on_last is not None:
                    follower.on_last()
                return
            if not page:
                # Redis has lost what others had already: the run's owner logs it again, or the run is given an end.
                await asyncio.sleep(LOOK_AGAIN_S)

    def hand_out(self, frame: LoggedFrame) -> None:
        """Give a new frame to all who are up to date; the others find it in their next page."""
        self.position = frame.seq
        self.ended = self.ended or frame.last
        for follower in self.followers:
            if follower.live:
                follower.deliver(frame)


class Recorded(Feed):
    """A run that is over and whose frames are all here."""

    def __init__(
        self, request_id: str, frames: Sequence[Frame], message_id: str | None, spawn: Callable[..., object]
    ) -> None:
        super().__init__(request_id, spawn)
        self._frames = [
            LoggedFrame(seq, encode_frame(request_id, seq, frame, message_id)) for seq, frame in enumerate(frames, 1)
        ]
        self.position = len(self._frames)
        self.ended = True

    async def page(self, after_seq: int) -> Sequence[LoggedFrame]:
        return self._frames[after_seq:]
