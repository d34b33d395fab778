"""What a question about films asks, as far as its own words say. What it leaves to the conversation is said too.

Pure: the names in it are looked up by the caller.
"""

import re
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from storage.film_filter import FilmFilter, Order
from storage.film_names import is_ideograph
from wsserver.domains.assistant import words
from wsserver.domains.assistant.conditions import Conditions, number, read
from wsserver.domains.assistant.mentions import Mentions, Name, content_words
from wsserver.domains.assistant.people import Person
from wsserver.domains.assistant.words import FILM, PERSON, Aspect

LONGEST_UNKNOWN = 24
"""Characters that are quoted back as not understood; more than that is chatter, or not ours to repeat."""


class Kind(StrEnum):
    """What kind of answer is wanted."""

    GREETING = "greeting"
    THANKS = "thanks"
    GOODBYE = "goodbye"
    ABILITIES = "abilities"
    YES = "yes"
    FILM = "film"
    IN_FILM = "in_film"
    SIMILAR = "similar"
    SERIES = "series"
    MAKERS = "makers"
    """Other films of those who made this one."""
    LIST = "list"
    COUNT = "count"
    PERSON = "person"
    UNKNOWN = "unknown"


COURTESIES = (Kind.GREETING, Kind.THANKS, Kind.GOODBYE, Kind.ABILITIES)
"""Kinds that ask for nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question as its own words tell it.

    `that_film`, `that_person`, `ordinal`, `more` and `instead` point at what was said before. `unknown` are words that
    were not understood, `unknown_titles` quoted titles that the catalogue has not.
    """

    kind: Kind
    chinese: bool
    films: tuple[Name, ...] = ()
    people: tuple[Person, ...] = ()
    wanted: FilmFilter = field(default_factory=FilmFilter)
    order: Order | None = None
    upcoming: bool = False
    limit: int | None = None
    everything: bool = False
    aspects: tuple[Aspect, ...] = ()
    that_film: bool = False
    that_person: bool = False
    ordinal: int | None = None
    more: bool = False
    instead: bool = False
    unknown: str = ""
    unknown_titles: tuple[str, ...] = ()
    pronoun_title: Name | None = None
    about_films: bool = False
    text: str = field(default="", repr=False)


_ORDINAL = re.compile(
    r"第([一二三四五六七八九十\d]{1,2})(?:部|个|条)(?!曲)|(最后一)(?:部|个)|"
    r"\bthe (first|second|third|fourth|fifth|last)(?: one| movie| film)?\b",
    re.IGNORECASE,
)
_ENGLISH_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": -1}
_COURTEOUS = (
    (Kind.GREETING, words.GREETING),
    (Kind.THANKS, words.THANKS),
    (Kind.GOODBYE, words.GOODBYE),
    (Kind.ABILITIES, words.ABILITIES),
    (Kind.YES, words.YES),
)


def is_chinese(mentions: Mentions, original: str, *, otherwise: bool) -> bool:
    """Whether to answer in Chinese: what counts are the words around the names, then the names."""
    for text in (mentions.text, original):
        ideographs = sum(map(is_ideograph, text))
        latin = len(re.findall(r"[A-Za-z]{2,}", text))
        if ideographs or latin:
            return ideographs >= latin
    return otherwise


def question(mentions: Mentions, original: str, today: date, *, chinese_before: bool) -> Question:
    """Read a question whose names have been found."""
    asked = read(mentions, today)
    rest, aspects = _aspects(asked.rest)
    if mentions.films:
        # "Which is rated highest" orders films in general, and asks for a figure of those that are named.
        _, aspects = _aspects(mentions.text)
    ordinal = _ordinal(mentions.text)
    signs = Signs(
        mentions,
        asked,
        aspects,
        unknown=content_words(
            _ORDINAL.sub(" ", rest),
            (words.RECOMMEND, words.SIMILAR, words.SERIES, words.COUNT, words.MORE, words.ALL, words.THAT_FILM)
            + ((words.THAT_PERSON,) if not mentions.people else ()),
        ),
        ordinal=ordinal,
    )
    unknown = signs.unknown if len(signs.unknown) <= LONGEST_UNKNOWN else ""
    return Question(
        kind=_kind(signs),
        chinese=is_chinese(mentions, original, otherwise=chinese_before),
        films=mentions.films,
        people=mentions.people,
        wanted=asked.wanted,
        order=asked.order,
        upcoming=asked.upcoming,
        limit=asked.limit,
        everything=bool(words.ALL.search(mentions.text)),
        aspects=aspects,
        that_film=bool(words.THAT_FILM.search(mentions.text)),
        that_person=bool(words.THAT_PERSON.search(mentions.text)),
        ordinal=ordinal,
        more=signs.more,
        instead=signs.instead,
        unknown=unknown,
        unknown_titles=mentions.unknown_titles,
        pronoun_title=mentions.pronoun_title,
        about_films=bool(words.FILM_WORD.search(mentions.text)),
        text=mentions.text,
    )


