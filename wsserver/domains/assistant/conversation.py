"""What a question means where it stands in a conversation: who "it" and "he" are, and "more" of what.

Only texts are there to go by: the questions are read again, and our own answers have their titles in quotes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date

from storage.film_filter import Credit, Film, FilmFilter, Role
from storage.film_names import is_ideograph, key
from storage.movies import Movies
from storage.tmdb_entities import People
from wsserver.domains.assistant.mentions import Mentions, Name, Reading
from wsserver.domains.assistant.people import PeopleNames, Person
from wsserver.domains.assistant.questions import Kind, Question, question
from wsserver.domains.assistant.words import OTHER_WORK, RECOMMEND, Aspect
from wsserver.vendors.llm import Turn

MEMORY_TURNS = 12
"""Turns that a question may point back to: six exchanges, more than a screen shows."""

ANSWER_CHARACTERS = 4000
"""Of an earlier answer that are read: twice the longest list; another answerer's may be longer."""

MOST_LISTED = 40
"""Titles taken from one answer: twice the longest list."""

MOST_PEOPLE = 10
"""People of TMDB who have one of the names in a text: more are namesakes."""

_TITLE = re.compile(r"《([^《》]{1,120})》(?:（(\d{4})[），])?|“([^“”]{1,120})”(?: \((\d{4})\))?")
_NUMBERED = re.compile(r"^\d+\. (.*)$", re.MULTILINE)
_SUGGESTION = re.compile(r"(?:你是不是想问|Did you mean )(《[^《》]+》|“[^“”]+”)[？?]\s*$")

_ABOUT_A_FILM = (Kind.FILM, Kind.SIMILAR, Kind.MAKERS)
_LISTS = (Kind.LIST, Kind.SIMILAR, Kind.SERIES, Kind.MAKERS, Kind.COUNT, Kind.PERSON)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, the turns up to it, and what was answered; empty when it was not."""

    turns: Sequence[Turn]
    answer: str

    @property
    def asked(self) -> str:
        return self.turns[-1].content


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a question beside its words: titles that are named in it, films and people that it means."""

    titles: tuple[str, ...] = ()
    films: tuple[Film, ...] = ()
    people: tuple[Person, ...] = ()

    def quoted(self, text: str) -> str:
        """The text with its titles in quotes."""
        for title in self.titles:
            if f"《{title}》" not in text:
                text = text.replace(title, f"《{title}》", 1)
        return text


NOTHING_KNOWN = Known()


