"""Frames for a user's sockets that are on other nodes: left in a short list of each node, which it looks into.

Best effort: what is lost here is found when the client asks next.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from storage.redis import NEWS, USER_SOCKETS, Redis, reachable

MAX_LEFT = 10_000
"""Frames that wait for one node: many times what it takes a second. Beyond, the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Telling:
    """A frame for the user's sockets, except those that had the frames or the reply of the run `request_id`."""

    user_id: str
    frame: bytes = field(repr=False)
    request_id: str | None = None


class UserNews:
    """Every method raises STORAGE_UNAVAILABLE."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def nodes_of(self, user_ids: Collection[str]) -> dict[str, set[str]]:
        """Where each of the users has sockets, in one round trip."""
        async with reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for user_id in user_ids:
                pipeline.hvals(USER_SOCKETS(user_id))
            seats: Any = await pipeline.execute()
        return {
            user_id: {seat.decode().split(" ", 2)[2] for seat in theirs}
            for user_id, theirs in zip(user_ids, seats, strict=True)
        }

    async def leave(self, tellings: Mapping[str, Sequence[Telling]]) -> None:
        """Leave for each of the nodes what its sockets shall be told, in one round trip."""
        async with reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for node, left in tellings.items():
                entries = (to_json((one.user_id, one.frame.decode(), one.request_id)) for one in left)
                pipeline.rpush(NEWS(node), *entries)
                pipeline.ltrim(NEWS(node), -MAX_LEFT, -1)
                pipeline.expire(NEWS(node), NEWS.ttl_s)
            await pipeline.execute()

    async def take(self, node: str, limit: int) -> list[Telling]:
        """What was left for this node: at most `limit`, each once."""
        async with reachable():
            entries: Any = await self._redis.lpop(NEWS(node), limit)
        return [
            Telling(user_id, frame.encode(), request_id) for user_id, frame, request_id in map(from_json, entries or ())
        ]
