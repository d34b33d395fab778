"""The Redis client, and every key this server writes: its name, its life and what it holds."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import ConstantBackoff
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterError,
    ConnectionError,  # noqa: A004
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TimeoutError,  # noqa: A004
    TryAgainError,
)

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage.pool import PoolUse
from storage.redis_cluster import ClusterClient
from storage.redis_connection import Client, Pool, ours
from storage.redis_url import Cluster, OneServer, Sentinels, parse_redis_url

SOCKET_TIMEOUT_S = 3.0
"""A command takes a fraction of a millisecond; three seconds is an outage, well inside an operation's deadline."""

SENTINEL_TIMEOUT_S = 1.0
"""For each Sentinel, one after the other: three of them are asked within the time of a command."""

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
USER_SESSIONS = Key("cw:sessions:{}", 7 * 86_400, "zset: a user's login sessions, by when they end at the earliest")
LOGIN = Key("cw:login:{}", 300, "what a wx.login code was exchanged for; the code itself lives five minutes")
HISTORY = Key("cw:turns:{}", 86_400, "list: the newest messages of a conversation, for the prompt")
RUN_META = Key("cw:{{run:{}}}:meta", RESUME_WINDOW_S, "hash: whose run it is and how it stands")
RUN_LOG = Key("cw:{{run:{}}}:log", RESUME_WINDOW_S, "stream: the frames of a run; an entry's id is its last seq")
RATE = Key("cw:rate:{}", 60, "zset: when a user or an address did what is limited, within the last minute")
USER_SOCKETS = Key("cw:sockets:{}", 60, "hash: a user's sockets: since when, last seen when, on which node")
REPLACED = Key("cw:replaced:{}", 60, "list: sockets of a node that lost their place to newer ones")
# Not cw:news, where older nodes leave entries of another shape, and read them: neither may trip over the other's.
NEWS = Key("cw:told:{}", 60, "list: frames that other nodes leave for users who have sockets on a node")
BUDGET = Key("cw:budget:{}", 7200, "hash: when a vendor may be called again by all nodes together, and their pause")
FILM_MISSING = Key("cw:film:missing:{}", 86_400, "empty: TMDB has no film of this id, and need not be asked today")
FILM_CLAIM = Key("cw:film:claim:{}", 10, "who is fetching a film from TMDB, so that nobody else does")
WECHAT_TOKEN = Key("cw:wechat:token:{}", 7200, "the access token of a WeChat account, for as long as WeChat takes it")
WECHAT_TOKEN_CLAIM = Key("cw:wechat:claim:{}", 10, "who is fetching an access token, so that nobody else does")
WECHAT_TOKEN_FORCED = Key("cw:wechat:forced:{}", 4800, "a new token was forced; WeChat allows it 20 times a day")

KEYS = (
    SESSION,
    USER_SESSIONS,
    LOGIN,
    HISTORY,
    RUN_META,
    RUN_LOG,
    RATE,
    USER_SOCKETS,
    REPLACED,
    NEWS,
    BUDGET,
    FILM_MISSING,
    FILM_CLAIM,
    WECHAT_TOKEN,
    WECHAT_TOKEN_CLAIM,
    WECHAT_TOKEN_FORCED,
)

Redis: TypeAlias = Client | ClusterClient
"""What they have in common: single commands, scripts, and pipelines that are no transaction, of one's own or with those
of other callers."""


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """A client with deadlines, closed when the block ends. It connects when first used. Raises ValueError."""
    opened: AbstractAsyncContextManager[Redis]
    match parse_redis_url(url):
        case OneServer() as address:
            opened = _open_one(address)
        case Sentinels() as address:
            opened = _open_sentinels(address)
        case Cluster() as address:
            opened = _open_cluster(address)
    async with opened as client:
        yield client


def _manners() -> dict[str, Any]:
    """Deadlines and retries, the same for every kind of server."""
    return {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        # One retry at once: it is what a connection needs that the server closed while it was idle.
        "retry": Retry(ConstantBackoff(0), 1),
        "client_name": "cinewire",
    }


@asynccontextmanager
async def _open_one(address: OneServer) -> AsyncIterator[Redis]:
    waiting = {"max_connections": MAX_CONNECTIONS, "timeout": SOCKET_TIMEOUT_S}
    options = {**waiting, **_manners(), **address.options}
    options["connection_class"] = ours(options.get("connection_class", Connection))
    pool = Pool(**options)
    client = Client(connection_pool=pool)
    try:
        async with client.gathering.open():
            yield client
    finally:
        await client.aclose()
        await pool.disconnect()


class _SentinelPool(SentinelConnectionPool, Pool):
    """Connections to the present master, for which callers wait."""


@asynccontextmanager
async def _open_sentinels(address: Sentinels) -> AsyncIterator[Redis]:
    asking = {
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "retry": Retry(ConstantBackoff(0), 0),  # the next Sentinel is asked instead
    }
    options = {**asking, **address.sentinel_options}
    plain = dict(address.options)
    is_tls = bool(plain.pop("ssl", False))
    sentinels = Sentinel(address.hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    client: Client = sentinels.master_for(
        address.service,
        redis_class=Client,
        connection_pool_class=_SentinelPool,
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_S,
        connection_class=ours(SentinelManagedSSLConnection if is_tls else SentinelManagedConnection),
        **_manners(),
        **plain,
    )
    try:
        async with client.gathering.open():
            yield client
    finally:
        await client.aclose()
        await sentinels.aclose()


@asynccontextmanager
async def _open_cluster(address: Cluster) -> AsyncIterator[Redis]:
    client = ClusterClient(
        address.hosts, max_callers=MAX_CONNECTIONS, patience_s=SOCKET_TIMEOUT_S, **_manners(), **address.options
    )
    try:
        yield client
    finally:
        await client.disconnect()


_OUTAGES = (
    ConnectionError,  # Sentinels that know no master raise one too
    TimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    ClusterError,
    SlotNotCoveredError,
    AskError,  # and MOVED: redirected more often than the client follows
    TryAgainError,
    OSError,
)
"""Away, starting, failing over, or full: what passes without anything being changed here."""

_FAILURES = (RedisError, SlotNotCoveredError, OSError)


@asynccontextmanager
async def reachable() -> AsyncIterator[None]:
    """Turns "Redis is not there" inside the block into an OperationError of kind STORAGE_UNAVAILABLE."""
    try:
        yield
    except _FAILURES as error:
        if not is_outage(error):
            raise
        raise OperationError(STORAGE_UNAVAILABLE) from error


def is_outage(error: Exception) -> bool:
    """Whether the failure is Redis being away, rather than a mistake of ours."""
    if isinstance(error, ResponseError) and "NOREPLICAS" in str(error):
        return True  # a master that may not write while it has too few replicas
    return isinstance(error, _OUTAGES)


def pool_use(client: Redis) -> PoolUse:
    """How the client's connections are doing now."""
    if isinstance(client, ClusterClient):
        return client.use()
    pool = client.connection_pool
    assert isinstance(pool, Pool)  # noqa: S101 (every client is made here)
    return pool.use()


async def ping(client: Redis) -> None:
    """One round trip. Raises STORAGE_UNAVAILABLE."""
    async with reachable():
        answer: Any = client.ping()
        await answer
