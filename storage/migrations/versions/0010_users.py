"""Who there is: users with what WeChat calls them, and guests with what proves that one was them."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UP = (
    # A row is made with the first conversation of somebody, or with a login. `seen_at` is the last login.
    # A guest's secret is made with its `nonce`, and given out with its `first_answer` (a request_id), never after it.
    # `adopted_by` is null after `adopted_at` when the account that had adopted it is gone: a guest is adopted once.
    # No conversation refers to a row: while nodes are replaced, older ones store conversations of people who have none,
    # and every insert would lock the row of its user. Nothing is found by way of it that would have to be there.
    """
    CREATE TABLE chat.users (
        id text PRIMARY KEY,
        kind text NOT NULL GENERATED ALWAYS AS (
            CASE WHEN starts_with(id, 'guest_') THEN 'guest' ELSE 'user' END
        ) STORED,
        openid text,
        unionid text,
        created_at timestamptz NOT NULL DEFAULT now(),
        seen_at timestamptz NOT NULL DEFAULT now(),
        nonce uuid NOT NULL DEFAULT gen_random_uuid(),
        first_answer text,
        adopted_by text,
        adopted_at timestamptz,
        adopted_conversations integer,
        adopted_films integer,
        CHECK (adopted_by IS NULL OR adopted_at IS NOT NULL)
    )
    """,
    "CREATE INDEX users_adopted ON chat.users (adopted_by) WHERE adopted_by IS NOT NULL",
    """
    INSERT INTO chat.users (id, created_at, seen_at)
    SELECT user_id, min(created_at), max(updated_at) FROM chat.conversations GROUP BY user_id
    """,
    # Guests that have had answers had their first one too: who names one of them now gets no secret.
    """
    UPDATE chat.users SET first_answer = first.request_id FROM (
        SELECT DISTINCT ON (user_id) user_id, request_id
        FROM chat.conversations JOIN chat.messages ON messages.conversation_id = conversations.id
        ORDER BY user_id, position
    ) AS first
    WHERE users.id = first.user_id AND kind = 'guest'
    """,
    # An adoption and the end of an account look for all runs of somebody, those without a conversation too.
    "CREATE INDEX runs_of_user ON chat.runs (user_id)",
)

DOWN = ("DROP INDEX chat.runs_of_user", "DROP TABLE chat.users")


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
