"""Who logs in, in PostgreSQL: what WeChat calls them, and when they were last here. Sessions are `accounts.py`'s.

Rows of people who begin otherwise are made in the statements that store their first conversation. A row with
`erased_at` is of somebody who has just deleted the account.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg

from protocol.errors import LOGIN_REQUIRED, OperationError
from storage.gathering import Gathering
from storage.postgres import Connection, Postgres

REFUSED_FOR = timedelta(minutes=1)
"""How long nothing is kept for a deleted account that has not logged in again: its other devices hear of the end
within five seconds, and a login that could not be noted has to wait no longer."""

KEEP_ERASED = timedelta(hours=1)
"""How long is known that an account was deleted."""


WAS_ERASED = "EXISTS (SELECT FROM chat.users WHERE id = $1 AND erased_at > clock_timestamp() - $2::interval)"
"""Whether the user $1 has deleted the account less than $2 ago, which is REFUSED_FOR, and not logged in since."""


async def hold_user(connection: Connection, user_id: str) -> None:
    """Until the transaction ends, nobody else begins a run of the user or changes which conversations there are."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", user_id)


async def was_erased(connection: Connection, user_id: str) -> bool:
    """Whether the user, whom the transaction holds, has deleted the account and not logged in since."""
    erased: bool = await connection.fetchval(f"SELECT {WAS_ERASED}", user_id, REFUSED_FOR)
    return erased


async def hold_present_user(connection: Connection, user_id: str) -> None:
    """Hold the user as `hold_user` does, to keep something. Raises LOGIN_REQUIRED after the account was deleted."""
    await hold_user(connection, user_id)
    if await was_erased(connection, user_id):
        raise OperationError(LOGIN_REQUIRED)


@dataclass(frozen=True, slots=True)
class Known:
    """What WeChat calls a user. A unionid that it leaves out is None."""

    user_id: str = field(repr=False)
    openid: str = field(repr=False)
    unionid: str | None = field(repr=False)


class Users:
    """Every method raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._logins = Gathering(self._all_logged_in)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Users"]:
        """Note logins until the block ends."""
        async with self._logins.open():
            yield self

    async def logged_in(self, known: Known) -> None:
        """Keep who it was and that it was now, in one statement with others. A unionid left out stays as it was."""
        await self._logins.ask(known)

    async def _all_logged_in(self, logins: Sequence[Known]) -> Sequence[BaseException | None]:
        try:
            await self._note(logins)
        except asyncpg.DataError as error:
            if len(logins) == 1:
                return [error]
            # PostgreSQL refuses what one of them is called, and with it the whole statement: it is not the others'.
            return [outcome for one in logins for outcome in await self._all_logged_in([one])]
        return [None] * len(logins)

    async def _note(self, logins: Sequence[Known]) -> None:
        # Of one user's two the one with a unionid counts; in order, so that of two nodes one waits for the other.
        users = {one.user_id: one for one in sorted(logins, key=lambda one: (one.user_id, one.unionid is not None))}
        async with self._postgres.connection() as connection:
            await connection.execute(
                """
                INSERT INTO chat.users AS known (id, openid, unionid)
                SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
                ON CONFLICT (id) DO UPDATE SET
                    openid = excluded.openid, unionid = coalesce(excluded.unionid, known.unionid), seen_at = now(),
                    created_at = CASE WHEN known.erased_at IS NULL THEN known.created_at ELSE now() END,
                    erased_at = NULL
                """,
                list(users),
                [one.openid for one in users.values()],
                [one.unionid for one in users.values()],
            )

    async def forget_erased(self) -> int:
        """Forget who deleted the account KEEP_ERASED ago; returns how many."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                "DELETE FROM chat.users WHERE erased_at < now() - $1::interval RETURNING true", KEEP_ERASED
            )
        return len(rows)
