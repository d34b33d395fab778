"""Films, people and shows for TMDB's stand-in: made up from their ids, the same at every asking, and as TMDB has them.

That is with its gaps: what is not translated is empty, what is unknown is "", 0 or null, and the same person stands in
the crew once for each job. Who is in a film's credits has that film in theirs. Nothing of it is real.
"""

import random
from collections.abc import Container, Iterator
from datetime import date, timedelta
from typing import Any

Json = dict[str, Any]

GENRES = {28: "动作", 12: "冒险", 35: "喜剧", 18: "剧情", 14: "奇幻", 9648: "悬疑", 10749: "爱情", 878: "科幻"}
ENGLISH_GENRES = {
    28: "Action",
    12: "Adventure",
    35: "Comedy",
    18: "Drama",
    14: "Fantasy",
    9648: "Mystery",
    10749: "Romance",
    878: "Science Fiction",
}

PEOPLE = range(10_000, 15_000)
"""Ids of all people there are; each is in about one film of 300."""

HOW = ["沉默的", "最后的", "遥远的", "金色", "午夜", "失落的", "无尽", "白色", "第七个", "陌生的"]
WHAT = ["河流", "城市", "列车", "夏天", "信使", "灯塔", "森林", "海岸", "房客", "星球", "花园", "证人"]
HOW_EN = ["Silent", "Last", "Distant", "Golden", "Midnight", "Lost", "Endless", "White", "Seventh", "Strange"]
WHAT_EN = ["River", "City", "Train", "Summer", "Courier", "Lighthouse", "Forest", "Shore", "Lodger", "Planet", "Garden"]
WHAT_EN += ["Witness"]
IN_OTHERS = {"ja": ("静かな", "の物語"), "ko": ("조용한 ", " 이야기"), "fr": ("Le Silence de ", "")}
SURNAMES, GIVEN = "王李张刘陈杨赵黄周吴", ["伟", "芳", "敏", "静", "强", "磊", "洋", "艳", "勇", "杰", "娟", "涛"]
FIRST = ["Ada", "Boris", "Clara", "David", "Elena", "Frank", "Greta", "Hugo", "Irene", "Jonas", "Karin", "Leo"]
LAST = ["Almeida", "Berg", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Horvat", "Ivanov", "Jansen", "O’Brien"]
DEPARTMENTS = {"Director": "Directing", "Screenplay": "Writing", "Original Music Composer": "Sound"}
JOBS = {"Director": 4001, "Screenplay": 4001, "Original Music Composer": 2503}
"""How far down the list of people a film's own are: its director writes too."""
STEP = 37
"""From one of the cast to the next, down the same list."""


def film(tmdb_id: int, language: str) -> Json:
    """GET /3/movie/{id}, nothing appended."""
    it = _Work(tmdb_id, "film")
    return it.common(language) | {
        "belongs_to_collection": it.collection(),
        "budget": it.maybe(it.dice.randrange(10**6, 2 * 10**8), 0),
        "genres": it.genres(language),
        "homepage": "",
        "imdb_id": it.maybe(f"tt{tmdb_id:08d}", None),
        "original_title": it.original,
        "production_companies": [{"id": 5, "logo_path": None, "name": "Stand-In Pictures", "origin_country": ""}],
        "production_countries": [{"iso_3166_1": it.country, "name": it.country}],
        "release_date": it.released,
        "revenue": it.maybe(it.dice.randrange(10**6, 4 * 10**9), 0),  # more than four bytes hold
        "runtime": it.dice.choice([0, None, *range(80, 180)]),
        "spoken_languages": [{"english_name": it.language, "iso_639_1": it.language, "name": ""}],
        "status": "Released" if it.released else "Planned",
        "tagline": "",
        "title": it.title(language),
        "video": False,
    }


def film_row(tmdb_id: int, language: str) -> Json:
    """A film as lists and searches have it."""
    it = _Work(tmdb_id, "film")
    return it.row(language) | {
        "original_title": it.original,
        "release_date": it.released,
        "title": it.title(language),
        "video": False,
    }


def show(tmdb_id: int, language: str) -> Json:
    """GET /3/tv/{id}, nothing appended."""
    it = _Work(tmdb_id, "show")
    seasons = it.dice.randrange(1, 9)
    return it.common(language) | {
        "created_by": [],
        "episode_run_time": [],
        "first_air_date": it.released or None,
        "genres": it.genres(language),
        "homepage": "",
        "in_production": False,
        "languages": [it.language],
        "last_air_date": None,
        "name": it.title(language),
        "networks": [],
        "number_of_episodes": seasons * 10,
        "number_of_seasons": seasons,
        "original_name": it.original,
        "seasons": [],
        "status": "Ended",
        "tagline": "",
        "type": "Scripted",
    }


def show_row(tmdb_id: int, language: str) -> Json:
    """A show as searches have it."""
    it = _Work(tmdb_id, "show")
    return it.row(language) | {
        "first_air_date": it.released,
        "name": it.title(language),
        "origin_country": [it.country],
        "original_name": it.original,
    }


def person(tmdb_id: int) -> Json:
    """GET /3/person/{id}, nothing appended. Names are not translated."""
    dice = random.Random(f"person {tmdb_id}")
    return _person(tmdb_id) | {
        "also_known_as": dice.choice([[], [f"{dice.choice(SURNAMES)}{dice.choice(GIVEN)}"]]),
        "biography": "",
        "birthday": dice.choice([None, "1963-05-27", "1980-11-02"]),
        "deathday": None,
        "homepage": None,
        "imdb_id": None,
        "place_of_birth": dice.choice([None, "北京,中国", "Lisbon, Portugal"]),
    }


def credits_of(tmdb_id: int) -> Json:
    """A film's, or a show's, `credits`."""
    cast = [
        _person(_someone(tmdb_id, STEP * at))
        | {"cast_id": at + 1, "character": "" if at % 5 == 4 else f"角色{at + 1}"}
        | {"credit_id": _credit_id(tmdb_id, at), "order": at}
        for at in range(_cast_size(tmdb_id))
    ]
    crew = [
        _person(_someone(tmdb_id, offset))
        | {"credit_id": _credit_id(tmdb_id, 100 + at), "department": DEPARTMENTS[job], "job": job}
        for at, (job, offset) in enumerate(JOBS.items())
    ]
    return {"cast": cast, "crew": crew}


def films_of(person_id: int, known: Container[int], last: int, language: str, *, at_most: int = 40) -> Json:
    """Somebody's `movie_credits` in those of the films that are known, up to the id `last`."""
    cast: list[Json] = []
    crew: list[Json] = []
    for at in range(MAX_CAST):
        for tmdb_id in _with(person_id, STEP * at, known, last):
            if at < _cast_size(tmdb_id) and len(cast) < at_most:
                part = {"character": f"角色{at + 1}", "credit_id": _credit_id(tmdb_id, at), "order": at}
                cast.append(film_row(tmdb_id, language) | part)
    for at, (job, offset) in enumerate(JOBS.items()):
        for tmdb_id in _with(person_id, offset, known, last):
            if len(crew) < at_most:
                part = {"credit_id": _credit_id(tmdb_id, 100 + at), "department": DEPARTMENTS[job], "job": job}
                crew.append(film_row(tmdb_id, language) | part)
    return {"cast": cast, "crew": crew}


def translations_of(tmdb_id: int, kind: str) -> Json:
    """The `translations` of a film, a show or a person."""
    if kind == "person":
        return {"translations": [_translation("en", "US", {"name": "", "biography": "Born somewhere."})]}
    it, title = _Work(tmdb_id, kind), "title" if kind == "film" else "name"
    there = [
        _translation("en", "GB", {title: "", "overview": ""}),
        _translation("en", "US", {title: "" if it.language == "en" else it.english, "overview": it.overview_en}),
    ]
    if it.language != "en":
        there.append(_translation(it.language, it.country, {title: "", "overview": f"{it.original}."}))
    if it.is_translated and it.language != "zh":
        there.append(_translation("zh", "CN", {title: it.chinese, "overview": it.overview("zh-CN")}))
    return {"translations": there}


class _Work:
    """What a film and a show of one id have in common. A third are not in Chinese, or half."""

    def __init__(self, tmdb_id: int, kind: str) -> None:
        self.id = tmdb_id
        dice = random.Random(f"{kind} {tmdb_id}")
        how, what = dice.randrange(len(HOW)), dice.randrange(len(WHAT))
        number = f" {tmdb_id % 97 + 2}" if tmdb_id % 3 else ""
        self.chinese = HOW[how] + WHAT[what] + number.strip()
        self.english = f"The {HOW_EN[how]} {WHAT_EN[what]}{number}"
        self.language = dice.choice(["en", "en", "zh", "zh", "ja", "ko", "fr"])
        self.country = {"en": "US", "zh": "CN", "ja": "JP", "ko": "KR", "fr": "FR"}[self.language]
        before, after = IN_OTHERS.get(self.language, ("", ""))
        others = f"{before}{WHAT_EN[what]}{after}{number}"
        self.original = {"en": self.english, "zh": self.chinese}.get(self.language, others)
        self.is_translated = self.language == "zh" or dice.random() < 0.7
        self.has_chinese_overview = self.is_translated and dice.random() < 0.8
        self.overview_zh = f"关于{WHAT[what]}的故事。"
        self.overview_en = f"A story about a {WHAT_EN[what].lower()}."
        day = date(1960, 1, 1) + timedelta(days=dice.randrange(67 * 365))
        self.released = "" if dice.random() < 0.05 else day.isoformat()
        self.votes = dice.choice([0, 3, 250, 9_000])
        self.rating = dice.randrange(400, 870) / 100 if self.votes else 0  # an int, as TMDB's
        self.popularity = dice.randrange(600, 90_000) / 1000
        self.poster = self.maybe_path(dice)
        self.backdrop = self.maybe_path(dice)
        self.dice = dice

    @staticmethod
    def maybe_path(dice: random.Random) -> str | None:
        return None if dice.random() < 0.2 else f"/{dice.randbytes(14).hex()[:27]}.jpg"

    def maybe(self, value: object, unknown: object) -> object:
        return unknown if self.dice.random() < 0.3 else value

    def title(self, language: str) -> str:
        if language.startswith("zh"):
            return self.chinese if self.is_translated else self.original
        return self.english if language.startswith("en") else self.original

    def overview(self, language: str) -> str:
        if language.startswith("zh"):
            return self.overview_zh if self.has_chinese_overview else ""
        return self.overview_en if language.startswith("en") else ""

    def genre_ids(self) -> list[int]:
        return random.Random(f"genres {self.id}").sample(sorted(GENRES), self.id % 4)

    def genres(self, language: str) -> list[Json]:
        names = GENRES if language.startswith("zh") else ENGLISH_GENRES
        return [{"id": genre_id, "name": names[genre_id]} for genre_id in self.genre_ids()]

    def collection(self) -> Json | None:
        if self.id % 7:
            return None
        return {
            "id": 900_000 + self.id % 50,
            "name": f"{self.chinese}（系列）",
            "poster_path": None,
            "backdrop_path": None,
        }

    def common(self, language: str) -> Json:
        origin: Json = {"origin_country": [self.country]}
        row = self.row(language) | origin
        del row["genre_ids"]
        return row

    def row(self, language: str) -> Json:
        return {
            "adult": False,
            "softcore": False,
            "backdrop_path": self.backdrop,
            "genre_ids": self.genre_ids(),
            "id": self.id,
            "original_language": self.language,
            "overview": self.overview(language),
            "popularity": self.popularity,
            "poster_path": self.poster,
            "vote_average": self.rating,
            "vote_count": self.votes,
        }


MAX_CAST = 15


def _cast_size(tmdb_id: int) -> int:
    return tmdb_id * 7 % (MAX_CAST + 1)


def _someone(tmdb_id: int, offset: int) -> int:
    return PEOPLE[(tmdb_id + offset) % len(PEOPLE)]


def _with(person_id: int, offset: int, known: Container[int], last: int) -> Iterator[int]:
    """The films in which `_someone` is this person."""
    first = (person_id - PEOPLE.start - offset) % len(PEOPLE)
    return (tmdb_id for tmdb_id in range(first, last + 1, len(PEOPLE)) if tmdb_id in known)


def _person(tmdb_id: int) -> Json:
    dice = random.Random(f"person {tmdb_id}")
    chinese = dice.random() < 0.3
    name = dice.choice(SURNAMES) + dice.choice(GIVEN) if chinese else f"{dice.choice(FIRST)} {dice.choice(LAST)}"
    return {
        "adult": False,
        "gender": dice.choice([0, 1, 2, 3]),
        "id": tmdb_id,
        "known_for_department": dice.choice(["Acting", "Directing", None]),
        "name": name,
        "original_name": name,
        "popularity": dice.randrange(100, 20_000) / 1000,
        "profile_path": _Work.maybe_path(dice),
    }


def _translation(language: str, region: str, data: Json) -> Json:
    texts = {"homepage": "", "runtime": 0, "tagline": ""} | data
    return {"iso_3166_1": region, "iso_639_1": language, "name": "", "english_name": "", "data": texts}


def _credit_id(tmdb_id: int, at: int) -> str:
    return f"{tmdb_id:016x}{at:08x}"
