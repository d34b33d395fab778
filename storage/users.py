"""Who logs in, in PostgreSQL: what WeChat calls them, and when they were last here. Sessions are `accounts.py`'s.

Rows of people who begin otherwise are made in the statements that store their first conversation.
"""

from storage.postgres import Postgres


class Users:
    """Every method raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def logged_in(self, *, user_id: str, openid: str, unionid: str | None) -> None:
        """Keep who it was and that it was now. A unionid that WeChat leaves out stays as it was."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                """
                INSERT INTO chat.users AS known (id, openid, unionid) VALUES ($1, $2, $3)
                ON CONFLICT (id) DO UPDATE SET
                    openid = excluded.openid, unionid = coalesce(excluded.unionid, known.unionid), seen_at = now()
                """,
                user_id,
                openid,
                unionid,
            )
