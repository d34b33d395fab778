"""Migrations: which revision the database has, going up, going down, and who else does it at the same time."""

import asyncio
import importlib
import subprocess
import sys
from collections.abc import AsyncIterator
from types import ModuleType

import asyncpg
import pytest

from storage import schema
from storage.embedded import Services
from storage.schema import KNOWN_REVISIONS, MIGRATIONS, SchemaError, downgrade, migrate, revision
from tests.databases import fresh_database


@pytest.fixture
async def database_url(services: Services) -> AsyncIterator[str]:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        yield url


async def tables(database_url: str) -> set[str]:
    connection = await asyncpg.connect(database_url)
    try:
        records = await connection.fetch(
            "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
    finally:
        await connection.close()
    return {record["name"] for record in records}


async def execute(database_url: str, sql: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def revisions() -> list[ModuleType]:
    sys.path.insert(0, str(MIGRATIONS / "versions"))
    try:
        return [importlib.import_module(path.stem) for path in sorted(MIGRATIONS.glob("versions/[0-9]*.py"))]
    finally:
        sys.path.pop(0)


def test_a_revisions_file_begins_with_its_id_and_follows_the_one_before() -> None:
    modules = revisions()
    assert tuple(module.revision for module in modules) == KNOWN_REVISIONS
    assert [module.down_revision for module in modules] == [None, *KNOWN_REVISIONS[:-1]]


async def test_an_empty_database_is_brought_to_the_newest_revision(database_url: str) -> None:
    assert await revision(database_url) is None
    await migrate(database_url)
    assert await revision(database_url) == KNOWN_REVISIONS[-1]
    assert "tmdb.movies" in await tables(database_url)


async def test_every_revision_goes_down_and_up_again(database_url: str) -> None:
    await migrate(database_url)
    full = await tables(database_url)
    for older in [*reversed(KNOWN_REVISIONS[:-1]), None]:
        await downgrade(database_url, older)
        assert await revision(database_url) == older
    assert await tables(database_url) == {"public.alembic_version"}
    await migrate(database_url)
    assert await tables(database_url) == full


async def test_a_database_that_is_behind_keeps_what_it_has(database_url: str) -> None:
    await migrate(database_url)
    await downgrade(database_url, "0001")
    await execute(database_url, "CREATE TABLE tmdb.kept (id integer)")
    await migrate(database_url)
    assert await revision(database_url) == KNOWN_REVISIONS[-1]
    assert "tmdb.kept" in await tables(database_url)


async def fetch(database_url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(sql)
    finally:
        await connection.close()
    return rows


async def test_conversations_survive_getting_titles_and_losing_them(database_url: str) -> None:
    await migrate(database_url)
    await downgrade(database_url, "0007")
    await execute(
        database_url,
        """
        INSERT INTO chat.conversations (id, user_id, created_at) VALUES
            ('00000000-0000-0000-0000-000000000001', 'u', '2026-01-01Z'),
            ('00000000-0000-0000-0000-000000000002', 'u', '2026-01-02Z');
        INSERT INTO chat.messages (id, conversation_id, role, content, created_at, request_id, finish_reason) VALUES
            ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-000000000001', 'user', '问',
             '2026-01-03Z', 'r', NULL),
            ('00000000-0000-0000-0000-00000000000b', '00000000-0000-0000-0000-000000000001', 'assistant', '答',
             '2026-01-04Z', 'r', 'stop');
        INSERT INTO chat.runs (request_id, user_id, session_id, conversation_id, state, ended_at)
            VALUES ('r', 'u', 's', '00000000-0000-0000-0000-000000000001', 'done', now());
        """,
    )
    await migrate(database_url)
    rows = await fetch(database_url, "SELECT title, updated_at::date::text AS day FROM chat.conversations ORDER BY id")
    assert [tuple(row) for row in rows] == [(None, "2026-01-04"), (None, "2026-01-02")]
    await execute(
        database_url,
        """
        UPDATE chat.conversations SET title = '标题' WHERE id = '00000000-0000-0000-0000-000000000001';
        UPDATE chat.conversations SET deleted_at = now() WHERE id = '00000000-0000-0000-0000-000000000002';
        INSERT INTO chat.feedback (id, message_id, user_id, rating) VALUES
            ('00000000-0000-0000-0000-0000000000ff', '00000000-0000-0000-0000-00000000000b', 'u', 5);
        """,
    )
    await downgrade(database_url, "0007")
    rows = await fetch(database_url, "SELECT content FROM chat.messages ORDER BY position")
    assert [row["content"] for row in rows] == ["问", "答"]
    rows = await fetch(database_url, "SELECT conversation_id::text AS id FROM chat.runs")
    # What was deleted does not come back with the older version.
    left = await fetch(database_url, "SELECT id::text FROM chat.conversations")
    assert [row["id"] for row in rows] == [row["id"] for row in left] == ["00000000-0000-0000-0000-000000000001"]


async def test_who_has_conversations_is_known_and_no_guest_of_old_gets_a_secret_by_its_name(database_url: str) -> None:
    await migrate(database_url)
    await downgrade(database_url, "0009")
    await execute(
        database_url,
        """
        INSERT INTO chat.conversations (id, user_id, created_at, updated_at) VALUES
            ('00000000-0000-0000-0000-000000000001', 'guest_a', '2026-01-02Z', '2026-01-03Z'),
            ('00000000-0000-0000-0000-000000000002', 'guest_a', '2026-01-01Z', '2026-01-02Z'),
            ('00000000-0000-0000-0000-000000000003', 'guest_b', '2026-01-01Z', '2026-01-01Z'),
            ('00000000-0000-0000-0000-000000000004', 'wx_a', '2026-01-01Z', '2026-01-01Z');
        INSERT INTO chat.messages (id, conversation_id, role, content, request_id) VALUES
            ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-000000000002', 'user', '问', 'first'),
            ('00000000-0000-0000-0000-00000000000b', '00000000-0000-0000-0000-000000000001', 'user', '问', 'second'),
            ('00000000-0000-0000-0000-00000000000c', '00000000-0000-0000-0000-000000000004', 'user', '问', 'theirs');
        """,
    )
    await migrate(database_url)
    rows = await fetch(
        database_url,
        """
        SELECT id, kind, first_answer, created_at::date::text AS created, seen_at::date::text AS seen, openid
        FROM chat.users ORDER BY id
        """,
    )
    assert [tuple(row) for row in rows] == [
        ("guest_a", "guest", "first", "2026-01-01", "2026-01-03", None),
        ("guest_b", "guest", None, "2026-01-01", "2026-01-01", None),
        ("wx_a", "user", None, "2026-01-01", "2026-01-01", None),
    ]
    assert len({row["nonce"] for row in await fetch(database_url, "SELECT nonce FROM chat.users")}) == 3
    await downgrade(database_url, "0009")
    assert len(await fetch(database_url, "SELECT FROM chat.conversations")) == 4


async def test_a_database_that_is_ahead_is_refused_and_not_touched(database_url: str) -> None:
    await migrate(database_url)
    await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    before = await tables(database_url)
    for attempt in (migrate(database_url), downgrade(database_url, None)):
        with pytest.raises(SchemaError, match="9999"):
            await attempt
    assert await tables(database_url) == before


async def test_nodes_that_start_together_migrate_once(database_url: str) -> None:
    await asyncio.gather(*(migrate(database_url) for _ in range(4)))
    assert await revision(database_url) == KNOWN_REVISIONS[-1]


async def test_a_migration_that_fails_leaves_nothing_behind(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await execute(database_url, "CREATE SCHEMA chat")  # what 0002 makes is already there
    with pytest.raises(Exception, match="already exists"):
        await migrate(database_url)
    assert await revision(database_url) is None
    assert "tmdb.movies" not in await tables(database_url)


async def test_a_database_that_is_up_to_date_costs_no_import_of_alembic(database_url: str) -> None:
    await migrate(database_url)
    program = (
        "import asyncio, sys\n"
        "from storage.schema import migrate\n"
        "asyncio.run(migrate(sys.argv[1]))\n"
        "print(sorted(name for name in sys.modules if name in ('alembic', 'sqlalchemy')))\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, database_url],
        cwd=MIGRATIONS.parent.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "[]"


async def test_who_waits_too_long_for_another_node_gives_up(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MIGRATION_TIMEOUT_S", 2.0)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", schema.MIGRATION_LOCK)
        with pytest.raises(TimeoutError):
            await migrate(database_url)
    finally:
        await connection.close()
    assert await revision(database_url) is None
