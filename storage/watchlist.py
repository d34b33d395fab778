"""Watchlists in PostgreSQL: a user's films and their states, and what chats noted in them, to be undone.

Every method takes the user's id; not there and not theirs are one. Whatever changes a list holds the user's row of
`watchlist.lists`, so that changes are numbered in the order in which they are made. What films are is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from protocol.errors import CAPTURE_NOT_FOUND, WATCHLIST_FULL, OperationError
from protocol.watchlist import (
    MAX_ITEMS,
    CapturedFilm,
    CaptureUndone,
    RestoredFilm,
    WatchlistCaptured,
    WatchlistSource,
    WatchlistState,
)
from storage.postgres import Connection, Postgres, Record
from storage.users import hold_present_user


@dataclass(frozen=True, slots=True)
class WatchlistRow:
    """A film in a list. `change` is the number of its last change."""

    tmdb_id: int
    state: WatchlistState
    source: WatchlistSource
    change: int
    added_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody said of a film."""

    tmdb_id: int
    title: str
    state: WatchlistState


KEEP_CAPTURES = timedelta(days=30)
"""How long what a chat put in can be taken back in one step."""

_COLUMNS = "tmdb_id, state, source, change, added_at, changed_at"

_ADD = f"""
    INSERT INTO watchlist.items AS item (user_id, tmdb_id, state, source, change)
    SELECT $1, $2, $3, 'user', $4
    WHERE EXISTS (SELECT FROM watchlist.items WHERE user_id = $1 AND tmdb_id = $2)
       OR (SELECT count(*) FROM watchlist.items WHERE user_id = $1) < $5
    ON CONFLICT (user_id, tmdb_id) DO UPDATE SET
        state = excluded.state,
        source = 'user',
        change = CASE WHEN item.state = excluded.state THEN item.change ELSE excluded.change END,
        changed_at = CASE WHEN item.state = excluded.state THEN item.changed_at ELSE excluded.changed_at END
    RETURNING {_COLUMNS}
"""

_CAPTURE = """
    WITH wish AS (
        SELECT tmdb_id, title, state, place
        FROM unnest($3::integer[], $4::text[], $5::text[]) WITH ORDINALITY AS said (tmdb_id, title, state, place)
    ),
    news AS (
        SELECT wish.*, $6 + place AS change, item.state AS previous_state, item.source AS previous_source,
            item.change AS previous_change, item.changed_at AS previous_changed_at,
            count(*) FILTER (WHERE item.tmdb_id IS NULL) OVER (ORDER BY place) AS nth_new
        FROM wish LEFT JOIN watchlist.items AS item ON item.user_id = $2 AND item.tmdb_id = wish.tmdb_id
        WHERE item.state IS DISTINCT FROM wish.state
    ),
    fitting AS (
        SELECT * FROM news
        WHERE previous_state IS NOT NULL
           OR nth_new <= $7 - (SELECT count(*) FROM watchlist.items WHERE user_id = $2)
    ),
    written AS (
        INSERT INTO watchlist.items (user_id, tmdb_id, state, source, change)
        SELECT $2, tmdb_id, state, 'chat', change FROM fitting
        ON CONFLICT (user_id, tmdb_id) DO UPDATE SET
            state = excluded.state, source = 'chat', change = excluded.change, changed_at = excluded.changed_at
    )
    INSERT INTO watchlist.captured (
        capture_id, tmdb_id, title, state, change,
        previous_state, previous_source, previous_change, previous_changed_at
    )
    SELECT $1, tmdb_id, title, state, change, previous_state, previous_source, previous_change, previous_changed_at
    FROM fitting
"""

