"""What films are found by when somebody types."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UP = (
    # Which rules the keys of a film were made by; films of older ones get theirs anew from a running server, because
    # pinyin is made in Python.
    "ALTER TABLE tmdb.movies ADD COLUMN spelling_rules smallint NOT NULL DEFAULT 0",
    "CREATE INDEX movies_by_spelling_rules ON tmdb.movies (spelling_rules, tmdb_id)",
    # Keys of storage/film_spellings.py: `kind` is its Kind, `whole` what a piece is of. What films are put in order by
    # stands beside each key, so that the index alone says which of many come first.
    """
    CREATE TABLE tmdb.film_spellings (
        tmdb_id integer NOT NULL REFERENCES tmdb.movies (tmdb_id) ON DELETE CASCADE,
        kind smallint NOT NULL,
        key text COLLATE "C" NOT NULL,
        whole text COLLATE "C",
        year smallint,
        votes integer NOT NULL,
        popularity real NOT NULL
    )
    """,
    """
    CREATE INDEX film_spellings_by_key ON tmdb.film_spellings (kind, key)
        INCLUDE (tmdb_id, whole, year, votes, popularity)
    """,
    "CREATE INDEX film_spellings_of_film ON tmdb.film_spellings (tmdb_id)",
    # Who is in the credits under `name_key`; `votes` are those of the best film that brought the row.
    """
    CREATE TABLE tmdb.people_spellings (
        kind smallint NOT NULL,
        key text COLLATE "C" NOT NULL,
        name_key text COLLATE "C" NOT NULL,
        votes integer NOT NULL
    )
    """,
    "CREATE INDEX people_spellings_by_key ON tmdb.people_spellings (kind, key, name_key) INCLUDE (votes)",
)

DOWN = (
    "DROP TABLE tmdb.people_spellings",
    "DROP TABLE tmdb.film_spellings",
    "ALTER TABLE tmdb.movies DROP COLUMN spelling_rules",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
