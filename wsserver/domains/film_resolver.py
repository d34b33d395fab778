"""Names that the catalogue does not know, looked for at TMDB: which film, show or person is meant, and all about it.

What was found is stored behind the answer, which has it from here. How a film is fetched once for all who want it is
`film_fetch.py`'s business.
"""

import asyncio
import difflib
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Protocol

import structlog

from protocol.errors import OperationError
from storage.film_filter import Film
from storage.film_names import key
from storage.film_rows import film_row
from storage.tmdb_entities import People, TvShows
from wsserver.domains.assistant.people import Person
from wsserver.vendors.tmdb import SearchHit, Tmdb, TmdbError

log = structlog.get_logger(__name__)

WITHIN_S = 3.0
"""For all of it: somebody waits for the first word of an answer."""

STORED_WITHIN_S = 0.3
"""For the storing, which takes some milliseconds: with it the catalogue can be asked what else there is."""

MOST_NAMES = 3
"""Of one question: each is a request, and a question has seldom more."""

FILMS_OF_PERSON = 8
"""Fetched for somebody whom the catalogue does not know: as many as are fetched at the same time."""

ALIKE = 0.75
"""Score from which a hit is taken to be meant. A title spelled right scores 1, a figure of its year or a slip less."""

YEAR_RIGHT, YEAR_NEAR, YEAR_WRONG = 0.2, 0.1, -0.4
"""A year that was said decides between namesakes. Cinemas of another country show a film a year later."""

MOST_FOR_POPULARITY = 0.1
"""Among namesakes the one that everybody speaks of; never enough to make a wrong title right."""

SPOKEN_CAST = 8

Spawn = Callable[..., object]


class Fetch(Protocol):
    """Fetches films once for everybody."""

    async def raw(self, tmdb_id: int) -> Mapping[str, Any] | None: ...
    async def fetch(self, ids: Sequence[int]) -> object: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that a name may mean. `name` is as it was asked."""

    name: str
    hit: SearchHit
    score: float


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the names mean. `films` answer to the names that they were asked by, as titles; `people` likewise."""

    candidates: tuple[Candidate, ...] = ()
    chosen: tuple[Candidate, ...] = ()
    films: tuple[Film, ...] = ()
    people: tuple[Person, ...] = ()
    facts: tuple[str, ...] = ()
    """Of shows and people, a line each."""
    outcome: str = "nothing"


@dataclass(slots=True)
class _Found:
    films: list[Film] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


def score(name: str, year: int | None, hit: SearchHit) -> float:
    """How likely it is that somebody who said `name`, and perhaps a year, means the hit."""
    asked = key(name)
    titles = {key(title) for title in (hit.title, hit.original_title)} - {""}
    alike = max((difflib.SequenceMatcher(None, asked, title).ratio() for title in titles), default=0.0)
    if year is not None and hit.year is not None:
        off = abs(year - hit.year)
        alike += YEAR_RIGHT if off == 0 else YEAR_NEAR if off == 1 else YEAR_WRONG
    known = math.log10(1 + hit.vote_count) / 5 + math.log10(1 + hit.popularity) / 4
    return alike + MOST_FOR_POPULARITY * min(1.0, known)


