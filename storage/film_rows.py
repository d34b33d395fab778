"""From TMDB's answer about one film to the columns of `tmdb.movies` and the rows of its relations.

TMDB has no fallback between languages: what is not translated is an empty string, or the original title. It is filled
here, once and each text by itself, from the translations that came with the answer: first the same language of another
region, then the original title, then English, then the language of the film. Nothing is fetched and no SQL is run here.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache
from typing import Any

from storage.film_names import key, part_keys, title_keys
from storage.film_spellings import RULES

MAX_CAST = 40
"""Whom a film is found by: beyond the fortieth billed TMDB lists passers-by."""

KEYS_KEPT = 16_384
"""Folded names of people that are remembered, about 3 MiB: folding them takes longer than all else of a row."""

CREDIT_COLUMNS = (
    *("movie_id", "role", "position", "person_id", "name", "name_key", "department", "job", "character", "credit_id"),
)
"""In the order of a row of `credit_rows`."""

Json = Mapping[str, Any]

person_key = lru_cache(KEYS_KEPT)(key)
"""`key` of a person's name; the same people are in many films."""


def film_row(raw: Json, language: str) -> dict[str, object]:
    """The columns of one film, ready to be sent as JSON. Raises ValueError when `raw` is no film with an id and title.

    `raw` is GET /3/movie/{id} with credits and translations appended; either may be missing.
    """
    tmdb_id, original_title = raw.get("id"), text(raw, "original_title")
    original_language = text(raw, "original_language")
    english_title, overview_en = translated(raw, "title", "en", "US"), translated(raw, "overview", "en", "US")
    wanted, _, region = language.partition("-")
    title = text(raw, "title")
    if title in {"", original_title} and original_language != wanted:
        title = translated(raw, "title", wanted, region) or title
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
        "release_date": day(raw.get("release_date")),
        "runtime": raw.get("runtime") or None,
        "overview": text(raw, "overview")
        or translated(raw, "overview", wanted, region)
        or overview_en
        or translated(raw, "overview", original_language),
        "overview_en": overview_en,
        "popularity": raw.get("popularity") or 0.0,
        "vote_average": raw.get("vote_average") or 0.0,
        "vote_count": raw.get("vote_count") or 0,
        "genre_ids": [genre["id"] for genre in genres],
        "genres": [text(genre, "name") for genre in genres],
        "directors": directors,
        "cast_names": cast,
        "title_keys": title_keys(*names),
        "part_keys": part_keys(*names),
        "poster_path": raw.get("poster_path") or None,
        "backdrop_path": raw.get("backdrop_path") or None,
        "raw": raw,
        "raw_hash": raw_hash(raw),
        "language": language,
        "spelling_rules": RULES,
    }


def credit_rows(raw: Json) -> list[tuple[object, ...]]:
    """Everybody in a film's credits, once for each part and each job, in the order of CREDIT_COLUMNS.

    `position` counts the cast as billed and the crew as listed, each from 0. Who has no name is left out.
    """
    named = {role: [person for person in _people(raw, role) if text(person, "name")] for role in ("cast", "crew")}
    named["cast"].sort(key=_billing)
    return [
        (
            raw["id"],
            role,
            position,
            person.get("id"),
            name := text(person, "name"),
            person_key(name),
            text(person, "department") or None,
            text(person, "job") or None,
            text(person, "character") or None,
            person.get("credit_id"),
        )
        for role, people in named.items()
        for position, person in enumerate(people)
    ]


def raw_hash(raw: Json) -> str:
    """The same for the same answer, in whatever order its fields came."""
    canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def text(source: Json, field: str) -> str:
    """A field that TMDB leaves out, null or empty when it is not known."""
    value = source.get(field)
    return value.strip() if isinstance(value, str) else ""


def day(value: object) -> str | None:
    """A date of TMDB as ISO 8601, None when it is none: an unknown one may be empty."""
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        return None


def translated(raw: Json, field: str, language: str, region: str = "") -> str:
    """The text in a language, from this region if there is one; empty when nobody translated it."""
    translations = (raw.get("translations") or {}).get("translations") or ()
    spoken = [entry for entry in translations if entry.get("iso_639_1") == language]
    # What Britain leaves empty, America may have filled, and the other way round.
    spoken.sort(key=lambda entry: entry.get("iso_3166_1") != region)
    return next((found for entry in spoken if (found := text(entry.get("data") or {}, field))), "")


def _people(raw: Json, department: str) -> Iterable[Json]:
    return (raw.get("credits") or {}).get(department) or ()


def _billing(person: Json) -> int:
    order = person.get("order")
    return order if isinstance(order, int) else MAX_CAST


def _names(people: Iterable[Json]) -> list[str]:
    # A person may stand in the credits twice: once for each part, or once for each job.
    return list(dict.fromkeys(name for person in people if (name := text(person, "name"))))