# A film of which nothing was said since has still the change of the capture, and is still the chat's.
_UNDO = """
    WITH undone AS (
        UPDATE watchlist.captures SET undone_at = now()
        WHERE id = $1 AND user_id = $2 AND undone_at IS NULL RETURNING id
    ),
    untouched AS (
        SELECT captured.* FROM undone
        JOIN watchlist.captured ON captured.capture_id = undone.id
        JOIN watchlist.items AS item ON item.user_id = $2 AND item.tmdb_id = captured.tmdb_id
            AND item.change = captured.change AND item.source = 'chat'
    ),
    removed AS (
        DELETE FROM watchlist.items AS item USING untouched
        WHERE item.user_id = $2 AND item.tmdb_id = untouched.tmdb_id AND previous_state IS NULL
    ),
    restored AS (
        UPDATE watchlist.items AS item
        SET state = previous_state, source = previous_source, change = previous_change,
            changed_at = previous_changed_at
        FROM untouched
        WHERE item.user_id = $2 AND item.tmdb_id = untouched.tmdb_id AND previous_state IS NOT NULL
    )
    UPDATE watchlist.captured AS film
    SET kept = NOT EXISTS (SELECT FROM untouched WHERE untouched.tmdb_id = film.tmdb_id)
    WHERE capture_id IN (SELECT id FROM undone)
"""


class Watchlist:
    """Every method raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def page(
        self, *, user_id: str, state: WatchlistState | None, limit: int, before: int | None
    ) -> tuple[list[WatchlistRow], bool]:
        """The newest `limit` changes, or those before the change `before`, newest first; and whether more are older."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                f"""
                SELECT {_COLUMNS} FROM watchlist.items
                WHERE user_id = $1 AND ($2::text IS NULL OR state = $2) AND ($3::bigint IS NULL OR change < $3)
                ORDER BY change DESC LIMIT $4
                """,
                user_id,
                state,
                before,
                limit + 1,
            )
        return [WatchlistRow(**row) for row in rows[:limit]], len(rows) > limit

    async def add(self, *, user_id: str, tmdb_id: int, state: WatchlistState) -> WatchlistRow:
        """Put a film into the list or change its state, as the user's own word.

        Raises WATCHLIST_FULL, and LOGIN_REQUIRED after the account was deleted.
        """
        async with self._postgres.transaction() as connection:
            await hold_present_user(connection, user_id)
            change = await _next_changes(connection, user_id, 1)
            row = await connection.fetchrow(_ADD, user_id, tmdb_id, state, change, MAX_ITEMS)
            if row is None:
                raise OperationError(WATCHLIST_FULL)
        return WatchlistRow(**row)

    async def remove(self, *, user_id: str, tmdb_id: int) -> bool:
        """Take a film out of the list; whether it was there."""
        async with self._postgres.connection() as connection:
            removed = await connection.fetchval(
                """
                WITH mine AS (SELECT user_id FROM watchlist.lists WHERE user_id = $1 FOR UPDATE)
                DELETE FROM watchlist.items AS item USING mine
                WHERE item.user_id = mine.user_id AND item.tmdb_id = $2 RETURNING true
                """,
                user_id,
                tmdb_id,
            )
        return bool(removed)

    async def capture(self, *, user_id: str, request_id: str, wishes: Sequence[Wish]) -> WatchlistCaptured:
        """Note what a chat said of films, each film once: all of it or nothing, and once for a request.

        Repeated, it gives what was noted the first time. What the list says already is left out, and so are new films
        beyond MAX_ITEMS. Raises LOGIN_REQUIRED after the account was deleted.
        """
        async with self._postgres.transaction() as connection:
            await hold_present_user(connection, user_id)
            first_change = await _next_changes(connection, user_id, len(wishes))
            capture_id = await connection.fetchval(
                """
                INSERT INTO watchlist.captures (id, user_id, request_id) VALUES ($1, $2, $3)
                ON CONFLICT (user_id, request_id) DO NOTHING RETURNING id
                """,
                uuid4(),
                user_id,
                request_id,
            )
            if capture_id is not None:
                await connection.execute(
                    _CAPTURE,
                    capture_id,
                    user_id,
                    [wish.tmdb_id for wish in wishes],
                    [wish.title for wish in wishes],
                    [wish.state for wish in wishes],
                    first_change - 1,
                    MAX_ITEMS,
                )
            rows = await connection.fetch(
                """
                SELECT captures.id, captured.tmdb_id, title, state, previous_state
                FROM watchlist.captures LEFT JOIN watchlist.captured ON capture_id = captures.id
                WHERE user_id = $1 AND request_id = $2 ORDER BY change
                """,
                user_id,
                request_id,
            )
        return WatchlistCaptured(capture_id=rows[0]["id"], items=[_film(row) for row in rows if row["tmdb_id"]])

    async def forget_captures(self) -> int:
        """Forget captures that nobody takes back any more, and what they had put in stays; returns how many."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(
                "DELETE FROM watchlist.captures WHERE captured_at < now() - $1::interval RETURNING id", KEEP_CAPTURES
            )
        return len(records)

    async def undo(self, *, user_id: str, capture_id: UUID) -> CaptureUndone:
        """Put the films of a capture back to what they were before, save those of which something was said since.

        Raises CAPTURE_NOT_FOUND, for somebody else's too. Repeated, it changes nothing and gives the same.
        """
        async with self._postgres.transaction() as connection:
            await connection.execute("SELECT FROM watchlist.lists WHERE user_id = $1 FOR UPDATE", user_id)
            await connection.execute(_UNDO, capture_id, user_id)
            rows = await connection.fetch(
                """
                SELECT tmdb_id, previous_state, kept
                FROM watchlist.captures LEFT JOIN watchlist.captured ON capture_id = captures.id
                WHERE captures.id = $1 AND user_id = $2 ORDER BY change
                """,
                capture_id,
                user_id,
            )
        if not rows:
            raise OperationError(CAPTURE_NOT_FOUND)
        return CaptureUndone(
            capture_id=capture_id,
            restored=[
                RestoredFilm(tmdb_id=row["tmdb_id"], state=row["previous_state"])
                for row in rows
                if row["kept"] is False
            ],
            kept=[row["tmdb_id"] for row in rows if row["kept"]],
        )


