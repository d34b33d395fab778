"""Guests whose things become a user's: all of them, once, in one transaction. What proves it is not known here."""

from collections.abc import Sequence
from uuid import UUID

from redis.exceptions import RedisError

from protocol.conversations import MAX_CONVERSATIONS
from protocol.errors import (
    CONVERSATION_BUSY,
    GUEST_ADOPTED,
    GUEST_NOT_FOUND,
    LOGIN_REQUIRED,
    TOO_MANY_CONVERSATIONS,
    OperationError,
)
from protocol.guests import GuestAdopted
from storage.postgres import Connection, Postgres, Record
from storage.redis import HISTORY, Redis, is_outage
from storage.runs import RunLogs
from storage.users import hold_user, was_erased
from storage.watchlist import move_list


class Guests:
    """Every method raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres, redis: Redis) -> None:
        self._postgres = postgres
        self._redis = redis

    async def nonce(self, guest_id: str) -> UUID | None:
        """What the guest's secret is made with; None when there is no such guest."""
        async with self._postgres.connection() as connection:
            nonce: UUID | None = await connection.fetchval(
                "SELECT nonce FROM chat.users WHERE id = $1 AND kind = 'guest'", guest_id
            )
        return nonce

    async def adopt(self, *, guest_id: str, user_id: str) -> GuestAdopted:
        """Make the user's own what is the guest's; the same again when that user has done it before.

        Raises GUEST_NOT_FOUND, GUEST_ADOPTED, CONVERSATION_BUSY, TOO_MANY_CONVERSATIONS, WATCHLIST_FULL,
        and LOGIN_REQUIRED after the user's account was deleted: then nothing has changed.
        """
        async with self._postgres.transaction() as connection:
            # Until it ends, neither begins a run or changes which conversations there are.
            for held in sorted((guest_id, user_id)):
                await hold_user(connection, held)
            if await was_erased(connection, user_id):
                raise OperationError(LOGIN_REQUIRED)
            earlier = await _earlier(connection, guest_id, user_id)
            if earlier is not None:
                return earlier
            # The runs before their conversations, as everywhere.
            runs = await _ended_runs(connection, guest_id)
            await _check_room(connection, guest_id, user_id)
            conversations = await _move_conversations(connection, guest_id, user_id)
            await _move_what_was_said_of_them(connection, guest_id, user_id)
            films = await move_list(connection, giver=guest_id, taker=user_id)
            adopted = GuestAdopted(conversations=sum(row["shown"] for row in conversations), films=films)
            await _note(connection, guest_id, user_id, adopted)
        await self._follow([row["old_id"] for row in conversations], runs, user_id)
        return adopted

    async def _follow(self, conversation_ids: Sequence[UUID], request_ids: Sequence[str], user_id: str) -> None:
        """Best effort: whose a run is that has ended, and what was said in a conversation, PostgreSQL knows."""
        try:
            await RunLogs(self._redis).describe(request_ids, {"user_id": user_id})
            pipeline = self._redis.pipeline(transaction=False)
            for conversation_id in conversation_ids:
                pipeline.delete(HISTORY(str(conversation_id)))
            await pipeline.execute()
        except OperationError:
            return
        except (RedisError, OSError) as error:
            if not is_outage(error):
                raise


async def _earlier(connection: Connection, guest_id: str, user_id: str) -> GuestAdopted | None:
    """What the user's earlier adoption of the guest gave. Raises when it is another's, or there is no such guest."""
    row = await connection.fetchrow(
        """
        SELECT adopted_by, adopted_at, adopted_conversations, adopted_films FROM chat.users
        WHERE id = $1 AND kind = 'guest' FOR UPDATE
        """,
        guest_id,
    )
    if row is None:
        raise OperationError(GUEST_NOT_FOUND)
    if row["adopted_at"] is None:
        return None
    if row["adopted_by"] != user_id:
        raise OperationError(GUEST_ADOPTED)
    return GuestAdopted(conversations=row["adopted_conversations"], films=row["adopted_films"])


async def _ended_runs(connection: Connection, guest_id: str) -> list[str]:
    """Hold the guest's runs. Raises CONVERSATION_BUSY when one is not over."""
    rows = await connection.fetch(
        """
        SELECT request_id, state FROM chat.runs WHERE user_id = $1
        ORDER BY conversation_id, created_at, request_id FOR UPDATE
        """,
        guest_id,
    )
    if any(row["state"] in ("queued", "running") for row in rows):
        raise OperationError(CONVERSATION_BUSY, retry_after_ms=1000)
    return [row["request_id"] for row in rows]


async def _check_room(connection: Connection, guest_id: str, user_id: str) -> None:
    counts = await connection.fetchrow(
        """
        SELECT count(*) FILTER (WHERE user_id = $1) AS brought, count(*) AS together
        FROM chat.conversations WHERE user_id IN ($1, $2) AND deleted_at IS NULL
        """,
        guest_id,
        user_id,
    )
    assert counts is not None  # noqa: S101 (an aggregate gives a row)
    # Whoever brings none is not told that it has too many.
    if counts["brought"] and counts["together"] > MAX_CONVERSATIONS:
        raise OperationError(TOO_MANY_CONVERSATIONS)


async def _move_conversations(connection: Connection, guest_id: str, user_id: str) -> list[Record]:
    """The guest's conversations, deleted ones too. Standing ones get another id, or the guest's name had none left."""
    rows: list[Record] = await connection.fetch(
        """
        UPDATE chat.conversations
        SET user_id = $2, id = CASE WHEN substr(id::text, 15, 1) = '5' THEN gen_random_uuid() ELSE id END
        FROM (SELECT id AS old_id FROM chat.conversations WHERE user_id = $1) AS brought
        WHERE conversations.id = old_id RETURNING old_id, deleted_at IS NULL AS shown
        """,
        guest_id,
        user_id,
    )
    return rows


async def _move_what_was_said_of_them(connection: Connection, guest_id: str, user_id: str) -> None:
    # A question's id may be one that the user has given too; then it leads to the user's own answer, as before.
    await connection.execute(
        """
        UPDATE chat.runs SET user_id = $2, client_id = CASE WHEN NOT EXISTS (
            SELECT FROM chat.runs AS own WHERE own.user_id = $2 AND own.client_id = runs.client_id
        ) THEN client_id END
        WHERE user_id = $1
        """,
        guest_id,
        user_id,
    )
    await connection.execute("UPDATE chat.feedback SET user_id = $2 WHERE user_id = $1", guest_id, user_id)
    await connection.execute("UPDATE tmdb.enrichment_requests SET user_id = $2 WHERE user_id = $1", guest_id, user_id)


async def _note(connection: Connection, guest_id: str, user_id: str, adopted: GuestAdopted) -> None:
    await connection.execute(
        """
        WITH taker AS (INSERT INTO chat.users (id) VALUES ($2) ON CONFLICT (id) DO NOTHING)
        UPDATE chat.users SET
            adopted_by = $2, adopted_at = now(), adopted_conversations = $3, adopted_films = $4
        WHERE id = $1
        """,
        guest_id,
        user_id,
        adopted.conversations,
        adopted.films,
    )
