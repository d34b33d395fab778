"""The keys by which films are found: kept with the films, and made for those that have none."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage import film_index
from storage.embedded import Services
from storage.film_index import RENEWAL_LOCK, FilmIndex
from storage.film_rows import film_row
from storage.film_search import FilmSearch
from storage.film_spellings import KEY_LENGTH, MAX_WHOLE, Kind, film_spellings, folded
from storage.movies import Movies
from storage.postgres import Postgres
from storage.schema import downgrade, migrate
from tests.databases import fresh_database
from tests.films import film


@pytest.fixture
async def empty_url(services: Services) -> AsyncIterator[str]:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        yield url


async def test_a_film_that_changed_is_found_by_what_it_is_now(empty_url: str) -> None:
    async with Postgres.open(empty_url) as postgres:
        movies, search = Movies(postgres), FilmSearch(postgres)
        await movies.store([film(1, "旧片名", "Before", 10), film(2, "旧片名", "Another", 20)])
        assert await search.find("旧片名", limit=20) == [2, 1]
        await movies.store([film(1, "旧片名", "After", 30)])
        assert await search.find("旧片名", limit=20) == [1, 2]
        assert await search.find("before", limit=20) == []
        assert await search.find("after", limit=20) == [1]


async def test_films_stored_before_there_were_keys_get_theirs(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_index, "RENEWED_AT_ONCE", 2)
    async with Postgres.open(empty_url) as postgres:
        await Movies(postgres).store([film(at, f"影片{at}", f"Film {at}", at) for at in range(1, 6)])
    await downgrade(empty_url, "0004")
    await migrate(empty_url)
    async with Postgres.open(empty_url) as postgres:
        search, index = FilmSearch(postgres), FilmIndex(postgres)
        assert await search.find("影片", limit=20) == []
        assert await index.renew_some() == 2
        assert len(await search.find("影片", limit=20)) == 2
        async with asyncio.timeout(20):
            await index.renew()
        assert await search.find("yingpian", limit=20) == [5, 4, 3, 2, 1]
        assert await index.renew_some() == 0


async def test_one_node_renews_while_others_wait(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_index, "RETRY_S", 0.01)
    async with Postgres.open(empty_url) as postgres:
        await Movies(postgres).store([film(1, "影片", "Film", 1)])
        await _forget_keys(postgres)
        index = FilmIndex(postgres)
        async with postgres.transaction() as other:
            await other.execute("SELECT pg_advisory_xact_lock($1)", RENEWAL_LOCK)
            assert await index.renew_some() is None
            waiting = asyncio.create_task(index.renew())
            assert await index.renew_some() is None
        async with asyncio.timeout(20):
            await asyncio.gather(waiting, index.renew())
        async with postgres.connection() as connection:
            kept = await connection.fetchval("SELECT count(*) FROM tmdb.film_spellings")
        assert kept == len(film_spellings(film_row(film(1, "影片", "Film", 1), "zh-CN")))


async def test_who_renews_goes_on_when_postgresql_is_back(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_index, "RETRY_S", 0.01)
    async with Postgres.open(empty_url) as postgres:
        await Movies(postgres).store([film(1, "影片", "Film", 1)])
        await _forget_keys(postgres)
        index = FilmIndex(postgres)
        once, failed = index.renew_some, asyncio.Event()

        async def away() -> int | None:
            if failed.is_set():
                return await once()
            failed.set()
            raise OperationError(STORAGE_UNAVAILABLE)

        monkeypatch.setattr(index, "renew_some", away)
        async with asyncio.timeout(20):
            await index.renew()
        assert failed.is_set()
        assert await FilmSearch(postgres).find("影片", limit=20) == [1]


async def test_films_of_the_same_people_are_stored_at_the_same_time(empty_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("storage.film_store.STORE_BATCH", 5)
    films = [film(at, f"片{at}", f"Film {at}", at, cast=["Ada Byron", "Max Born"]) for at in range(1, 61)]
    async with Postgres.open(empty_url) as postgres:
        async with asyncio.timeout(20):
            await asyncio.gather(*(Movies(postgres).store(films[at::3]) for at in range(3)))
        assert len(await FilmSearch(postgres).find("byron", limit=50)) == 50


async def _forget_keys(postgres: Postgres) -> None:
    async with postgres.connection() as connection:
        await connection.execute("UPDATE tmdb.movies SET spelling_rules = 0; DELETE FROM tmdb.film_spellings")


def test_keys_are_bounded() -> None:
    strange = film(1, "很长" * 300, "Word " * 300, 1, taiwan=[f"片名{at}" for at in range(50)])
    made = film_spellings(film_row(strange, "zh-CN"))
    assert max(len(spelling.key) for spelling in made if spelling.kind is not Kind.PIECE) <= KEY_LENGTH
    assert len([spelling for spelling in made if spelling.kind is Kind.WHOLE]) <= MAX_WHOLE
    assert len(made) < 300


def test_folding_keeps_a_part_a_part() -> None:
    whole = "乾隆皇帝與著名藝術家的後裏麵餘"
    for first in range(len(whole)):
        assert folded(whole[first:]) == folded(whole)[first:]
