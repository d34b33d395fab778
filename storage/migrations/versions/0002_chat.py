"""Conversations and their messages."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UP = (
    "CREATE SCHEMA chat",
    """
    CREATE TABLE chat.conversations (
        id uuid PRIMARY KEY,
        user_id text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX conversations_of_user ON chat.conversations (user_id, created_at DESC)",
    # `position` orders a conversation's messages as they were stored; a clock may stand still or go back.
    """
    CREATE TABLE chat.messages (
        id uuid PRIMARY KEY,
        position bigint GENERATED ALWAYS AS IDENTITY,
        conversation_id uuid NOT NULL REFERENCES chat.conversations (id) ON DELETE CASCADE,
        role text NOT NULL CHECK (role IN ('user', 'assistant')),
        content text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        request_id text NOT NULL,
        finish_reason text CHECK (finish_reason IN ('stop', 'length', 'cancelled', 'interrupted')),
        prompt_tokens integer,
        completion_tokens integer,
        recommendations jsonb,
        CHECK ((role = 'assistant') = (finish_reason IS NOT NULL))
    )
    """,
    "CREATE UNIQUE INDEX messages_in_order ON chat.messages (conversation_id, position)",
    # A run has one question and at most one answer, whoever stores them and however often.
    "CREATE UNIQUE INDEX messages_of_run ON chat.messages (request_id, role)",
)

DOWN = ("DROP SCHEMA chat CASCADE",)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
