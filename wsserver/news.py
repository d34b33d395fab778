"""What a user's sockets are told without having asked: at once on this node, within a second on the others.

Best effort, and only for what a client can ask for as well. Who is on another node is known from the places that
sockets take; there it is left in a list that the node looks into, as with replaced sockets.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable

import structlog

from protocol.errors import OperationError
from storage.news import UserNews
from wsserver.tasks import Tasks
from wsserver.watch import keep_looking

log = structlog.get_logger(__name__)

BATCH = 500
"""Frames in one round trip: about 100 KiB."""

Say = Callable[[bytes], None]
"""Puts a frame into a socket's outbox. Never raises."""


class News:
    """Who of this node's sockets is whose, and what other nodes leave for them."""

    def __init__(self, user_news: UserNews, node: str) -> None:
        self._user_news = user_news
        self._node = node
        self._held: defaultdict[str, dict[object, Say]] = defaultdict(dict)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["News"]:
        """Look for what others left until the block ends."""
        async with Tasks().open() as tasks:
            tasks.spawn(keep_looking(self._look, asyncio.Event(), "news"), name="watch of news")
            yield self

    def hold(self, user_id: str, say: Say) -> Callable[[], None]:
        """Have `say` called with what the user is told. Gives the way to let go."""
        key = object()
        self._held[user_id][key] = say

        def let_go() -> None:
            if (held := self._held.get(user_id)) is not None:
                held.pop(key, None)
                if not held:
                    del self._held[user_id]

        return let_go

    async def tell(self, user_id: str, frame: bytes) -> None:
        """Tell the user's sockets, wherever they are."""
        self._say(user_id, frame)
        try:
            elsewhere = await self._user_news.nodes_of(user_id) - {self._node}
            if elsewhere:
                await self._user_news.leave(elsewhere, user_id, frame)
        except OperationError as error:
            log.warning("sockets on other nodes are not told", reason=error.kind.reason)

    def _say(self, user_id: str, frame: bytes) -> None:
        for say in tuple(self._held.get(user_id, {}).values()):
            say(frame)

    async def _look(self) -> None:
        while left := await self._user_news.take(self._node, BATCH):
            for user_id, frame in left:
                self._say(user_id, frame)
            if len(left) < BATCH:
                return
