"""Tells a Neo4j statements, over Bolt, with the official driver (neo4j.com/docs/api/python-driver).

It answers whether they were committed, and what a refusal means for who asked. What is said is `graph/export.py`'s.
The driver is an extra: nothing of it is imported before a graph is opened.
"""

import asyncio
import contextlib
import importlib.util
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from neo4j import AsyncDriver, AsyncManagedTransaction

REQUIREMENT = "neo4j>=6.4,<7"
"""The extra `graph` of pyproject.toml."""

CONNECT_TIMEOUT_S = 10.0

RETRY_S = 30.0
"""How long the driver repeats a transaction that failed in passing: an election in a cluster takes some seconds."""

DEADLINE_S = 120.0
"""Of a transaction with its repetitions: 200 films with all their people take seconds. Less than a claim's lease."""

ABOUT_THE_ROWS = (
    "Neo.ClientError.Statement.",
    "Neo.ClientError.Schema.ConstraintValidationFailed",
    "Neo.ClientError.Schema.ConstraintViolation",
    "Neo.DatabaseError.Statement.ExecutionFailed",
)
"""Codes of refusals that other rows need not meet."""

ABOUT_THE_STATEMENT = (
    "Neo.ClientError.Statement.SyntaxError",
    "Neo.ClientError.Statement.AccessMode",
    "Neo.ClientError.Statement.NotSystemDatabaseError",
    "Neo.ClientError.Statement.FeatureDeprecationWarning",
    "Neo.ClientError.Statement.UnsupportedOperationError",
    "Neo.ClientError.Statement.RemoteExecutionClientError",
)


class Statement(NamedTuple):
    """One Cypher statement with its only parameter, `$rows`."""

    text: str
    rows: Sequence[Mapping[str, Any]]


class GraphError(Exception):
    """A graph that was not told. Nothing of the transaction is in it, unless the connection was lost at its commit."""


class GraphUnavailableError(GraphError):
    """In passing: told later, it may take it."""


class GraphRefusedError(GraphError):
    """It refuses these rows; others it may take."""


class GraphMisconfiguredError(GraphError):
    """Ours to mend: the credential, the address, the database, or what we ask of this version."""


class DriverMissingError(Exception):
    """The driver is not installed; the text says what to type."""


class Neo4j:
    """One database of a Neo4j. Every method may raise GraphUnavailableError and GraphMisconfiguredError."""

    def __init__(self, driver: "AsyncDriver", database: str | None, deadline_s: float) -> None:
        self._driver = driver
        self._database = database
        self._deadline_s = deadline_s

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        uri: str,
        *,
        user: str,
        password: str | None,
        database: str | None,
        retry_s: float = RETRY_S,
        deadline_s: float = DEADLINE_S,
    ) -> AsyncIterator["Neo4j"]:
        """Connect with the first use, close when the block ends. Without a password none is shown.

        Raises DriverMissingError, and GraphMisconfiguredError when the address is none.
        """
        require_driver()
        from neo4j import AsyncGraphDatabase  # noqa: PLC0415 - an extra
        from neo4j.exceptions import ConfigurationError  # noqa: PLC0415

        logging.getLogger("neo4j").setLevel(
            logging.ERROR
        )  # what fails it raises too; notes on statements are no operator's
        try:
            driver = AsyncGraphDatabase.driver(
                uri,
                auth=(user, password) if password is not None else None,
                connection_timeout=CONNECT_TIMEOUT_S,
                connection_acquisition_timeout=CONNECT_TIMEOUT_S * 2,
                max_transaction_retry_time=retry_s,
                user_agent="cinewire",
                telemetry_disabled=True,
            )
        except (ConfigurationError, ValueError) as error:
            raise GraphMisconfiguredError(f"NEO4J_URI: {error}") from error
        try:
            yield cls(driver, database, deadline_s)
        finally:
            with contextlib.suppress(TimeoutError):  # nothing is left to be said: the process may end
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await driver.close()

    async def prepare(self, constraints: Sequence[str]) -> None:
        """Make sure that constraints are there, each in a transaction of its own."""
        for constraint in constraints:
            await self.write([Statement(constraint, [])])

    async def write(self, statements: Sequence[Statement]) -> None:
        """Say statements in one transaction, in order, again for a while when they fail in passing.

        They must be such that saying them twice is as good as once: a commit whose answer was lost is repeated.
        Raises GraphRefusedError too.
        """
        from neo4j.exceptions import DriverError, IncompleteCommit, Neo4jError  # noqa: PLC0415 - an extra

        try:
            async with asyncio.timeout(self._deadline_s):
                while True:
                    try:
                        async with self._driver.session(database=self._database) as session:
                            return await session.execute_write(_say_all, statements)
                    except IncompleteCommit:
                        continue
        except TimeoutError as error:
            raise GraphUnavailableError(f"no answer within {self._deadline_s:g} s") from error
        except (Neo4jError, DriverError) as error:
            raise _meaning(error) from error
        except (OverflowError, ValueError, TypeError) as error:  # a value that Bolt cannot carry
            raise GraphRefusedError(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            raise GraphUnavailableError(f"{type(error).__name__}: {error}") from error


async def _say_all(transaction: "AsyncManagedTransaction", statements: Sequence[Statement]) -> None:
    for text, rows in statements:
        result = await transaction.run(text, {"rows": rows} if rows else {})
        await result.consume()


def _meaning(error: Any) -> GraphError:
    """The driver's own classification decides what passes."""
    from neo4j.exceptions import Neo4jError, ServiceUnavailable  # noqa: PLC0415 - an extra

    if error.is_retryable() or isinstance(error, ServiceUnavailable):
        return GraphUnavailableError(str(error))
    if not isinstance(error, Neo4jError):
        return GraphMisconfiguredError(f"{type(error).__name__}: {error}")
    code = str(error.code)
    if code.startswith("Neo.ClientError.Security."):
        return GraphMisconfiguredError(f"NEO4J_USER, NEO4J_PASSWORD: {error.message}")
    if code.startswith(ABOUT_THE_ROWS) and code not in ABOUT_THE_STATEMENT:
        return GraphRefusedError(f"{code}: {error.message}")
    return GraphMisconfiguredError(f"{code}: {error.message}")


def require_driver() -> None:
    """Raises DriverMissingError when the driver is not installed."""
    if importlib.util.find_spec("neo4j") is not None:
        return
    tool = (
        f"{sys.executable} -m pip install"
        if importlib.util.find_spec("pip")
        else f"uv pip install --python {sys.executable}"
    )
    raise DriverMissingError(
        f"Telling a Neo4j needs its driver, which is not installed. Type\n    {tool} '{REQUIREMENT}'\n"
        "or write a file instead: --format cypher --output graph.cypher"
    )
