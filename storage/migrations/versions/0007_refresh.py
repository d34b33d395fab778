"""What seeding has fetched, so that it can go on after a cut, and at which times which node refreshed the catalogue."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UP = (
    # A row without `ended_at` is a seeding that is at work or was cut off.
    """
    CREATE TABLE tmdb.seedings (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        language text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz
    )
    """,
    # What TMDB was last asked about and gave an answer to, also "not found"; tmdb.movies has the date of a film only to
    # the day. Rows are of use for a few days.
    """
    CREATE TABLE tmdb.seeded_films (
        tmdb_id integer NOT NULL,
        language text NOT NULL,
        fetched_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tmdb_id, language)
    )
    """,
    "CREATE INDEX seeded_films_by_age ON tmdb.seeded_films (fetched_at)",
    """
    CREATE TABLE tmdb.refreshes (
        slot timestamptz PRIMARY KEY,
        node text NOT NULL,
        takes integer NOT NULL DEFAULT 1,
        started_at timestamptz NOT NULL DEFAULT now(),
        leased_until timestamptz NOT NULL,
        ended_at timestamptz,
        summary jsonb
    )
    """,
    # At most one is in the making, whatever the nodes' clocks say.
    "CREATE UNIQUE INDEX refreshes_one_at_a_time ON tmdb.refreshes ((true)) WHERE ended_at IS NULL",
)

DOWN = ("DROP TABLE tmdb.refreshes, tmdb.seeded_films, tmdb.seedings",)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