class FilmResolver:
    """Looks names up at TMDB. No method raises because TMDB or PostgreSQL has a bad day."""

    def __init__(
        self,
        tmdb: Tmdb,
        fetch: Fetch,
        people: People,
        shows: TvShows,
        spawn: Spawn,
        *,
        language: str,
        within_s: float = WITHIN_S,
    ) -> None:
        self._tmdb = tmdb
        self._fetch = fetch
        self._people = people
        self._shows = shows
        self._spawn = spawn
        self._language = language
        self._within_s = within_s

    async def resolve(self, names: Sequence[str], year: int | None) -> Resolved:
        """What the names mean, as far as it could be found out in time."""
        asked = list(dict.fromkeys(names))[:MOST_NAMES]
        candidates: list[Candidate] = []
        chosen: list[Candidate] = []
        found = _Found()
        outcome = "nothing"
        try:
            async with asyncio.timeout(self._within_s):
                for hits in await asyncio.gather(*(self._search(name, year) for name in asked)):
                    candidates += hits
                    chosen += [hit for hit in hits[:1] if hit.score >= ALIKE]
                for each in chosen:
                    await self._take(each, found)
                outcome = "found" if chosen else "nothing"
        except TimeoutError:
            outcome = "late"
        except TmdbError as error:
            outcome = error.outcome
        return Resolved(
            tuple(candidates), tuple(chosen), tuple(found.films), tuple(found.people), tuple(found.facts), outcome
        )

    async def stored(self, resolved: Resolved) -> None:
        """Wait a moment for the films to be in the catalogue; they need not be."""
        ids = [film.tmdb_id for film in resolved.films]
        if ids:
            try:
                async with asyncio.timeout(STORED_WITHIN_S):
                    await self._fetch.fetch(ids)
            except (TimeoutError, OperationError):
                log.info("answer does not wait for films to be stored", films=len(ids))

    async def _search(self, name: str, year: int | None) -> list[Candidate]:
        hits = await self._tmdb.search_multi(name, language=self._language)
        scored = [Candidate(name, hit, round(score(name, year, hit), 3)) for hit in hits]
        return sorted(scored, key=lambda each: (-each.score, each.hit.tmdb_id))

    async def _take(self, candidate: Candidate, found: _Found) -> None:
        match candidate.hit.media_type:
            case "movie":
                raw = await self._fetch.raw(candidate.hit.tmdb_id)
                if raw is not None:
                    found.films.append(_called(film_of(raw, self._language), candidate.name))
            case "person":
                await self._take_person(candidate, found)
            case "tv":
                raw = await self._tmdb.tv(candidate.hit.tmdb_id, language=self._language)
                self._keep(self._shows.store([raw], language=self._language), "show")
                found.facts.append(_show_line(raw))

    async def _take_person(self, candidate: Candidate, found: _Found) -> None:
        raw = await self._tmdb.person(candidate.hit.tmdb_id, language=self._language)
        self._keep(self._people.store([raw], language=self._language), "person")
        spellings = (candidate.name, raw["name"], *(raw.get("also_known_as") or ()))
        keys = tuple(dict.fromkeys(name_key for spelling in spellings if (name_key := key(spelling))))
        found.people.append(Person(raw["name"], keys))
        found.facts.append(_person_line(raw))
        await self._fetch.fetch(best_films(raw)[:FILMS_OF_PERSON])

    def _keep(self, storing: Coroutine[Any, Any, object], what: str) -> None:
        async def store() -> None:
            try:
                await storing
            except (OperationError, ValueError) as error:
                log.warning("not stored", what=what, reason=str(error))

        self._spawn(store(), name=f"storing of a {what}")


def film_of(raw: Mapping[str, Any], language: str) -> Film:
    """TMDB's answer about a film as the catalogue would give it."""
    row: dict[str, Any] = film_row(dict(raw), language)
    released = row["release_date"]
    known = {name: row[name] for name in Film.__slots__}
    return Film(
        **known
        | {
            "release_date": date.fromisoformat(released) if released else None,
            "cast_names": row["cast_names"][:SPOKEN_CAST],
        }
    )


def best_films(raw: Mapping[str, Any]) -> list[int]:
    """Ids of the films that somebody directed or played in, those with most votes first."""
    credits_ = raw.get("movie_credits") or {}
    films = {
        film["id"]: film.get("vote_count") or 0
        for film in (*(credits_.get("cast") or ()), *(credits_.get("crew") or ()))
        if isinstance(film.get("id"), int) and film.get("job") in (None, "Director")
    }
    return sorted(films, key=lambda tmdb_id: (-films[tmdb_id], tmdb_id))


def _called(film: Film, name: str) -> Film:
    name_key = key(name)
    return film if name_key in film.title_keys else replace(film, title_keys=[*film.title_keys, name_key])


def _person_line(raw: Mapping[str, Any]) -> str:
    parts = [raw["name"], raw.get("birthday") and f"born {raw['birthday']}", raw.get("place_of_birth")]
    life = (raw.get("biography") or "")[:300]
    return " · ".join(str(part) for part in (*parts, life) if part)


def _show_line(raw: Mapping[str, Any]) -> str:
    seasons = raw.get("number_of_seasons")
    parts = [f"《{raw['name']}》 (TV)", raw.get("first_air_date"), seasons and f"{seasons} seasons"]
    return " · ".join(str(part) for part in (*parts, (raw.get("overview") or "")[:300]) if part)
