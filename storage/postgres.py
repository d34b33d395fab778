"""The PostgreSQL pool: short transactions, deadlines, and one error for "not there". No SQL of any domain."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
from pydantic_core import from_json, to_json

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage.pool import PoolUse

ACQUIRE_TIMEOUT_S = 5.0
"""How long a caller waits for a free connection: half of the shortest operation's deadline."""

COMMAND_TIMEOUT_S = 10.0
"""No statement of this server takes a second; one that takes ten is stuck."""

POOL_SIZE = 10
"""Connections per process. Statements take about a millisecond, so ten serve thousands of messages per second."""

APPLICATION_NAME = "cinewire"
"""What PostgreSQL calls our connections in pg_stat_activity."""

_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
    # It ended this transaction so that another may go on, as it does with a deadlock: asked again, it goes through.
    asyncpg.TransactionRollbackError,
    OSError,
    TimeoutError,
)

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Record: TypeAlias = asyncpg.Record


class Postgres:
    """A pool of connections. Every failure to reach the server is an `OperationError` of kind STORAGE_UNAVAILABLE."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._callers = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, *, size: int = POOL_SIZE) -> AsyncIterator["Postgres"]:
        """Connect, and close when the block ends. Raises OSError or asyncpg's errors when the first connect fails."""
        pool = await asyncpg.create_pool(
            dsn,
            # With a floor, asyncpg logs a traceback for every attempt to restore it while the server is away.
            min_size=0,
            max_size=size,
            command_timeout=COMMAND_TIMEOUT_S,
            timeout=ACQUIRE_TIMEOUT_S,
            init=_prepare_connection,
            reset=_leave_as_it_is,
            server_settings={"application_name": APPLICATION_NAME, "timezone": "UTC"},
        )
        try:
            async with pool.acquire():
                pass
            yield cls(pool)
        finally:
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one statement, or for several that need no transaction."""
        self._callers += 1
        try:
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                try:
                    yield connection
                except asyncpg.InternalClientError:
                    # A statement met the server's last word on a connection that it was just closing.
                    connection.terminate()
                    raise
        except _UNAVAILABLE as error:
            raise OperationError(STORAGE_UNAVAILABLE) from error
        finally:
            self._callers -= 1

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed when the block ends, rolled back when it raises."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def ping(self) -> None:
        """One round trip. Raises STORAGE_UNAVAILABLE."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")

    async def others(self) -> int:
        """Connections of this program to the database besides the asking one: of a pool of one, other processes'."""
        async with self.connection() as connection:
            count: int = await connection.fetchval(
                """
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()
                """,
                APPLICATION_NAME,
            )
        return count

    @property
    def size(self) -> tuple[int, int]:
        """Open connections, and how many of them are idle."""
        return self._pool.get_size(), self._pool.get_idle_size()

    def use(self) -> PoolUse:
        """How the pool is doing now."""
        size, idle = self.size
        return PoolUse(size - idle, idle, max(0, self._callers - (size - idle)))


async def _leave_as_it_is(_connection: Any) -> None:
    """Nothing is sent when a connection goes back to the pool: every second round trip would be asyncpg's reset.

    What a session may be left with is undone where it is done: nobody here sets a session's variables, listens, or
    keeps a cursor, and the one lock that outlives its transaction is given back by hand (`seedings.py`). A transaction
    that was left open asyncpg rolls back all the same.
    """


async def _prepare_connection(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=_encode_jsonb, decoder=_decode_jsonb, schema="pg_catalog", format="binary"
    )


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + to_json(value)


def _decode_jsonb(data: bytes) -> Any:
    return from_json(data[1:])
