"""Fetching films that the catalogue lacks from TMDB: each of them once, however many ask for it on however many nodes.

It answers who fetches a film, how long a caller waits for it, and when nobody asks because TMDB is away. A fetch
belongs to the server: callers wait for it, and it goes on without them. How TMDB is asked is `vendors/tmdb.py`'s.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import structlog

from protocol.errors import OperationError
from storage.film_marks import FilmMarks
from storage.movies import Movies
from storage.redis import FILM_CLAIM
from wsserver.vendors.tmdb import (
    DEADLINE_S,
    Tmdb,
    TmdbError,
    TmdbNotFoundError,
    TmdbRefusedError,
    TmdbUnavailableError,
    TmdbUnreadableError,
)

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 20
"""Films of one request: a page of cards, and a second of what TMDB is asked by default."""

PARALLEL = 8
"""Films that a node fetches at the same moment: at TMDB's usual 0.2 s twice what all nodes may ask by default."""

WITHIN_S = 5.0
"""What a caller waits: half of an operation's deadline, the rest is for the catalogue."""

MOST_UNDER_WAY = 200
"""Films of a node that are fetched or wait for their turn; more are not begun. Ten seconds of TMDB's default budget."""

POLL_S = 0.1
"""Between two looks at whether another node has a film: half of what a fetch takes."""

OTHERS_S = FILM_CLAIM.ttl_s + 2.0
"""How long a film is left to other nodes. A claim of a node that died has run out by then."""

REST_S = 5.0
"""How long TMDB is not asked after it was unavailable: a call takes up to ten seconds to find out that it still is."""

LONGEST_REST_S = 60.0
"""Of the rests that TMDB, or a proxy in front of it, asks for: longer ones would outlast most outages."""

SOON_S = 1.0
"""When to ask again for a film that is still under way."""

REFUSES_ALL = (401, 403)
"""Statuses that are about our credential or our address, and so about every film."""


class Outcome(StrEnum):
    """What became of a film that was asked for."""

    STORED = "stored"
    MISSING = "missing"
    """TMDB has none, or none that can be read."""
    LATE = "late"
    """Not in time: TMDB is slow or away, or too much was asked for at once. It may come later."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of each film, in the order asked for; `retry_after_s` is when those that are late may be there."""

    outcomes: Mapping[int, Outcome]
    retry_after_s: float

    @property
    def stored(self) -> list[int]:
        return [tmdb_id for tmdb_id, outcome in self.outcomes.items() if outcome is Outcome.STORED]


class Spawn(Protocol):
    """Starts a task that somebody owns."""

    def __call__(self, work: Coroutine[Any, Any, None], *, name: str) -> object: ...