async def move_list(connection: Connection, *, giver: str, taker: str) -> int:
    """Put one list into another, where every film stays that is there already: how many came. Raises WATCHLIST_FULL.

    The giver's changes are numbered above all of the taker's, so that an undo still finds what it had put in, and
    nothing else. The giver has no list then.
    """
    given = await connection.fetchval("SELECT changes FROM watchlist.lists WHERE user_id = $1 FOR UPDATE", giver)
    if given is None:
        return 0
    above = await _next_changes(connection, taker, given) - 1
    moved = await connection.fetch(
        """
        UPDATE watchlist.items AS item SET user_id = $2, change = change + $3
        WHERE user_id = $1 AND NOT EXISTS (
            SELECT FROM watchlist.items AS own WHERE own.user_id = $2 AND own.tmdb_id = item.tmdb_id
        )
        RETURNING true
        """,
        giver,
        taker,
        above,
    )
    count = await connection.fetchval("SELECT count(*) FROM watchlist.items WHERE user_id = $1", taker)
    if moved and count > MAX_ITEMS:
        raise OperationError(WATCHLIST_FULL)
    await connection.execute(
        """
        UPDATE watchlist.captured SET change = change + $2, previous_change = previous_change + $2
        WHERE capture_id IN (SELECT id FROM watchlist.captures WHERE user_id = $1)
        """,
        giver,
        above,
    )
    await connection.execute("UPDATE watchlist.captures SET user_id = $2 WHERE user_id = $1", giver, taker)
    await connection.execute("DELETE FROM watchlist.lists WHERE user_id = $1", giver)
    return len(moved)


async def _next_changes(connection: Connection, user_id: str, count: int) -> int:
    """Hold the user's list until the transaction ends; the first of `count` numbers for changes to it."""
    last: int = await connection.fetchval(
        """
        INSERT INTO watchlist.lists AS mine (user_id, changes) VALUES ($1, $2)
        ON CONFLICT (user_id) DO UPDATE SET changes = mine.changes + $2
        RETURNING changes
        """,
        user_id,
        count,
    )
    return last - count + 1


def _film(row: Record) -> CapturedFilm:
    return CapturedFilm(
        tmdb_id=row["tmdb_id"], title=row["title"], state=row["state"], previous_state=row["previous_state"]
    )
