"""Answers to questions that are understood: what is asked of the catalogue, and how it is put together.

Every film and every figure in an answer comes from the catalogue; only the words between them are from here.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from protocol.chat import Recommendations
from protocol.movies import MovieDetail
from storage.film_filter import Credit, Film, FilmFilter, Order
from storage.film_names import key, title_keys
from storage.movies import Movies
from wsserver.domains.assistant.conditions import MAX_FILMS, RATED_BY
from wsserver.domains.assistant.mentions import Name
from wsserver.domains.assistant.people import PeopleNames
from wsserver.domains.assistant.prose import COMPARED, Prose
from wsserver.domains.assistant.prose_en import English
from wsserver.domains.assistant.prose_zh import Chinese
from wsserver.domains.assistant.questions import Kind, Question
from wsserver.domains.assistant.words import Aspect

FILMS = 5
"""In a list when no number was asked for."""

ALL_FILMS = 10
"""In a list when all were asked for."""

ALIKE = 0.75
"""Similarity of two titles from which one is taken for a slip of the other (difflib's ratio)."""

_NEEDS_DETAIL = {Aspect.CAST, Aspect.WRITER, Aspect.MUSIC, Aspect.PHOTOGRAPHY}


@dataclass(frozen=True, slots=True)
class Reply:
    """The text of an answer and the films that it recommends."""

    text: str = field(repr=False)
    recommendations: Recommendations | None = None


class FilmAnswers:
    """Answers questions from the catalogue. Methods may raise STORAGE_UNAVAILABLE."""

    def __init__(self, movies: Movies, people: PeopleNames) -> None:
        self._movies = movies
        self._people = people
        self._chinese = Chinese(people)
        self._english = English()

    def prose(self, question: Question) -> Prose:
        """The language of the answer."""
        return self._chinese if question.chinese else self._english

    async def reply(self, question: Question, today: date) -> Reply:
        """The answer to a question that leaves nothing to the conversation any more."""
        prose = self.prose(question)
        courtesies = {
            Kind.GREETING: prose.greeting,
            Kind.THANKS: prose.thanks,
            Kind.GOODBYE: prose.goodbye,
            Kind.YES: prose.ready,
            Kind.ABILITIES: prose.abilities,
        }
        if courtesy := courtesies.get(question.kind):
            return Reply(courtesy)
        if question.kind in (Kind.LIST, Kind.PERSON):
            return await self._list(question, today)
        replies = {
            Kind.FILM: self._about_films,
            Kind.IN_FILM: self._in_film,
            Kind.SIMILAR: self._similar,
            Kind.SERIES: self._series,
            Kind.MAKERS: self._makers,
            Kind.COUNT: self._count,
        }
        return await replies.get(question.kind, self._unknown)(question)

    async def _about_films(self, question: Question) -> Reply:
        prose = self.prose(question)
        if not question.films:
            return Reply(prose.which_film)
        parts: list[str] = []
        films: list[Film] = []
        for name in question.films[:4]:
            if not name.whole and len(name.films) > 1 and not question.aspects:
                return await self._series(question)
            chosen = name.films[:ALL_FILMS] if not name.whole else [_chosen(name, question)]
            if not name.whole and len(chosen) == 1:
                parts.append(prose.only_part(_asked_name(name, question), chosen[0]))
            films += chosen
        if question.unknown and not question.aspects and len(films) == 1:
            parts.append(prose.no_such_fact(question.unknown))
        parts += [f"{text}\n" for text in [await self._about_film(film, question) for film in films]]
        text = "".join(parts).rstrip("\n")
        if len(films) > 1 and (winner := _winner(films, question)):
            text += f"\n{prose.winner(*winner, question.text)}"
        namesakes = [film for film in question.films[0].films if film is not films[0]]
        return Reply(text + (prose.namesakes(namesakes) if len(films) == 1 and namesakes else ""))

    async def _about_film(self, film: Film, question: Question) -> str:
        prose, aspects = self.prose(question), question.aspects
        if not aspects:
            return prose.card(film)
        detail = await self._movies.detail(film.tmdb_id) if _NEEDS_DETAIL & set(aspects) else None
        if detail and Aspect.CAST in aspects and (player := _player(detail, question)):
            return prose.in_film(film, player[0], player[1], is_director=False, is_cast=True)
        return "\n".join(prose.aspect(aspect, film, detail) for aspect in aspects)

    async def _in_film(self, question: Question) -> Reply:
        """Whether these people are in these films, and as whom; or what else is asked about the films."""
        prose = self.prose(question)
        parts: list[str] = []
        for name in question.films[:3]:
            film = _chosen(name, question)
            detail = await self._movies.detail(film.tmdb_id)
            cast = {key(member.name): member for member in detail.cast} if detail else {}
            for person in question.people[:5]:
                member = next((cast[name_key] for name_key in person.keys if name_key in cast), None)
                is_director = any(key(director) in person.keys for director in film.directors)
                parts.append(
                    prose.in_film(
                        film,
                        person.name,
                        member.character if member else None,
                        is_director=is_director,
                        is_cast=member is not None,
                    )
                )
            others = [aspect for aspect in question.aspects if aspect not in (Aspect.CAST, Aspect.DIRECTOR)]
            parts += [prose.aspect(aspect, film, detail) for aspect in others]
        return Reply("\n".join(parts))

    async def _similar(self, question: Question) -> Reply:
        prose = self.prose(question)
        if not question.films:
            return Reply(prose.which_film)
        liked = [_chosen(name, question) for name in question.films[:3]]
        found = await self._movies.similar(
            [film.tmdb_id for film in liked], question.wanted, limit=question.limit or FILMS
        )
        if not found:
            return Reply(prose.nothing_more if question.more else prose.nothing_similar(liked))
        title = prose.similar_intro(liked).rstrip("：:\n")
        return self._films(question, prose.similar_intro(liked), found, title=title, mode="movie_similar")

    async def _series(self, question: Question) -> Reply:
        prose, name = self.prose(question), question.films[0]
        by_id = {film.tmdb_id: film for named in question.films for film in (*named.films, *named.series)}
        found = sorted(by_id.values(), key=lambda film: (film.release_date or date.max, film.tmdb_id))
        shown = [film for film in found if film.tmdb_id not in question.wanted.exclude][: question.limit or MAX_FILMS]
        if not shown:
            return Reply(prose.nothing_more)
        intro = prose.series_intro(_asked_name(name, question), len(shown))
        return self._films(question, intro, shown, title=intro.rstrip("：:\n"), mode="movie_series")

    async def _count(self, question: Question) -> Reply:
        return Reply(self.prose(question).count(question, await self._movies.count_matching(question.wanted)))

    async def _makers(self, question: Question) -> Reply:
        """Other films of a film's director, or of its first billed when its cast was asked for."""
        prose = self.prose(question)
        if not question.films:
            return Reply(prose.which_film)
        film = _chosen(question.films[0], question)
        names = film.directors if Aspect.DIRECTOR in question.aspects else film.cast_names[:1]
        keys = tuple(key(name) for name in names)
        wanted = replace(question.wanted, credits=(Credit(keys),), exclude=(film.tmdb_id, *question.wanted.exclude))
        found = await self._movies.search(wanted, question.order or Order.POPULAR, limit=question.limit or ALL_FILMS)
        people = tuple(self._people.credited(key(name), name) for name in names)
        if not found:
            return Reply(prose.nothing(replace(question, people=people[:1], wanted=wanted)))
        intro = prose.makers_intro(film, names)
        return self._films(question, intro, found, title=intro.rstrip("：:\n"), mode="movie_person")

    async def _list(self, question: Question, today: date) -> Reply:
        prose = self.prose(question)
        if question.that_person and not question.people:
            return Reply(prose.which_person)
        order = question.order or Order.POPULAR
        limit = question.limit or (ALL_FILMS if question.everything or question.people else FILMS)
        wanted = _bounded(question, order, today)
        found = await self._movies.search(wanted, order, limit=limit + 1)
        intro = ""
        if question.kind is Kind.PERSON:
            intro = prose.person_intro([person.name for person in question.people])
        elif order is Order.POPULAR and _is_recent(question, today) and len(found) < min(limit, FILMS):
            everything = replace(wanted, year_from=None)
            older = await self._movies.search(everything, order, limit=limit + 1)
            if len(older) > len(found):
                found, intro = older, prose.recent_is_old
                question = replace(question, wanted=everything)
        if not found:
            return Reply(prose.nothing_more if question.more else prose.nothing(question))
        shown = found[:limit]
        text = intro or prose.list_intro(question, len(shown), is_all=len(found) <= limit and not question.more)
        if question.unknown and question.kind is not Kind.PERSON:
            text = prose.ignored(question.unknown) + text
        hint = f"\n{prose.more_hint}" if len(found) > limit else ""
        return self._films(question, text, shown, title=prose.list_title(question), mode=_mode(question), hint=hint)

    def _films(
        self, question: Question, intro: str, films: Sequence[Film], *, title: str, mode: str, hint: str = ""
    ) -> Reply:
        prose = self.prose(question)
        items = "\n".join(prose.item(number, film) for number, film in enumerate(films, 1))
        return Reply(f"{intro}{items}{hint}", Recommendations([film.tmdb_id for film in films], title, mode))

    async def _unknown(self, question: Question) -> Reply:
        prose = self.prose(question)
        asked = question.unknown_titles[0] if question.unknown_titles else question.unknown
        if not asked:
            return Reply(prose.not_understood)
        film = await self._near(asked)
        # "Films about prisoners" are no slip of "Prisoners".
        if film and (question.unknown_titles or question.aspects or key(asked) not in film.title_keys):
            return Reply(prose.did_you_mean(asked, film))
        if question.unknown_titles or question.aspects:
            return Reply(prose.not_in_catalogue(asked))
        if question.about_films or question.order or question.wanted != FilmFilter():
            return Reply(prose.cannot_filter(asked))
        return Reply(prose.not_understood)

    async def _near(self, asked: str) -> Film | None:
        """The film whose title is nearly what was asked for."""
        wanted = title_keys(asked)[:2]
        if not wanted or max(map(len, wanted)) < 3:
            return None
        by_key = {
            title_key: film
            for film in reversed(await self._movies.similarly_titled(wanted))
            for title_key in film.title_keys
        }
        for name_key in wanted:
            if close := difflib.get_close_matches(name_key, by_key, n=1, cutoff=ALIKE):
                return by_key[close[0]]
        return None


def _chosen(name: Name, question: Question) -> Film:
    """Of films with one title that of the year that was said, else the most voted."""
    year = question.wanted.year_from
    return next((film for film in name.films if year is not None and film.year == year), name.films[0])


def _asked_name(name: Name, question: Question) -> str:
    if name.whole:
        return name.films[0].title if question.chinese else name.films[0].title_en
    return name.asked


def _player(detail: MovieDetail, question: Question) -> tuple[str, str] | None:
    """Who plays the character whose name is in the question."""
    asked = key(question.text)
    for member in detail.cast:
        words = [key(word) for word in member.character.replace("/", " ").split()]
        if any(len(word) > 2 and word in asked for word in words):
            return member.name, member.character
    return None


def _winner(films: Sequence[Film], question: Question) -> tuple[Aspect, Film] | None:
    aspect = next((aspect for aspect in question.aspects if aspect in COMPARED), None)
    if aspect is Aspect.RATING and len({round(film.vote_average, 1) for film in films}) == len(films):
        return aspect, max(films, key=lambda film: film.vote_average)
    if aspect is Aspect.RUNTIME and all(film.runtime for film in films):
        return aspect, max(films, key=lambda film: film.runtime or 0)
    if aspect is Aspect.DATE and all(film.release_date for film in films):
        is_earlier = any(word in question.text.lower() for word in ("早", "older", "first", "earlier"))
        return aspect, (min if is_earlier else max)(films, key=lambda film: film.release_date or date.min)
    return None


def _bounded(question: Question, order: Order, today: date) -> FilmFilter:
    wanted = question.wanted
    if question.upcoming:
        return replace(wanted, released_after=today)
    if order is Order.NEWEST:
        wanted = replace(wanted, released_by=today)
    is_rated = order in (Order.BEST, Order.WORST) or wanted.lowest_rating is not None
    return replace(wanted, least_votes=RATED_BY) if is_rated else wanted


def _is_recent(question: Question, today: date) -> bool:
    first = question.wanted.year_from
    return first is not None and question.wanted.year_to is None and first > today.year - 5


def _mode(question: Question) -> str:
    if question.people:
        return "movie_person"
    if question.upcoming:
        return "movie_upcoming"
    if question.order is Order.BEST:
        return "movie_top_rated"
    if question.order is Order.NEWEST:
        return "movie_recent"
    has_filter = replace(question.wanted, year_from=None, exclude=()) != FilmFilter()
    return "movie_search" if has_filter or question.order not in (None, Order.POPULAR) else "movie_popular"
