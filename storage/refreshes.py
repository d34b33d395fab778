"""At which times the catalogue is refreshed, and by which node: a row for each time, which one node of all claims.

A claim is a lease: whoever holds it renews it, and who takes it up after its end has it alone. What a refresh does is
wsserver/refresh.py's.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from storage.postgres import Postgres, Record

TAKES = 3
"""A refresh that cost two nodes their life before is tried once more, and then not before its next time."""

KEEP = timedelta(days=90)
"""How long it is known what a refresh did."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A time at which this node refreshes. What was fetched since `started_at` was fetched for it."""

    at: datetime
    started_at: datetime
    takes: int


class Refreshes:
    """The times and their claims. Every method may raise STORAGE_UNAVAILABLE."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def claim(self, at: datetime, node: str, lease: timedelta) -> Slot | None:
        """The slot of this time if it is this node's; None when another has or had it, or still works at an older one.

        Ask `close_lost` before.
        """
        async with self._postgres.connection() as connection:
            return _slot(
                await connection.fetchrow(
                    """
                    INSERT INTO tmdb.refreshes (slot, node, leased_until) VALUES ($1, $2, now() + $3::interval)
                    ON CONFLICT DO NOTHING RETURNING slot, started_at, takes
                    """,
                    at,
                    node,
                    lease,
                )
            )

    async def take_up(self, node: str, lease: timedelta) -> Slot | None:
        """The slot whose node is gone, if there is one, for this node."""
        async with self._postgres.connection() as connection:
            return _slot(
                await connection.fetchrow(
                    """
                    UPDATE tmdb.refreshes SET node = $1, leased_until = now() + $2::interval, takes = takes + 1
                    WHERE ended_at IS NULL AND leased_until < now() AND takes < $3
                    RETURNING slot, started_at, takes
                    """,
                    node,
                    lease,
                    TAKES,
                )
            )

    async def close_lost(self) -> None:
        """Give up the slot that cost too many nodes their life, so that the next one can be claimed."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                "UPDATE tmdb.refreshes SET ended_at = now()"
                " WHERE ended_at IS NULL AND leased_until < now() AND takes >= $1",
                TAKES,
            )

    async def renew(self, slot: Slot, node: str, lease: timedelta) -> bool:
        """Whether the slot is still this node's; then it is for another lease."""
        async with self._postgres.connection() as connection:
            held = await connection.fetchval(
                """
                UPDATE tmdb.refreshes SET leased_until = now() + $3::interval
                WHERE slot = $1 AND node = $2 AND ended_at IS NULL RETURNING true
                """,
                slot.at,
                node,
                lease,
            )
        return held is not None

    async def release(self, slot: Slot, node: str) -> None:
        """Let another node take the slot up at once. A stop in good order does not count as a death."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                """
                UPDATE tmdb.refreshes SET leased_until = now(), takes = takes - 1
                WHERE slot = $1 AND node = $2 AND ended_at IS NULL
                """,
                slot.at,
                node,
            )

    async def end(self, slot: Slot, node: str, summary: dict[str, Any]) -> None:
        """The slot is done."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                """
                UPDATE tmdb.refreshes SET ended_at = now(), summary = $3
                WHERE slot = $1 AND node = $2 AND ended_at IS NULL
                """,
                slot.at,
                node,
                summary,
            )

    async def forget_old(self) -> None:
        """Drop the rows of long ago."""
        async with self._postgres.connection() as connection:
            await connection.execute("DELETE FROM tmdb.refreshes WHERE slot < now() - $1::interval", KEEP)


def _slot(record: Record | None) -> Slot | None:
    return Slot(record["slot"], record["started_at"], record["takes"]) if record else None
