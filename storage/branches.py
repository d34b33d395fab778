"""The branches of a conversation: questions asked otherwise and answers made again stand beside the first ones.

What is shown and what a prompt is built from is the chosen branch: one path of messages, in the order of their
positions. The others are kept. Every function works in the caller's transaction.
"""

from dataclasses import dataclass, field
from uuid import UUID

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
