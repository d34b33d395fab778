"""PostgreSQL and Redis: whether they answer, are the right ones, keep what they are given, and tell the same time."""

import asyncio
from collections.abc import Sequence

import asyncpg
from redis.exceptions import RedisError

from protocol.errors import OperationError
from storage.embedded import Services
from storage.facts import PostgresFacts, RedisFacts, postgres_facts, redis_facts
from storage.postgres import POOL_SIZE
from storage.redis import open_redis
from storage.schema import KNOWN_REVISIONS, SchemaError, revision
from wsserver.connections import DATABASE_CONNECTIONS
from wsserver.doctor.finding import Finding, fail, ok, warn
from wsserver.settings import Settings

DEADLINE_S = 15.0
"""Of one service: two connects and some questions."""

OLDEST_POSTGRES, OLDEST_REDIS = 14, (7,)

SKEW_S, WRONG_CLOCK_S = 1.0, 30.0
"""Clocks that NTP keeps differ by milliseconds. A second is a warning; with half a minute tokens of one node are not
valid yet on another."""

CLOCK = "Have every machine's clock kept by NTP (timedatectl set-ntp true; chronyc tracking)."


async def look_at_services(settings: Settings, services: Services | None) -> Sequence[Finding]:
    """Both, and the clocks. `services` is None when nobody runs the embedded ones now."""
    database_url, redis_url = settings.database_url, settings.redis_url
    if services is not None:
        database_url, redis_url = database_url or services.database_url, redis_url or services.redis_url
    postgres, redis = await asyncio.gather(_postgres(settings, database_url), _redis(redis_url))
    return [*postgres, *redis]


async def _postgres(settings: Settings, database_url: str | None) -> Sequence[Finding]:
    what = "PostgreSQL"
    if database_url is None:
        return [ok(what, "embedded, and not running now: it starts with the server")]
    try:
        async with asyncio.timeout(DEADLINE_S):
            facts = await postgres_facts(database_url)
            return [_postgres_itself(settings, facts), await _schema(database_url), _postgres_clock(facts)]
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        do = (
            "Is it running, reachable from here, and are user, password and database right? Try psql with the same URL."
        )
        return [fail(what, f"DATABASE_URL: cannot be used: {_named(error)}", do)]


def _postgres_itself(settings: Settings, facts: PostgresFacts) -> Finding:
    what = "PostgreSQL"
    if facts.version // 10_000 < OLDEST_POSTGRES:
        return fail(what, f"version {facts.version_text}", f"Take {OLDEST_POSTGRES} or newer.")
    if facts.is_standby:
        return fail(what, "a standby, which takes no writes", "Name the primary in DATABASE_URL.")
    needed = min(POOL_SIZE * settings.workers, DATABASE_CONNECTIONS) + 2 * settings.workers
    left = facts.max_connections - facts.others_connections
    said = f"version {facts.version_text}; {left} connections for this program, a node takes up to {needed}"
    if left < needed:
        return warn(what, said, "Raise max_connections, or put fewer programs on this PostgreSQL.")
    return ok(what, said)


async def _schema(database_url: str) -> Finding:
    what = "schema"
    newest = KNOWN_REVISIONS[-1]
    try:
        found = await revision(database_url)
    except SchemaError as error:
        return fail(what, str(error), "Deploy the version that belongs to the database, or a newer one.")
    if found == newest:
        return ok(what, f"revision {found}, the newest")
    said = "none yet" if found is None else f"revision {found}, the newest is {newest}"
    return warn(what, said, "The next start brings it up to date; or run `python3 run.py migrate` before.")


def _postgres_clock(facts: PostgresFacts) -> Finding:
    return _clock("PostgreSQL's clock", facts.ahead_s, facts.give_or_take_s)


async def _redis(redis_url: str | None) -> Sequence[Finding]:
    what = "Redis"
    if redis_url is None:
        return [ok(what, "embedded, and not running now: it starts with the server")]
    try:
        async with asyncio.timeout(DEADLINE_S), open_redis(redis_url) as client:
            facts = await redis_facts(client)
    except OperationError as error:
        return [_no_redis(error.__cause__ or error)]
    except (OSError, TimeoutError, ValueError, KeyError, RedisError) as error:
        return [_no_redis(error)]
    clock = _clock("Redis' clock", facts.ahead_s, facts.give_or_take_s)
    return [_redis_itself(facts), _persistence(facts), _eviction(facts), clock]


def _no_redis(error: BaseException) -> Finding:
    do = "Is it running, reachable from here, and is the password right? Try redis-cli -u with the same URL, then PING."
    return fail("Redis", f"REDIS_URL: cannot be used: {_named(error)}", do)


def _redis_itself(facts: RedisFacts) -> Finding:
    said = f"{facts.name} {facts.version}"
    if facts.redis_version < OLDEST_REDIS:
        return fail("Redis", said, f"Take Redis {OLDEST_REDIS[0]} or newer, or any Valkey.")
    if facts.role not in (None, "master"):
        return fail(
            "Redis", f"{said}, a replica, which takes no writes", "Name the master in REDIS_URL, or its Sentinels."
        )
    return ok("Redis", said)


def _persistence(facts: RedisFacts) -> Finding:
    what = "Redis' persistence"
    if facts.is_persistent is None:
        return warn(what, "it does not say whether it keeps its data", "See in its console that AOF is on.")
    if not facts.is_persistent:
        do = "Set appendonly yes: else its restart logs everybody out, and answers cannot be resumed."
        return warn(what, "none", do)
    return ok(what, "on")


def _eviction(facts: RedisFacts) -> Finding:
    what = "Redis' memory"
    if facts.eviction is None:
        return warn(what, "it does not say what it evicts", "See in its console that maxmemory-policy is noeviction.")
    limit = f"{facts.limit_bytes / 2**20:.0f} MiB" if facts.limit_bytes else "no limit"
    if facts.eviction != "noeviction":
        do = "Set maxmemory-policy noeviction: sessions and answers in the making are no cache, and would just vanish."
        return (fail if facts.limit_bytes else warn)(what, f"{limit}, evicts by {facts.eviction}", do)
    return ok(what, f"{limit}, evicts nothing")


def _clock(what: str, ahead_s: float, give_or_take_s: float) -> Finding:
    off_s = max(0.0, abs(ahead_s) - give_or_take_s)
    said = (
        f"{abs(ahead_s) * 1000:.0f} ms {'before' if ahead_s > 0 else 'behind'} ours, ± {give_or_take_s * 1000:.0f} ms"
    )
    if off_s >= WRONG_CLOCK_S:
        return fail(what, said, CLOCK)
    return warn(what, said, CLOCK) if off_s >= SKEW_S else ok(what, said)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
