"""Conversations that have titles, are listed and can be deleted; what people think of answers."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UP = (
    # A deleted conversation gets another id (its messages and runs follow), so that whoever names the old one finds
    # nothing, and a standing conversation, whose id follows from whose it is, can begin anew.
    """
    ALTER TABLE chat.conversations
        ADD COLUMN title text,
        ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
        ADD COLUMN deleted_at timestamptz
    """,
    """
    UPDATE chat.conversations SET updated_at = coalesce(
        (SELECT max(messages.created_at) FROM chat.messages WHERE conversation_id = conversations.id), created_at
    )
    """,
    """
    CREATE INDEX conversations_in_order ON chat.conversations (user_id, updated_at DESC, id DESC)
    WHERE deleted_at IS NULL
    """,
    "CREATE INDEX conversations_deleted ON chat.conversations (deleted_at) WHERE deleted_at IS NOT NULL",
    """
    ALTER TABLE chat.messages
        DROP CONSTRAINT messages_conversation_id_fkey,
        ADD CONSTRAINT messages_conversation_id_fkey FOREIGN KEY (conversation_id)
            REFERENCES chat.conversations (id) ON UPDATE CASCADE ON DELETE CASCADE
    """,
    """
    ALTER TABLE chat.runs
        DROP CONSTRAINT runs_conversation_id_fkey,
        ADD CONSTRAINT runs_conversation_id_fkey FOREIGN KEY (conversation_id)
            REFERENCES chat.conversations (id) ON UPDATE CASCADE ON DELETE CASCADE
    """,
    "CREATE INDEX runs_of_conversation ON chat.runs (conversation_id)",
    # `user_id` says who thinks so; the message is always one of that user's own conversations.
    """
    CREATE TABLE chat.feedback (
        id uuid PRIMARY KEY,
        message_id uuid NOT NULL REFERENCES chat.messages (id) ON DELETE CASCADE,
        user_id text NOT NULL,
        rating integer NOT NULL CHECK (rating BETWEEN 1 AND 5),
        comment text,
        created_at timestamptz NOT NULL DEFAULT now(),
        changed_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (user_id, message_id)
    )
    """,
    "CREATE INDEX feedback_of_message ON chat.feedback (message_id)",
    "CREATE INDEX enrichment_requests_of_user ON tmdb.enrichment_requests (user_id)",
)

DOWN = (
    "DROP INDEX tmdb.enrichment_requests_of_user",
    "DROP TABLE chat.feedback",
    "DROP INDEX chat.runs_of_conversation",
    # Nothing older knows that they are deleted.
    "DELETE FROM chat.conversations WHERE deleted_at IS NOT NULL",
    """
    ALTER TABLE chat.runs
        DROP CONSTRAINT runs_conversation_id_fkey,
        ADD CONSTRAINT runs_conversation_id_fkey FOREIGN KEY (conversation_id)
            REFERENCES chat.conversations (id) ON DELETE CASCADE
    """,
    """
    ALTER TABLE chat.messages
        DROP CONSTRAINT messages_conversation_id_fkey,
        ADD CONSTRAINT messages_conversation_id_fkey FOREIGN KEY (conversation_id)
            REFERENCES chat.conversations (id) ON DELETE CASCADE
    """,
    "ALTER TABLE chat.conversations DROP COLUMN title, DROP COLUMN updated_at, DROP COLUMN deleted_at",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
