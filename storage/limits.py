"""Limits that hold over all nodes together, in Redis: how often something may be done, and how many sockets a user has.

Each question is one short atomic script on one key, by Redis' own clock. What one connection may do by itself is in
`protocol/session.py`. Nothing here closes a socket; `wsserver/watch.py` does.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import structlog

from protocol.errors import RATE_LIMITED, OperationError
from storage.redis import RATE, REPLACED, USER_SOCKETS, Redis, reachable

log = structlog.get_logger(__name__)

WINDOW_S = RATE.ttl_s
"""Rates are per minute: any minute, not the clock's."""

ANSWER_WITHIN_S = 2.0
"""Longer than a busy loop ever kept a command waiting, and what a chat loses at most when Redis hangs."""

ASK_AGAIN_S = 1.0
"""While Redis is away one request in this time finds out whether it is back; the others do not wait for it."""

MAX_ADDRESS = 64
"""Of a text that a proxy gave as an address and that is none."""

_SPEND = """
local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local window_us, limit = ARGV[1] * 1000000, tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_us - window_us)
if ARGV[3] ~= '' and redis.call('ZSCORE', KEYS[1], 'id:' .. ARGV[3]) then
  return 0
end
local spent = redis.call('ZCARD', KEYS[1])
if spent >= limit then
  local first = redis.call('ZRANGE', KEYS[1], spent - limit, spent - limit, 'WITHSCORES')
  return math.ceil((first[2] + window_us - now_us) / 1000) + 1
end
local name = ARGV[3] ~= '' and 'id:' .. ARGV[3] or clock[1] .. '.' .. clock[2]
redis.call('ZADD', KEYS[1], now_us, name)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 0
"""
"""One more, unless there were `limit` in the last window: then the milliseconds until it may be tried again.

What is refused is not counted, and what is repeated under the same id is counted once.
"""

_ENTER = """
local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local since, others = tonumber(ARGV[3]), {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local their_since, seen, node = string.match(fields[i + 1], '^(%d+) (%d+) (.*)$')
  if fields[i] == ARGV[1] then
    since = since or tonumber(their_since)
  elseif tonumber(seen) < now_us - ARGV[5] * 1000000 then
    redis.call('HDEL', KEYS[1], fields[i])
  else
    table.insert(others, {since = tonumber(their_since), id = fields[i], node = node})
  end
end
since = since or now_us - ARGV[6]
table.insert(others, {since = since, id = ARGV[1], node = ARGV[2]})
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %s', since, now_us, ARGV[2]))
table.sort(others, function(a, b) return a.since < b.since or (a.since == b.since and a.id < b.id) end)
local answer = {string.format('%.0f', since)}
for i = 1, #others - ARGV[4] do
  redis.call('HDEL', KEYS[1], others[i].id)
  table.insert(answer, others[i].node)
  table.insert(answer, others[i].id)
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
return answer
"""
"""Puts a socket among its user's, or says that it is still there, and takes out the oldest beyond the limit.

A field is `{logged in at} {last said to be there at} {node}`, in microseconds: being there longer never makes newer.
ARGV[6] is for how long the node has waited before it said so.
"""


