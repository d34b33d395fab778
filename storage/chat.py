"""Conversations and messages in PostgreSQL, and the hot history in Redis that prompts are built from.

PostgreSQL is the truth. The hot history is a copy that may be gone or stale at any time: it is used only when its
newest message is the one that PostgreSQL says comes right before the question.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from pydantic_core import from_json, to_json
from redis.exceptions import RedisError

from protocol.chat import Message, Usage
from storage.postgres import Postgres
from storage.redis import HISTORY, Redis, is_outage

MESSAGE_COLUMNS = """messages.id, messages.conversation_id, messages.role, messages.content, messages.created_at,
    messages.request_id, messages.finish_reason, messages.parent_id, messages.chosen, messages.prompt_tokens,
    messages.completion_tokens"""
"""What `message_of` makes a message of."""

HOT_MESSAGES = 40
"""Messages kept for the prompt: twenty exchanges, more than a small model's context holds."""

REMEMBER = """
if ARGV[1] == '1' then redis.call('DEL', KEYS[1]) end
redis.call('RPUSH', KEYS[1], unpack(ARGV, 4))
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
return redis.call('EXPIRE', KEYS[1], ARGV[3])
"""
"""KEYS: history. ARGV: 1 to begin anew, how many messages are kept, the key's life in s, then the messages."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands in its conversation. `previous` is the position before it, None when it is the first."""

    position: int
    previous: int | None


@dataclass(frozen=True, slots=True)
class PastMessage:
    """A message as the prompt needs it."""

    place: Place
    role: Literal["user", "assistant"]
    content: str = field(repr=False)


class Conversations:
    """What was said. Every method on a user's conversation takes the user's id; not found and not theirs are one."""

    def __init__(self, postgres: Postgres, redis: Redis) -> None:
        self._postgres = postgres
        self._redis = redis

    async def page(
        self, *, user_id: str, conversation_id: UUID, limit: int, before: UUID | None
    ) -> tuple[list[Message], bool]:
        """The newest `limit` messages of the chosen branch, or those before the message `before`, oldest first.

        And whether more are older. Empty for a conversation that is not this user's, as for one that is not there.
        """
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                f"""
                SELECT {MESSAGE_COLUMNS}, (
                    SELECT array_agg(beside.id ORDER BY beside.position) FROM chat.messages AS beside
                    WHERE coalesce(beside.parent_id, beside.conversation_id)
                        = coalesce(messages.parent_id, messages.conversation_id)
                ) AS siblings
                FROM chat.messages
                JOIN chat.conversations ON conversations.id = messages.conversation_id
                WHERE messages.conversation_id = $1 AND conversations.user_id = $2 AND conversations.deleted_at IS NULL
                  AND messages.chosen AND ($3::uuid IS NULL OR messages.position < (
                      SELECT position FROM chat.messages WHERE id = $3 AND conversation_id = $1
                  ))
                ORDER BY messages.position DESC
                LIMIT $4
                """,
                conversation_id,
                user_id,
                before,
                limit + 1,
            )
        return [message_of(dict(row)) for row in reversed(rows[:limit])], len(rows) > limit

    async def owns(self, *, user_id: str, conversation_id: UUID) -> bool:
        """Whether the conversation is there and this user's."""
        async with self._postgres.connection() as connection:
            found = await connection.fetchval(
                "SELECT true FROM chat.conversations WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL",
                conversation_id,
                user_id,
            )
        return bool(found)

    async def before(self, conversation_id: UUID, question: Place) -> list[PastMessage]:
        """What was said before the question, oldest first, at most HOT_MESSAGES. Works without Redis, only slower."""
        if question.previous is None:
            return []
        past = _unbroken(await self._hot(conversation_id), question.previous)
        if past is None:
            past = await self._newest(conversation_id, question.previous)
            await self._write_hot(conversation_id, past, anew=True)
        return past

    async def _newest(self, conversation_id: UUID, up_to: int) -> list[PastMessage]:
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT position, role, content FROM chat.messages
                WHERE conversation_id = $1 AND chosen AND position <= $2
                ORDER BY position DESC LIMIT $3
                """,
                conversation_id,
                up_to,
                HOT_MESSAGES + 1,  # the oldest only tells what stands before the ones that are kept
            )
        before = [*(row["position"] for row in rows[1:]), None]
        past = [
            PastMessage(Place(row["position"], previous), row["role"], row["content"])
            for row, previous in zip(rows, before, strict=True)
        ]
        return past[HOT_MESSAGES - 1 :: -1]

    async def remember(self, conversation_id: UUID, messages: list[PastMessage]) -> None:
        """Add messages just stored to the hot history. Best effort: what is missing is rebuilt when it is needed."""
        await self._write_hot(conversation_id, messages, anew=False)

    async def _hot(self, conversation_id: UUID) -> list[PastMessage]:
        try:
            entries = await self._redis.lrange(HISTORY(str(conversation_id)), 0, -1)
        except (RedisError, OSError) as error:
            if not is_outage(error):
                raise
            return []
        messages = (
            PastMessage(Place(position, previous), role, text)
            for position, previous, role, text in map(from_json, entries)
        )
        return list(messages)

    async def _write_hot(self, conversation_id: UUID, messages: list[PastMessage], *, anew: bool) -> None:
        key = HISTORY(str(conversation_id))
        try:
            entries = map(_hot_entry, messages)
            await self._redis.eval(
                REMEMBER, 1, key, "1" if anew else "0", str(HOT_MESSAGES), str(HISTORY.ttl_s), *entries
            )
        except (RedisError, OSError) as error:
            if not is_outage(error):
                raise


def _unbroken(hot: list[PastMessage], newest: int) -> list[PastMessage] | None:
    """The messages up to the one at `newest`, or None when one of them is missing: each names the one before it."""
    at = {message.place.position: message for message in hot}
    past: list[PastMessage] = []
    position: int | None = newest
    while position is not None and (message := at.get(position)) is not None:
        past.append(message)
        position = message.place.previous
    past.reverse()
    return past if position is None or len(past) >= HOT_MESSAGES else None


def _hot_entry(message: PastMessage) -> bytes:
    return to_json((message.place.position, message.place.previous, message.role, message.content))


def message_of(row: Mapping[str, Any]) -> Message:
    """The message of a row with MESSAGE_COLUMNS, and with whatever else a message has."""
    fields = dict(row)
    prompt_tokens, completion_tokens = fields.pop("prompt_tokens"), fields.pop("completion_tokens")
    usage = None if prompt_tokens is None or completion_tokens is None else Usage(prompt_tokens, completion_tokens)
    return Message.model_construct(**fields, usage=usage)