class _Flight:
    """A film under way. `answer` is TMDB's to this node, if it is asked; `outcome` comes last, and always."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Mapping[str, Any] | None] = loop.create_future()
        self.outcome: asyncio.Future[Outcome] = loop.create_future()

    def failed(self, error: TmdbError) -> None:
        self.answer.set_exception(error)
        self.answer.exception()  # else asyncio complains when nobody waits for it


class _Rest:
    """Whether TMDB is asked at all: while it is away, by one call in each rest, which finds out whether it is back."""

    def __init__(self, rest_s: float) -> None:
        self._rest_s = rest_s
        self._away = False
        self._ask_at = 0.0

    @property
    def left_s(self) -> float:
        return max(0.0, self._ask_at - time.monotonic()) if self._away else 0.0

    def begin(self) -> None:
        """Take the turn to ask. Raises TmdbUnavailableError."""
        if left_s := self.left_s:
            raise TmdbUnavailableError("not asked: it was just away", retry_after_s=left_s)
        # While this one finds out, nobody else waits for it.
        self._ask_at = time.monotonic() + DEADLINE_S

    def answered(self) -> None:
        if self._away:
            log.info("films are fetched from TMDB again")
        self._away = False

    def failed(self, retry_after_s: float | None) -> None:
        rest_s = max(self._rest_s, min(retry_after_s or 0.0, LONGEST_REST_S))
        self._ask_at = time.monotonic() + rest_s
        if not self._away:
            log.warning("films are not fetched: TMDB is unavailable", rest_s=rest_s)
        self._away = True


class FilmFetch:
    """Fetches films and stores them, in tasks of `spawn`. Without Redis each node does so for itself."""

    def __init__(
        self,
        tmdb: Tmdb,
        movies: Movies,
        marks: FilmMarks,
        spawn: Spawn,
        *,
        language: str,
        most_at_once: int = MOST_AT_ONCE,
        parallel: int = PARALLEL,
        within_s: float = WITHIN_S,
        rest_s: float = REST_S,
    ) -> None:
        self._tmdb = tmdb
        self._movies = movies
        self._marks = marks
        self._spawn = spawn
        self._language = language
        self._most_at_once = most_at_once
        self._within_s = within_s
        self._gate = asyncio.Semaphore(parallel)
        self._rest = _Rest(rest_s)
        self._flights: dict[int, _Flight] = {}

    async def fetch(self, ids: Sequence[int]) -> Fetched:
        """Have films in the catalogue that are not there, no id given twice; the first of them that are too many.

        Takes at most `within_s`. What is late goes on.
        """
        ends_at = time.monotonic() + self._within_s
        gone = await self._marks.missing(ids)
        outcomes = {tmdb_id: Outcome.MISSING if tmdb_id in gone else Outcome.LATE for tmdb_id in ids}
        wanted = [tmdb_id for tmdb_id in ids if tmdb_id not in gone][: self._most_at_once]
        flights = {tmdb_id: flight for tmdb_id in wanted if (flight := self._join(tmdb_id)) is not None}
        if flights:
            waiting = [flight.outcome for flight in flights.values()]
            await asyncio.wait(waiting, timeout=max(0.0, ends_at - time.monotonic()))
        outcomes |= {tmdb_id: flight.outcome.result() for tmdb_id, flight in flights.items() if flight.outcome.done()}
        return Fetched(outcomes, max(SOON_S, self._rest.left_s))

    async def raw(self, tmdb_id: int) -> Mapping[str, Any] | None:
        """TMDB's answer about a film, from the catalogue or as soon as it is there; None when TMDB has none.

        It is stored behind that. Takes at most about `within_s`. Raises TmdbError.
        """
        if (kept := await self._kept(tmdb_id)) is not None:
            return kept
        if await self._marks.missing([tmdb_id]):
            return None
        flight = self._join(tmdb_id)
        if flight is None:
            raise TmdbUnavailableError("not asked", retry_after_s=max(SOON_S, self._rest.left_s))
        # Futures of their own: who stops waiting for them does not stop the flight.
        await asyncio.wait((flight.answer, flight.outcome), timeout=self._within_s, return_when=asyncio.FIRST_COMPLETED)
        if flight.answer.done():
            return flight.answer.result()
        outcome = flight.outcome.result() if flight.outcome.done() else Outcome.LATE
        if outcome is Outcome.MISSING:
            return None
        # Another node fetched it.
        if outcome is Outcome.STORED and (kept := await self._kept(tmdb_id)) is not None:
            return kept
        raise TmdbUnavailableError("not in time", retry_after_s=max(SOON_S, self._rest.left_s))

    async def _kept(self, tmdb_id: int) -> Mapping[str, Any] | None:
        try:
            return await self._movies.raw(tmdb_id)
        except OperationError:
            return None  # it can be had without the catalogue

    def _join(self, tmdb_id: int) -> _Flight | None:
        """The flight of a film, begun if there is none; None when none is begun now."""
        flight = self._flights.get(tmdb_id)
        if flight is None:
            if self._rest.left_s or len(self._flights) >= MOST_UNDER_WAY:
                return None
            flight = self._flights[tmdb_id] = _Flight()
            self._spawn(self._fly(tmdb_id, flight), name=f"fetching film {tmdb_id}")
        return flight

    async def _fly(self, tmdb_id: int, flight: _Flight) -> None:
        outcome = Outcome.LATE
        try:
            outcome = await self._bring(tmdb_id, flight)
        finally:
            del self._flights[tmdb_id]
            flight.outcome.set_result(outcome)

    async def _bring(self, tmdb_id: int, flight: _Flight) -> Outcome:
        """Fetch the film, or wait until another node has: it may fail as well, and then it is our turn."""
        give_up_at: float | None = None
        while True:
            async with self._gate:
                if await self._marks.claim(tmdb_id):
                    try:
                        return await self._bring_claimed(tmdb_id, flight)
                    finally:
                        await self._marks.release(tmdb_id)
            give_up_at = give_up_at or time.monotonic() + OTHERS_S
            if time.monotonic() > give_up_at:
                return Outcome.LATE
            await asyncio.sleep(POLL_S)
            if await self._is_kept(tmdb_id):
                return Outcome.STORED

    async def _bring_claimed(self, tmdb_id: int, flight: _Flight) -> Outcome:
        # Another node may have been done with it just before the claim became ours.
        if await self._is_kept(tmdb_id):
            return Outcome.STORED
        if await self._marks.missing([tmdb_id]):
            return Outcome.MISSING
        try:
            raw = await self._ask(tmdb_id)
        except TmdbNotFoundError:
            flight.answer.set_result(None)
            await self._marks.note_missing(tmdb_id)
            return Outcome.MISSING
        except TmdbError as error:
            flight.failed(error)
            return Outcome.MISSING if isinstance(error, TmdbUnreadableError) else Outcome.LATE
        flight.answer.set_result(raw)
        try:
            await self._movies.store([raw], language=self._language)
        except OperationError as error:
            log.warning("a film was fetched and not stored", tmdb_id=tmdb_id, reason=error.kind.reason)
            return Outcome.LATE
        return Outcome.STORED

    async def _ask(self, tmdb_id: int) -> Mapping[str, Any]:
        """TMDB's answer. Raises TmdbError, without asking while TMDB has its rest."""
        self._rest.begin()
        try:
            raw = await self._tmdb.movie(tmdb_id, language=self._language)
        except TmdbUnavailableError as error:
            self._rest.failed(error.retry_after_s)
            raise
        except TmdbError as error:
            if isinstance(error, TmdbRefusedError) and error.status in REFUSES_ALL:
                self._rest.failed(None)
            else:
                self._rest.answered()
            raise
        self._rest.answered()
        return raw

    async def _is_kept(self, tmdb_id: int) -> bool:
        try:
            return await self._movies.has(tmdb_id)
        except OperationError:
            return False  # TMDB's answer is of use to who waits for nothing else
