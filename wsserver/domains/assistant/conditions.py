"""The conditions in a question: genres, years, languages, runtimes, ratings, order, number of films."""

import re
from dataclasses import dataclass, field, replace
from datetime import date

from storage.film_filter import Credit, FilmFilter, Order, Role
from wsserver.domains.assistant import words
from wsserver.domains.assistant.mentions import Mentions
from wsserver.domains.assistant.words import PERSON

MAX_FILMS = 20
"""In one answer: a page of cards."""

RATED_BY = 200
"""Votes without which a rating does not rank: below that a film is best because a few friends like it."""

SHORT_MIN, LONG_MIN = 100, 150
RECENT_YEARS = 3

_DIGITS = {"零": 0, "一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}
_ENGLISH = dict(zip("one two three four five six seven eight nine ten twelve twenty".split(), [*range(1, 11), 12, 20]))  # noqa: B905, SIM905
_DECADES = {
    "twenties": 20,
    "thirties": 30,
    "forties": 40,
    "fifties": 50,
    "sixties": 60,
    "seventies": 70,
    "eighties": 80,
    "nineties": 90,
}
_N = r"\d{1,3}(?:\.\d)?|[零一二两三四五六七八九十]{1,3}|" + "|".join(_ENGLISH)
_YEAR = r"(?:18|19|20|21)\d\d"
_UNIT = r"分钟|小时|钟头|min(?:ute)?s?|hours?|hrs?|h"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_RANGE = _pattern(
    rf"(?:从|between|from)?\s*({_YEAR})\s*年?\s*(?:到|至|-|–|—|~|～|\bto\b|\band\b|\bthrough\b|"
    rf"\buntil\b)\s*({_YEAR})\s*年?(?:之?间)?"
)
_DECADE = _pattern(
    rf"(?:(?:上个?|二十|20)世纪|\bthe\s+)?(?:(18|19|20)(\d)0|(\d)0|([二三四五六七八九])十)\s*(?:年代|"
    rf"'?s\b)(以前|之前|以后|之后|以来)?"
    rf"|\b({'|'.join(_DECADES)})\b"
)
_SINCE = _pattern(
    rf"({_YEAR})\s*年?\s*(?:以后|之后|以来|后|起)|(?:\bsince|自从?)\s*({_YEAR})|"
    rf"\bfrom\s+({_YEAR})\s+on(?:wards)?|\b(?:after|post)[ -]({_YEAR})"
)
_UNTIL = _pattern(rf"({_YEAR})\s*年?\s*(?:以前|之前|前)|\b(?:before|pre)[ -]({_YEAR})|\b(?:until|up to)\s+({_YEAR})")
_AROUND = _pattern(rf"({_YEAR})\s*年?\s*(?:左右|前后)|\b(?:around|about|circa)\s+({_YEAR})")
_ONE_YEAR = _pattern(rf"({_YEAR})\s*年|(?<!\d)({_YEAR})(?!\d)")
_AGO = _pattern(
    rf"(今年|this year)|(去年|last year)|(前年)|(?:最近|近|过去)\s*({_N})\s*年|\b(?:last|"
    rf"past)\s+({_N})\s+years?|(近几年|近年来?|这几年|recent years)"
)
_CENTURY = _pattern(r"(21|二十一)世纪|\b21st[- ]century|(20|二十|上个?)世纪|\b20th[- ]century")
_LONGER = _pattern(
    rf"(?:超过|多于|长于|大于|\bover|\b(?:more|longer) than|\bat least)\s*({_N})\s*(?:个)?(半)?({_UNIT})|"
    rf"({_N})\s*(?:个)?(半)?({_UNIT})\s*(?:以上|or (?:more|longer))"
)
_SHORTER = _pattern(
    rf"(?:不超过|少于|短于|小于|低于|\bunder|\b(?:less|shorter) than|\bat most|"
    rf"\bwithin)\s*({_N})\s*(?:个)?(半)?({_UNIT})|({_N})\s*(?:个)?(半)?({_UNIT})\s*(?:以内|之内|以下|内|"
    rf"or (?:less|shorter))"
)
_RATED = _pattern(
    r"(?:评分|分数)?\s*(?:在|超过|高于|大于|不低于)?\s*(\d(?:\.\d)?)\s*分?(?:及?以上)|(?:评分|"
    r"分数)\s*(?:超过|高于|大于|不低于)\s*(\d(?:\.\d)?)\s*分?"
    r"|\b(?:rat(?:ed|ing)|scor(?:e|ed|ing))\s*(?:of|is)?\s*(?:above|over|at least|higher than|"
    r"more than)\s*(\d(?:\.\d)?)"
)
_RATED_BELOW = _pattern(
    r"(?:评分|分数)?\s*(?:低于|小于)\s*(\d(?:\.\d)?)\s*分?|(\d(?:\.\d)?)\s*分以下|\brat(?:ed|"
    r"ing)\s*(?:below|under|lower than)\s*(\d(?:\.\d)?)"
)
_FILMS = (
    r"\s+(?:\w+[- ]){0,3}?"
    r"(?:movies?|films?|titles|ones|comed(?:y|ies)|thrillers?|dramas?|documentar(?:y|ies)|musicals?|westerns?)\b"
)
_LIMIT = _pattern(
    rf"(?:前|\btop\s+)({_N})(?:部|个|名)?|(?<!第)({_N})\s*(?:部|个(?=电影|片))|\b({_N})(?={_FILMS})|\b(an?)(?={_FILMS})"
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a question asks for. `rest` is the text without it; `order` is None when none was said."""

    wanted: FilmFilter
    order: Order | None
    upcoming: bool
    limit: int | None
    rest: str = field(repr=False)

    @property
    def has_filter(self) -> bool:
        return self.wanted != FilmFilter()


def number(text: str) -> float:
    """A number as it is written in figures, in Chinese up to 99, or in English up to 20."""
    text = text.lower()
    if text in _ENGLISH:
        return float(_ENGLISH[text])
    if text.isascii():
        return float(text)
    tens, ten, ones = text.rpartition("十")
    units = _DIGITS.get(ones[-1:], 0)
    return (_DIGITS.get(tens[-1:], 1) if ten else 0) * 10 + units


def read(mentions: Mentions, today: date) -> Conditions:
    """The conditions in a text whose names are known."""
    reader = _Reader(mentions.text, today)
    reader.years()
    reader.runtime()
    reader.rating()
    order = reader.order()
    limit = reader.limit()
    reader.languages()
    reader.genres()
    wanted = replace(reader.wanted, credits=_credits(mentions))
    return Conditions(wanted, order, reader.upcoming, limit, reader.text)


class _Reader:
    """Takes conditions out of a text, one kind after the other."""

    def __init__(self, text: str, today: date) -> None:
        self.text = text
        self.wanted = FilmFilter()
        self.upcoming = False
        self._today = today

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if match := pattern.search(self.text):
            self.text = f"{self.text[: match.start()]} {self.text[match.end() :]}"
        return match

    def _take_all(self, pattern: re.Pattern[str]) -> bool:
        self.text, times = pattern.subn(" ", self.text)
        return times > 0

    def _between(self, first: int | None, last: int | None) -> None:
        self.wanted = replace(self.wanted, year_from=first, year_to=last)

    def years(self) -> None:
        year = self._today.year
        if match := self._take(_RANGE):
            self._between(*sorted((int(match[1]), int(match[2]))))
        elif match := self._take(_DECADE):
            first, side = _decade(match), match[5] or ""
            self._between(
                None if side.endswith("前") else first,
                first - 1 if side.endswith("前") else None if side else first + 9,
            )
        elif match := self._take(_UNTIL):
            self._between(None, int(match[3]) if match[3] else int(match[1] or match[2]) - 1)
        elif match := self._take(_SINCE):
            self._between(int(match[4]) + 1 if match[4] else int(match[1] or match[2] or match[3]), None)
        elif match := self._take(_AROUND):
            self._between(int(match[1] or match[2]) - 2, int(match[1] or match[2]) + 2)
        elif match := self._take(_ONE_YEAR):
            self._between(int(match[1] or match[2]), int(match[1] or match[2]))
        elif match := self._take(_AGO):
            ago = next(at for at, group in enumerate(match.groups()) if group)
            if ago < 3:
                self._between(year - ago, year - ago)
            else:
                self._between(year - max(1, int(number(match[4] or match[5] or str(RECENT_YEARS)))) + 1, None)
        elif match := self._take(_CENTURY):
            self._between(
                None if match[2] or "20th" in match[0] else 2001, 2000 if match[2] or "20th" in match[0] else None
            )
        elif self._take(words.OLD):
            self._between(None, 1989)

    def runtime(self) -> None:
        if match := self._take(_SHORTER):
            self.wanted = replace(self.wanted, longest=_minutes(match))
        if match := self._take(_LONGER):
            self.wanted = replace(self.wanted, shortest=_minutes(match))

    def rating(self) -> None:
        if match := self._take(_RATED):
            self.wanted = replace(self.wanted, lowest_rating=_first_number(match))
        if match := self._take(_RATED_BELOW):
            self.wanted = replace(self.wanted, highest_rating=_first_number(match))

    def order(self) -> Order | None:
        self.upcoming = bool(self._take(words.UPCOMING))
        found = [order for order, pattern in words.ORDERS if self._take_all(pattern)]
        if self._take(words.SHORT):
            self.wanted = replace(self.wanted, longest=self.wanted.longest or SHORT_MIN)
        if self._take(words.LONG):
            self.wanted = replace(self.wanted, shortest=self.wanted.shortest or LONG_MIN)
        if found[:1] == [Order.POPULAR] and Order.NEWEST in found:
            self.wanted = replace(self.wanted, year_from=self._today.year - RECENT_YEARS + 1)
        return found[0] if found else None

    def limit(self) -> int | None:
        if match := self._take(_LIMIT):
            return 1 if match[4] else max(1, min(MAX_FILMS, int(_first_number(match))))
        return None

    def languages(self) -> None:
        for codes, pattern in words.LANGUAGES:
            if self._take(pattern):
                self.wanted = replace(self.wanted, languages=codes)
                return

    def genres(self) -> None:
        wanted: list[int] = []
        unwanted: list[int] = []
        either = words.EITHER.search(self.text)
        for genre_id, pattern in words.GENRES:
            while match := pattern.search(self.text):
                is_unwanted = words.WITHOUT.search(self.text[: match.start()])
                (unwanted if is_unwanted else wanted).append(genre_id)
                start = is_unwanted.start() if is_unwanted else match.start()
                self.text = f"{self.text[:start]} {self.text[match.end() :]}"
        self.wanted = replace(
            self.wanted,
            genres=tuple(dict.fromkeys(wanted)),
            any_genre=bool(either) and len(set(wanted)) > 1,
            without_genres=tuple(dict.fromkeys(unwanted)),
        )


def _decade(match: re.Match[str]) -> int:
    century, of_century, two_digits, chinese, _, english = match.groups()
    if century:
        return int(century) * 100 + int(of_century) * 10
    decade = _DECADES[english.lower()] if english else 10 * (int(two_digits) if two_digits else _DIGITS[chinese])
    return decade + (2000 if decade < 30 and not english else 1900)


def _minutes(match: re.Match[str]) -> int:
    amount, half, unit = match.groups()[:3] if match[1] else match.groups()[3:6]
    hours = unit.lower()[0] in "小钟h"
    return int((number(amount) + (0.5 if half else 0)) * 60) if hours else int(number(amount))


def _first_number(match: re.Match[str]) -> float:
    return number(next(group for group in match.groups() if group))


_DIRECTS = re.compile(
    r"^\s*(?:所)?(?:执?导(?!演(?:是|的?评))|指导)|^\s*(?:'s\s+direct|direct|has direct|have direct)", re.IGNORECASE
)
_ACTS = re.compile(
    r"^\s*(?:所)?(?:领衔|联合)?(?:主演|出演|参演|演|饰演|扮演)|^\s*(?:act|star(?!ring)|play|appear)", re.IGNORECASE
)
_DIRECTED_BY = re.compile(r"(?:\bby|\bdirectors?|导演)\s*$", re.IGNORECASE)
_PLAYED_BY = re.compile(
    r"(?:\bstarring|\bwith|\bfeaturing|\bactors?|\bactress|\bstars?|演员|主演)\s*(?:both)?\s*$", re.IGNORECASE
)
_AND = re.compile(r"^\s*(?:和|与|跟|、|,|，|&|\band\b)\s*$", re.IGNORECASE)


def _credits(mentions: Mentions) -> tuple[Credit, ...]:
    """Everybody named, in the role that the words around the name say."""
    people, parts = mentions.people, mentions.text.split(PERSON)
    roles: list[Role | None] = [_role(parts[at], parts[at + 1]) for at in range(len(people))]
    # "A and B directed", "directed by A and B": who has no role of his own shares his neighbour's.
    for at in reversed(range(len(people) - 1)):
        if roles[at] is None and _AND.match(parts[at + 1]):
            roles[at] = roles[at + 1]
    for at in range(1, len(people)):
        if roles[at] is None and _AND.match(parts[at]):
            roles[at] = roles[at - 1]
    return tuple(Credit(person.keys, role or Role.ANY) for person, role in zip(people, roles, strict=True))


def _role(before: str, after: str) -> Role | None:
    if _ACTS.match(after) or _PLAYED_BY.search(before):
        return Role.CAST
    if _DIRECTS.match(after) or _DIRECTED_BY.search(before):
        return Role.DIRECTOR
    if re.search(r"\b(?:did|has|have)\s*$", before, re.IGNORECASE):
        return Role.DIRECTOR if re.match(r"\W*\w*\s*direct", after, re.IGNORECASE) else None
    return None
