"""What is known about the films that a question is about: is it about films, which, and what does the catalogue say.

The way of a question: route, understand, look up at TMDB what the catalogue does not know, retrieve. What is made of
the knowledge is the answerers' business, the catalogue assistant's and the model's alike.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Literal, TypeVar

import structlog

from protocol.chat import Status
from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage.enrichment import Considered, Enrichment, EnrichmentLog
from storage.film_filter import Credit, Film, FilmFilter, Order, Role
from storage.film_names import key
from storage.movies import Movies
from storage.tmdb_entities import People
from wsserver.domains.answerer import MOVIE_BASE, Asking
from wsserver.domains.assistant.answers import FilmAnswers, Reply
from wsserver.domains.assistant.conversation import NOTHING_KNOWN, FilmConversation, Known
from wsserver.domains.assistant.people import PeopleNames
from wsserver.domains.assistant.questions import COURTESIES, Kind, Question
from wsserver.domains.assistant.words import GENRE_NAMES
from wsserver.domains.film_extraction import FilmExtraction
from wsserver.domains.film_resolver import Candidate, FilmResolver, Resolved
from wsserver.vendors.llm import Turn

log = structlog.get_logger(__name__)

T = TypeVar("T")

MOST_FILMS = 20
"""In the facts: a page of cards."""

MOST_HOPS = 6
"""Films or people that are told beside those asked for: a director's other films, who worked together most."""

OVERVIEW_CHARACTERS = 300
"""Of a film that is asked for by name; films in lists have none."""

Spawn = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Route:
    """Whether the question goes to the films, and who decided."""

    to: Literal["films", "none"]
    by: Literal["kb_prefix", "rules"]


@dataclass(frozen=True, slots=True)
class Read:
    """A question that has been read. `resolved` is what TMDB was asked, `since` when that began (monotonic, s)."""

    question: Question = field(repr=False)
    route: Route
    since: float
    resolved: Resolved | None = field(default=None, repr=False)

    @property
    def about_films(self) -> bool:
        return self.route.to == "films"


@dataclass(frozen=True, slots=True)
class FilmFacts:
    """What an answer may be made of. `films` are in the catalogue, or on their way into it; the best come first."""

    question: Question = field(repr=False)
    reply: Reply = field(repr=False)
    films: tuple[Film, ...] = field(default=(), repr=False)
    lines: tuple[str, ...] = field(default=(), repr=False)
    """One fact each, for a model."""