class FilmConversation:
    """Reads questions in their conversation. Methods may raise STORAGE_UNAVAILABLE.

    `names` are people's that everybody has; `people`, when given, are those of TMDB who were asked for before.
    """

    def __init__(self, movies: Movies, names: PeopleNames, people: People | None = None) -> None:
        self._movies = movies
        self._names = names
        self._people = people

    async def understand(self, turns: Sequence[Turn], today: date, known: Known = NOTHING_KNOWN) -> Question:
        """The question of the last turn, with what it takes from the turns before it."""
        turns = turns[-MEMORY_TURNS:]
        text = known.quoted(turns[-1].content) if turns else ""
        asked = question(await self._mentions(text, known), text, today, chinese_before=_was_chinese(turns[:-1]))
        exchanges = _exchanges(turns[:-1])
        if asked.kind is Kind.YES:
            return await self._confirmed(asked, exchanges, today)
        if asked.kind in _ABOUT_A_FILM and not asked.films:
            return await self._with_that_film(asked, exchanges)
        if asked.that_person and not asked.people and not asked.films and asked.kind in _LISTS:
            return await self._with_that_person(asked, exchanges)
        if asked.kind in _LISTS and exchanges and (asked.more or _modifies(asked)):
            return await self._continued(asked, exchanges, today)
        return asked

    async def _mentions(self, text: str, known: Known = NOTHING_KNOWN) -> Mentions:
        reading = Reading(text, self._names)
        if not reading.keys:
            return reading.mentions((), {})
        people = [*await self._people_called(reading.keys), *known.people]
        if people:
            reading = Reading(text, self._names.knowing(people))
        titled = {film.tmdb_id: film for film in await self._movies.titled(reading.keys)}
        # As it was asked for, not only as it is called.
        titled |= {film.tmdb_id: film for film in known.films}
        return reading.mentions(list(titled.values()), await self._movies.credited(reading.keys))

    async def _people_called(self, keys: Sequence[str]) -> list[Person]:
        if self._people is None:
            return []
        found = []
        for person in await self._people.find(keys, limit=MOST_PEOPLE):
            spellings = (person.name, *person.also_known_as)
            # Many are also known as a word: Rain, Prince, 小李.
            whole = tuple(key(spelling) for spelling in spellings if _is_whole_name(spelling))
            found.append(Person(person.name, whole))
        return found

    async def _with_that_film(self, asked: Question, exchanges: Sequence[Exchange]) -> Question:
        """Take the film that was spoken of last; one of a list only when it is said which."""
        for exchange in exchanges:
            listed = await self._listed(exchange.answer)
            if asked.ordinal:
                at = asked.ordinal if asked.ordinal < 0 else asked.ordinal - 1
                if -len(listed) <= at < len(listed):
                    return replace(asked, films=(_name(listed[at]),))
                continue
            named = [name for name in (await self._mentions(exchange.asked)).films if name.whole]
            if len(named) == 1:
                return replace(asked, films=tuple(named))
            if len(listed) == 1:
                return replace(asked, films=(_name(listed[0]),))
            if listed or named:
                return asked
        # With nothing to point at, "her" may be the film of that name.
        return replace(asked, films=(asked.pronoun_title,)) if asked.pronoun_title and asked.aspects else asked

    async def _with_that_person(self, asked: Question, exchanges: Sequence[Exchange]) -> Question:
        """Take whoever was spoken of last, asked about before answered with."""
        role = Role.DIRECTOR if Aspect.DIRECTOR in asked.aspects else Role.ANY
        role = Role.CAST if Aspect.CAST in asked.aspects else role
        for exchange in exchanges:
            for text in (exchange.asked, exchange.answer):
                if people := (await self._mentions(text)).people[:1]:
                    shown = (
                        [film.tmdb_id for film in await self._listed(exchange.answer)]
                        if asked.more or OTHER_WORK.search(asked.text)
                        else []
                    )
                    wanted = replace(asked.wanted, credits=(Credit(people[0].keys, role),), exclude=tuple(shown))
                    return replace(asked, people=people, wanted=wanted)
        return asked

    async def _continued(self, asked: Question, exchanges: Sequence[Exchange], today: date) -> Question:
        """More of the list that was spoken of last, without what it had, or the same list with another condition."""
        shown: list[int] = []
        own = _has_own_subject(asked)
        for exchange in exchanges:
            shown += [film.tmdb_id for film in await self._listed(exchange.answer)]
            base = await self.understand(exchange.turns, today)
            if own and asked.more:
                continue
            if base.kind in _LISTS:
                return _merged(base, asked, tuple(shown))
            if base.kind is Kind.FILM and base.films and asked.more:
                return replace(asked, kind=Kind.SIMILAR, films=base.films)
        return replace(asked, wanted=replace(asked.wanted, exclude=tuple(shown))) if asked.more else asked

    async def _confirmed(self, asked: Question, exchanges: Sequence[Exchange], today: date) -> Question:
        """The film that we asked back for, with what was asked about it before."""
        if exchanges and (suggested := _SUGGESTION.search(exchanges[0].answer)):
            films = await self._listed(suggested[1])
            before = await self.understand(exchanges[0].turns, today)
            if films:
                return replace(asked, kind=Kind.FILM, films=(_name(films[0]),), aspects=before.aspects)
        return asked

    async def _listed(self, answer: str) -> list[Film]:
        """The films whose titles stand in an answer in our quotes: those of its list, when it has one."""
        answer = answer[:ANSWER_CHARACTERS]
        lines = _NUMBERED.findall(answer)
        titles = [
            (key(match[1] or match[3]), match[2] or match[4])
            for match in _TITLE.finditer("\n".join(lines) if lines else answer)
        ][:MOST_LISTED]
        if not titles:
            return []
        films = await self._movies.titled([title for title, _ in titles])
        found: dict[int, Film] = {}
        for title, year in titles:
            for film in films:
                if title in film.title_keys and (not year or film.year == int(year)):
                    found.setdefault(film.tmdb_id, film)
                    break
        return list(found.values())


def _is_whole_name(spelling: str) -> bool:
    return " " in spelling.strip() or (len(spelling) >= 3 and all(is_ideograph(each) for each in key(spelling)))


def _exchanges(turns: Sequence[Turn]) -> list[Exchange]:
    """Newest first."""
    found = []
    for at, turn in enumerate(turns):
        if turn.role == "user":
            answers = turns[at + 1 : at + 2]
            answer = answers[0].content if answers and answers[0].role == "assistant" else ""
            found.append(Exchange(turns[: at + 1], answer))
    return found[::-1]


def _was_chinese(turns: Sequence[Turn]) -> bool:
    last = next((turn.content for turn in reversed(turns) if turn.role == "user"), "中文")
    return any(map(is_ideograph, last))


def _name(film: Film) -> Name:
    return Name(film.title, 0, 0, films=(film,))


def _modifies(asked: Question) -> bool:
    return asked.instead and not RECOMMEND.search(asked.text) and not asked.films


def _has_own_subject(asked: Question) -> bool:
    return bool(asked.films or asked.people or asked.wanted.genres or asked.wanted.languages)


def _merged(base: Question, asked: Question, shown: tuple[int, ...]) -> Question:
    """The earlier question with what the later one says otherwise; `shown` is left out when more was asked for."""
    unset = FilmFilter()
    said = {
        part.name: value
        for part in fields(FilmFilter)
        if (value := getattr(asked.wanted, part.name)) != getattr(unset, part.name)
    }
    wanted = replace(base.wanted, **said, exclude=(*base.wanted.exclude, *shown) if asked.more else ())
    return replace(
        base,
        kind=Kind.LIST if base.kind in (Kind.COUNT, Kind.PERSON) else base.kind,
        chinese=asked.chinese,
        people=asked.people or base.people,
        wanted=wanted,
        order=asked.order or base.order,
        limit=asked.limit or base.limit,
        more=asked.more,
        unknown=asked.unknown,
    )
