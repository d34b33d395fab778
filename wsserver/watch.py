"""What other nodes did to the sockets and streams of this one: sessions that were revoked, users with newer sockets.

It asks Redis once a second rather than being told: a listener may be cut off without noticing, a question that failed
is simply asked again. While Redis is away nobody is closed.
"""

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from redis.exceptions import RedisError

from protocol.errors import OperationError
from storage.accounts import Sessions
from storage.limits import Seat, UserSockets
from wsserver.tasks import Tasks

log = structlog.get_logger(__name__)

LOOK_S = 1.0
"""Between questions: a revoked session's sockets have five seconds to close, a replaced one has two."""

GATHER_S = 0.05
"""After a change, for others: then one round trip, whether one socket came and went or fifty."""

LOOK_DEADLINE_S = 10.0
"""For all questions of one round; longer than one command's outage."""

LOOKS = 3
"""In which all sessions are asked for, where they are many: for 15,000, all of them each second were 3 % of a core."""

BATCH = 500
"""Sessions in one round trip: about 25 KiB, and a millisecond of Redis and of this loop."""

SEATS_BATCH = 100
"""Seats in one: each is a command of its own, 30 µs for the loop, and streams must not wait behind thousands."""

SAY_AGAIN_S = 20.0
"""Between sayings that a socket is still there: a third of the time after which it is forgotten."""

MAX_LEFT = 10_000
"""Seats to give back that may wait for a Redis that is away. Beyond, they are forgotten there by themselves."""

LAST_WORDS_S = 1.0
"""How long a stop waits to give seats back: they would count as the user's for a minute."""

End = Callable[[], None]
"""Ends what belongs to a session or sits on a seat. At once, never raises, and twice is fine."""


class _Hold:
    """What is ended with a session. Called, it lets go. An object of its own is a fifth of what a closure takes."""

    __slots__ = ("_held", "_session_id", "end")

    def __init__(self, held: "dict[str, tuple[_Hold, ...]]", session_id: str, end: End) -> None:
        self._held = held
        self._session_id = session_id
        self.end = end
        held[session_id] = (*held.get(session_id, ()), self)

    def __call__(self) -> None:
        if left := tuple(one for one in self._held.pop(self._session_id, ()) if one is not self):
            self._held[self._session_id] = left


