"""Answers made again and questions asked otherwise: what was said is a tree, and one branch of it is chosen."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UP = (
    # `parent_id` is the message that this one follows, in the same conversation and gone with it; null for a first one.
    # The chosen ones are one path from a first message to a leaf, and in the order of their positions.
    "ALTER TABLE chat.messages ADD COLUMN parent_id uuid, ADD COLUMN chosen boolean NOT NULL DEFAULT true",
    """
    UPDATE chat.messages SET parent_id = linked.parent_id FROM (
        SELECT id, lag(id) OVER (PARTITION BY conversation_id ORDER BY position) AS parent_id FROM chat.messages
    ) AS linked
    WHERE linked.id = messages.id AND linked.parent_id IS NOT NULL
    """,
    # Those with the same one are siblings: first messages are their conversation's, others their parent's.
    "CREATE INDEX messages_of_parent ON chat.messages (coalesce(parent_id, conversation_id))",
)

DOWN = (
    # All that was said is kept, in the order in which it was stored.
    "DROP INDEX chat.messages_of_parent",
    "ALTER TABLE chat.messages DROP COLUMN parent_id, DROP COLUMN chosen",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
