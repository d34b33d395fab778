"""Runs: whose they are, which node makes them, how they stand; and the nodes that are alive."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UP = (
    # A node that has not beaten for the lease is dead: what it was making is anybody's to take over.
    """
    CREATE TABLE chat.nodes (
        id text PRIMARY KEY,
        beat timestamptz NOT NULL
    )
    """,
    # `client_id` is the id that the client gave its message: sent again, it leads to the same run.
    # `epoch` grows with each owner; what an earlier owner still writes is refused by it.
    # `request` is what was asked, kept while it is needed to begin anew.
    """
    CREATE TABLE chat.runs (
        request_id text PRIMARY KEY,
        user_id text NOT NULL,
        session_id text NOT NULL,
        client_id text,
        conversation_id uuid REFERENCES chat.conversations (id) ON DELETE CASCADE,
        request jsonb,
        position bigint,
        previous bigint,
        state text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
        stop text CHECK (stop IN ('cancelled', 'interrupted')),
        node text,
        epoch integer NOT NULL DEFAULT 1,
        takeovers integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz
    )
    """,
    "CREATE UNIQUE INDEX runs_of_client ON chat.runs (user_id, client_id) WHERE client_id IS NOT NULL",
    "CREATE UNIQUE INDEX runs_one_at_a_time ON chat.runs (conversation_id) WHERE state = 'running'",
    "CREATE INDEX runs_open_of_user ON chat.runs (user_id) WHERE state IN ('queued', 'running')",
    "CREATE INDEX runs_open_of_node ON chat.runs (node) WHERE state IN ('queued', 'running')",
    "CREATE INDEX runs_open_of_conversation ON chat.runs (conversation_id, created_at) WHERE state = 'queued'",
    "CREATE INDEX runs_ended ON chat.runs (ended_at) WHERE ended_at IS NOT NULL",
)

DOWN = ("DROP TABLE chat.runs", "DROP TABLE chat.nodes")


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
