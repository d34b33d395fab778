"""How often all nodes together may call a vendor: a token bucket in Redis, by Redis' own clock.

It says when a call may be made; waiting until then, and what to do when that is too late, is the caller's.
"""

import time
from typing import Any

from storage.redis import BUDGET, Redis
from storage.redis_presence import Presence

LONGEST_S = BUDGET.ttl_s / 2
"""No pause and no wait for a call is longer: the key outlives both of them together."""

_ASK = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, spare, held = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[5] == '1'
local pause_until = now + ARGV[3]
local kept = redis.call('HMGET', KEYS[1], 'full_at', 'paused_until')
local full_at = math.max(tonumber(kept[1] or 0), now)
local paused_until = math.max(tonumber(kept[2] or 0), now)
local changed = pause_until > paused_until
if changed then
  paused_until = pause_until
  full_at = math.max(full_at, paused_until + spare)
end
local wait = math.max(full_at - spare, paused_until) - now
if held and paused_until == now then
  wait = 0
elseif wait <= tonumber(ARGV[4]) then
  full_at = full_at + interval
  changed = true
end
if changed then
  redis.call('HSET', KEYS[1], 'full_at', string.format('%.0f', full_at),
    'paused_until', string.format('%.0f', paused_until))
  redis.call('EXPIRE', KEYS[1], ARGV[6])
end
return {wait, full_at - now, paused_until - now}
"""
"""All in microseconds: between calls; spare, which is that times all of the bucket but one; a pause to begin, or 0; how
long the caller can wait; whether it holds a reservation, which a pause has made worthless.

`full_at` is when the bucket will be full if nobody calls: a call may be made `spare` before that. After a pause the
bucket is empty, as who was throttled has no burst to spend.
"""


class Budget:
    """One vendor's calls, at most `burst` at once and `per_s` a second later on.

    While Redis is away, this process has a bucket of its own with the same figures, which goes on from what it last
    heard. Its methods raise nothing of Redis' outages.
    """

    def __init__(self, redis: Redis, name: str, *, per_s: float = 20, burst: int = 20) -> None:
        if per_s <= 0 or burst < 1 or burst / per_s > LONGEST_S:
            raise ValueError("a budget needs some calls, and a bucket that fills within half an hour")
        self._redis = redis
        self._key = BUDGET(name)
        self._interval_s = 1 / per_s
        self._spare_s = (burst - 1) / per_s
        self._presence = Presence(
            gone=f"each node has a budget of its own for {name} while Redis is away",
            back=f"all nodes share the budget for {name} again",
        )
        self._full_at = self._paused_until = 0.0  # as Redis says, on the clock of time.monotonic()

    async def take(self, *, within_s: float = LONGEST_S) -> float:
        """Reserve one call; the seconds to wait before it is made, 0.0 for at once.

        Nothing is reserved when that is more than `within_s`: who gives up takes no call from others. Who has waited
        asks `held` before the call.
        """
        return await self._ask(within_s=within_s)

    async def held(self, *, within_s: float = LONGEST_S) -> float:
        """After the wait: 0.0 when the call may be made; else there is a pause, and it is reserved anew as by take."""
        return await self._ask(within_s=within_s, held=True)

    async def pause(self, seconds: float) -> None:
        """Nobody calls for that long, at most LONGEST_S; a pause that ends later stays."""
        await self._ask(within_s=-1, pause_s=min(seconds, LONGEST_S))

    async def _ask(self, *, within_s: float, pause_s: float = 0.0, held: bool = False) -> float:
        within_s = min(within_s, LONGEST_S)
        # What was said to this process alone, Redis is told when it is back.
        told_s = max(pause_s, self._paused_until - time.monotonic()) if self._presence.away else pause_s
        arguments = (
            *(round(seconds * 1e6) for seconds in (self._interval_s, self._spare_s, told_s, within_s)),
            int(held),
            BUDGET.ttl_s,
        )

        async def question() -> list[int]:
            asked: Any = self._redis.eval(_ASK, 1, self._key, *arguments)
            answer: list[int] = await asked
            return answer

        answer = await self._presence.answer(question)
        if answer is None:
            return self._ask_ourselves(within_s, pause_s, held=held)
        wait_s, full_in_s, paused_s = (number / 1e6 for number in answer)
        now = time.monotonic()
        self._full_at, self._paused_until = now + full_in_s, now + paused_s
        return wait_s

    def _ask_ourselves(self, within_s: float, pause_s: float, *, held: bool) -> float:
        """The same as the script."""
        now = time.monotonic()
        full_at = max(self._full_at, now)
        if now + pause_s > max(self._paused_until, now):
            self._paused_until = now + pause_s
            full_at = max(full_at, self._paused_until + self._spare_s)
        wait_s = max(full_at - self._spare_s, self._paused_until, now) - now
        if held and self._paused_until <= now:
            wait_s = 0.0
        elif wait_s <= within_s:
            full_at += self._interval_s
        self._full_at = full_at
        return wait_s
