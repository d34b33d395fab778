"""Storing what TMDB says, whatever it is about: what is new, what changed, what is as it was, and what gets too old.

A table of an entity has the columns `tmdb_id, raw, raw_hash, language, source, added_at, changed_at, fetched_at` and
columns of its own that are made from `raw`. What the graph has to know is written down in the same transaction
(storage/graph_outbox.py). What an answer means is the business of the entity's own file.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from storage.graph_outbox import EntityType, enqueue
from storage.postgres import Connection, Postgres

KEEP_DAYS = 180
"""TMDB's terms: nothing is kept for longer than six months without being fetched again."""

STORE_BATCH = 200
"""Entities per statement: about 4 MB of TMDB's JSON."""

DROP_BATCH = 1_000
"""Entities that are dropped in one transaction, with their relations: a second's work."""

RENEW_AFTER = timedelta(days=1)
"""An answer that says the same is written only to renew its date, and for that not more often."""

Source = Literal["tmdb", "demo"]
Row = Mapping[str, Any]

_TABLES: dict[EntityType, str] = {"movie": "tmdb.movies", "person": "tmdb.people", "tv": "tmdb.tv_shows"}


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of the answers, each entity counted once: `unchanged` ones may have got a new date.

    `new_ids` and `changed_ids` are in order.
    """

    new_ids: tuple[int, ...] = ()
    changed_ids: tuple[int, ...] = ()
    unchanged: int = 0
    refreshed: int = 0
    """Of the unchanged those whose date was renewed."""

    @classmethod
    def sum(cls, batches: Iterable["Stored"]) -> "Stored":
        """All batches of one call, which are in order of the ids."""
        batches = list(batches)
        return cls(
            tuple(tmdb_id for batch in batches for tmdb_id in batch.new_ids),
            tuple(tmdb_id for batch in batches for tmdb_id in batch.changed_ids),
            sum(batch.unchanged for batch in batches),
            sum(batch.refreshed for batch in batches),
        )

    @property
    def new(self) -> int:
        return len(self.new_ids)

    @property
    def changed(self) -> int:
        return len(self.changed_ids)

    @property
    def written(self) -> int:
        """New or changed."""
        return self.new + self.changed


def in_order(rows: Iterable[Row]) -> list[Row]:
    """The last row of each id, by id: who store the same entities wait for each other, and not in a circle."""
    return sorted({row["tmdb_id"]: row for row in rows}.values(), key=lambda row: int(row["tmdb_id"]))


async def unchanged_ids(connection: Connection, entity: EntityType, rows: Sequence[Row]) -> set[int]:
    """Those that are stored as they are and not for long: there is nothing to send."""
    records = await connection.fetch(
        f"""
        SELECT tmdb_id FROM unnest($1::integer[], $2::text[], $3::text[]) AS fetched (tmdb_id, raw_hash, language)
        JOIN {_TABLES[entity]} AS stored USING (tmdb_id, raw_hash, language)
        WHERE fetched_at >= now() - $4::interval
        """,
        *([row[column] for row in rows] for column in ("tmdb_id", "raw_hash", "language")),
        RENEW_AFTER,
    )
    return {record["tmdb_id"] for record in records}


async def store_batch(
    connection: Connection,
    entity: EntityType,
    columns: Mapping[str, str],
    rows: Sequence[Row],
    source: Source,
    *,
    once: Collection[str] = (),
) -> Stored:
    """Write rows, in order of their ids, where they say something new, and tell the graph of those that do.

    `columns` are names and types; those in `once` stay as they are in rows that exist. The demo catalogue never
    replaces what TMDB said.
    """
    known = await unchanged_ids(connection, entity, rows)
    sent = [row for row in rows if row["tmdb_id"] not in known]
    if not sent:
        return Stored(unchanged=len(rows))
    records = await connection.fetch(_upsert(_TABLES[entity], columns, once), sent, source, RENEW_AFTER)
    new = tuple(record["tmdb_id"] for record in records if record["is_new"])
    changed = tuple(record["tmdb_id"] for record in records if record["is_changed"] and not record["is_new"])
    await enqueue(connection, entity, (*new, *changed), "upsert")
    written = len(new) + len(changed)
    return Stored(new, changed, unchanged=len(rows) - written, refreshed=len(records) - written)


async def drop_older_than(postgres: Postgres, entity: EntityType, days: int) -> int:
    """Drop what TMDB said longer ago, and tell the graph; returns how many. Who is being stored just now stays."""
    dropped = 0
    while True:
        async with postgres.transaction() as connection:
            records = await connection.fetch(
                f"""
                WITH old AS (
                    SELECT tmdb_id FROM {_TABLES[entity]}
                    WHERE source = 'tmdb' AND fetched_at < now() - make_interval(days => $1)
                    ORDER BY tmdb_id LIMIT $2 FOR UPDATE SKIP LOCKED
                )
                DELETE FROM {_TABLES[entity]} WHERE tmdb_id IN (SELECT tmdb_id FROM old) RETURNING tmdb_id
                """,
                days,
                DROP_BATCH,
            )
            await enqueue(connection, entity, [record["tmdb_id"] for record in records], "delete")
        dropped += len(records)
        if len(records) < DROP_BATCH:
            return dropped


def _upsert(table: str, columns: Mapping[str, str], once: Collection[str]) -> str:
    # A row that was there has been locked, which leaves its mark in xmax; two transactions may begin in the same
    # microsecond, so that the row's date says nothing.
    typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "tmdb_id" and name not in once)
    return f"""
        INSERT INTO {table} AS stored ({", ".join(columns)}, source)
        SELECT {", ".join(columns)}, $2::text FROM jsonb_to_recordset($1::jsonb) AS fetched ({typed})
        ON CONFLICT (tmdb_id) DO UPDATE
        SET {changes}, source = excluded.source, fetched_at = now(),
            changed_at = CASE WHEN stored.raw_hash <> excluded.raw_hash THEN now() ELSE stored.changed_at END
        WHERE (excluded.source = 'tmdb' OR stored.source = 'demo') AND (
            stored.raw_hash <> excluded.raw_hash
            OR stored.language <> excluded.language
            OR stored.fetched_at < now() - $3::interval
        )
        RETURNING tmdb_id, stored.xmax = 0 AS is_new, changed_at = now() AS is_changed
    """
