"""Whether the database has the tables that this code needs, and making them when it has not.

Alembic is imported only when there is something to do: its import costs a second, one SELECT a millisecond.
"""

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"

KNOWN_REVISIONS = tuple(sorted(path.name.split("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*_*.py")))
"""Oldest first. A revision's file begins with its id."""

CONNECT_TIMEOUT_S = 10.0

MIGRATION_TIMEOUT_S = 300.0
"""For one node to migrate, or to wait for another that does: an index on a large table takes minutes."""

MIGRATION_LOCK = 0x43696E65
"""The advisory lock of whoever migrates ("Cine"), so that nodes that start together migrate once."""


class SchemaError(RuntimeError):
    """The database's tables are not those of any revision that this code knows; nothing was changed."""


async def migrate(database_url: str) -> None:
    """Bring the database to the newest revision, in one transaction: it has all of a change or nothing.

    Raises SchemaError when the database is newer than this code, asyncpg's errors and OSError when it does not answer.
    """
    if await revision(database_url) != KNOWN_REVISIONS[-1]:
        async with asyncio.timeout(MIGRATION_TIMEOUT_S):
            await _run(database_url, KNOWN_REVISIONS[-1])


async def downgrade(database_url: str, to: str | None) -> None:
    """Go back to an older revision, None for an empty database. What newer revisions keep is lost. Raises as above."""
    async with asyncio.timeout(MIGRATION_TIMEOUT_S):
        await _run(database_url, to)


async def revision(database_url: str) -> str | None:
    """The revision of the database, None before the first. Raises SchemaError when it is not known here."""
    connection = await asyncpg.connect(database_url, timeout=CONNECT_TIMEOUT_S, command_timeout=CONNECT_TIMEOUT_S)
    try:
        stored = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)
    return _known(stored)


def _known(stored: object) -> str | None:
    if stored is None:
        return None
    if stored not in KNOWN_REVISIONS:
        raise SchemaError(
            f"the database is at revision {stored}, this code knows only up to {KNOWN_REVISIONS[-1]}:"
            " start the version that belongs to the database, or a newer one"
        )
    return str(stored)


async def _run(database_url: str, target: str | None) -> None:
    await asyncio.to_thread(_import_alembic)
    from sqlalchemy import pool, text  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    def connect(*_arguments: object, **_options: object) -> Any:
        # asyncpg reads the DSN itself: SQLAlchemy's own parser knows neither all its parameters nor several hosts.
        return asyncpg.connect(database_url, timeout=CONNECT_TIMEOUT_S)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=pool.NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            await connection.run_sync(_move, target)
    finally:
        await engine.dispose()


def _import_alembic() -> None:
    """Load the modules, so that the imports in the functions here do not block the event loop."""
    for module in ("alembic.command", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql.asyncpg"):
        importlib.import_module(module)


def _move(connection: "Connection", target: str | None) -> None:
    """Go up or down to `target` from where the database is now: another node may have moved it meanwhile."""
    from alembic import command, config, migration  # noqa: PLC0415

    stored = _known(migration.MigrationContext.configure(connection).get_current_revision())
    settings = config.Config(attributes={"connection": connection})
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    if target is not None and (stored is None or stored < target):
        command.upgrade(settings, target)
    elif stored is not None and (target is None or target < stored):
        command.downgrade(settings, target or "base")
