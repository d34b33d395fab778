"""Which films and people a text names, and what is left of the text without them.

A title may be any word: "它", "Up", "Her". What stands in quotes is a title. A title that is also an ordinary word
needs a sign that it is meant: a capital letter within the sentence, a word like "电影" before it, or that nothing is
left of the question without it but the words of asking.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from storage.film_filter import Film
from storage.film_names import Token, grams, is_ideograph, key, tokens
from wsserver.domains.assistant.people import PeopleNames, Person
from wsserver.domains.assistant.words import (
    ABOUT_FILM,
    ASPECTS,
    FILLERS,
    FILM,
    ORDINARY,
    ORDINARY_CHINESE,
    PERSON,
    PRONOUNS,
    SERIES,
)

HEAD, TAIL = 140, 60
"""Characters of a long text that are read: a question stands at one of its ends, before or after what was pasted."""

_NOT_TEXT = dict.fromkeys(map(ord, f"{FILM}{PERSON}\x00"), " ")
_QUOTED = re.compile(r"《([^《》]{1,80})》|“([^“”]{1,80})”|\"([^\"]{1,80})\"|「([^「」]{1,80})」|『([^『』]{1,80})』")
_QUOTES = '《》“”"「」『』'
_CUE_BEFORE = re.compile(
    r"(?:电影|影片|片子|片名|片叫|名叫|叫做?|看了|看过|看完|喜欢|类似|像|跟|\b(?:movies?|films?|called|"
    r"titled|named|watch(?:ed)?|"
    r"seen|saw|like|liked|loved))\s*[:：]?\s*$",
    re.IGNORECASE,
)
_CUE_AFTER = re.compile(r"^\s*(?:这部|这片|这个?电影|那部|系列|[(（]\d{4}[)）])")
_TOPIC_BEFORE = re.compile(
    r"(?:\b(?:movies?|films?|stories)\s+(?:\w+\s+)?(?:about|with|on|of)(?:\s+an?)?|关于|有关)\s*$", re.I
)
_KIND_AFTER = re.compile(
    r"^\s*(?:movies|films|flicks|类|题材|主题|的电影|片(?!子|名|长)|年(?!的)|年的|部)", re.IGNORECASE
)
_SENTENCE_START = re.compile(r"(?:^|[.!?。！？\n])\W*$")
_ONLY_IN_QUESTIONS = re.compile(
    r"\b(?:movies?|films?|the|directed)\b|电影|影片|片子|哪个|哪部|比较|更|[和与跟]|还是|好看|一下|我想|"
    r"想看|请问|是|的|吗|呢|了|谁|什么|多少|几|哪|这部|"
    r"\b(?:is|was|does|did|do|a|an|of|for|in|please|and|or|which|any|good|me|you|your|what's|whats|what|that|it)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A title in quotes, and where it stands, the quotes with it."""

    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Name:
    """A name in the text, `asked` as it stands there: of films or of a person.

    `films` have it as a whole title, or when not `whole` as a part of one; `series` have it as a part in any case.
    """

    asked: str
    start: int
    end: int
    films: tuple[Film, ...] = field(default=(), repr=False)
    series: tuple[Film, ...] = field(default=(), repr=False)
    whole: bool = True
    person: Person | None = None
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Mentions:
    """`text` has FILM and PERSON in the place of the names; `pronoun_title` is a film that is called "it"."""

    text: str
    names: tuple[Name, ...]
    unknown_titles: tuple[str, ...]
    pronoun_title: Name | None = None

    @property
    def films(self) -> tuple[Name, ...]:
        return tuple(name for name in self.names if name.films)

    @property
    def people(self) -> tuple[Person, ...]:
        return tuple(name.person for name in self.names if name.person)


def clip(text: str) -> str:
    """As much of a text as is read for names and conditions."""
    read = text if len(text) <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"
    return read.translate(_NOT_TEXT)


def quotes(text: str) -> list[Quote]:
    """What stands in quotes."""
    return [
        Quote(title, match.start(), match.end())
        for match in _QUOTED.finditer(text)
        if key(title := next(group for group in match.groups() if group))
    ]


