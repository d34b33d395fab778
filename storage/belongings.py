"""Everything that is one user's in PostgreSQL: in pages, to be taken along, and deleted as a whole.

It knows every table that has a `user_id`, and `chat.users`; a test compares. Sessions are in Redis and `accounts.py`'s.
"""

from collections.abc import Sequence
from uuid import UUID

from redis.exceptions import RedisError

from protocol.belongings import ExportedFilm, Profile
from protocol.chat import Message
from protocol.conversations import Conversation, Feedback
from storage.chat import MESSAGE_COLUMNS, message_of
from storage.postgres import Postgres
from storage.redis import HISTORY, RUN_LOG, RUN_META, Redis, is_outage
from storage.users import hold_user

EXPORT_ROWS = 200
"""Rows of one page of an export."""

EXPORT_BYTES = 262_144
"""Of the messages of a page: a quarter of what may wait for a client. The one that goes beyond is still in it."""

FIRST = UUID(int=0)
"""No id that was made is as small."""


class Belongings:
    """Every method takes the user's id, and raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres, redis: Redis) -> None:
        self._postgres = postgres
        self._redis = redis

    async def profile(self, user_id: str) -> Profile | None:
        """Who the user is; None when nobody has noted it."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                "SELECT openid, unionid, created_at FROM chat.users WHERE id = $1 AND erased_at IS NULL", user_id
            )
        return None if row is None else Profile.model_construct(**dict(row))

    async def conversations(self, user_id: str, after: UUID) -> list[Conversation]:
        """The next ones, by id."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT id, title, created_at, updated_at FROM chat.conversations
                WHERE user_id = $1 AND deleted_at IS NULL AND id > $2 ORDER BY id LIMIT $3
                """,
                user_id,
                after,
                EXPORT_ROWS,
            )
        return [Conversation.model_construct(**dict(row)) for row in rows]

    async def messages(self, user_id: str, after: tuple[UUID, int]) -> tuple[list[Message], int]:
        """The next messages, by conversation and position; and the position of the last one."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                f"""
                SELECT {MESSAGE_COLUMNS}, position FROM (
                    SELECT messages.*, sum(octet_length(content)) OVER (
                        ORDER BY messages.conversation_id, position
                    ) - octet_length(content) AS bytes_before
                    FROM (
                        SELECT messages.* FROM chat.conversations
                        JOIN chat.messages ON messages.conversation_id = conversations.id
                        WHERE user_id = $1 AND deleted_at IS NULL AND conversations.id >= $2
                          AND (messages.conversation_id, position) > ($2, $3)
                        ORDER BY conversation_id, position LIMIT $4
                    ) AS messages
                ) AS messages
                WHERE bytes_before < $5 ORDER BY conversation_id, position
                """,
                user_id,
                *after,
                EXPORT_ROWS,
                EXPORT_BYTES,
            )
        position = rows[-1]["position"] if rows else 0
        fields = [{key: value for key, value in row.items() if key != "position"} for row in rows]
        return [message_of(row) for row in fields], position

    async def feedback(self, user_id: str, after: UUID) -> list[Feedback]:
        """The next ones, by message. What was said of a deleted conversation went with it."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT feedback.id, message_id, rating, comment, feedback.created_at, changed_at FROM chat.feedback
                JOIN chat.messages ON messages.id = message_id
                JOIN chat.conversations ON conversations.id = messages.conversation_id
                WHERE feedback.user_id = $1 AND deleted_at IS NULL AND message_id > $2 ORDER BY message_id LIMIT $3
                """,
                user_id,
                after,
                EXPORT_ROWS,
            )
        return [Feedback.model_construct(**dict(row)) for row in rows]

    async def films(self, user_id: str, after: int) -> tuple[list[ExportedFilm], int]:
        """The next films of the watchlist, by their last change; and the number of the last one."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT tmdb_id, state, source, added_at, changed_at, change FROM watchlist.items
                WHERE user_id = $1 AND change > $2 ORDER BY change LIMIT $3
                """,
                user_id,
                after,
                EXPORT_ROWS,
            )
        change = rows[-1]["change"] if rows else 0
        fields = [{key: value for key, value in row.items() if key != "change"} for row in rows]
        return [ExportedFilm.model_construct(**row) for row in fields], change

    async def stop_answers(self, user_id: str) -> list[str]:
        """Have the user's answers end, wherever they are made: which are not over yet."""
        async with self._postgres.connection() as connection:
            # Held in the order in which whoever holds several does it, or two such would wait for each other.
            rows = await connection.fetch(
                """
                WITH theirs AS (
                    SELECT request_id FROM chat.runs WHERE user_id = $1 AND state IN ('queued', 'running')
                    ORDER BY conversation_id, created_at, request_id FOR UPDATE
                )
                UPDATE chat.runs SET stop = coalesce(stop, 'cancelled')
                WHERE request_id IN (SELECT request_id FROM theirs) AND state IN ('queued', 'running')
                RETURNING request_id
                """,
                user_id,
            )
        return [row["request_id"] for row in rows]

    async def erase(self, user_id: str) -> None:
        """Delete all of it: everything or nothing. Answers still in the making are stored nowhere.

        Nothing is kept for the user from there on, until the next login or for a minute.
        """
        async with self._postgres.transaction() as connection:
            await hold_user(connection, user_id)
            # The runs before their conversations, as everywhere.
            runs = await connection.fetch(
                """
                SELECT request_id FROM chat.runs WHERE user_id = $1
                ORDER BY conversation_id, created_at, request_id FOR UPDATE
                """,
                user_id,
            )
            # Messages, what was thought of them, and runs go with their conversations.
            conversations = await connection.fetch(
                "DELETE FROM chat.conversations WHERE user_id = $1 RETURNING id", user_id
            )
            await connection.execute("DELETE FROM chat.runs WHERE user_id = $1", user_id)
            await connection.execute("DELETE FROM chat.feedback WHERE user_id = $1", user_id)
            await connection.execute("DELETE FROM watchlist.lists WHERE user_id = $1", user_id)
            await connection.execute("DELETE FROM tmdb.enrichment_requests WHERE user_id = $1", user_id)
            # The guests that it was before stay adopted, by nobody.
            await connection.execute("UPDATE chat.users SET adopted_by = NULL WHERE adopted_by = $1", user_id)
            await connection.execute("DELETE FROM chat.users WHERE id = $1", user_id)
            await connection.execute("INSERT INTO chat.users (id, erased_at) VALUES ($1, clock_timestamp())", user_id)
        await self._forget([row["id"] for row in conversations], [row["request_id"] for row in runs])

    async def _forget(self, conversation_ids: Sequence[UUID], request_ids: Sequence[str]) -> None:
        """Best effort: what Redis still has of it is copies, and gone within a day."""
        pipeline = self._redis.pipeline(transaction=False)
        for conversation_id in conversation_ids:
            pipeline.delete(HISTORY(str(conversation_id)))
        for request_id in request_ids:
            pipeline.delete(RUN_META(request_id))
            pipeline.delete(RUN_LOG(request_id))
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            if not is_outage(error):
                raise
