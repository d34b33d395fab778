"""Films that somebody wants to see, has seen or does not want, and what chats noted of them."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UP = (
    "CREATE SCHEMA watchlist",
    # Everything of a user hangs on this row: deleting it deletes all, and holding it makes changes wait for each other.
    # `changes` numbers them; a clock may stand still or go back.
    """
    CREATE TABLE watchlist.lists (
        user_id text PRIMARY KEY,
        changes bigint NOT NULL DEFAULT 0
    )
    """,
    # `tmdb_id` is no reference: what somebody has seen stays seen when the catalogue loses the film.
    """
    CREATE TABLE watchlist.items (
        user_id text NOT NULL REFERENCES watchlist.lists (user_id) ON DELETE CASCADE,
        tmdb_id integer NOT NULL,
        state text NOT NULL CHECK (state IN ('to_watch', 'watched', 'dismissed')),
        source text NOT NULL CHECK (source IN ('user', 'chat')),
        change bigint NOT NULL,
        added_at timestamptz NOT NULL DEFAULT now(),
        changed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (user_id, tmdb_id)
    )
    """,
    "CREATE UNIQUE INDEX items_in_order ON watchlist.items (user_id, change)",
    """
    CREATE TABLE watchlist.captures (
        id uuid PRIMARY KEY,
        user_id text NOT NULL REFERENCES watchlist.lists (user_id) ON DELETE CASCADE,
        request_id text NOT NULL,
        captured_at timestamptz NOT NULL DEFAULT now(),
        undone_at timestamptz
    )
    """,
    # A question is noted once, whoever answers it and however often.
    "CREATE UNIQUE INDEX captures_of_run ON watchlist.captures (user_id, request_id)",
    # `previous_*` is the item as it was before, all null for one that was not there; `kept` is known when it is undone.
    """
    CREATE TABLE watchlist.captured (
        capture_id uuid NOT NULL REFERENCES watchlist.captures (id) ON DELETE CASCADE,
        tmdb_id integer NOT NULL,
        title text NOT NULL,
        state text NOT NULL,
        change bigint NOT NULL,
        previous_state text,
        previous_source text,
        previous_change bigint,
        previous_changed_at timestamptz,
        kept boolean,
        PRIMARY KEY (capture_id, tmdb_id)
    )
    """,
)

DOWN = ("DROP SCHEMA watchlist CASCADE",)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
