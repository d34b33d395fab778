"""A user's conversations in PostgreSQL: which there are, what they are called, and how they go.

Every method takes the user's id; not there and not theirs are one. What is said in them is `chat.py`'s. A deleted
conversation gets another id, so whoever names the old one finds nothing, whatever they ask.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from protocol.conversations import MAX_CONVERSATIONS, Conversation, Feedback, FoundMessage, ListPosition
from protocol.errors import TOO_MANY_CONVERSATIONS, OperationError
from storage.branches import choose
from storage.chat import MESSAGE_COLUMNS, forget_hot, message_of
from storage.postgres import Postgres, Record
from storage.redis import Redis
from storage.users import hold_present_user, hold_user

KEEP_DELETED = timedelta(days=30)
"""How long a deleted conversation is kept: long enough to help somebody who deleted the wrong one."""

PURGE_AT_ONCE = 500
"""Messages or conversations of one statement of a purge: some milliseconds, so that it holds nobody up."""

AFTER_ALL = ListPosition(datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))
"""With a bound that is always there PostgreSQL begins at it; with "or none" it reads all that is newer."""

SEARCHED_CONVERSATIONS, SEARCHED_MESSAGES = 100, 50
"""Of a user, and of each of them: what somebody looks for was said lately."""


class ConversationTable:
    """Every method raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres, redis: Redis) -> None:
        self._postgres = postgres
        self._redis = redis

    async def create(self, *, user_id: str, title: str | None) -> Conversation:
        """A new, empty one. Raises TOO_MANY_CONVERSATIONS, and LOGIN_REQUIRED after the account was deleted."""
        async with self._postgres.transaction() as connection:
            await hold_present_user(connection, user_id)
            row = await connection.fetchrow(
                """
                WITH made AS (
                    INSERT INTO chat.conversations (id, user_id, title)
                    SELECT $1, $2, $3
                    WHERE (SELECT count(*) FROM chat.conversations WHERE user_id = $2 AND deleted_at IS NULL) < $4
                    RETURNING id, user_id, title, created_at, updated_at
                ),
                theirs AS (
                    INSERT INTO chat.users AS known (id) SELECT user_id FROM made
                    ON CONFLICT (id) DO UPDATE SET erased_at = NULL WHERE known.erased_at IS NOT NULL
                )
                SELECT id, title, created_at, updated_at FROM made
                """,
                uuid4(),
                user_id,
                title,
                MAX_CONVERSATIONS,
            )
        if row is None:
            raise OperationError(TOO_MANY_CONVERSATIONS)
        return _conversation(row)

    async def page(self, *, user_id: str, limit: int, before: ListPosition | None) -> tuple[list[Conversation], bool]:
        """The `limit` that got a message last, or those before the position; and whether there are more."""
        before = before or AFTER_ALL
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT id, title, created_at, updated_at FROM chat.conversations
                WHERE user_id = $1 AND deleted_at IS NULL
                  AND (updated_at, id) < ($2, $3)
                ORDER BY updated_at DESC, id DESC LIMIT $4
                """,
                user_id,
                before.updated_at,
                before.id,
                limit + 1,
            )
        return [_conversation(row) for row in rows[:limit]], len(rows) > limit

    async def find(self, *, user_id: str, conversation_id: UUID) -> Conversation | None:
        """The user's conversation."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT id, title, created_at, updated_at FROM chat.conversations
                WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL
                """,
                conversation_id,
                user_id,
            )
        return None if row is None else _conversation(row)

    async def rename(self, *, user_id: str, conversation_id: UUID, title: str) -> Conversation | None:
        """Give the user's conversation this title."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE chat.conversations SET title = $3 WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL
                RETURNING id, title, created_at, updated_at
                """,
                conversation_id,
                user_id,
                title,
            )
        return None if row is None else _conversation(row)

    async def untitled(self, *, user_id: str, conversation_id: UUID) -> tuple[str, str] | None:
        """The first question and the first answer of the user's conversation, while it has no title."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT question.content AS question, answer.content AS answer FROM chat.conversations
                CROSS JOIN LATERAL (
                    SELECT content FROM chat.messages
                    WHERE conversation_id = conversations.id AND role = 'user' AND NOT withheld
                    ORDER BY position LIMIT 1
                ) AS question
                CROSS JOIN LATERAL (
                    SELECT content FROM chat.messages WHERE conversation_id = conversations.id AND role = 'assistant'
                    ORDER BY position LIMIT 1
                ) AS answer
                WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL AND title IS NULL
                """,
                conversation_id,
                user_id,
            )
        return None if row is None else (row["question"], row["answer"])

    async def entitle(self, *, user_id: str, conversation_id: UUID, title: str) -> Conversation | None:
        """Give the user's conversation its first title. None when it had one."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE chat.conversations SET title = $3
                WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL AND title IS NULL
                RETURNING id, title, created_at, updated_at
                """,
                conversation_id,
                user_id,
                title,
            )
        return None if row is None else _conversation(row)

    async def search(self, *, user_id: str, text: str, limit: int) -> list[FoundMessage]:
        """The user's messages that contain the text, whatever the case, the newest first.

        No index knows parts of words in every language, so what is searched is bounded instead: the newest messages
        of the conversations that got one last, 5,000 at most. Of 300 characters each they take 25 ms of PostgreSQL,
        and half a second if each were as long as a question may be.
        """
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                f"""
                SELECT recent.title, {MESSAGE_COLUMNS} FROM (
                    SELECT id, title FROM chat.conversations WHERE user_id = $1 AND deleted_at IS NULL
                    ORDER BY updated_at DESC, id DESC LIMIT $4
                ) AS recent
                CROSS JOIN LATERAL (
                    SELECT * FROM chat.messages WHERE conversation_id = recent.id ORDER BY position DESC LIMIT $5
                ) AS messages
                WHERE strpos(lower(messages.content), lower($2)) > 0
                ORDER BY messages.position DESC LIMIT $3
                """,
                user_id,
                text,
                limit,
                SEARCHED_CONVERSATIONS,
                SEARCHED_MESSAGES,
            )
        return [_found_message(row) for row in rows]

    async def rate(self, *, user_id: str, message_id: UUID, rating: int, comment: str | None) -> Feedback | None:
        """Keep what the user thinks of an answer, instead of what it thought before; None when there is no such one."""
        async with self._postgres.connection() as connection:
            # FOR SHARE: until it is stored, the conversation stays whose it is.
            row = await connection.fetchrow(
                """
                INSERT INTO chat.feedback (id, message_id, user_id, rating, comment)
                SELECT $3, messages.id, $1, $4, $5
                FROM chat.messages JOIN chat.conversations ON conversations.id = messages.conversation_id
                WHERE messages.id = $2 AND messages.role = 'assistant'
                  AND conversations.user_id = $1 AND conversations.deleted_at IS NULL
                FOR SHARE OF conversations
                ON CONFLICT (user_id, message_id) DO UPDATE
                SET rating = excluded.rating, comment = excluded.comment, changed_at = clock_timestamp()
                RETURNING id, message_id, rating, comment, created_at, changed_at
                """,
                user_id,
                message_id,
                uuid4(),
                rating,
                comment,
            )
        return None if row is None else Feedback.model_construct(**dict(row))

    async def choose(self, *, user_id: str, message_id: UUID) -> Conversation | None:
        """Choose the branch of the user's message: its conversation. Raises CONVERSATION_BUSY."""
        async with self._postgres.transaction() as connection:
            await hold_user(connection, user_id)
            row = await connection.fetchrow(
                """
                SELECT conversations.id, title, conversations.created_at, updated_at
                FROM chat.messages JOIN chat.conversations ON conversations.id = messages.conversation_id
                WHERE messages.id = $1 AND user_id = $2 AND deleted_at IS NULL
                """,
                message_id,
                user_id,
            )
            if row is None:
                return None
            await choose(connection, conversation_id=row["id"], message_id=message_id)
        return _conversation(row)

    async def delete(self, *, user_id: str, conversation_id: UUID) -> tuple[Conversation, list[str]] | None:
        """Delete the user's conversation and have its answers end: what it was, and their request ids; or None.

        Its id is free at once. What the conversation held has another one until it is purged.
        """
        async with self._postgres.transaction() as connection:
            # No question of the user is stored meanwhile; then its runs before itself, as everywhere.
            await hold_user(connection, user_id)
            runs = await connection.fetch(
                """
                WITH held AS (
                    SELECT request_id FROM chat.runs
                    WHERE conversation_id = $1 AND user_id = $2 AND state IN ('queued', 'running')
                    ORDER BY conversation_id, created_at, request_id FOR UPDATE
                )
                UPDATE chat.runs SET stop = coalesce(stop, 'cancelled')
                WHERE request_id IN (SELECT request_id FROM held) AND state IN ('queued', 'running')
                RETURNING request_id
                """,
                conversation_id,
                user_id,
            )
            row = await connection.fetchrow(
                """
                UPDATE chat.conversations SET id = $3, deleted_at = now()
                WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL RETURNING $1 AS id, title, created_at, updated_at
                """,
                conversation_id,
                user_id,
                uuid4(),
            )
        if row is None:
            return None
        # Whoever asks next in a conversation of this id would see, too, that the copy is not of it.
        await forget_hot(self._redis, conversation_id)
        return _conversation(row), [run["request_id"] for run in runs]

    async def purge(self) -> int:
        """Drop some of what was deleted KEEP_DELETED ago; how much it was, 0 when nothing is left to drop."""
        async with self._postgres.connection() as connection:
            messages = await connection.fetch(
                """
                DELETE FROM chat.messages WHERE id IN (
                    SELECT messages.id FROM chat.conversations
                    JOIN chat.messages ON messages.conversation_id = conversations.id
                    WHERE conversations.deleted_at < now() - $1::interval
                    LIMIT $2 FOR UPDATE OF messages SKIP LOCKED
                ) RETURNING true
                """,
                KEEP_DELETED,
                PURGE_AT_ONCE,
            )
            conversations = await connection.fetch(
                """
                DELETE FROM chat.conversations WHERE id IN (
                    SELECT id FROM chat.conversations
                    WHERE deleted_at < now() - $1::interval
                      AND NOT EXISTS (SELECT FROM chat.messages WHERE conversation_id = conversations.id)
                    LIMIT $2 FOR UPDATE SKIP LOCKED
                ) RETURNING true
                """,
                KEEP_DELETED,
                PURGE_AT_ONCE,
            )
        return len(messages) + len(conversations)


def _conversation(row: Record) -> Conversation:
    return Conversation.model_construct(**dict(row))


def _found_message(row: Record) -> FoundMessage:
    fields = dict(row)
    title = fields.pop("title")
    return FoundMessage.model_construct(message=message_of(fields), title=title)
