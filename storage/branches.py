"""The branches of a conversation: questions asked otherwise and answers made again stand beside the first ones.

What is shown and what a prompt is built from is the chosen branch: one path of messages, in the order of their
positions. The others are kept. Every function works in the caller's transaction.
"""

from dataclasses import dataclass, field
from uuid import UUID, uuid4

from protocol.errors import CONVERSATION_BUSY, MESSAGE_NOT_FOUND, OperationError
from storage.chat import Place
from storage.postgres import Connection


@dataclass(frozen=True, slots=True)
class Question:
    """A question that was asked before."""

    id: UUID
    conversation_id: UUID
    place: Place
    chosen: bool
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Revision:
    """What a run does to what was said: it answers the message's question again, or it `asks_otherwise`."""

    message_id: UUID
    asks_otherwise: bool


async def find_question(connection: Connection, *, user_id: str, message_id: UUID) -> Question:
    """The user's question of this id, or the one that the answer of this id is to. Raises MESSAGE_NOT_FOUND."""
    row = await connection.fetchrow(
        """
        SELECT question.id, question.conversation_id, question.position, question.chosen, question.content,
               before.position AS previous
        FROM chat.messages AS named
        JOIN chat.conversations ON conversations.id = named.conversation_id
        JOIN chat.messages AS question
            ON question.id = CASE named.role WHEN 'user' THEN named.id ELSE named.parent_id END
        LEFT JOIN chat.messages AS before ON before.id = question.parent_id
        WHERE named.id = $1 AND conversations.user_id = $2 AND conversations.deleted_at IS NULL
          AND question.role = 'user'
        """,
        message_id,
        user_id,
    )
    if row is None:
        raise OperationError(MESSAGE_NOT_FOUND)
    place = Place(row["position"], row["previous"])
    return Question(row["id"], row["conversation_id"], place, chosen=row["chosen"], content=row["content"])


async def choose(connection: Connection, *, conversation_id: UUID, message_id: UUID) -> None:
    """Choose the branch that leads to the message, and from there on the newest.

    Raises CONVERSATION_BUSY while an answer is being made: it belongs to the branch that was chosen when it was asked
    for.
    """
    busy = await connection.fetchval(
        "SELECT true FROM chat.runs WHERE conversation_id = $1 AND state IN ('queued', 'running') LIMIT 1",
        conversation_id,
    )
    if busy:
        raise OperationError(CONVERSATION_BUSY, retry_after_ms=1000)
    await connection.execute(
        """
        WITH RECURSIVE before AS (
            SELECT id, parent_id FROM chat.messages WHERE id = $2 AND conversation_id = $1
            UNION ALL
            SELECT messages.id, messages.parent_id FROM before JOIN chat.messages ON messages.id = before.parent_id
        ),
        after AS (
            SELECT $2::uuid AS id
            UNION ALL
            SELECT newest.id FROM after CROSS JOIN LATERAL (
                SELECT id FROM chat.messages WHERE coalesce(parent_id, conversation_id) = after.id
                ORDER BY position DESC LIMIT 1
            ) AS newest
        ),
        branch AS (SELECT id FROM before UNION SELECT id FROM after)
        UPDATE chat.messages SET chosen = NOT chosen
        WHERE conversation_id = $1 AND chosen <> (id IN (SELECT id FROM branch))
        """,
        conversation_id,
        message_id,
    )


async def cut(connection: Connection, *, conversation_id: UUID, after: int) -> None:
    """End the chosen branch after the position: what it held from there on is kept beside it."""
    await connection.execute(
        "UPDATE chat.messages SET chosen = false WHERE conversation_id = $1 AND chosen AND position > $2",
        conversation_id,
        after,
    )


async def revise(connection: Connection, user_id: str, request_id: str, question: str, revision: Revision) -> Place:
    """Where the question stands that is answered again, or that is asked instead of an earlier one."""
    earlier = await find_question(connection, user_id=user_id, message_id=revision.message_id)
    if not earlier.chosen:
        await choose(connection, conversation_id=earlier.conversation_id, message_id=earlier.id)
    if not revision.asks_otherwise:
        return earlier.place
    await cut(connection, conversation_id=earlier.conversation_id, after=earlier.place.previous or 0)
    return await store_question(connection, earlier.conversation_id, request_id, question)


async def take_the_place(connection: Connection, message_id: UUID, conversation_id: UUID, *, after: int) -> None:
    """Let an answer that was made again end the chosen branch, instead of what follows its question there."""
    await cut(connection, conversation_id=conversation_id, after=after)
    await connection.execute("UPDATE chat.messages SET chosen = true WHERE id = $1", message_id)
    # It may have been refused at first.
    await connection.execute(
        "UPDATE chat.messages SET withheld = false WHERE conversation_id = $1 AND position = $2 AND withheld",
        conversation_id,
        after,
    )


async def withhold(connection: Connection, conversation_id: UUID | None, position: int | None) -> None:
    """Keep a question that was refused from every model. One that has an answer was fine before, and is told."""
    await connection.execute(
        """
        UPDATE chat.messages SET withheld = true
        WHERE conversation_id = $1 AND position = $2 AND NOT EXISTS (
            SELECT FROM chat.messages AS answer
            WHERE coalesce(answer.parent_id, answer.conversation_id) = messages.id AND answer.role = 'assistant'
        )
        """,
        conversation_id,
        position,
    )


QUESTION = """touched AS (
    UPDATE chat.conversations SET updated_at = clock_timestamp() WHERE id = $2 AND $1::uuid IS NOT NULL
),
newest AS (
    SELECT id, position FROM chat.messages WHERE conversation_id = $2 AND chosen ORDER BY position DESC LIMIT 1
),
question AS (
    INSERT INTO chat.messages (id, conversation_id, role, content, request_id, parent_id)
    SELECT $1::uuid, $2, 'user', $3, $4, (SELECT id FROM newest) WHERE $1::uuid IS NOT NULL
    RETURNING position, (SELECT position FROM newest) AS previous
)"""
"""For the WITH of a statement: `question` is where a question stands that is stored at the end of the chosen branch.

$1 is its id, $2 the conversation, $3 what is asked, $4 the run's id. Without $1 nothing is stored, and there is none.
"""


async def store_question(connection: Connection, conversation_id: UUID, request_id: str, question: str) -> Place:
    """Store a question at the end of the chosen branch: where it stands."""
    row = await connection.fetchrow(
        f"WITH {QUESTION} SELECT position, previous FROM question", uuid4(), conversation_id, question, request_id
    )
    assert row is not None  # noqa: S101 (an insert gives a row)
    return Place(row["position"], row["previous"])
