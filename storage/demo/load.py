"""The demo catalogue as TMDB would have sent it.

The films are loaded once, into an empty catalogue; where they are is nobody's business but this file's.
"""

import json
from pathlib import Path
from typing import Any

from storage.movies import Movies

FOLDER = Path(__file__).parent
LANGUAGE = "zh-CN"

GENRES = {
    28: "动作",
    12: "冒险",
    16: "动画",
    35: "喜剧",
    80: "犯罪",
    99: "纪录",
    18: "剧情",
    10751: "家庭",
    14: "奇幻",
    36: "历史",
    27: "恐怖",
    10402: "音乐",
    9648: "悬疑",
    10749: "爱情",
    878: "科幻",
    10770: "电视电影",
    53: "惊悚",
    10752: "战争",
    37: "西部",
}
"""TMDB's GET /3/genre/movie/list?language=zh-CN."""

ENGLISH = {"iso_3166_1": "US", "iso_639_1": "en", "name": "English", "english_name": "English"}
MANDARIN = {"iso_3166_1": "CN", "iso_639_1": "zh", "name": "普通话", "english_name": "Mandarin"}

Json = dict[str, Any]


async def load_demo(movies: Movies) -> int:
    """Fill an empty catalogue with the demo films; returns how many. Processes that do it at once end up the same."""
    if await movies.count():
        return 0
    lines = (FOLDER / "movies.jsonl").read_text("utf-8").splitlines()
    stored = await movies.store([_as_tmdb(json.loads(line)) for line in lines], language=LANGUAGE, source="demo")
    return stored.written


def _as_tmdb(film: Json) -> Json:
    """GET /3/movie/{id}?append_to_response=credits,translations. What is not known has TMDB's value for unknown."""
    return {
        "adult": False,
        "backdrop_path": film["backdrop_path"],
        "belongs_to_collection": None,
        "budget": 0,
        "genres": [{"id": genre_id, "name": GENRES[genre_id]} for genre_id in film["genre_ids"]],
        "homepage": "",
        "id": film["id"],
        "imdb_id": None,
        "origin_country": [],
        "original_language": film["original_language"],
        "original_title": film["original_title"],
        "overview": film["overview"],
        "popularity": film["popularity"],
        "poster_path": film["poster_path"],
        "production_companies": [],
        "production_countries": [],
        "release_date": film["release_date"],
        "revenue": 0,
        "runtime": film["runtime"],
        "spoken_languages": [],
        "status": "Released",
        "tagline": "",
        "title": film["title"],
        "video": False,
        "vote_average": film["vote_average"],
        "vote_count": film["vote_count"],
        "credits": {
            "cast": [
                {"name": person["name"], "original_name": person["name"], "character": person["character"], "order": at}
                for at, person in enumerate(film["cast"])
            ],
            "crew": [
                {"name": name, "original_name": name, "department": "Directing", "job": "Director"}
                for name in film["directors"]
            ],
        },
        "translations": {
            "translations": [
                ENGLISH | {"data": _texts(film["title_en"], film["overview_en"])},
                MANDARIN | {"data": _texts(film["title"], film["overview"])},
            ]
        },
    }


def _texts(title: str, overview: str) -> Json:
    return {"homepage": "", "overview": overview, "runtime": 0, "tagline": "", "title": title}
