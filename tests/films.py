"""Films as TMDB answers, small, and a catalogue of them to search in."""

from typing import Any

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
