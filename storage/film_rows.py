"""From TMDB's answer about one film to the columns of `tmdb.movies`.

TMDB has no fallback between languages: what is not translated is an empty string, or the original title. It is filled
here, once and each text by itself, from the translations that came with the answer: first the same language of another
region, then the original title, then English, then the language of the film. Nothing is fetched and no SQL is run here.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from storage.film_names import key, part_keys, title_keys

MAX_CAST = 40
"""Whom a film is found by: beyond the fortieth billed TMDB lists passers-by."""

Json = Mapping[str, Any]


def film_row(raw: Json, language: str) -> dict[str, object]:
    """The columns of one film, ready to be sent as JSON. Raises ValueError when `raw` is no film with an id and title.

    `raw` is GET /3/movie/{id} with credits and translations appended; either may be missing.
    """
    tmdb_id, original_title = raw.get("id"), _text(raw, "original_title")
    original_language = _text(raw, "original_language")
    english_title, overview_en = _translated(raw, "title", "en", "US"), _translated(raw, "overview", "en", "US")
    wanted, _, region = language.partition("-")
    title = _text(raw, "title")
    if title in {"", original_title} and original_language != wanted:
        title = _translated(raw, "title", wanted, region) or title
    title = title or original_title or english_title
    if not isinstance(tmdb_id, int) or not title:
        raise ValueError("not a film of TMDB: no id, or no title in any language")
    title_en = english_title or (original_title if original_language == "en" else "") or title
    names = (title, title_en, original_title or title)
    directors = _names(person for person in _people(raw, "crew") if person.get("job") == "Director")
    cast = _names(sorted(_people(raw, "cast"), key=_billing))[:MAX_CAST]
    genres = [genre for genre in raw.get("genres") or () if isinstance(genre, Mapping)]
    return {
        "tmdb_id": tmdb_id,
        "title": title,
        "title_en": title_en,
        "original_title": original_title or title,
        "original_language": original_language,
        "release_date": _date(raw.get("release_date")),
        "runtime": raw.get("runtime") or None,
        "overview": _text(raw, "overview")
        or _translated(raw, "overview", wanted, region)
        or overview_en
        or _translated(raw, "overview", original_language),
        "overview_en": overview_en,
        "popularity": raw.get("popularity") or 0.0,
        "vote_average": raw.get("vote_average") or 0.0,
        "vote_count": raw.get("vote_count") or 0,
        "genre_ids": [genre["id"] for genre in genres],
        "genres": [_text(genre, "name") for genre in genres],
        "directors": directors,
        "director_keys": [key(name) for name in directors],
        "cast_names": cast,
        "cast_keys": [key(name) for name in cast],
        "title_keys": title_keys(*names),
        "part_keys": part_keys(*names),
        "poster_path": raw.get("poster_path") or None,
        "backdrop_path": raw.get("backdrop_path") or None,
        "raw": raw,
        "raw_hash": hashlib.sha256(_canonical(raw)).hexdigest(),
        "language": language,
    }


def _canonical(raw: Json) -> bytes:
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _translated(raw: Json, field: str, language: str, region: str = "") -> str:
    """The text in a language, from this region if there is one; empty when nobody translated it."""
    translations = (raw.get("translations") or {}).get("translations") or ()
    spoken = [entry for entry in translations if entry.get("iso_639_1") == language]
    # What Britain leaves empty, America may have filled, and the other way round.
    spoken.sort(key=lambda entry: entry.get("iso_3166_1") != region)
    return next((text for entry in spoken if (text := _text(entry.get("data") or {}, field))), "")


def _people(raw: Json, department: str) -> Iterable[Json]:
    return (raw.get("credits") or {}).get(department) or ()


def _billing(person: Json) -> int:
    order = person.get("order")
    return order if isinstance(order, int) else MAX_CAST


def _names(people: Iterable[Json]) -> list[str]:
    # A person may stand in the credits twice: once for each part, or once for each job.
    return list(dict.fromkeys(name for person in people if (name := _text(person, "name"))))


def _text(source: Json, field: str) -> str:
    value = source.get(field)
    return value.strip() if isinstance(value, str) else ""


def _date(value: object) -> str | None:
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        return None
