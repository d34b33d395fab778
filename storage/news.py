"""Frames for a user's sockets that are on other nodes: left in a short list of each node, which it looks into.

Best effort: what is lost here is found when the client asks next.
"""

from collections.abc import Collection
from typing import Any

from pydantic_core import from_json, to_json

from storage.redis import NEWS, USER_SOCKETS, Redis, reachable

MAX_LEFT = 10_000
"""Frames that wait for one node: many times what it takes a second. Beyond, the oldest are dropped."""


class UserNews:
    """Every method raises STORAGE_UNAVAILABLE."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def nodes_of(self, user_id: str) -> set[str]:
        """Where the user has sockets."""
        async with reachable():
            seats: Any = await self._redis.hvals(USER_SOCKETS(user_id))
        return {seat.decode().split(" ", 2)[2] for seat in seats}

    async def leave(self, nodes: Collection[str], user_id: str, frame: bytes) -> None:
        """Leave a frame for the user's sockets on these nodes."""
        entry = to_json((user_id, frame.decode()))
        async with reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for node in nodes:
                pipeline.rpush(NEWS(node), entry)
                pipeline.ltrim(NEWS(node), -MAX_LEFT, -1)
                pipeline.expire(NEWS(node), NEWS.ttl_s)
            await pipeline.execute()

    async def take(self, node: str, limit: int) -> list[tuple[str, bytes]]:
        """What was left for this node: at most `limit` frames and whom they are for, each once."""
        async with reachable():
            entries: Any = await self._redis.lpop(NEWS(node), limit)
        return [(user_id, frame.encode()) for user_id, frame in map(from_json, entries or ())]