class SessionWatch:
    """Ends what belongs to a login session, socket or stream, when that session is over, wherever it was ended."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._held: dict[str, tuple[_Hold, ...]] = {}
        self._to_ask: list[str] = []
        self._share = BATCH

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["SessionWatch"]:
        """Watch until the block ends."""
        async with Tasks().open() as tasks:
            # Ended by one entry that nobody foresaw, it would leave revoked sessions open here for good.
            tasks.keep(lambda: keep_looking(self._look, asyncio.Event(), "sessions"), name="watch of sessions")
            yield self

    def hold(self, session_id: str, end: End) -> Callable[[], None]:
        """Have `end` called when the session is over. Gives the way to let go."""
        return _Hold(self._held, session_id, end)

    def end(self, session_id: str) -> None:
        """The session is over: end what belongs to it on this node."""
        for held in self._held.get(session_id, ()):
            held.end()

    async def _look(self) -> None:
        if not self._to_ask:
            self._to_ask = list(self._held)
            self._share = max(BATCH, math.ceil(len(self._to_ask) / LOOKS))
        asked, self._to_ask = self._to_ask[: self._share], self._to_ask[self._share :]
        for start in range(0, len(asked), BATCH):
            for session_id in await self._sessions.gone(asked[start : start + BATCH]):
                self.end(session_id)


class _Taken:
    """A seat of this node, and how its socket is ended. Called, the socket leaves it."""

    __slots__ = ("_seats", "due_at", "end", "seat")

    def __init__(self, seats: "Seats", seat: Seat, end: End) -> None:
        self._seats = seats
        self.seat = seat
        self.end = end
        self.due_at = math.inf
        """When it is to be said again that it is taken; while Redis does not know of it, it is among the new ones."""

    def __call__(self) -> None:
        self._seats.leave(self.seat)


class Seats:
    """The places that users' sockets take on this node. Each is ended when newer ones, on any node, are too many.

    The node that takes one too many hears from Redis who loses theirs, and leaves word for that node. Should the word
    be lost, the loser hears it when it next says that it is there. Should Redis forget everything, everyone is still
    there: they say so again, with their age.
    """

    def __init__(self, user_sockets: UserSockets, node: str) -> None:
        self._user_sockets = user_sockets
        self._node = node
        self._taken: dict[str, _Taken] = {}
        self._new: dict[str, Seat] = {}
        self._left: list[Seat] = []
        self._changed = asyncio.Event()
        self._say_again_at = 0.0
        self._listen_at = 0.0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Seats"]:
        """Watch until the block ends, when the seats that were left are given back."""
        async with Tasks().open() as tasks:
            tasks.keep(lambda: keep_looking(self._look, self._changed, "seats"), name="watch of seats")
            yield self
        with contextlib.suppress(OperationError, RedisError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._give_back()

    def take(self, user_id: str, end: End) -> Callable[[], None]:
        """A socket logged in as this user; `end` is called when it must make room. Gives the way to leave."""
        seat = Seat(secrets.token_hex(8), user_id)
        taken = self._taken[seat.id] = _Taken(self, seat, end)
        self._new[seat.id] = seat
        self._changed.set()
        return taken

    def leave(self, seat: Seat) -> None:
        """Its socket is somebody else's now, or gone. A second time is fine."""
        if self._taken.pop(seat.id, None) is not None:
            self._new.pop(seat.id, None)
            self._left.append(seat)
            del self._left[:-MAX_LEFT]
            self._changed.set()

    async def _look(self) -> None:
        await self._give_back()
        for seats in self._to_say():
            replaced = await self._user_sockets.enter(self._node, seats)
            due_at = time.monotonic() + SAY_AGAIN_S
            for seat in seats:
                self._new.pop(seat.id, None)
                if (taken := self._taken.get(seat.id)) is not None:
                    taken.due_at = due_at
            self._end(replaced.pop(self._node, []))
            if replaced:
                await self._user_sockets.tell(replaced)
        if time.monotonic() >= self._listen_at:
            while len(lost := await self._user_sockets.take_replaced(self._node, BATCH)) == BATCH:
                self._end(lost)
            self._end(lost)
            self._listen_at = time.monotonic() + LOOK_S

    async def _give_back(self) -> None:
        while left := self._left[:SEATS_BATCH]:
            await self._user_sockets.leave(left)
            # Others may have been added, or dropped for being too many, meanwhile.
            given = {seat.id for seat in left}
            self._left = [seat for seat in self._left if seat.id not in given]

    def _to_say(self) -> list[list[Seat]]:
        """The new seats, and those that Redis would forget, in batches."""
        now = time.monotonic()
        seats = list(self._new.values())
        if now >= self._say_again_at:
            self._say_again_at = now + LOOK_S
            seats += [taken.seat for taken in self._taken.values() if taken.due_at <= now]
        return [seats[start : start + SEATS_BATCH] for start in range(0, len(seats), SEATS_BATCH)]

    def _end(self, seat_ids: list[str]) -> None:
        for seat_id in seat_ids:
            if (taken := self._taken.get(seat_id)) is not None:
                taken.end()


async def keep_looking(look: Callable[[], Awaitable[None]], changed: asyncio.Event, what: str) -> None:
    """Look once a second, and soon when something changed, whatever comes of it."""
    away = False
    while True:
        try:
            async with asyncio.timeout(LOOK_DEADLINE_S):
                await look()
        except (OperationError, TimeoutError):
            if not away:
                log.warning("watch waits for Redis", watch=what)
            away = True
            await asyncio.sleep(LOOK_S)
        except RedisError:
            # It answered, and refused: nobody is closed for that either.
            log.exception("watch was refused", watch=what)
            await asyncio.sleep(LOOK_S)
        else:
            away = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await changed.wait()
                await asyncio.sleep(GATHER_S)
        changed.clear()
