"""The Redis client, and every key this server writes: its name, its life and what it holds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,  # noqa: A004
)

from protocol.errors import STORAGE_UNAVAILABLE, OperationError

SOCKET_TIMEOUT_S = 3.0
"""A command takes a fraction of a millisecond; three seconds is an outage, well inside an operation's deadline."""

MAX_CONNECTIONS = 32
"""Per process. Commands are short and pipelined; more callers than this wait for a free one."""


@dataclass(frozen=True, slots=True)
class Key:
    """A family of keys. Every one of them expires `ttl_s` after its last write: nothing is left to be swept."""

    pattern: str
    ttl_s: int
    holds: str

    def __call__(self, name: str) -> str:
        return self.pattern.format(name)


RESUME_WINDOW_S = 600
"""How long after its last frame a run's log is kept: ten minutes, several times a trip to another app."""

SESSION = Key("cw:session:{}", 7 * 86_400, "hash: a login session; its end revokes every token of it")
LOGIN = Key("cw:login:{}", 300, "what a wx.login code was exchanged for; the code itself lives five minutes")
HISTORY = Key("cw:history:{}", 86_400, "list: the newest messages of a conversation, for the prompt")
RUN_META = Key("cw:{{run:{}}}:meta", RESUME_WINDOW_S, "hash: whose run it is and how it stands")
RUN_LOG = Key("cw:{{run:{}}}:log", RESUME_WINDOW_S, "stream: the frames of a run; an entry's id is its last seq")

KEYS = (SESSION, LOGIN, HISTORY, RUN_META, RUN_LOG)

Redis = redis.asyncio.Redis


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """A client with deadlines, closed when the block ends. It connects when first used."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        # One retry at once: it is what a connection needs that the server closed while it was idle.
        retry=Retry(ConstantBackoff(0), 1),
        client_name="cinewire",
    )
    client: Redis = redis.asyncio.Redis(connection_pool=pool)
    try:
        yield client
    finally:
        await client.aclose()
        await pool.disconnect()


_OUTAGES = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, OutOfMemoryError, OSError)
"""Away, starting, failing over, or full: what passes without anything being changed here."""


@asynccontextmanager
async def reachable() -> AsyncIterator[None]:
    """Turns "Redis is not there" inside the block into an OperationError of kind STORAGE_UNAVAILABLE."""
    try:
        yield
    except _OUTAGES as error:
        raise OperationError(STORAGE_UNAVAILABLE) from error


def is_outage(error: RedisError | OSError) -> bool:
    """Whether the failure is Redis being away, rather than a mistake of ours."""
    return isinstance(error, _OUTAGES)


async def ping(client: Redis) -> None:
    """One round trip. Raises STORAGE_UNAVAILABLE."""
    async with reachable():
        answer: Any = client.ping()
        await answer
