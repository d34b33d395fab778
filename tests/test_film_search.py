"""Finding films by what is typed, in the database and over both transports."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage import film_index, film_search
from storage.embedded import Services
from storage.film_index import RENEWAL_LOCK, FilmIndex
from storage.film_rows import film_row
from storage.film_search import FilmSearch
from storage.film_spellings import KEY_LENGTH, MAX_WHOLE, Kind, film_spellings, folded
from storage.film_typos import pieces, probes, slips_allowed, slips_between
from storage.movies import Movies
from storage.postgres import Postgres
from storage.schema import downgrade, migrate
from tests.clients import Transport
from tests.databases import fresh_database

EARTH, EARTH_2, EARTH_STORM, WANDERER = 1, 2, 3, 4
HERO, DUNE_1984, DUNE, DUNE_2 = 5, 6, 7, 8
MATRIX, RELOADED, INTERSTELLAR, INCEPTION = 9, 10, 11, 12
CHONGQING, AMELIE, RUNNER, RUNNER_2049 = 13, 14, 15, 16
NOLAN_FILM, PERCENT, LONG, PARASITE, TOTORO, YEAR_2012 = 17, 18, 19, 20, 21, 22
TAIWANESE, AVENGERS = 23, 24


def film(tmdb_id: int, title: str, english: str, votes: int, **more: Any) -> dict[str, Any]:
    """A film as TMDB answers. `cast` and `directors` are names, or pairs of a name and the original one."""
    cast = [_person(name) | {"order": at} for at, name in enumerate(more.get("cast", ()))]
    crew = [_person(name) | {"job": "Director"} for name in more.get("directors", ())]
    translations = [{"iso_639_1": "en", "iso_3166_1": "US", "data": {"title": english}}]
    translations += [
        {"iso_639_1": "zh", "iso_3166_1": "TW", "data": {"title": text}} for text in more.get("taiwan", ())
    ]
    return {
        "id": tmdb_id,
        "title": title,
        "original_title": more.get("original", english),
        "original_language": "en",
        "release_date": more.get("released", "2000-01-01"),
        "popularity": more.get("popularity", 1.0),
        "vote_count": votes,
        "credits": {"cast": cast, "crew": crew},
        "translations": {"translations": translations},
    }


def _person(name: str | tuple[str, str]) -> dict[str, Any]:
    shown, original = name if isinstance(name, tuple) else (name, name)
    return {"name": shown, "original_name": original}


CATALOGUE = [
    film(EARTH, "流浪地球", "The Wandering Earth", 900, original="流浪地球", directors=["郭帆"], cast=["吴京"]),
    film(EARTH_2, "流浪地球2", "The Wandering Earth II", 700, directors=["郭帆"], cast=["吴京", "Andy Lau"]),
    film(EARTH_STORM, "地球风暴", "Geostorm", 5000),
    film(WANDERER, "流浪猫鲍勃", "A Street Cat Named Bob", 1200),
    film(HERO, "英雄", "Hero", 2000, directors=[("张艺谋", "张艺谋")], cast=[("Jet Li", "李连杰")]),
    film(DUNE_1984, "沙丘", "Dune", 3000, released="1984-12-14", directors=["David Lynch"]),
    film(DUNE, "沙丘", "Dune", 12000, released="2021-09-15", directors=["Denis Villeneuve"]),
    film(DUNE_2, "沙丘2", "Dune: Part Two", 7000, released="2024-02-27", directors=["Denis Villeneuve"]),
    film(MATRIX, "黑客帝国", "The Matrix", 25000, cast=["Keanu Reeves"], taiwan=["駭客任務"]),
    film(RELOADED, "黑客帝国2：重装上阵", "The Matrix Reloaded", 11000, cast=["Keanu Reeves"]),
    film(INTERSTELLAR, "星际穿越", "Interstellar", 36000, directors=["Christopher Nolan"]),
    film(INCEPTION, "盗梦空间", "Inception", 37000, released="2010-07-15", directors=["Christopher Nolan"]),
    film(CHONGQING, "重庆森林", "Chungking Express", 1800, original="重慶森林", directors=["Wong Kar-wai"]),
    film(AMELIE, "天使爱美丽", "Amélie", 11000, original="Le Fabuleux Destin d'Amélie Poulain"),
    film(RUNNER, "银翼杀手", "Blade Runner", 14000, released="1982-06-25"),
    film(RUNNER_2049, "银翼杀手2049", "Blade Runner 2049", 13000, released="2017-10-04"),
    film(NOLAN_FILM, "诺兰", "Nolan", 3, cast=["Extra 1", "Extra 2", "Extra 3", "Keanu Reeves"]),
    film(PERCENT, "100% 的狼", "100% Wolf", 300),
    film(LONG, "很长" * 40 + "的片名", "Long " * 40 + "End", 10),
    film(PARASITE, "寄生虫", "Parasite", 18000, original="기생충"),
    film(TOTORO, "龙猫", "My Neighbor Totoro", 8000, original="となりのトトロ"),
    film(YEAR_2012, "2012", "2012", 11500, released="2009-10-10"),
    film(TAIWANESE, "葉問", "Ip Man", 4000, cast=["甄子丹"]),
    film(AVENGERS, "复仇者联盟", "The Avengers", 31000, cast=[f"Extra {at}" for at in range(20)] + ["Stan Lee"]),
]


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
    monkeypatch.setattr("storage.movies.STORE_BATCH", 5)
    films = [film(at, f"片{at}", f"Film {at}", at, cast=["Ada Byron", "Max Born"]) for at in range(1, 61)]
    async with Postgres.open(empty_url) as postgres:
        async with asyncio.timeout(20):
            await asyncio.gather(*(Movies(postgres).store(films[at::3]) for at in range(3)))
        assert len(await FilmSearch(postgres).find("byron", limit=50)) == 50


async def _forget_keys(postgres: Postgres) -> None:
    async with postgres.connection() as connection:
        await connection.execute("UPDATE tmdb.movies SET spelling_rules = 0; DELETE FROM tmdb.film_spellings")


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


def test_keys_are_bounded() -> None:
    strange = film(1, "很长" * 300, "Word " * 300, 1, taiwan=[f"片名{at}" for at in range(50)])
    made = film_spellings(film_row(strange, "zh-CN"))
    assert max(len(spelling.key) for spelling in made if spelling.kind is not Kind.PIECE) <= KEY_LENGTH
    assert len([spelling for spelling in made if spelling.kind is Kind.WHOLE]) <= MAX_WHOLE
    assert len(made) < 300


_LETTERS = st.text(alphabet="abcdefg", min_size=4, max_size=20)


@given(whole=_LETTERS, data=st.data())
def test_every_slip_leaves_a_piece_by_which_the_title_is_found(whole: str, data: st.DataObject) -> None:
    asked = _with_a_slip(whole, data)
    assert slips_between(asked, whole, slips_allowed(whole)) in {0, 1}
    assert set(probes(asked)) & set(pieces(whole)) or len(asked) < 3


@given(whole=st.text(alphabet="abcdefghijkl", min_size=8, max_size=20), data=st.data())
def test_two_letters_that_are_wrong_missing_or_too_many_leave_a_piece(whole: str, data: st.DataObject) -> None:
    asked = _with_a_slip(_with_a_slip(whole, data, swaps=False), data, swaps=False)
    assert slips_between(asked, whole, 2) in {0, 1, 2}
    assert set(probes(asked)) & set(pieces(whole))


def _with_a_slip(whole: str, data: st.DataObject, *, swaps: bool = True) -> str:
    at = data.draw(st.integers(0, len(whole) - 2))
    slips = [whole[:at] + whole[at + 1 :], whole[:at] + "z" + whole[at + 1 :], whole[:at] + "z" + whole[at:]]
    if swaps:
        slips.append(whole[:at] + whole[at + 1] + whole[at] + whole[at + 2 :])
    return data.draw(st.sampled_from(slips))


@pytest.mark.parametrize(
    ("asked", "whole", "slips"),
    [
        ("abcd", "abcd", 0),
        ("abdc", "abcd", 1),
        ("acd", "abcd", 1),
        ("", "ab", 2),
        ("badc", "abcd", 2),
        ("x", "abcd", None),
    ],
)
def test_slips_are_counted(asked: str, whole: str, slips: int | None) -> None:
    assert slips_between(asked, whole, 2) == slips


def test_folding_keeps_a_part_a_part() -> None:
    whole = "乾隆皇帝與著名藝術家的後裏麵餘"
    for first in range(len(whole)):
        assert folded(whole[first:]) == folded(whole)[first:]


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