class RateLimits:
    """How often a user or an address may do what costs something, on all nodes together.

    Not enforced while Redis is away: chats go on without it. Methods raise RATE_LIMITED with a `retry_after_ms` that
    is enough. An address of this machine is exempt unless `limit_loopback`: it is a proxy that does not say whom it
    speaks for, or a developer.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        chats_per_min: int,
        logins_per_min: int,
        guest_chats_per_min: int,
        sockets_per_min: int,
        limit_loopback: bool = False,
    ) -> None:
        self._redis = redis
        self._chats_per_min = chats_per_min
        self._logins_per_min = logins_per_min
        self._guest_chats_per_min = guest_chats_per_min
        self._sockets_per_min = sockets_per_min
        self._limit_loopback = limit_loopback
        self._away = False
        self._ask_at = 0.0

    async def chat_allowed(self, user_id: str, message_id: str | None = None) -> None:
        """A chat begins. Sent again under the same `message_id` it counts once."""
        await self._spend(f"chats:{user_id}", self._chats_per_min, message_id)

    async def login_allowed(self, address: str | None) -> None:
        """Somebody tries to log in from this address; None when it is not known."""
        await self._spend_of("logins", address, self._logins_per_min)

    async def guest_chat_allowed(self, address: str | None) -> None:
        """A guest asks. Its name costs nothing, its address does."""
        await self._spend_of("guests", address, self._guest_chats_per_min)

    async def socket_allowed(self, address: str | None) -> None:
        """A socket is opened."""
        await self._spend_of("sockets", address, self._sockets_per_min)

    async def _spend_of(self, what: str, address: str | None, limit: int) -> None:
        source = source_of(address, loopback=self._limit_loopback)
        if source is not None:
            await self._spend(f"{what}:{source}", limit)

    async def _spend(self, name: str, limit: int, again: str | None = None) -> None:
        now = time.monotonic()
        if self._away:
            if now < self._ask_at:
                return
            self._ask_at = now + ASK_AGAIN_S
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S), reachable():
                (wait_ms,) = await self._redis.together(
                    lambda pipeline: pipeline.eval(_SPEND, 1, RATE(name), WINDOW_S, limit, again or "")
                )
        except (OperationError, TimeoutError):
            if not self._away:
                log.warning("rates are not limited while Redis is away")
            self._away = True
            self._ask_at = time.monotonic() + ASK_AGAIN_S
            return
        if self._away:
            log.info("rates are limited again")
            self._away = False
        if wait_ms:
            raise OperationError(RATE_LIMITED, retry_after_ms=wait_ms)


@lru_cache(maxsize=1_024)  # proxies and offices: what connects again and again
def source_of(address: str | None, *, loopback: bool = False) -> str | None:
    """Whom an address is counted as; None when it is not counted.

    An IPv6 customer has a whole /64 at least (RFC 6177 §2), so that is what counts as one.
    """
    if not address:
        return None
    try:
        ip: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return address[:MAX_ADDRESS]
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip.is_loopback:
        return str(ip) if loopback else None
    if isinstance(ip, IPv6Address):
        return str(IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip)


@dataclass(slots=True, eq=False)
class Seat:
    """One of the places that a user's sockets have.

    `since_us` is when it was taken, None until Redis has said so by its clock; `taken_at` is that by this process'.
    """

    id: str
    user_id: str = field(repr=False)
    since_us: int | None = None
    taken_at: float = field(default_factory=time.monotonic)


class UserSockets:
    """Which sockets a user has, on whatever node. Every method raises STORAGE_UNAVAILABLE."""

    def __init__(self, redis: Redis, *, limit: int) -> None:
        self._redis = redis
        self._limit = limit

    async def enter(self, node: str, seats: Sequence[Seat]) -> dict[str, list[str]]:
        """Take seats on this node, or say that they are still taken. Gives who loses theirs: ids of seats by node.

        A seat that has its `since_us` keeps its age, also when Redis has forgotten it.
        """

        def ask(pipeline: Any) -> None:
            now = time.monotonic()
            for seat in seats:
                since = "" if seat.since_us is None else seat.since_us
                waited_us = int((now - seat.taken_at) * 1_000_000)
                arguments = (seat.id, node, since, self._limit, USER_SOCKETS.ttl_s, waited_us)
                pipeline.eval(_ENTER, 1, USER_SOCKETS(seat.user_id), *arguments)

        async with reachable():
            answers: list[list[bytes]] = await self._redis.together(ask)
        replaced: dict[str, list[str]] = {}
        for seat, (since_us, *losers) in zip(seats, answers, strict=True):
            seat.since_us = int(since_us)
            for their_node, their_id in zip(losers[::2], losers[1::2], strict=True):
                replaced.setdefault(their_node.decode(), []).append(their_id.decode())
        return replaced

    async def leave(self, seats: Sequence[Seat]) -> None:
        """Give seats back. One that is not taken is fine."""

        def ask(pipeline: Any) -> None:
            for seat in seats:
                pipeline.hdel(USER_SOCKETS(seat.user_id), seat.id)

        async with reachable():
            await self._redis.together(ask)

    async def tell(self, replaced: Mapping[str, Sequence[str]]) -> None:
        """Leave word for other nodes which of their sockets lost their seats."""
        async with reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for node, seat_ids in replaced.items():
                pipeline.rpush(REPLACED(node), *seat_ids)
                pipeline.expire(REPLACED(node), REPLACED.ttl_s)
            await pipeline.execute()

    async def take_replaced(self, node: str, limit: int) -> list[str]:
        """Which of this node's seats were lost, at most `limit` of them; each is told once."""
        async with reachable():
            answer: Any = await self._redis.lpop(REPLACED(node), limit)
        return [seat_id.decode() for seat_id in answer or ()]
