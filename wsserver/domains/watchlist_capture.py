"""Notes in the watchlist what a chat's question says of films, beside the making of its answer.

How such a question is read is in `watchlist_rules.py`. Here the films in it are looked up, and what was said is
stored and reported. The answer waits for none of it before its first text, and does not fail with it.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import structlog

from protocol.errors import OperationError
from protocol.watchlist import WatchlistCaptured
from storage.film_filter import Film
from storage.film_names import key
from storage.movies import Movies
from storage.watchlist import Watchlist, Wish
from wsserver.domains.assistant.mentions import Name, Reading, quotes
from wsserver.domains.assistant.people import PeopleNames
from wsserver.domains.assistant.words import FILM, PERSON
from wsserver.domains.watchlist_rules import OTHER_FILM, SIGNS, wishes
from wsserver.hub import Run

log = structlog.get_logger(__name__)

HEAD_START_S = 0.1
"""How long the answer is left alone first: the catalogue's answer takes less, a model's first text mostly more."""

REPORT_S = 2.0
"""How long an answer that is made waits for its capture: it takes milliseconds, unless PostgreSQL is in trouble."""

_BEFORE_A_TITLE = re.compile(
    r"(?:电影|影片|片子|片名|片叫|名叫|叫做?|看了|看过|看完|(?:想要?|打算|准备|计划|周末|今晚|明天|要|去|不想)再?(?:去|重)?(?:看看|看)|"
    r"收藏|\b(?:movies?|films?|called|titled|named|(?:re-?)?watch(?:ed)?|add|bookmark))\s*[:：]?\s*$",
    re.IGNORECASE,
)
_AFTER_A_TITLE = re.compile(
    r"^\s*(?:这部|这片|这个?电影|那部|系列|[(（]\d{4}[)）]|我?(?:已经|早就|都)*(?:看过|不想看|就算了)|"
    r"(?:加|放|收藏|添加|存)[到进入]|(?:to|on) my\b)",
    re.IGNORECASE,
)
_YEAR_BEFORE = re.compile(r"(?<!\d)(\d{4})\s*(?:年(?:上映)?(?:的|版的?)|版的?|年)?\s*(?:电影|影片)?\s*$")
_YEAR_AFTER = re.compile(r"^\s*(?:[(（]\s*(\d{4})\s*(?:年?版)?\s*[)）]|(?:from\s+)?(\d{4})\s*(?:年?版)?(?!\d|年))")


class WatchlistCapture:
    """Reads questions and keeps what they say of films, once each. `chinese_names` are people's, who are no films."""

    def __init__(self, lists: Watchlist, movies: Movies, chinese_names: Mapping[str, Sequence[str]]) -> None:
        self._lists = lists
        self._movies = movies
        self._people = PeopleNames(chinese_names)

    @contextlib.asynccontextmanager
    async def beside(self, run: Run, query: str, spawn: Callable[..., asyncio.Task[None]]) -> AsyncIterator[None]:
        """Capture while the block makes the run's answer, and publish the frame of it, if there is one, by its end."""
        made = asyncio.Event()
        capturing = spawn(self._report(run, query, made), name=f"capture of {run.request_id}")
        try:
            try:
                yield
            except OperationError:
                # What was noted is noted, and said, also when the answer failed.
                made.set()
                await asyncio.wait((capturing,), timeout=REPORT_S)
                raise
            made.set()
            await asyncio.wait((capturing,), timeout=REPORT_S)
        finally:
            if not capturing.done():
                log.warning("the answer did not wait for its capture", request_id=run.request_id)
            # After the run's last frame nothing may be published.
            capturing.cancel()

    async def _report(self, run: Run, query: str, made: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START_S):
                await made.wait()
        try:
            captured = await self.capture(user_id=run.user_id, request_id=run.request_id, query=query)
        except OperationError as error:
            log.warning("films were not noted", request_id=run.request_id, reason=error.kind.reason)
            return
        if captured is not None:
            run.publish(captured)

    async def capture(self, *, user_id: str, request_id: str, query: str) -> WatchlistCaptured | None:
        """Store what the question says of films; None when that is nothing new. Repeated, it gives the same.

        Raises STORAGE_UNAVAILABLE.
        """
        said = await self.read(query)
        if not said:
            return None
        captured = await self._lists.capture(user_id=user_id, request_id=request_id, wishes=said)
        return captured if captured.items else None

    async def read(self, query: str) -> list[Wish]:
        """What the question says of films of the catalogue, each once, in its order. Raises STORAGE_UNAVAILABLE."""
        if not SIGNS.search(query):
            return []
        reading = Reading(query, self._people, before=_BEFORE_A_TITLE, after=_AFTER_A_TITLE)
        if not reading.keys:
            return []
        films, credited = await self._movies.titled(reading.keys), await self._movies.credited(reading.keys)
        names = reading.mentions(films, credited).names
        marked, meant = _marked(reading.text, names)
        said: dict[int, Wish] = {}
        for place, state in (await asyncio.to_thread(wishes, marked)).items():
            film = meant[place]
            said[film.tmdb_id] = Wish(film.tmdb_id, film.title, state)
        return list(said.values())


def _marked(text: str, names: Sequence[Name]) -> tuple[str, dict[int, Film]]:
    """The text with a mark in the place of each name and of each title in quotes; and the films by place."""
    films = {name.start: _one_film(name, text) for name in names if name.films}
    spans = [(name.start, name.end, PERSON if name.person else FILM) for name in names]
    spans += [
        (quote.start, quote.end, OTHER_FILM)
        for quote in quotes(text)
        if not any(name.start < quote.end and quote.start < name.end for name in names)
    ]
    marked, at = "", 0
    meant: dict[int, Film] = {}
    for start, end, mark in sorted(spans):
        marked += text[at:start]
        film = films.get(start)
        if film is not None:
            meant[len(marked)] = film
        marked += OTHER_FILM if mark == FILM and film is None else mark
        at = end
    return marked + text[at:], meant


def _one_film(name: Name, text: str) -> Film | None:
    """The film that is meant: that of the year that is said, else the most voted one of exactly that title."""
    asked = key(name.asked)
    films = list(name.films)
    if not name.whole:
        # "黑客帝国2" is one film, "指环王" is three.
        return films[0] if len(films) == 1 and asked[-1:].isdecimal() else None
    said = _YEAR_AFTER.search(text[name.end :]) or _YEAR_BEFORE.search(text[: name.start])
    if said:
        films = [film for film in films if film.year == int(said[1] or said[2])]
    exact = [film for film in films if asked in map(key, (film.title, film.title_en, film.original_title))]
    return next(iter(exact or films), None)
