"""What nodes tell each other about fetching films, in Redis: which are not at TMDB, and which is being fetched.

Nothing here is needed: without Redis a film is asked for more often. What was fetched is in `storage/movies.py`.
"""

import secrets
from collections.abc import Collection
from typing import Any

from storage.redis import FILM_CLAIM, FILM_MISSING, Redis
from storage.redis_presence import Presence

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""
"""Gives up a claim, unless it ran out and somebody else has made one since."""


class FilmMarks:
    """Marks of films by id. While Redis is away no film is known to be missing, and every claim succeeds."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._token = secrets.token_hex(8)
        self._presence = Presence(
            gone="films may be fetched by several nodes while Redis is away", back="films are fetched by one node again"
        )

    async def missing(self, ids: Collection[int]) -> set[int]:
        """Those of the films that TMDB said within the last day it does not have."""
        wanted = list(dict.fromkeys(ids))
        keys = [FILM_MISSING(str(tmdb_id)) for tmdb_id in wanted]

        async def question() -> list[int]:
            # Nearly always none is, and then one number says so; of a cluster the client asks each slot for its own.
            if not keys or not await self._redis.exists(*keys):
                return [0] * len(keys)
            pipeline = self._redis.pipeline(transaction=False)
            for key in keys:
                pipeline.exists(key)
            marked: list[int] = await pipeline.execute()
            return marked

        marked = await self._presence.answer(question)
        return {tmdb_id for tmdb_id, is_marked in zip(wanted, marked or (), strict=marked is not None) if is_marked}

    async def note_missing(self, tmdb_id: int) -> None:
        """TMDB does not have it."""

        async def question() -> Any:
            return await self._redis.set(FILM_MISSING(str(tmdb_id)), b"", ex=FILM_MISSING.ttl_s)

        await self._presence.answer(question)

    async def claim(self, tmdb_id: int) -> bool:
        """Whether the caller is to fetch it; the others find it in the catalogue soon. Who was told so releases it."""

        async def question() -> bool:
            key = FILM_CLAIM(str(tmdb_id))
            return bool(await self._redis.set(key, self._token, nx=True, ex=FILM_CLAIM.ttl_s))

        return await self._presence.answer(question) is not False

    async def release(self, tmdb_id: int) -> None:
        """It has been fetched, or could not be. Another node's claim stays."""

        async def question() -> Any:
            asked: Any = self._redis.eval(_RELEASE, 1, FILM_CLAIM(str(tmdb_id)), self._token)
            return await asked

        await self._presence.answer(question)
