"""What a user's sockets are told without having asked: at once on this node, within a second or so on the others.

Best effort, and only for what a client can ask for as well. Who is on another node is known from the places that
sockets take; there it is left in a list that the node looks into, as with replaced sockets. Telling waits for nothing:
what others shall be told is gathered, and passed on in batches.
"""

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

import structlog
from pydantic_core import to_json
from redis.exceptions import RedisError

from protocol.operation import Noun
from storage.news import Telling, UserNews
from storage.redis_presence import Presence
from wsserver.tasks import Tasks
from wsserver.watch import LAST_WORDS_S, LOOK_S, keep_looking

log = structlog.get_logger(__name__)

BATCH = 500
"""Frames in one round trip: about 100 KiB."""

GATHER_S = 0.05
"""How long what others shall be told is gathered: then two round trips, whether one answer ended or a hundred."""

MAX_WAITING = 10_000
"""Frames that wait to be passed on, about 3 MiB: ten seconds of a node on which 1,000 answers end a second. Beyond, the
oldest are dropped."""


class Listener(Protocol):
    """A socket. Neither method raises."""

    def say(self, frame: bytes) -> None:
        """Send a frame."""

    def has_run(self, request_id: str) -> bool:
        """Whether the run's frames or reply came through here."""


class _Hold:
    """A listener of a user's. Called, it lets go. An object of its own is a fifth of what a closure takes."""

    __slots__ = ("_held", "_user_id", "listener")

    def __init__(self, held: "dict[str, tuple[_Hold, ...]]", user_id: str, listener: Listener) -> None:
        self._held = held
        self._user_id = user_id
        self.listener = listener
        held[user_id] = (*held.get(user_id, ()), self)

    def __call__(self) -> None:
        if left := tuple(one for one in self._held.pop(self._user_id, ()) if one is not self):
            self._held[self._user_id] = left


class News:
    """Who of this node's sockets is whose, and what other nodes leave for them."""

    def __init__(self, user_news: UserNews, node: str) -> None:
        self._user_news = user_news
        self._node = node
        self._held: dict[str, tuple[_Hold, ...]] = {}
        self._waiting: deque[Telling] = deque(maxlen=MAX_WAITING)
        self._any_waits = asyncio.Event()
        self._presence = Presence(
            gone="sockets on other nodes are not told: Redis is away", back="sockets on other nodes are told again"
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["News"]:
        """Look for what others left, and pass on what they shall be told, until the block ends."""
        async with Tasks().open() as tasks:
            tasks.keep(lambda: keep_looking(self._look, asyncio.Event(), "news"), name="watch of news")
            tasks.spawn(self._keep_passing_on(), name="news for other nodes")
            yield self
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._pass_on()

    def hold(self, user_id: str, listener: Listener) -> Callable[[], None]:
        """Have the listener say what the user is told. Gives the way to let go."""
        return _Hold(self._held, user_id, listener)

    def tell(self, user_id: str, noun: Noun, *, request_id: str | None = None) -> None:
        """Tell the user's sockets, wherever they are, except those that have had the run `request_id`."""
        telling = Telling(user_id, to_json(noun), request_id)
        self._say(telling)
        self._waiting.append(telling)
        self._any_waits.set()

    def _say(self, telling: Telling) -> None:
        for held in self._held.get(telling.user_id, ()):
            if telling.request_id is None or not held.listener.has_run(telling.request_id):
                held.listener.say(telling.frame)

    async def _look(self) -> None:
        while left := await self._user_news.take(self._node, BATCH):
            for telling in left:
                self._say(telling)
            if len(left) < BATCH:
                return

    async def _keep_passing_on(self) -> None:
        while True:
            await self._any_waits.wait()
            await asyncio.sleep(GATHER_S)
            self._any_waits.clear()
            await self._pass_on()

    async def _pass_on(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                # While Redis is away nothing is kept for it.
                await self._presence.answer(partial(self._leave, batch))
            except RedisError:
                # It answered, and refused.
                log.exception("sockets on other nodes are not told")
                await asyncio.sleep(LOOK_S)

    async def _leave(self, batch: Sequence[Telling]) -> None:
        nodes_of = await self._user_news.nodes_of(sorted({telling.user_id for telling in batch}))
        elsewhere: defaultdict[str, list[Telling]] = defaultdict(list)
        for telling in batch:
            for node in nodes_of[telling.user_id] - {self._node}:
                elsewhere[node].append(telling)
        if elsewhere:
            await self._user_news.leave(elsewhere)
