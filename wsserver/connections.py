"""What a process of this server connects to: PostgreSQL and Redis, those that the settings name or our own."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import asyncpg
import structlog

from protocol.errors import OperationError
from storage.embedded import Services, embedded_services
from storage.postgres import POOL_SIZE, Postgres
from storage.redis import Redis, open_redis, ping
from storage.schema import SchemaError, migrate
from wsserver.settings import Settings

log = structlog.get_logger(__name__)

DATABASE_CONNECTIONS = 80
"""Of all workers together: PostgreSQL takes 100 unless it is told otherwise, and a second copy or a tool wants some."""


class StartError(Exception):
    """Why the server could not start, in words for who typed the command."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Connections to where things are kept. `undisturbed` is one that no request ever waits for."""

    database_url: str
    postgres: Postgres
    undisturbed: Postgres
    redis: Redis


@contextlib.asynccontextmanager
async def open_storage(settings: Settings, services: Services) -> AsyncIterator[Storage]:
    database_url, redis_url = services.database_url, services.redis_url
    assert database_url is not None  # noqa: S101 (a service that was not given was started)
    assert redis_url is not None  # noqa: S101
    async with contextlib.AsyncExitStack() as stack:
        try:
            await migrate(database_url)
            size = max(1, min(POOL_SIZE, DATABASE_CONNECTIONS // settings.workers - 2))
            postgres = await stack.enter_async_context(Postgres.open(database_url, size=size))
            undisturbed = await stack.enter_async_context(Postgres.open(database_url, size=1))
        except SchemaError as error:
            raise StartError(f"DATABASE_URL: {error}") from error
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, OperationError) as error:
            raise StartError(f"DATABASE_URL: PostgreSQL cannot be used: {error or type(error).__name__}") from error
        redis = await stack.enter_async_context(open_redis(redis_url))
        try:
            await ping(redis)
        except OperationError as error:
            raise StartError(f"REDIS_URL: Redis cannot be reached: {error.__cause__}") from error
        yield Storage(database_url, postgres, undisturbed, redis)


@contextlib.contextmanager
def services_of(settings: Settings, *, redis: bool = True) -> Iterator[Services]:
    """PostgreSQL and Redis: those that the settings name, and our own for those that they do not."""
    own_postgres, own_redis = settings.database_url is None, redis and settings.redis_url is None
    if not own_postgres and not own_redis:
        yield Services(settings.database_url, settings.redis_url, None)
        return
    with embedded_services(settings.data_dir, postgres=own_postgres, valkey=own_redis) as own:
        if own.attached_to is not None:
            log.warning("using the PostgreSQL and Valkey of another process; they stop with it", pid=own.attached_to)
        yield Services(own.database_url or settings.database_url, own.redis_url or settings.redis_url, own.attached_to)
