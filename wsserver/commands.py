"""The commands beside serving: `migrate` and `seed-movies`. What they do is done elsewhere."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence

import asyncpg
import httpx
import uvloop

from protocol.errors import OperationError
from storage.embedded import EmbeddedError, Services
from storage.movies import Movies
from storage.postgres import Postgres
from storage.redis import open_redis
from storage.schema import KNOWN_REVISIONS, SchemaError, migrate, revision
from storage.seedings import Seedings
from wsserver.connections import StartError, open_storage, services_of
from wsserver.film_parts import has_tmdb, tmdb_of
from wsserver.seed_command import Requests, SeedOptions, rehearse, seed, seed_options
from wsserver.seeding import Wanted
from wsserver.settings import Settings, SettingsError, load_settings
from wsserver.telemetry import CallEnded, configure_logging

LEAVE_S = 0.5
"""Between two looks whether somebody still uses our databases."""


def migrate_main(arguments: Sequence[str] = ()) -> int:
    """Bring the database's schema up to date and stop."""
    argparse.ArgumentParser(prog="run.py migrate", description="Bring the schema up to date.").parse_args(
        list(arguments)
    )
    try:
        settings = load_settings()
        with services_of(settings, redis=False) as services:
            assert services.database_url is not None  # noqa: S101 (a service that was not given was started)
            asyncio.run(migrate(services.database_url))
    except SettingsError as error:
        return say(f"Wrong settings:\n{error}", 2)
    except (EmbeddedError, SchemaError, OSError, asyncpg.PostgresError) as error:
        return say(str(error), 1)
    return say("The schema is up to date.", 0)


def seed_main(arguments: Sequence[str] = ()) -> int:
    """Fill the catalogue from TMDB and stop."""
    options = seed_options(arguments)
    try:
        settings = load_settings()
    except SettingsError as error:
        return say(f"Wrong settings:\n{error}", 2)
    if not has_tmdb(settings):
        return say("seed-movies asks TMDB with a credential: set TMDB_API_TOKEN or TMDB_API_KEY.", 2)
    # A line for each call would drown the progress.
    configure_logging(level="warning" if settings.log_level == "info" else settings.log_level, json=settings.json_logs)
    try:
        with services_of(settings) as services:
            code = uvloop.run(_seed(settings, options, services))
            if services.attached_to is None and settings.database_url is None:
                asyncio.run(_outstay(services))
            return code
    except (StartError, EmbeddedError, OperationError, OSError, asyncpg.PostgresError) as error:
        return say(str(error), 1)


async def _seed(settings: Settings, options: SeedOptions, services: Services) -> int:
    requests = Requests()
    async with httpx.AsyncClient(trust_env=True, event_hooks={"request": [requests.note]}) as client:
        wanted = options.wanted(settings.tmdb_language)
        if options.dry_run:
            return await _rehearse(settings, options, wanted, services, client)
        async with open_storage(settings, services) as storage:
            return await seed(
                options,
                wanted,
                tmdb_of(settings, storage.redis, client, _uncounted),
                movies=Movies(storage.postgres),
                seedings=Seedings(storage.postgres),
                requests=requests,
            )


async def _outstay(services: Services) -> None:
    """Keep our own PostgreSQL and Valkey running for a server that was started meanwhile and uses them."""
    assert services.database_url is not None  # noqa: S101 (a service that was not given was started)
    async with Postgres.open(services.database_url, size=1) as postgres:
        # PostgreSQL needs a moment to see that our own connections are closed.
        await asyncio.sleep(LEAVE_S if await postgres.others() else 0)
        if await postgres.others():
            say("Another process uses the databases that this one started: they run until it stops, or Ctrl-C.", 1)
        while await postgres.others():  # noqa: ASYNC110 (it is another process that ends)
            await asyncio.sleep(LEAVE_S)


async def _rehearse(
    settings: Settings, options: SeedOptions, wanted: Wanted, services: Services, client: httpx.AsyncClient
) -> int:
    """Unlike `_storage` it does not migrate: that would be writing."""
    database_url, redis_url = services.database_url, services.redis_url
    assert database_url is not None  # noqa: S101 (a service that was not given was started)
    assert redis_url is not None  # noqa: S101
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(redis_url))
        seedings = None
        try:
            if await revision(database_url) == KNOWN_REVISIONS[-1]:
                seedings = Seedings(await stack.enter_async_context(Postgres.open(database_url, size=1)))
        except (SchemaError, OSError, asyncpg.PostgresError) as error:
            raise StartError(f"DATABASE_URL: PostgreSQL cannot be used: {error or type(error).__name__}") from error
        return await rehearse(options, wanted, tmdb_of(settings, redis, client, _uncounted), seedings)


def _uncounted(_vendor: str) -> CallEnded:
    """Nobody asks a command for its metrics."""
    return lambda _outcome, _elapsed_s: None


def say(text: str, code: int) -> int:
    print(text, file=sys.stderr if code else sys.stdout)
    return code