class Reading:
    """A text that is being read. First `keys` say what to look up, then `mentions` takes what was found.

    `before` and `after` say that a word beside them is meant as a title although it is an ordinary one.
    """

    def __init__(
        self,
        text: str,
        people: PeopleNames,
        *,
        before: re.Pattern[str] = _CUE_BEFORE,
        after: re.Pattern[str] = _CUE_AFTER,
    ) -> None:
        self.text = clip(text)
        self._before, self._after = before, after
        self._people = people
        self._tokens = tokens(self.text)
        self._grams = list(grams(self._tokens))
        self._quotes = quotes(self.text)

    @property
    def keys(self) -> list[str]:
        """All that could be a name."""
        return list(dict.fromkeys(name_key for name_key, _, _ in self._grams))

    def mentions(self, films: Sequence[Film], credited: Mapping[str, str]) -> Mentions:
        """The names in the text, the longest of those that overlap; `films` and `credited` have some of the keys."""
        candidates = self._candidates(films, credited)
        candidates.sort(key=lambda name: (not name.sure, -(name.end - name.start), not name.films, not name.whole))
        taken: list[Name] = [name for name in _apart(candidates) if name.sure]
        pronoun: Name | None = None
        for name in _apart(candidates):
            if name.sure:
                continue
            if key(self.text[name.start : name.end]) in PRONOUNS:
                pronoun = pronoun or name
            elif self._is_all_that_is_asked(name, taken):
                taken.append(name)
        taken.sort(key=lambda name: name.start)
        unknown = tuple(
            quote.title
            for quote in self._quotes
            if not any(name.start < quote.end and quote.start < name.end for name in taken)
        )
        return Mentions(_replaced(self.text, taken), tuple(taken), unknown, pronoun)

    def _candidates(self, films: Sequence[Film], credited: Mapping[str, str]) -> list[Name]:
        titles, parts = _by_key(films, lambda film: film.title_keys), _by_key(films, lambda film: film.part_keys)
        found: list[Name] = []
        for name_key, first, last in self._grams:
            start, end = self._tokens[first].start, self._tokens[last - 1].end
            quote = next((quote for quote in self._quotes if quote.start <= start and end <= quote.end), None)
            in_quotes = quote is not None and key(quote.title) == name_key
            if quote is not None and in_quotes:
                start, end = quote.start, quote.end
            is_cut = quote is not None and not in_quotes
            whole, series = tuple(titles.get(name_key, ())), tuple(parts.get(name_key, ()))
            if (whole or series) and not is_cut:
                asked = self.text[start:end].strip(_QUOTES)
                sure = in_quotes or self._is_surely_a_title(self._tokens[first:last], name_key)
                found.append(Name(asked, start, end, whole or series, series, bool(whole), sure=sure))
            if person := self._person(name_key, credited, last - first, start):
                found.append(Name(self.text[start:end].strip(_QUOTES), start, end, person=person))
        return found

    def _person(self, name_key: str, credited: Mapping[str, str], length: int, start: int) -> Person | None:
        if person := self._people.find(name_key):
            return person
        if (name := credited.get(name_key)) is None:
            return None
        # A name of one word (Mako, Prince) may be that word.
        is_name = length > 1 or self._is_capital(start)
        return self._people.credited(name_key, name) if is_name else None

    def _is_surely_a_title(self, words: Sequence[Token], name_key: str) -> bool:
        start, end = words[0].start, words[-1].end
        before, after = self.text[:start], self.text[end:]
        if name_key in PRONOUNS:
            return bool(is_ideograph(name_key) and re.search(r"(?:电影|影片|片叫|名叫)$", before)) or self._is_capital(
                start
            )
        if _TOPIC_BEFORE.search(before) or (_is_ordinary(words) and _KIND_AFTER.search(after)):
            return False
        return (
            not _is_ordinary(words)
            or bool(self._before.search(before) or self._after.search(after))
            or self._is_capital(start)
        )

    def _is_capital(self, start: int) -> bool:
        return self.text[start].isupper() and not self._starts_sentence(start) and not self.text.isupper()

    def _starts_sentence(self, start: int) -> bool:
        return bool(_SENTENCE_START.search(self.text[:start]))

    def _is_all_that_is_asked(self, name: Name, taken: Sequence[Name]) -> bool:
        if any(name.start < other.end and other.start < name.end for other in taken):
            return False
        if _TOPIC_BEFORE.search(self.text[: name.start]) or _KIND_AFTER.search(self.text[name.end :]):
            return False
        rest = _replaced(self.text, [*taken, name])
        for pattern in (*(pattern for _, pattern in ASPECTS), SERIES, ABOUT_FILM, _ONLY_IN_QUESTIONS):
            rest = pattern.sub(" ", rest)
        return not key(rest.replace(FILM, "").replace(PERSON, ""))


def _by_key(films: Sequence[Film], keys_of: Callable[[Film], Sequence[str]]) -> dict[str, list[Film]]:
    found: dict[str, list[Film]] = {}
    for film in films:
        for name_key in keys_of(film):
            found.setdefault(name_key, []).append(film)
    return found


def _is_ordinary(words: Sequence[Token]) -> bool:
    name = "".join(word.key for word in words)
    if all(map(is_ideograph, name)):
        return len(name) <= 2 or name in ORDINARY_CHINESE
    return name.isdecimal() or len(name) < 3 or all(word.key in ORDINARY for word in words)


def _apart(candidates: Sequence[Name]) -> list[Name]:
    """The first of those that overlap."""
    kept: list[Name] = []
    for name in candidates:
        if not any(name.start < other.end and other.start < name.end for other in kept):
            kept.append(name)
    return kept


def _replaced(text: str, names: Sequence[Name]) -> str:
    parts, at = [], 0
    for name in sorted(names, key=lambda name: name.start):
        parts += [text[at : name.start], FILM if name.films else PERSON]
        at = name.end
    return "".join([*parts, text[at:]]).replace("《", " ").replace("》", " ")


def content_words(text: str, patterns: Sequence[re.Pattern[str]] = ()) -> str:
    """What is left of a text without names, the words of these patterns and the words of asking."""
    for pattern in (*patterns, FILLERS):
        text = pattern.sub(" ", text)
    text = re.sub(r"'s\b|[^\w\s]|_", " ", text.replace(FILM, " ").replace(PERSON, " "))
    return " ".join(text.split())
