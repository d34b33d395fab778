"""TMDB's other entities, relations, lists, and what has to reach the graph."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Films, people and shows keep the same about their storing. `added_at` and `changed_at` are the start of the
# transaction that stored the first and the present `raw`; `fetched_at` also moves when the same came again.
_KEPT = """
        raw jsonb NOT NULL,
        raw_hash text NOT NULL,
        language text NOT NULL,
        source text NOT NULL DEFAULT 'tmdb' CHECK (source IN ('tmdb', 'demo')),
        added_at timestamptz NOT NULL DEFAULT now(),
        changed_at timestamptz NOT NULL DEFAULT now(),
        fetched_at timestamptz NOT NULL DEFAULT now()
"""

_FILMS_KNOW_THEIR_SOURCE = (
    """
    ALTER TABLE tmdb.movies
        ADD COLUMN source text NOT NULL DEFAULT 'tmdb' CHECK (source IN ('tmdb', 'demo')),
        ADD COLUMN added_at timestamptz NOT NULL DEFAULT now(),
        ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()
    """,
    # TMDB gives everybody in the credits an id, the demo catalogue nobody.
    """
    UPDATE tmdb.movies SET
        added_at = fetched_at,
        changed_at = fetched_at,
        source = CASE
            WHEN jsonb_path_exists(raw, '$.credits.*[*]') AND NOT jsonb_path_exists(raw, '$.credits.*[*].id')
            THEN 'demo' ELSE 'tmdb'
        END
    """,
    "CREATE INDEX movies_by_age ON tmdb.movies (fetched_at) WHERE source = 'tmdb'",
)

_RELATIONS = (
    # Everybody of `raw.credits`, once for each part and each job. `position` is the billing, or the crew's order.
    # The demo catalogue's people have neither a person_id nor a credit_id.
    """
    CREATE TABLE tmdb.movie_credits (
        movie_id integer NOT NULL REFERENCES tmdb.movies (tmdb_id) ON DELETE CASCADE,
        role text NOT NULL CHECK (role IN ('cast', 'crew')),
        position integer NOT NULL,
        person_id integer,
        name text NOT NULL,
        name_key text NOT NULL,
        department text,
        job text,
        "character" text,
        credit_id text,
        PRIMARY KEY (movie_id, role, position)
    )
    """,
    # `popularity` is the film's, here too so that an index has a genre's films in its order.
    """
    CREATE TABLE tmdb.movie_genres (
        movie_id integer NOT NULL REFERENCES tmdb.movies (tmdb_id) ON DELETE CASCADE,
        genre_id integer NOT NULL,
        popularity double precision NOT NULL,
        PRIMARY KEY (movie_id, genre_id)
    )
    """,
)

# storage/film_names.py in SQL, for the names that no array of 0001 has a key of. Every word is between two blanks.
_FOLDED = r"""
    CREATE FUNCTION pg_temp.name_key(name text) RETURNS text LANGUAGE sql AS $$
        SELECT replace(replace(replace(replace(replace(replace(replace(
            ' ' || regexp_replace(
                words, '[\s!-/:-@\[-`{-~\u00a0-\u00bf\u2000-\u206f\u3000-\u303f]+', '  ', 'g'
            ) || ' ',
            ' ii ', '2'), ' iii ', '3'), ' iv ', '4'), ' vi ', '6'), ' vii ', '7'), ' viii ', '8'), ' ', '')
        FROM (
            SELECT replace(replace(lower(regexp_replace(
                normalize(translate(name, '''’‘`´', ''), NFKD), '[\u0300-\u036f\u3099\u309a]', '', 'g'
            )), '&', ' and '), 'ß', 'ss') AS words
        ) AS folded
    $$
"""

_RELATIONS_OF_FILMS = (
    _FOLDED,
    """
    WITH listed AS (
        SELECT tmdb_id, 'cast' AS role, person,
            row_number() OVER (
                PARTITION BY tmdb_id ORDER BY
                    CASE WHEN jsonb_typeof(person->'order') = 'number' THEN (person->>'order')::numeric ELSE 40 END, at
            ) - 1 AS position
        FROM tmdb.movies, jsonb_path_query_array(raw, 'lax $.credits.cast[*]') AS people,
            jsonb_array_elements(people) WITH ORDINALITY AS listed (person, at)
        WHERE btrim(person->>'name') <> ''
        UNION ALL
        SELECT tmdb_id, 'crew', person, row_number() OVER (PARTITION BY tmdb_id ORDER BY at) - 1
        FROM tmdb.movies, jsonb_path_query_array(raw, 'lax $.credits.crew[*]') AS people,
            jsonb_array_elements(people) WITH ORDINALITY AS listed (person, at)
        WHERE btrim(person->>'name') <> ''
    ),
    known AS (
        SELECT name, min(name_key) AS name_key FROM (
            SELECT unnest(directors) AS name, unnest(director_keys) AS name_key FROM tmdb.movies
            UNION ALL
            SELECT unnest(cast_names), unnest(cast_keys) FROM tmdb.movies
        ) AS keyed GROUP BY name
    )
    INSERT INTO tmdb.movie_credits
    SELECT tmdb_id, role, position, (person->>'id')::integer, btrim(person->>'name'),
        coalesce(name_key, pg_temp.name_key(btrim(person->>'name'))), nullif(btrim(person->>'department'), ''),
        nullif(btrim(person->>'job'), ''), nullif(btrim(person->>'character'), ''), person->>'credit_id'
    FROM listed LEFT JOIN known ON name = btrim(person->>'name')
    """,
    "INSERT INTO tmdb.movie_genres SELECT DISTINCT tmdb_id, unnest(genre_ids), popularity FROM tmdb.movies",
    "DROP FUNCTION pg_temp.name_key(text)",
    # Who was billed later than fortieth passes by: a film is not found by them.
    """
    CREATE INDEX movie_credits_of_cast ON tmdb.movie_credits (name_key, movie_id)
        WHERE role = 'cast' AND position < 40
    """,
    "CREATE INDEX movie_credits_of_crew ON tmdb.movie_credits (name_key, job, movie_id) WHERE role = 'crew'",
    "CREATE INDEX movie_credits_of_person ON tmdb.movie_credits (person_id, movie_id) WHERE person_id IS NOT NULL",
    "CREATE INDEX movie_genres_by_popularity ON tmdb.movie_genres (genre_id, popularity DESC, movie_id)",
    "ALTER TABLE tmdb.movies DROP COLUMN director_keys, DROP COLUMN cast_keys",
)

_ENTITIES = (
    # `raw` is GET /3/person/{id}. The name_keys are all names, folded by storage/film_names.py.
    f"""
    CREATE TABLE tmdb.people (
        tmdb_id integer PRIMARY KEY,
        name text NOT NULL,
        also_known_as text[] NOT NULL,
        name_keys text[] NOT NULL,
        gender integer,
        known_for_department text NOT NULL,
        birthday date,
        deathday date,
        place_of_birth text NOT NULL,
        biography text NOT NULL,
        popularity double precision NOT NULL,
        profile_path text,
        imdb_id text,
{_KEPT}
    )
    """,
    "CREATE INDEX people_of_name ON tmdb.people USING gin (name_keys)",
    "CREATE INDEX people_by_age ON tmdb.people (fetched_at)",
    # `raw` is GET /3/tv/{id}.
    f"""
    CREATE TABLE tmdb.tv_shows (
        tmdb_id integer PRIMARY KEY,
        name text NOT NULL,
        name_en text NOT NULL,
        original_name text NOT NULL,
        original_language text NOT NULL,
        name_keys text[] NOT NULL,
        first_air_date date,
        last_air_date date,
        status text NOT NULL,
        seasons integer,
        episodes integer,
        overview text NOT NULL,
        popularity double precision NOT NULL,
        vote_average double precision NOT NULL,
        vote_count integer NOT NULL,
        genre_ids integer[] NOT NULL,
        genres text[] NOT NULL,
        poster_path text,
{_KEPT}
    )
    """,
    "CREATE INDEX tv_shows_of_name ON tmdb.tv_shows USING gin (name_keys)",
    "CREATE INDEX tv_shows_by_age ON tmdb.tv_shows (fetched_at)",
)

# Without a reference to the films: TMDB lists films before anybody fetched them.
_FEEDS = (
    """
    CREATE TABLE tmdb.feeds (
        feed text NOT NULL CHECK (feed IN ('popular', 'now_playing', 'upcoming')),
        position integer NOT NULL,
        tmdb_id integer NOT NULL,
        listed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (feed, position)
    )
    """,
)

_OUTBOX = (
    # Pending, then claimed (claimed_at), then done (done_at). `next_try` is when somebody may take the row: of a
    # pending one when it is due, of a claimed one when the lease is over. `attempts` counts the claims.
    """
    CREATE TABLE tmdb.neo4j_etl_outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        entity_type text NOT NULL CHECK (entity_type IN ('movie', 'person', 'tv')),
        tmdb_id integer NOT NULL,
        operation text NOT NULL CHECK (operation IN ('upsert', 'delete')),
        attempts integer NOT NULL DEFAULT 0,
        next_try timestamptz NOT NULL DEFAULT now(),
        claimed_at timestamptz,
        last_error text,
        created_at timestamptz NOT NULL DEFAULT now(),
        done_at timestamptz
    )
    """,
    """
    CREATE UNIQUE INDEX outbox_one_pending ON tmdb.neo4j_etl_outbox (entity_type, tmdb_id)
        WHERE claimed_at IS NULL AND done_at IS NULL
    """,
    "CREATE INDEX outbox_of_entity ON tmdb.neo4j_etl_outbox (entity_type, tmdb_id) WHERE done_at IS NULL",
    "CREATE INDEX outbox_due ON tmdb.neo4j_etl_outbox (next_try, id) WHERE done_at IS NULL",
    "CREATE INDEX outbox_done ON tmdb.neo4j_etl_outbox (done_at) WHERE done_at IS NOT NULL",
    # The films that are there have to reach the graph like those that come.
    """
    INSERT INTO tmdb.neo4j_etl_outbox (entity_type, tmdb_id, operation)
    SELECT 'movie', tmdb_id, 'upsert' FROM tmdb.movies ORDER BY tmdb_id
    """,
)

_ENRICHMENT = (
    """
    CREATE TABLE tmdb.enrichment_requests (
        request_id text PRIMARY KEY,
        user_id text NOT NULL,
        query text NOT NULL,
        route text NOT NULL,
        candidates jsonb NOT NULL,
        chosen jsonb NOT NULL,
        outcome text NOT NULL,
        duration_ms integer NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX enrichment_requests_by_age ON tmdb.enrichment_requests (created_at)",
    """
    CREATE TABLE tmdb.enrichment_request_entities (
        request_id text NOT NULL REFERENCES tmdb.enrichment_requests (request_id) ON DELETE CASCADE,
        entity_type text NOT NULL CHECK (entity_type IN ('movie', 'person', 'tv')),
        tmdb_id integer NOT NULL,
        selected boolean NOT NULL,
        score double precision,
        PRIMARY KEY (request_id, entity_type, tmdb_id)
    )
    """,
)

UP = (*_FILMS_KNOW_THEIR_SOURCE, *_RELATIONS, *_RELATIONS_OF_FILMS, *_ENTITIES, *_FEEDS, *_OUTBOX, *_ENRICHMENT)

_KEYS_IN_FILMS = (
    "ALTER TABLE tmdb.movies ADD COLUMN director_keys text[], ADD COLUMN cast_keys text[]",
    """
    UPDATE tmdb.movies SET
        director_keys = ARRAY(
            SELECT (SELECT name_key FROM tmdb.movie_credits WHERE movie_id = tmdb_id AND name = listed LIMIT 1)
            FROM unnest(directors) WITH ORDINALITY AS names (listed, at) ORDER BY at
        ),
        cast_keys = ARRAY(
            SELECT (SELECT name_key FROM tmdb.movie_credits WHERE movie_id = tmdb_id AND name = listed LIMIT 1)
            FROM unnest(cast_names) WITH ORDINALITY AS names (listed, at) ORDER BY at
        )
    """,
    "ALTER TABLE tmdb.movies ALTER COLUMN director_keys SET NOT NULL, ALTER COLUMN cast_keys SET NOT NULL",
    "CREATE INDEX movies_of_directors ON tmdb.movies USING gin (director_keys)",
    "CREATE INDEX movies_of_cast ON tmdb.movies USING gin (cast_keys)",
)

DOWN = (
    "DROP TABLE tmdb.enrichment_request_entities, tmdb.enrichment_requests, tmdb.neo4j_etl_outbox, tmdb.feeds",
    "DROP TABLE tmdb.people, tmdb.tv_shows",
    *_KEYS_IN_FILMS,
    "DROP TABLE tmdb.movie_credits, tmdb.movie_genres",
    "ALTER TABLE tmdb.movies DROP COLUMN source, DROP COLUMN added_at, DROP COLUMN changed_at",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
