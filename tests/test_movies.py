"""The film catalogue in PostgreSQL: cards, details, feeds, storing and searching."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage.demo.load import load_demo
from storage.embedded import Services
from storage.film_filter import DIRECTED, PLAYED, Credit, FilmFilter, Order, Role
from storage.film_names import key, part_keys, title_keys
from storage.film_rows import film_row
from storage.movies import Movies
from storage.postgres import Postgres
from storage.schema import migrate
from storage.tmdb_store import Stored
from tests.databases import fresh_database

TODAY = date(2026, 1, 1)
NOLAN, DICAPRIO = ("christophernolan",), ("leonardodicaprio",)
SCI_FI, COMEDY, HORROR = 878, 35, 27


@pytest.fixture
async def movies(postgres: Postgres) -> Movies:
    return Movies(postgres)


@pytest.fixture
async def empty(services: Services) -> AsyncIterator[Postgres]:
    """A catalogue without films."""
    assert services.database_url is not None
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        async with Postgres.open(url) as opened:
            yield opened


def raw_film(tmdb_id: int = 1, **changes: Any) -> dict[str, Any]:
    """A film as TMDB answers, with what is of interest changed."""
    return {
        "id": tmdb_id,
        "title": f"片名{tmdb_id}",
        "original_title": f"Original {tmdb_id}",
        "original_language": "en",
        "release_date": "2020-05-17",
        "runtime": 100,
        "overview": "简介。",
        "popularity": 1.5,
        "vote_average": 7,
        "vote_count": 1000,
        "genres": [{"id": SCI_FI, "name": "科幻"}],
        "poster_path": "/p.jpg",
        "backdrop_path": "/b.jpg",
        "credits": {"cast": [], "crew": []},
        "translations": {"translations": []},
    } | changes


async def test_cards_are_those_that_exist(movies: Movies) -> None:
    cards = await movies.cards([27205, 999_999_999, 603])
    assert set(cards) == {603, 27205}
    matrix = cards[603]
    assert matrix.title == "黑客帝国"
    assert matrix.year == 1999
    assert matrix.release_date is not None
    assert matrix.release_date.startswith("1999-03-3")
    assert matrix.genres == ["动作", "科幻"]
    assert matrix.directors == ["Lana Wachowski", "Lilly Wachowski"]
    assert matrix.top_cast[:2] == ["Keanu Reeves", "Laurence Fishburne"]
    assert len(matrix.top_cast) <= 5


async def test_a_detail_page_has_people_with_what_they_did(movies: Movies) -> None:
    film = await movies.detail(27205)
    assert film is not None
    assert (film.title, film.original_title, film.runtime) == ("盗梦空间", "Inception", 148)
    assert ("Leonardo DiCaprio", True) in [(member.name, "Cobb" in member.character) for member in film.cast]
    assert [(member.name, member.job) for member in film.crew] == [("Christopher Nolan", "Director")]
    assert film.overview
    assert await movies.detail(999_999_999) is None


async def test_image_addresses_are_whole_or_null(empty: Postgres) -> None:
    movies = Movies(empty)
    await movies.store([raw_film(1), raw_film(2, poster_path=None, backdrop_path="")])
    cards = await movies.cards([1, 2])
    assert cards[1].poster_url == "https://image.tmdb.org/t/p/w500/p.jpg"
    assert cards[2].poster_url is None
    details = [await movies.detail(1), await movies.detail(2)]
    assert [film and film.backdrop_url for film in details] == ["https://image.tmdb.org/t/p/w780/b.jpg", None]


async def test_what_tmdb_leaves_empty_is_null_or_taken_from_english(empty: Postgres) -> None:
    movies = Movies(empty)
    english = {"iso_639_1": "en", "iso_3166_1": "US", "data": {"title": "English", "overview": "In English."}}
    british = {"iso_639_1": "en", "iso_3166_1": "GB", "data": {"title": "British", "overview": "British."}}
    await movies.store(
        [
            raw_film(
                1,
                title="",
                overview="",
                release_date="",
                runtime=0,
                translations={"translations": [british, english]},
            ),
            raw_film(2, release_date=None, runtime=None, overview=None, credits=None, translations=None, genres=None),
        ]
    )
    first, second = await movies.detail(1), await movies.detail(2)
    assert first is not None
    assert second is not None
    assert (first.title, first.overview) == ("Original 1", "In English.")
    assert (first.release_date, first.year, first.runtime) == (None, None, None)
    assert (second.overview, second.cast, second.crew, second.genres) == ("", [], [], [])
    assert [film.title_en for film in await movies.titled(["english"])] == ["English"]


def translation(language: str, region: str, title: str = "", overview: str = "") -> dict[str, Any]:
    return {"iso_639_1": language, "iso_3166_1": region, "data": {"title": title, "overview": overview}}


@pytest.mark.parametrize(
    ("film", "title", "overview"),
    [
        ({}, "片名1", "简介。"),
        ({"title": "기생충", "overview": ""}, "寄生上流", "韓國。"),
        ({"title": "", "overview": ""}, "寄生上流", "韓國。"),
        ({"title": "寄生虫", "overview": ""}, "寄生虫", "韓國。"),
        ({"title": "기생충", "overview": "", "without": "zh"}, "기생충", "In English."),
        ({"title": "", "original_title": "", "overview": "", "without": "zh"}, "Parasite", "In English."),
        ({"title": "기생충", "overview": "", "without": "zh en"}, "기생충", "한국어."),
        ({"title": "기생충", "overview": None, "without": "zh en ko"}, "기생충", ""),
        ({"title": "她", "original_title": "她", "original_language": "zh"}, "她", "简介。"),
    ],
)
def test_each_text_that_is_not_translated_falls_back_by_itself(film: dict[str, Any], title: str, overview: str) -> None:
    there = [
        translation("ko", "KR", overview="한국어."),
        translation("en", "GB", title="Parasite (GB)", overview="In English."),
        translation("en", "US", title="Parasite"),
        translation("zh", "TW", title="寄生上流", overview="韓國。"),
        translation("zh", "CN"),
    ]
    without = film.get("without", "").split()
    kept = [entry for entry in there if entry["iso_639_1"] not in without]
    raw = raw_film(original_title="기생충", original_language="ko", translations={"translations": kept}) | film
    row = film_row(raw, "zh-CN")
    assert (row["title"], row["overview"]) == (title, overview)
    if "en" not in without:
        assert (row["title_en"], row["overview_en"]) == ("Parasite", "In English.")


def test_a_film_without_a_title_in_any_language_is_none() -> None:
    with pytest.raises(ValueError, match="no title in any language"):
        film_row(raw_film(title="", original_title=" "), "zh-CN")


async def test_a_part_that_tmdb_does_not_name_is_an_empty_one(empty: Postgres) -> None:
    cast = [{"name": "One", "character": None, "order": 0}, {"name": "Two", "order": 1}]
    await Movies(empty).store([raw_film(1, credits={"cast": cast, "crew": []})])
    film = await Movies(empty).detail(1)
    assert film is not None
    assert [(member.name, member.character) for member in film.cast] == [("One", ""), ("Two", "")]


async def test_a_detail_page_is_bounded(empty: Postgres) -> None:
    cast = [{"name": f"Actor {at}", "character": f"Part {at}", "order": at} for at in range(60)]
    crew = [{"name": f"Writer {at}", "job": "Writer"} for at in range(60)] + [{"name": "Lens", "job": "Gaffer"}]
    movies = Movies(empty)
    await movies.store([raw_film(1, credits={"cast": cast, "crew": crew})])
    film = await movies.detail(1)
    assert film is not None
    assert [member.name for member in film.cast] == [f"Actor {at}" for at in range(20)]
    assert len(film.crew) == 20
    assert {member.job for member in film.crew} == {"Writer"}
    assert film.top_cast == [f"Actor {at}" for at in range(5)]


async def test_feeds_are_in_their_order_and_pages_do_not_overlap(movies: Movies) -> None:
    count = await movies.count()
    assert count >= 240
    popular = await movies.feed("popular", limit=count, offset=0, today=TODAY)
    pages = [
        card
        for offset in range(0, count, 50)
        for card in await movies.feed("popular", limit=50, offset=offset, today=TODAY)
    ]
    assert popular == pages
    assert len({card.tmdb_id for card in pages}) == count
    playing = await movies.feed("now_playing", limit=20, offset=0, today=TODAY)
    dates = [card.release_date for card in playing if card.release_date]
    assert dates == sorted(dates, reverse=True)
    assert len(dates) == 20


async def test_upcoming_holds_only_what_is_not_out_yet_soonest_first(empty: Postgres) -> None:
    movies = Movies(empty)
    days = {1: "2026-03-01", 2: "2026-01-01", 3: "2026-02-01", 4: "", 5: "2025-12-31"}
    await movies.store([raw_film(tmdb_id, release_date=day) for tmdb_id, day in days.items()])
    upcoming = await movies.feed("upcoming", limit=10, offset=0, today=TODAY)
    assert [card.tmdb_id for card in upcoming] == [3, 1]
    playing = await movies.feed("now_playing", limit=10, offset=0, today=TODAY)
    assert [card.tmdb_id for card in playing] == [2, 5]


async def test_a_film_is_written_only_when_it_changed(empty: Postgres) -> None:
    movies = Movies(empty)
    assert await movies.store([raw_film(1), raw_film(2)]) == Stored(new_ids=(1, 2))
    assert await movies.store([raw_film(1), raw_film(2)]) == Stored(unchanged=2)
    stored = await movies.store([raw_film(1, title="新名"), raw_film(2), raw_film(3)])
    assert stored == Stored(new_ids=(3,), changed_ids=(1,), unchanged=1)
    assert (stored.new, stored.changed, stored.written) == (1, 1, 2)
    assert (await movies.cards([1]))[1].title == "新名"
    async with empty.connection() as connection:
        await connection.execute("UPDATE tmdb.movies SET fetched_at = now() - interval '2 days' WHERE tmdb_id = 2")
    assert await movies.store([raw_film(2)]) == Stored(unchanged=1, refreshed=1)
    assert await movies.store([raw_film(2)]) == Stored(unchanged=1)


async def test_the_stored_answer_is_tmdbs_own(empty: Postgres) -> None:
    raw = raw_film(1, belongs_to_collection=None, budget=3_000_000_000)
    await Movies(empty).store([raw])
    async with empty.connection() as connection:
        record = await connection.fetchrow("SELECT raw, raw_hash, language FROM tmdb.movies")
    assert record is not None
    assert record["raw"] == raw
    assert record["raw_hash"] == film_row(dict(reversed(raw.items())), "zh-CN")["raw_hash"]
    assert record["language"] == "zh-CN"


async def test_the_last_answer_about_a_film_counts(empty: Postgres) -> None:
    movies = Movies(empty)
    assert await movies.store([raw_film(1, title="旧"), raw_film(1, title="新")]) == Stored(new_ids=(1,))
    assert (await movies.cards([1]))[1].title == "新"


async def test_many_films_are_stored_whole_or_not_at_all(empty: Postgres) -> None:
    movies = Movies(empty)
    with pytest.raises(ValueError, match="not a film"):
        await movies.store([*(raw_film(tmdb_id) for tmdb_id in range(1, 450)), {"title": "no id"}])
    assert await movies.count() == 0
    assert (await movies.store([raw_film(tmdb_id) for tmdb_id in range(1, 450)])).new == 449


async def test_two_who_store_the_same_films_do_not_block_each_other_for_ever(empty: Postgres) -> None:
    movies = Movies(empty)
    films = [raw_film(tmdb_id) for tmdb_id in range(1, 300)]
    async with asyncio.timeout(20):
        written = await asyncio.gather(movies.store(films), movies.store(films[::-1]))
    assert sorted(stored.written for stored in written) == [0, 299]


async def test_the_demo_catalogue_is_loaded_once_even_by_two(empty: Postgres) -> None:
    movies = Movies(empty)
    loaded = await asyncio.gather(load_demo(movies), load_demo(movies))
    count = await movies.count()
    assert count >= 240
    assert max(loaded) == count
    assert await load_demo(movies) == 0


async def test_the_demo_catalogue_does_not_mix_with_films_that_are_there(empty: Postgres) -> None:
    movies = Movies(empty)
    await movies.store([raw_film(1)])
    assert await load_demo(movies) == 0
    assert await movies.count() == 1


@pytest.mark.parametrize("title", ["黑客帝国", "The Matrix", "matrix", "THE MATRIX"])
async def test_a_film_is_found_by_any_of_its_titles(movies: Movies, title: str) -> None:
    assert 603 in [film.tmdb_id for film in await movies.titled([key(title)])]


async def test_a_series_is_found_by_the_part_that_its_titles_share(movies: Movies) -> None:
    assert {film.tmdb_id for film in await movies.titled([key("指环王")])} == {120, 121, 122}


@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("WALL·E", "walle"),
        ("Spider-Man", "spiderman"),
        ("教父2", "教父 II"),
        ("The Godfather: Part II", "the godfather 2"),
        ("Amélie", "AMELIE"),
        ("Schindler's List", "Schindler’s list"),
        ("哈利·波特", "哈利波特"),
        ("Mr. & Mrs. Smith", "mr and mrs smith"),
    ],
)
def test_spellings_of_one_title_are_one(spelling: str, other: str) -> None:
    assert key(spelling) == key(other) != ""


def test_parts_of_titles() -> None:
    assert "harrypotter" in part_keys("Harry Potter and the Chamber of Secrets")
    assert "指环王" in part_keys("指环王：双塔奇兵")
    assert part_keys("傲慢与偏见") == []
    assert title_keys("!!!", "") == []


async def test_people_are_found_as_the_credits_write_them(movies: Movies) -> None:
    assert await movies.credited(["christophernolan", "nobodyatall"]) == {"christophernolan": "Christopher Nolan"}


@pytest.mark.parametrize(
    ("wanted", "present", "absent"),
    [
        (FilmFilter(credits=(Credit(NOLAN, Role.DIRECTOR),)), {27205, 157336, 155}, {603}),
        (FilmFilter(credits=(Credit(NOLAN, Role.CAST),)), set(), {27205}),
        (FilmFilter(credits=(Credit(NOLAN), Credit(DICAPRIO))), {27205}, {157336, 597}),
        (FilmFilter(genres=(SCI_FI, COMEDY)), {105}, {603, 27205}),
        (FilmFilter(genres=(SCI_FI, COMEDY), any_genre=True), {105, 603}, {597}),
        (FilmFilter(without_genres=(SCI_FI,)), {597}, {603}),
        (FilmFilter(languages=("ja",)), {129}, {603}),
        (FilmFilter(year_from=1999, year_to=1999), {603}, {27205}),
        (FilmFilter(shortest=190), {597, 122}, {603}),
        (FilmFilter(longest=95), {8587}, {603}),
        (FilmFilter(lowest_rating=8.5), {278}, {603}),
        (FilmFilter(exclude=(603,)), {27205}, {603}),
    ],
)
async def test_a_filter_lets_through_what_it_says(
    movies: Movies, wanted: FilmFilter, present: set[int], absent: set[int]
) -> None:
    found = {film.tmdb_id for film in await movies.search(wanted, Order.POPULAR, limit=1000)}
    assert present <= found
    assert not absent & found
    assert await movies.count_matching(wanted) == len(found)


async def test_orders_are_kept_over_pages(movies: Movies) -> None:
    for order in Order:
        whole = await movies.search(FilmFilter(), order, limit=40)
        parts = [film for at in (0, 20) for film in await movies.search(FilmFilter(), order, limit=20, offset=at)]
        assert whole == parts
    longest = [film.runtime or 0 for film in await movies.search(FilmFilter(), Order.LONGEST, limit=40)]
    assert longest == sorted(longest, reverse=True)


async def test_similar_films_share_people_or_genres(movies: Movies) -> None:
    found = await movies.similar([27205], FilmFilter(), limit=10)
    assert 27205 not in [film.tmdb_id for film in found]
    assert 157336 in [film.tmdb_id for film in found]
    films = await movies.similar([27205], FilmFilter(year_to=1990), limit=10)
    assert all(film.year is not None and film.year <= 1990 for film in films)


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("SELECT * FROM tmdb.movies ORDER BY popularity DESC, tmdb_id LIMIT 20", "movies_by_popularity"),
        (
            "SELECT * FROM tmdb.movies WHERE release_date <= '2026-01-01' ORDER BY release_date DESC, tmdb_id LIMIT 20",
            "movies_by_release",
        ),
        (
            "SELECT * FROM tmdb.movies WHERE release_date > '1999-01-01' ORDER BY release_date, tmdb_id DESC LIMIT 20",
            "movies_by_release",
        ),
        ("SELECT * FROM tmdb.movies WHERE genre_ids @> '{878,35}'", "movies_of_genres"),
        (f"SELECT movie_id FROM tmdb.movie_credits WHERE name_key = 'a' AND {DIRECTED}", "movie_credits_of_crew"),
        (f"SELECT movie_id FROM tmdb.movie_credits WHERE name_key = 'a' AND {PLAYED}", "movie_credits_of_cast"),
        ("SELECT movie_id FROM tmdb.movie_credits WHERE person_id = 1", "movie_credits_of_person"),
        (
            "SELECT * FROM tmdb.movie_genres WHERE genre_id = 878 ORDER BY popularity DESC, movie_id LIMIT 20",
            "movie_genres_by_popularity",
        ),
        (
            "SELECT * FROM tmdb.movies WHERE source = 'tmdb' AND fetched_at < now() ORDER BY fetched_at LIMIT 20",
            "movies_by_age",
        ),
        ("SELECT * FROM tmdb.people WHERE name_keys && '{wujing}'", "people_of_name"),
        ("SELECT * FROM tmdb.movies WHERE title_keys @> '{thematrix}'", "movies_of_title"),
    ],
)
async def test_lists_and_lookups_have_an_index(postgres: Postgres, sql: str, index: str) -> None:
    async with postgres.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        plan = "\n".join(record[0] for record in await connection.fetch(f"EXPLAIN {sql}"))
    assert index in plan


async def test_without_postgresql_every_method_says_so(services: Services) -> None:
    assert services.database_url is not None
    stack = contextlib.AsyncExitStack()
    async with stack:
        movies = Movies(await stack.enter_async_context(Postgres.open(services.database_url)))
    with pytest.raises(OperationError) as raised:
        await movies.cards([603])
    assert raised.value.kind is STORAGE_UNAVAILABLE
