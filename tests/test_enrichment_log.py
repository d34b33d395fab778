"""The log of what was fetched for questions."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from storage.embedded import Services
from storage.enrichment import KEEP, Considered, Enrichment, EnrichmentLog
from storage.postgres import Postgres, Record
from storage.schema import migrate
from tests.databases import fresh_database

ASKED = Enrichment(
    request_id="run-1",
    user_id="user-1",
    query="流浪地球2的导演是谁",
    route="search_multi",
    outcome="stored",
    duration_ms=412,
    candidates=[{"id": 842675, "media_type": "movie"}, {"id": 5, "media_type": "person"}],
    chosen=[{"id": 842675}],
    entities=(Considered("movie", 842675, True, 0.93), Considered("person", 5, False)),
)


@pytest.fixture
async def postgres(services: Services) -> AsyncIterator[Postgres]:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        async with Postgres.open(url) as opened:
            yield opened


async def fetch(postgres: Postgres, sql: str, *parameters: object) -> list[Record]:
    async with postgres.connection() as connection:
        return list(await connection.fetch(sql, *parameters))


async def test_a_request_is_logged_with_all_that_it_considered(postgres: Postgres) -> None:
    await EnrichmentLog(postgres).write(ASKED)
    (request,) = await fetch(postgres, "SELECT * FROM tmdb.enrichment_requests")
    for column in ("request_id", "user_id", "query", "route", "outcome", "duration_ms", "candidates", "chosen"):
        assert request[column] == getattr(ASKED, column)
    sql = "SELECT entity_type, tmdb_id, selected, score FROM tmdb.enrichment_request_entities ORDER BY entity_type"
    assert [tuple(record) for record in await fetch(postgres, sql)] == [
        ("movie", 842675, True, 0.93),
        ("person", 5, False, None),
    ]


async def test_a_run_that_began_anew_replaces_what_it_logged(postgres: Postgres) -> None:
    log = EnrichmentLog(postgres)
    await log.write(ASKED)
    await log.write(replace(ASKED, outcome="timeout", candidates=[], chosen=[], entities=()))
    (request,) = await fetch(postgres, "SELECT outcome, candidates FROM tmdb.enrichment_requests")
    assert (request["outcome"], request["candidates"]) == ("timeout", [])
    assert await fetch(postgres, "SELECT FROM tmdb.enrichment_request_entities") == []


async def test_what_is_older_than_thirty_days_is_forgotten_with_its_entities(postgres: Postgres) -> None:
    log = EnrichmentLog(postgres)
    await log.write(ASKED)
    await log.write(replace(ASKED, request_id="run-2"))
    assert KEEP.days == 30
    sql = "UPDATE tmdb.enrichment_requests SET created_at = created_at - $1::interval WHERE request_id = 'run-1'"
    await fetch(postgres, sql, KEEP)
    assert await log.purge() == 1
    for table in ("enrichment_requests", "enrichment_request_entities"):
        records = await fetch(postgres, f"SELECT DISTINCT request_id FROM tmdb.{table}")
        assert [record["request_id"] for record in records] == ["run-2"]


def test_neither_who_asked_nor_what_is_in_a_printed_request() -> None:
    assert "user-1" not in repr(ASKED)
    assert "流浪" not in repr(ASKED)