@dataclass(frozen=True, slots=True)
class Signs:
    """What was found in the words, for deciding what kind of question they are."""

    mentions: Mentions
    asked: Conditions
    aspects: tuple[Aspect, ...]
    unknown: str
    ordinal: int | None

    @property
    def text(self) -> str:
        return self.mentions.text

    @property
    def more(self) -> bool:
        return bool(words.MORE.search(self.text))

    @property
    def instead(self) -> bool:
        return bool(words.INSTEAD.search(self.text))

    @property
    def about_films(self) -> bool:
        return bool(words.FILM_WORD.search(self.text) or words.RECOMMEND.search(self.text))

    @property
    def has_condition(self) -> bool:
        return self.asked.has_filter or self.asked.order is not None or self.asked.upcoming


def _kind(signs: Signs) -> Kind:
    if not signs.mentions.names and not signs.mentions.unknown_titles:
        for kind, pattern in _COURTEOUS:
            if pattern.search(signs.text):
                return kind
    if signs.mentions.films:
        return _kind_with_films(signs)
    if signs.mentions.people:
        return _kind_with_people(signs)
    if signs.mentions.unknown_titles:
        return Kind.UNKNOWN
    return _kind_without_names(signs)


def _kind_with_films(signs: Signs) -> Kind:
    if words.SIMILAR.search(signs.text) and Aspect.UNKNOWN not in signs.aspects:
        return Kind.SIMILAR
    if words.SERIES.search(signs.text):
        return Kind.SERIES
    if signs.mentions.people:
        return Kind.IN_FILM
    return Kind.MAKERS if _asks_for_makers(signs) else Kind.FILM


def _asks_for_makers(signs: Signs) -> bool:
    makers = {Aspect.DIRECTOR, Aspect.CAST} & set(signs.aspects)
    return bool(makers and words.OTHER_WORK.search(signs.text) and not re.search(r"还有谁|who else", signs.text, re.I))


def _kind_with_people(signs: Signs) -> Kind:
    if words.COUNT.search(signs.text):
        return Kind.COUNT
    is_about_life = words.BIOGRAPHY.search(signs.text) and not words.FILM_WORD.search(signs.text)
    return Kind.PERSON if is_about_life and not signs.asked.wanted.genres else Kind.LIST


def _kind_without_names(signs: Signs) -> Kind:
    if words.COUNT.search(signs.text) and (signs.about_films or signs.asked.has_filter) and not signs.unknown:
        return Kind.COUNT
    if signs.unknown:
        is_list = signs.about_films and signs.asked.has_filter and not (signs.aspects and not signs.asked.wanted.genres)
        return Kind.LIST if is_list else Kind.UNKNOWN
    if kind := _kind_of_reference(signs):
        return kind
    if signs.has_condition or signs.asked.limit or signs.about_films or signs.more:
        return Kind.LIST
    return Kind.FILM if signs.aspects else Kind.UNKNOWN


def _kind_of_reference(signs: Signs) -> Kind | None:
    """The kind of a question that speaks of "it", "him" or "the second one"; None when it does not."""
    is_that_film = bool(words.THAT_FILM.search(signs.text) or signs.ordinal)
    if (is_that_film or not signs.asked.has_filter) and words.SIMILAR.search(signs.text):
        return Kind.SIMILAR
    if _asks_for_makers(signs) and (is_that_film or not words.THAT_PERSON.search(signs.text)):
        return Kind.MAKERS
    if words.THAT_PERSON.search(signs.text):
        return _kind_about_that_person(signs)
    # "Who directed?", with nothing else in it, is about the film of the question before.
    is_bare = signs.aspects and not signs.has_condition and not signs.about_films and not signs.more
    return Kind.FILM if is_bare or (is_that_film and not signs.asked.has_filter) else None


def _kind_about_that_person(signs: Signs) -> Kind:
    if signs.aspects or signs.about_films or signs.more:
        return Kind.COUNT if words.COUNT.search(signs.text) else Kind.LIST
    return Kind.PERSON


def _aspects(text: str) -> tuple[str, tuple[Aspect, ...]]:
    found: list[Aspect] = []
    for aspect, pattern in words.ASPECTS:
        if pattern.search(text):
            found.append(aspect)
            text = pattern.sub(lambda match: " " + "".join(c for c in match[0] if c in FILM + PERSON), text)
    return text, tuple(found)


def _ordinal(text: str) -> int | None:
    if match := _ORDINAL.search(text):
        if match[1]:
            return int(number(match[1])) or None
        return -1 if match[2] else _ENGLISH_ORDINALS[match[3].lower()]
    return None
