"""Films: TMDB's own answer, and beside it the columns that questions are asked of."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UP = (
    "CREATE SCHEMA tmdb",
    # `raw` is GET /3/movie/{id}?append_to_response=credits,translations as it came. All other columns are made from
    # it when it is stored, so that no list of films has to read it: it is by far the largest part of a row.
    # The *_keys are names folded by storage/film_names.py; each key of a person stands where its name stands.
    """
    CREATE TABLE tmdb.movies (
        tmdb_id integer PRIMARY KEY,
        title text NOT NULL,
        title_en text NOT NULL,
        original_title text NOT NULL,
        original_language text NOT NULL,
        release_date date,
        runtime integer CHECK (runtime > 0),
        overview text NOT NULL,
        overview_en text NOT NULL,
        popularity double precision NOT NULL,
        vote_average double precision NOT NULL,
        vote_count integer NOT NULL,
        genre_ids integer[] NOT NULL,
        genres text[] NOT NULL,
        directors text[] NOT NULL,
        director_keys text[] NOT NULL,
        cast_names text[] NOT NULL,
        cast_keys text[] NOT NULL,
        title_keys text[] NOT NULL,
        part_keys text[] NOT NULL,
        poster_path text,
        backdrop_path text,
        raw jsonb NOT NULL,
        raw_hash text NOT NULL,
        language text NOT NULL,
        fetched_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX movies_by_popularity ON tmdb.movies (popularity DESC, tmdb_id)",
    "CREATE INDEX movies_by_release ON tmdb.movies (release_date DESC, tmdb_id)",
    "CREATE INDEX movies_by_rating ON tmdb.movies (vote_average DESC, tmdb_id)",
    "CREATE INDEX movies_of_genres ON tmdb.movies USING gin (genre_ids)",
    "CREATE INDEX movies_of_directors ON tmdb.movies USING gin (director_keys)",
    "CREATE INDEX movies_of_cast ON tmdb.movies USING gin (cast_keys)",
    "CREATE INDEX movies_of_title ON tmdb.movies USING gin (title_keys)",
    "CREATE INDEX movies_of_title_part ON tmdb.movies USING gin (part_keys)",
)

DOWN = ("DROP SCHEMA tmdb CASCADE",)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
