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

HISTORY_MESSAGES = 1_000
"""Of history at most, however short: a thousand take 2 ms from Redis, 7 ms from PostgreSQL. By default that ends a
prompt only where they have less than 24 characters on average; exchanges have hundreds."""

AFTER_ALL = 2**63 - 1
"""A position. With a bound that is always there PostgreSQL begins at it; with "or none" it reads all that is newer."""

EXPECTED_CHARACTERS = 100
"""Of a message, at least, on average: so many of the newest are read first as then fill the history, 240 by default, in
a third of the time that a thousand take. Questions have twenty, answers hundreds."""

REMEMBER = """
local key, kept, characters = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local function total(at)
    local entry = redis.call('LINDEX', key, at)
    return entry and tonumber(string.match(entry, '^%[(%d+)')) or 0
end
if ARGV[1] == '1' then redis.call('DEL', key) end
local sum = total(-1)
for at = 5, #ARGV, 2 do
    sum = sum + tonumber(ARGV[at])
    redis.call('RPUSH', key, string.format('[%.0f,', sum) .. ARGV[at + 1])
end
while sum - total(0) >= characters do redis.call('LPOP', key) end
redis.call('LTRIM', key, -kept, -1)
return redis.call('EXPIRE', key, ARGV[4])
"""
"""KEYS: history. ARGV: 1 to begin anew, how many messages and characters are kept, the key's life in s; then of each
message its characters, and its entry from the position on. An entry begins with the characters up to its end, counted
from some point before the first: the oldest goes as soon as those after it have enough."""


RECALL = """return '[' .. table.concat(redis.call('LRANGE', KEYS[1], 0, -1), ',') .. ']'"""
"""KEYS: history. All of it as one text: a thousand replies of a list take the client four milliseconds."""


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

    def __init__(self, postgres: Postgres, redis: Redis, *, history_characters: int) -> None:
        self._postgres = postgres
        self._redis = redis
        self._characters = history_characters

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
                  AND messages.chosen AND messages.position < CASE WHEN $3::uuid IS NULL THEN $5 ELSE (
                      SELECT position FROM chat.messages WHERE id = $3 AND conversation_id = $1
                  ) END
                ORDER BY messages.position DESC
                LIMIT $4
                """,
                conversation_id,
                user_id,
                before,
                limit + 1,
                AFTER_ALL,
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
        """What was said before the question, oldest first, whole messages: as many as hold `history_characters`.

        The oldest may go beyond them. At most HISTORY_MESSAGES. A question that was refused is empty here: told again,
        it would have every later prompt refused. Works without Redis, only slower.
        """
        if question.previous is None:
            return []
        past = self._unbroken(await self._hot(conversation_id), question.previous)
        if past is None:
            past = await self._newest(conversation_id, question.previous)
            await self._write_hot(conversation_id, past, anew=True)
        return past

    async def _newest(self, conversation_id: UUID, up_to: int) -> list[PastMessage]:
        few = min(HISTORY_MESSAGES, 1 + self._characters // EXPECTED_CHARACTERS)
        past = await self._newest_of(few, conversation_id, up_to)
        if few == len(past) < HISTORY_MESSAGES and sum(len(message.content) for message in past) < self._characters:
            past = await self._newest_of(HISTORY_MESSAGES, conversation_id, up_to)
        return past

    async def _newest_of(self, messages: int, conversation_id: UUID, up_to: int) -> list[PastMessage]:
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT position, previous, role, content FROM (
                    SELECT position, role, content, lead(position) OVER newest_first AS previous,
                        row_number() OVER newest_first AS number,
                        sum(char_length(content)) OVER newest_first - char_length(content) AS characters_after
                    FROM (
                        SELECT position, role, CASE WHEN withheld THEN '' ELSE content END AS content
                        FROM chat.messages WHERE conversation_id = $1 AND chosen AND position <= $2
                        ORDER BY position DESC LIMIT $3 + 1
                    ) AS newest
                    WINDOW newest_first AS (ORDER BY position DESC ROWS UNBOUNDED PRECEDING)
                ) AS counted
                WHERE number <= $3 AND characters_after < $4 ORDER BY position
                """,
                conversation_id,
                up_to,
                messages,
                self._characters,
            )
        return [PastMessage(Place(row["position"], row["previous"]), row["role"], row["content"]) for row in rows]

    async def remember(self, conversation_id: UUID, messages: list[PastMessage]) -> None:
        """Add messages just stored to the hot history. Best effort: what is missing is rebuilt when it is needed."""
        await self._write_hot(conversation_id, messages, anew=False)

    async def forget(self, conversation_id: UUID) -> None:
        """Drop the hot history, which may have what it must not tell any more."""
        await forget_hot(self._redis, conversation_id)

    async def _hot(self, conversation_id: UUID) -> list[PastMessage]:
        try:
            (entries,) = await self._redis.together(
                lambda pipeline: pipeline.eval(RECALL, 1, HISTORY(str(conversation_id)))
            )
        except (RedisError, OSError) as error:
            if not is_outage(error):
                raise
            return []
        return [
            PastMessage(Place(position, previous), role, text)
            for _characters, position, previous, role, text in from_json(entries)
        ]

    async def _write_hot(self, conversation_id: UUID, messages: list[PastMessage], *, anew: bool) -> None:
        key = HISTORY(str(conversation_id))
        try:
            entries = [part for message in messages for part in (len(message.content), _hot_entry(message))]
            bounds = (HISTORY_MESSAGES, self._characters, HISTORY.ttl_s)
            await self._redis.together(
                lambda pipeline: pipeline.eval(REMEMBER, 1, key, "1" if anew else "0", *map(str, bounds), *entries)
            )
        except (RedisError, OSError) as error:
            if not is_outage(error):
                raise

    def _unbroken(self, hot: list[PastMessage], newest: int) -> list[PastMessage] | None:
        """The messages up to the one at `newest`, as many as `before` gives; None when one of them is missing.

        Each names the one before it.
        """
        at = {message.place.position: message for message in hot}
        past: list[PastMessage] = []
        left = self._characters
        position: int | None = newest
        while position is not None and left > 0 and len(past) < HISTORY_MESSAGES:
            message = at.get(position)
            if message is None:
                return None
            past.append(message)
            left -= len(message.content)
            position = message.place.previous
        past.reverse()
        return past


def _hot_entry(message: PastMessage) -> bytes:
    fields = to_json((message.place.position, message.place.previous, message.role, message.content))
    return fields.removeprefix(b"[")


def message_of(row: Mapping[str, Any]) -> Message:
    """The message of a row with MESSAGE_COLUMNS, and with whatever else a message has."""
    fields = dict(row)
    prompt_tokens, completion_tokens = fields.pop("prompt_tokens"), fields.pop("completion_tokens")
    usage = None if prompt_tokens is None or completion_tokens is None else Usage(prompt_tokens, completion_tokens)
    return Message.model_construct(**fields, usage=usage)


async def forget_hot(redis: Redis, conversation_id: UUID) -> None:
    """Drop a hot history. Best effort: its end is near anyway."""
    try:
        await redis.delete(HISTORY(str(conversation_id)))
    except (RedisError, OSError) as error:
        if not is_outage(error):
            raise
