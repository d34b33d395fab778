"""Finding films by what is typed, in the database and over both transports."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage import film_search
from storage.embedded import Services
from storage.film_search import FilmSearch
from storage.movies import Movies
from storage.postgres import Postgres
from storage.schema import migrate
from tests.clients import Transport
from tests.databases import fresh_database
from tests.films import (
    AMELIE,
    AVENGERS,
    CATALOGUE,
    CHONGQING,
    DUNE,
    DUNE_2,
    DUNE_1984,
    EARTH,
    EARTH_2,
    EARTH_STORM,
    HERO,
    INCEPTION,
    INTERSTELLAR,
    LONG,
    MATRIX,
    NOLAN_FILM,
    PARASITE,
    PERCENT,
    RELOADED,
    RUNNER,
    RUNNER_2049,
    TAIWANESE,
    TOTORO,
    WANDERER,
    YEAR_2012,
    film,
)


@pytest.fixture(scope="module")
async def stocked(services: Services) -> AsyncIterator[Postgres]:
    """A database with CATALOGUE."""
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        async with Postgres.open(url) as postgres:
            await Movies(postgres).store(CATALOGUE)
            yield postgres


@pytest.fixture
async def empty_url(services: Services) -> AsyncIterator[str]:
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        yield url


@pytest.fixture
def search(stocked: Postgres) -> FilmSearch:
    return FilmSearch(stocked)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("流浪地球", [EARTH, EARTH_2]),
        ("流浪", [WANDERER, EARTH, EARTH_2]),
        ("地球", [EARTH_STORM, EARTH, EARTH_2]),
        ("浪地", [EARTH, EARTH_2]),
        ("球", [EARTH_STORM, EARTH, EARTH_2]),
        ("沙丘", [DUNE, DUNE_1984, DUNE_2]),
        ("dune", [DUNE, DUNE_1984, DUNE_2]),
        ("Dune: Part Two", [DUNE_2]),
        ("The Matrix", [MATRIX, RELOADED]),
        ("matrix", [MATRIX, RELOADED]),
        ("matr", [MATRIX, RELOADED]),
        ("reloaded", [RELOADED]),
        ("relo", [RELOADED]),
        ("重装上阵", [RELOADED]),
        ("amelie", [AMELIE]),
        ("poulain", [AMELIE]),
        ("Le Fabuleux", [AMELIE]),
        ("기생충", [PARASITE]),
        ("となりのトトロ", [TOTORO]),
        ("トトロ", [TOTORO]),
    ],
)
async def test_titles_are_found_whole_or_by_a_part_the_closest_first(
    search: FilmSearch, query: str, first: list[int]
) -> None:
    assert (await search.find(query, limit=20))[: len(first)] == first


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ＭＡＴＲＩＸ", MATRIX),
        ("  the   MATRIX!! ", MATRIX),
        ("ﾄﾄﾛ", TOTORO),
        ("沙丘２", DUNE_2),
        ("駭客任務", MATRIX),
        ("骇客任务", MATRIX),
        ("流浪地球", EARTH),
        ("復仇者聯盟", AVENGERS),
        ("叶问", TAIWANESE),
        ("葉問", TAIWANESE),
        ("重慶森林", CHONGQING),
    ],
)
async def test_widths_and_scripts_of_one_title_are_one(search: FilmSearch, query: str, expected: int) -> None:
    assert (await search.find(query, limit=1)) == [expected]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("liulangdiqiu", [EARTH, EARTH_2]),
        ("liu lang di qiu", [EARTH, EARTH_2]),
        ("lldq", [EARTH, EARTH_2]),
        ("LLDQ2", [EARTH_2]),
        ("liulangd", [EARTH, EARTH_2]),
        ("diqiu", [EARTH_STORM, EARTH, EARTH_2]),
        ("chongqing", [CHONGQING]),
        ("cqsl", [CHONGQING]),
        ("xingjichuanyue", [INTERSTELLAR]),
        ("yewen", [TAIWANESE]),
    ],
)
async def test_chinese_titles_are_found_in_pinyin_and_by_initials(
    search: FilmSearch, query: str, first: list[int]
) -> None:
    assert (await search.find(query, limit=20))[: len(first)] == first


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Intersteller", INTERSTELLAR),  # wrong
        ("Intestellar", INTERSTELLAR),  # missing
        ("Interstellarr", INTERSTELLAR),  # too many
        ("Intrestellar", INTERSTELLAR),  # swapped
        ("Itnerstellra", INTERSTELLAR),  # swapped twice
        ("Intrestelar", INTERSTELLAR),  # swapped and missing
        ("nterstella", INTERSTELLAR),  # missing at both ends
        ("Xinterstellarx", INTERSTELLAR),
        ("inseptoin", INCEPTION),
        ("The Matrxi", MATRIX),
        ("matirx", MATRIX),
        ("Heor", HERO),
        ("paraiste", PARASITE),
        ("blade runer 2048", RUNNER_2049),
        ("星际川越", INTERSTELLAR),  # wrong
        ("星穿越", INTERSTELLAR),  # missing
        ("星际大穿越", INTERSTELLAR),  # too many
        ("星穿际越", INTERSTELLAR),  # swapped
        ("黑客地国", MATRIX),
        ("駭客任勿", MATRIX),
    ],
)
async def test_a_slip_or_two_of_the_pen_are_forgiven(search: FilmSearch, query: str, expected: int) -> None:
    assert (await search.find(query, limit=1)) == [expected]


@pytest.mark.parametrize(
    "query", ["duen part", "英熊", "龙描", "intrestelrx", "星级川越", "heoo1", "xyzzy", "qqqqqqqq"]
)
async def test_what_is_too_far_from_every_title_finds_nothing(search: FilmSearch, query: str) -> None:
    assert await search.find(query, limit=20) == []


async def test_nothing_mistyped_is_offered_for_an_exact_title(search: FilmSearch) -> None:
    assert await search.find("hero", limit=20) == [HERO]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Christopher Nolan", [INCEPTION, INTERSTELLAR]),
        ("克里斯托弗·诺兰", [INCEPTION, INTERSTELLAR]),
        ("christopher n", [INCEPTION, INTERSTELLAR]),
        ("villeneuve", [DUNE, DUNE_2]),
        ("郭帆", [EARTH, EARTH_2]),
        ("guofan", [EARTH, EARTH_2]),
        ("张艺谋", [HERO]),
        ("張藝謀", [HERO]),
        ("艺谋", [HERO]),
        ("zhangyimou", [HERO]),
        ("zym", [HERO]),
        ("李连杰", [HERO]),
        ("jet li", [HERO]),
        ("吴京", [EARTH, EARTH_2]),
        ("Stan Lee", [AVENGERS]),
        ("甄子丹", [TAIWANESE]),
    ],
)
async def test_films_are_found_by_who_made_them(search: FilmSearch, query: str, expected: list[int]) -> None:
    assert await search.find(query, limit=20) == expected


async def test_a_film_of_a_person_ranks_below_a_film_so_called(search: FilmSearch) -> None:
    assert await search.find("诺兰", limit=20) == [NOLAN_FILM, INCEPTION, INTERSTELLAR]
    assert await search.find("nolan", limit=20) == [NOLAN_FILM, INCEPTION, INTERSTELLAR]


async def test_a_large_part_in_a_film_counts_more_than_a_small_one(empty_url: str) -> None:
    extras = [f"Extra {at}" for at in range(11)]
    async with Postgres.open(empty_url) as postgres:
        await Movies(postgres).store(
            [
                film(1, "甲", "One", 1000, cast=[*extras, "Ada Byron"]),
                film(2, "乙", "Two", 200, cast=["Ada Byron"]),
                film(3, "丙", "Three", 150, directors=["Ada Byron"]),
                film(4, "丁", "Four", 9000, cast=["Ada Byron"]),
            ]
        )
        assert await FilmSearch(postgres).find("byron", limit=20) == [4, 2, 3, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("沙丘 2021", [DUNE]),
        ("沙丘2021", [DUNE]),
        ("沙丘（1984年）", [DUNE_1984]),
        ("Dune (2021)", [DUNE]),
        ("shaqiu 1984", [DUNE_1984]),
        ("dnue 1984", [DUNE_1984]),
        ("Nolan 2010", [INCEPTION]),
        ("Blade Runner 2049", [RUNNER_2049]),
        ("银翼杀手 1982", [RUNNER]),
        ("2012", [YEAR_2012]),
        ("2012 2009", [YEAR_2012]),
    ],
)
async def test_a_year_behind_a_title_says_of_when_it_is(search: FilmSearch, query: str, expected: list[int]) -> None:
    assert await search.find(query, limit=20) == expected


@pytest.mark.parametrize(
    "query",
    ["", " ", "...", "！？。，", "😀", "🎬🍿", "%", "_", "%%%", "__", "'", "\\", "\x00", "\u200b", "\u0301", "·"],
)
async def test_what_has_no_letter_finds_nothing(search: FilmSearch, query: str) -> None:
    assert await search.find(query, limit=20) == []


@pytest.mark.parametrize(
    "query",
    [
        "'; DROP TABLE tmdb.movies; --",
        "matrix' OR '1'='1",
        "{流浪,地球}",
        "a" * 100,
        "的" * 100,
        "😀" * 100,
        "ﷺ" * 100,
        "\U0010ffff",
        "$1",
        "m_trix",
        "mat%",
        "\\%",
    ],
)
async def test_strange_texts_are_only_texts(search: FilmSearch, query: str) -> None:
    found = await search.find(query, limit=50)
    assert len(found) <= 5
    assert await search.find("matrix", limit=1) == [MATRIX]


async def test_wildcards_stand_for_nothing_but_are_read_over(search: FilmSearch) -> None:
    assert await search.find("100% w", limit=20) == [PERCENT]
    assert await search.find("m_trix", limit=20) == await search.find("m trix", limit=20)
    assert await search.find("matr%x", limit=20) == await search.find("matrx", limit=20)


async def test_emoji_beside_a_title_do_not_hide_it(search: FilmSearch) -> None:
    assert await search.find("🎬流浪地球🌏", limit=1) == [EARTH]


async def test_titles_longer_than_a_key_are_found_by_their_beginning(search: FilmSearch) -> None:
    assert await search.find("很长" * 40, limit=20) == [LONG]
    assert await search.find("long " * 20, limit=20) == [LONG]
    assert await search.find("Long " * 40 + "End", limit=20) == [LONG]


async def test_equals_are_in_order_of_votes_then_popularity_then_id(empty_url: str) -> None:
    figures = {5: (10, 1.0), 4: (10, 2.0), 3: (20, 0.0), 2: (10, 1.0), 1: (0, 9.0)}
    films = [film(at, f"同名{at}", f"Same {at}", votes, popularity=much) for at, (votes, much) in figures.items()]
    async with Postgres.open(empty_url) as postgres:
        await Movies(postgres).store(films)
        search = FilmSearch(postgres)
        for query in ("同", "名", "same", "tong", "tm"):
            assert await search.find(query, limit=20) == [3, 4, 2, 5, 1], query
        assert await search.find("同名", limit=2) == [3, 4]


async def test_kinds_of_likeness_are_in_their_order(empty_url: str) -> None:
    titles = {1: ("x", "Heros"), 2: ("荷若色", "Y"), 3: ("z", "My Heroine"), 4: ("w", "Heroic"), 5: ("v", "Hero")}
    films = [film(at, shown, english, 1000 // at) for at, (shown, english) in titles.items()]
    films.append(film(6, "u", "U", 5000, directors=["Hero Murai"]))
    async with Postgres.open(empty_url) as postgres:
        await Movies(postgres).store(films)
        search = FilmSearch(postgres)
        assert await search.find("hero", limit=20) == [5, 1, 4, 3, 6]
        assert await search.find("heruose", limit=20) == [2]
        assert await search.find("heroc", limit=20) == [1, 4, 5]


async def test_a_film_is_listed_once_and_never_more_than_asked_for(search: FilmSearch) -> None:
    for query in ("a", "the", "l", "的", "2", "沙丘", "流浪地球", "keanu reeves"):
        for limit in (1, 2, 20):
            found = await search.find(query, limit=limit)
            assert len(found) == len(set(found)) <= limit
            assert found == (await search.find(query, limit=50))[:limit]


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (film_search._KEYED, (0, "matr", "matr\U0010ffff", None, 20)),
        (film_search._SIMILAR, (4, ["6.0.mat"], None, 20)),
        (film_search._PEOPLE, ([0, 1], "nolan", "nolan\U0010ffff", 8)),
        (film_search._MADE_BY, (["christophernolan"], [0], None, 20)),
    ],
    ids=["keyed", "similar", "people", "made by"],
)
async def test_no_way_to_find_films_reads_a_whole_table(
    stocked: Postgres, statement: str, parameters: tuple[object, ...]
) -> None:
    async with stocked.transaction() as connection:
        # A table of this size is read whole unless that is forbidden; then only what has no index still is.
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan")
        plan = "\n".join(record[0] for record in await connection.fetch(f"EXPLAIN {statement}", *parameters))
    assert "Seq Scan" not in plan
    assert "Index" in plan


async def test_cards_come_best_first_over_both_transports(transport: Transport) -> None:
    reply = await transport.call({"type": "movies_search", "query": "黑客帝国", "limit": 2, "id": "s1"})
    assert (reply["type"], reply["code"], reply["id"]) == ("movies_search_response", 0, "s1")
    assert list(reply["data"]) == ["items"]
    first = reply["data"]["items"][0]
    assert (first["tmdb_id"], first["title"], first["year"]) == (603, "黑客帝国", 1999)
    assert len(reply["data"]["items"]) <= 2
    cards = await transport.call({"type": "movies_bulk", "ids": [603]})
    assert cards["data"]["items"] == [first]


@pytest.mark.parametrize("query", ["inseption", "dmkj", "daomengkongjian", "盗梦空见", "Inception 2010", "盜夢空間"])
async def test_the_demo_catalogue_can_be_searched_at_once(transport: Transport, query: str) -> None:
    reply = await transport.call({"type": "movies_search", "query": query})
    assert reply["data"]["items"][0]["tmdb_id"] == 27205


@pytest.mark.parametrize("query", ["!!!", "😀", "·", "%_%"])
async def test_a_query_without_letters_gets_no_cards(transport: Transport, query: str) -> None:
    reply = await transport.call({"type": "movies_search", "query": query})
    assert (reply["code"], reply["data"]) == (0, {"items": []})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": " \u3000\n"}, "query"),
        ({"query": None}, "query"),
        ({"query": 7}, "query"),
        ({"query": ["a"]}, "query"),
        ({"query": "长" * 101}, "query"),
        ({"query": "a\x00b"}, "query"),
        ({"query": "a", "limit": 0}, "limit"),
        ({"query": "a", "limit": 51}, "limit"),
        ({"query": "a", "limit": "5"}, "limit"),
        ({"query": "a", "limit": 1.5}, "limit"),
        ({"query": "a", "limit": True}, "limit"),
        ({"query": "a", "limit": None}, "limit"),
    ],
    ids=str,
)
async def test_bad_searches_name_the_field(transport: Transport, fields: dict[str, Any], field: str) -> None:
    error = await transport.call({"type": "movies_search", **fields})
    assert (error["type"], error["code"], error["reason"], error["field"]) == ("error", 400, "invalid_field", field)


async def test_a_hundred_characters_may_be_typed(transport: Transport) -> None:
    for query in ("长" * 100, "😀" * 100, "ab " * 33 + "c"):
        reply = await transport.call({"type": "movies_search", "query": query})
        assert reply["code"] == 0, query


async def test_the_route_is_not_taken_for_a_films_page(http: httpx.AsyncClient) -> None:
    found = await http.get("/api/v1/mp/movies/search", params={"query": "盗梦空间", "limit": "1"})
    assert found.status_code == 200
    assert [card["tmdb_id"] for card in found.json()["items"]] == [27205]
    page = await http.get("/api/v1/mp/movies/27205")
    assert page.json()["movie"]["tmdb_id"] == 27205


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "query"),
        ("query=", "query"),
        ("query=%20", "query"),
        ("query=a%00", "query"),
        ("query=a&limit=0", "limit"),
        ("query=a&limit=51", "limit"),
        ("query=a&limit=x", "limit"),
        ("limit=5", "query"),
        ("query=" + "a" * 101, "query"),
    ],
)
async def test_bad_query_strings_name_the_field(http: httpx.AsyncClient, query: str, field: str) -> None:
    response = await http.get(f"/api/v1/mp/movies/search?{query}")
    assert response.status_code == 422
    assert response.json()["error"]["field"] == field


async def test_without_postgresql_a_search_says_so(services: Services) -> None:
    assert services.database_url is not None
    async with Postgres.open(services.database_url) as postgres:
        search = FilmSearch(postgres)
    with pytest.raises(OperationError) as raised:
        await search.find("matrix", limit=20)
    assert raised.value.kind is STORAGE_UNAVAILABLE