class FilmKnowledge:
    """Looks up what a conversation's last question is about. Without a `resolver` the catalogue is all there is.

    `catalogue_s` is how long the catalogue is waited for each time; None where there is nothing without it.
    """

    def __init__(
        self,
        movies: Movies,
        chinese_names: Mapping[str, Sequence[str]],
        *,
        people: People | None = None,
        resolver: FilmResolver | None = None,
        extraction: FilmExtraction | None = None,
        enrichments: EnrichmentLog | None = None,
        spawn: Spawn | None = None,
        catalogue_s: float | None = None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        names = PeopleNames(chinese_names)
        self._movies = movies
        self._conversation = FilmConversation(movies, names, people)
        self._answers = FilmAnswers(movies, names)
        self._resolver = resolver
        self._extraction = extraction
        self._enrichments = enrichments
        self._spawn = spawn
        self._catalogue_s = catalogue_s
        self._today = today

    async def read(self, turns: Sequence[Turn], asking: Asking) -> AsyncGenerator[Status | Read, None]:
        """Statuses as it goes, and last the question as it was read. Raises STORAGE_UNAVAILABLE."""
        since, today = time.monotonic(), self._today()
        question = await self._in_time(self._conversation.understand(turns, today))
        route = _route(question, asking)
        yield Status("routing", {"route": route.to, "by": route.by, "kind": question.kind})
        if route.to == "none":
            yield Read(question, route, since)
            return
        known = NOTHING_KNOWN
        if self._extraction is not None and _is_unsure(question):
            extracted = await self._extraction.extract(turns)
            if extracted is not None:
                known = Known(titles=tuple(extracted.titles))
                question = extracted.applied_to(await self._in_time(self._conversation.understand(turns, today, known)))
        names = _unknown_names(question)
        if self._resolver is None or not names:
            yield Read(question, route, since)
            return
        resolved = await self._resolver.resolve(names, question.wanted.year_from)
        counts = {"names": len(names), "candidates": len(resolved.candidates), "chosen": len(resolved.chosen)}
        yield Status("enrichment", {**counts, "outcome": resolved.outcome})
        if resolved.chosen:
            await self._resolver.stored(resolved)
            known = replace(known, films=resolved.films, people=resolved.people)
            question = await self._in_time(self._conversation.understand(turns, today, known))
        yield Read(question, route, since, resolved)

    async def reply(self, read: Read) -> Reply:
        """What the catalogue says to the question. Raises STORAGE_UNAVAILABLE."""
        return await self._answers.reply(read.question, self._today())

    async def facts(self, read: Read) -> FilmFacts:
        """All that a model should know to answer the question. Raises STORAGE_UNAVAILABLE."""
        return await self._in_time(self._facts(read))

    async def _in_time(self, looking: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._catalogue_s):
                return await looking
        except TimeoutError:
            raise OperationError(STORAGE_UNAVAILABLE) from None

    async def _facts(self, read: Read) -> FilmFacts:
        question = read.question
        reply = await self.reply(read)
        named = [name.films[0] for name in question.films if name.films][:MOST_FILMS]
        ids = reply.recommendations.tmdb_ids if reply.recommendations else []
        listed = await self._movies.films(ids)
        hops = await self._hops(question, named)
        films = _once([*named, *listed, *hops.films])[: 2 * MOST_FILMS]
        lines = [_line(film, with_overview=film in named) for film in films]
        if question.kind is not Kind.UNKNOWN or question.unknown_titles:
            lines.append(f"The catalogue's own answer to the question: {reply.text}")
        lines += hops.lines
        lines += read.resolved.facts if read.resolved else ()
        return FilmFacts(question, reply, tuple(films), tuple(lines))

    async def _hops(self, question: Question, named: Sequence[Film]) -> "_Hops":
        """What lies one step further: other films of who made this one, and whom somebody made most films with."""
        hops = _Hops()
        if question.people:
            for person in question.people[:2]:
                credit = Credit(person.keys)
                works = await self._movies.filmography(credit, limit=MOST_HOPS)
                others = await self._movies.collaborators(credit, limit=MOST_HOPS)
                hops.films += [work.film for work in works]
                if works:
                    told = ", ".join(f"《{work.film.title}》 ({work.film.year or '?'})" for work in works)
                    hops.lines.append(f"{person.name}: best known films in the catalogue: {told}")
                if others:
                    told = ", ".join(f"{other.name} ({other.films})" for other in others)
                    hops.lines.append(f"{person.name}: worked most often with {told}")
        elif len(named) == 1 and named[0].directors:
            credit = Credit(tuple(key(name) for name in named[0].directors), Role.DIRECTOR)
            wanted = FilmFilter(credits=(credit,), exclude=(named[0].tmdb_id,))
            works_of_director = await self._movies.search(wanted, Order.POPULAR, limit=MOST_HOPS)
            if works_of_director:
                told = ", ".join(f"《{film.title}》 ({film.year or '?'})" for film in works_of_director)
                hops.lines.append(f"Other films directed by {', '.join(named[0].directors)}: {told}")
            hops.films += works_of_director
        return hops

    def log(self, turns: Sequence[Turn], asking: Asking, read: Read, ids: Iterable[int]) -> None:
        """Write down, behind the answer, what was done for it and which films it is made of."""
        if self._enrichments is None or self._spawn is None or asking.request_id is None or not read.about_films:
            return
        candidates, chosen = (read.resolved.candidates, read.resolved.chosen) if read.resolved else ((), ())
        entities = {
            (each.hit.media_type, each.hit.tmdb_id): Considered(
                each.hit.media_type, each.hit.tmdb_id, each in chosen, each.score
            )
            for each in candidates
        }
        for tmdb_id in ids:
            entities.setdefault(("movie", tmdb_id), Considered("movie", tmdb_id, selected=True))
        enrichment = Enrichment(
            request_id=asking.request_id,
            user_id=asking.user_id,
            query=turns[-1].content,
            route=f"{read.route.to}:{read.route.by}:{read.question.kind}",
            outcome=read.resolved.outcome if read.resolved else "catalogue",
            duration_ms=round((time.monotonic() - read.since) * 1000),
            candidates=[{**_named(each), "score": each.score} for each in candidates],
            chosen=[_named(each) for each in chosen],
            entities=tuple(entities.values()),
        )
        self._spawn(_write(self._enrichments, enrichment), name="log of an enrichment")


def _named(candidate: Candidate) -> dict[str, object]:
    return {"name": candidate.name, "type": candidate.hit.media_type, "id": candidate.hit.tmdb_id}


async def _write(enrichments: EnrichmentLog, enrichment: Enrichment) -> None:
    try:
        await enrichments.write(enrichment)
    except OperationError as error:
        log.warning("enrichment not logged", reason=error.kind.reason)


@dataclass(slots=True)
class _Hops:
    films: list[Film] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def _route(question: Question, asking: Asking) -> Route:
    if question.kind in COURTESIES:
        return Route("none", "rules")
    if asking.kb_prefix is not None:
        return Route("films" if asking.kb_prefix == MOVIE_BASE else "none", "kb_prefix")
    has_names = question.films or question.people or question.unknown_titles
    goes_on = question.more and question.wanted != FilmFilter()
    return Route("films" if has_names or question.about_films or goes_on else "none", "rules")


def _is_unsure(question: Question) -> bool:
    """Whether the rules left something of the question over, or found nothing in it."""
    return question.kind is Kind.UNKNOWN or (bool(question.unknown) and not question.films)


def _unknown_names(question: Question) -> tuple[str, ...]:
    if question.unknown_titles:
        return question.unknown_titles
    return (question.unknown,) if question.unknown and not question.films else ()


def _once(films: Iterable[Film]) -> list[Film]:
    return list({film.tmdb_id: film for film in films}.values())


def _line(film: Film, *, with_overview: bool) -> str:
    genres = "/".join(GENRE_NAMES[genre_id][0] for genre_id in film.genre_ids if genre_id in GENRE_NAMES)
    others = dict.fromkeys(title for title in (film.title_en, film.original_title) if title != film.title)
    parts = [
        f"[{film.tmdb_id}] 《{film.title}》" + (f" ({' / '.join(others)})" if others else ""),
        film.release_date.isoformat() if film.release_date else "no date",
        genres,
        film.runtime and f"{film.runtime} min",
        film.directors and f"directed by {', '.join(film.directors[:3])}",
        film.cast_names and f"with {', '.join(film.cast_names[:5])}",
        f"rated {film.vote_average:.1f} of 10 by {film.vote_count}" if film.vote_count else "not rated",
        with_overview and (film.overview or film.overview_en)[:OVERVIEW_CHARACTERS],
    ]
    return " · ".join(str(part) for part in parts if part)
