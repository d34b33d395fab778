"""The access token of a WeChat account, in Redis: one for all nodes, and which of them fetches the next.

Nothing here is needed: without Redis each node fetches for itself, and WeChat gives all of them the same token. How
it is fetched is `wsserver/vendors/wechat_token.py`'s.
"""

import secrets
from dataclasses import dataclass, field
from typing import Any

from storage.redis import WECHAT_TOKEN, WECHAT_TOKEN_CLAIM, WECHAT_TOKEN_FORCED, Redis
from storage.redis_presence import Presence

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""
"""Gives up a claim, unless it ran out and somebody else has made one since."""


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token, and how long WeChat still takes it."""

    token: str = field(repr=False)
    left_s: float


class SharedToken:
    """The token of one account. While Redis is away none is held, every claim succeeds, and nothing is forced."""

    def __init__(self, redis: Redis, appid: str) -> None:
        self._redis = redis
        self._appid = appid
        self._node = secrets.token_hex(8)
        self._presence = Presence(
            gone="each node has an access token of its own while Redis is away",
            back="all nodes share the access token again",
        )

    async def held(self) -> HeldToken | None:
        """The token that a node fetched."""

        async def question() -> list[Any]:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(WECHAT_TOKEN(self._appid))
            pipeline.pttl(WECHAT_TOKEN(self._appid))
            answers: list[Any] = await pipeline.execute()
            return answers

        answers = await self._presence.answer(question)
        if answers is None or answers[0] is None:
            return None
        return HeldToken(answers[0].decode(), max(0, answers[1]) / 1000)

    async def keep(self, held: HeldToken) -> None:
        """Share it for as long as it is good."""

        async def question() -> Any:
            life_s = min(WECHAT_TOKEN.ttl_s, max(1, int(held.left_s)))
            return await self._redis.set(WECHAT_TOKEN(self._appid), held.token, ex=life_s)

        await self._presence.answer(question)

    async def claim(self) -> bool:
        """Whether the caller is to fetch one; the others find it here soon. Who was told so releases it."""

        async def question() -> bool:
            key = WECHAT_TOKEN_CLAIM(self._appid)
            return bool(await self._redis.set(key, self._node, nx=True, ex=WECHAT_TOKEN_CLAIM.ttl_s))

        return await self._presence.answer(question) is not False

    async def release(self) -> None:
        """It has been fetched, or could not be. Another node's claim stays."""

        async def question() -> Any:
            asked: Any = self._redis.eval(_RELEASE, 1, WECHAT_TOKEN_CLAIM(self._appid), self._node)
            return await asked

        await self._presence.answer(question)

    async def may_force(self) -> bool:
        """Whether a new token may be forced now; said once in the life of the key, to all nodes together."""

        async def question() -> bool:
            key = WECHAT_TOKEN_FORCED(self._appid)
            return bool(await self._redis.set(key, self._node, nx=True, ex=WECHAT_TOKEN_FORCED.ttl_s))

        return await self._presence.answer(question) is True
