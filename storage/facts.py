"""What PostgreSQL and Redis say about themselves: versions, room, persistence, clocks. No judgement, no domain."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
from redis.exceptions import ResponseError

from storage.postgres import APPLICATION_NAME
from storage.redis import Redis, reachable

CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """`ahead_s` is how far its clock is before ours, give or take `give_or_take_s`."""

    version: int
    is_standby: bool
    max_connections: int
    others_connections: int
    """Of other programs."""
    ahead_s: float
    give_or_take_s: float

    @property
    def version_text(self) -> str:
        """As people write it."""
        return f"{self.version // 10_000}.{self.version % 10_000}"


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """`version` is the Redis that it is compatible with. What a managed one does not say is None."""

    name: str
    version: str
    redis_version: tuple[int, ...]
    role: str | None
    is_persistent: bool | None
    limit_bytes: int | None
    eviction: str | None
    ahead_s: float
    give_or_take_s: float


async def postgres_facts(database_url: str) -> PostgresFacts:
    """Ask PostgreSQL. Raises OSError, asyncpg's errors and ValueError."""
    connection = await asyncpg.connect(database_url, timeout=CONNECT_TIMEOUT_S, command_timeout=CONNECT_TIMEOUT_S)
    try:
        await connection.execute("SELECT 1")  # the first statement pays for more than the way
        asked = time.time()
        at = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        answered = time.time()
        row = await connection.fetchrow(
            """
            SELECT current_setting('server_version_num')::int AS version,
                   pg_is_in_recovery() AS is_standby,
                   current_setting('max_connections')::int
                   - current_setting('superuser_reserved_connections')::int AS max_connections,
                   (SELECT count(*) FROM pg_stat_activity
                    WHERE backend_type = 'client backend' AND application_name <> $1
                      AND pid <> pg_backend_pid()) AS others
            """,
            APPLICATION_NAME,
        )
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)
    assert row is not None  # noqa: S101 (a SELECT without FROM has a row)
    return PostgresFacts(
        row["version"],
        row["is_standby"],
        row["max_connections"],
        row["others"],
        at - (asked + answered) / 2,
        (answered - asked) / 2,
    )


async def redis_facts(client: Redis) -> RedisFacts:
    """Ask Redis; of a cluster one node. Raises STORAGE_UNAVAILABLE and redis-py's errors."""
    async with reachable():
        info = _one_nodes(await client.info())
        asked = time.time()
        seconds, micros = _one_nodes(await client.time())
        answered = time.time()
    name = str(info.get("server_name") or "redis")
    version = str(info["redis_version"])
    saves = info.get("aof_enabled"), info.get("rdb_last_save_time")
    return RedisFacts(
        name=name,
        version=str(info.get("valkey_version") or version),
        redis_version=tuple(int(part) for part in version.split(".") if part.isdigit()),
        role=info.get("role"),
        is_persistent=None if None in saves else bool(saves[0]) or await _has_snapshots(client),
        limit_bytes=info.get("maxmemory"),
        eviction=info.get("maxmemory_policy"),
        ahead_s=int(seconds) + int(micros) / 1e6 - (asked + answered) / 2,
        give_or_take_s=(answered - asked) / 2,
    )


async def _has_snapshots(client: Redis) -> bool | None:
    """Whether it saves its data now and then; None where it may not be asked."""
    try:
        async with reachable():
            said = _one_nodes(await client.config_get("save"))
    except ResponseError:  # unknown or forbidden, as managed ones do
        return None
    return bool(said.get("save"))


def _one_nodes(answer: Any) -> Any:
    """An answer, which a cluster's client gives by node."""
    if (
        isinstance(answer, Mapping)
        and answer
        and all(isinstance(each, Mapping | tuple | list) for each in answer.values())
    ):
        return next(iter(answer.values()))
    return answer
