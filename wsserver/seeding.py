"""Fills the catalogue from TMDB: its lists, then each film of them, stored in batches.

It answers what is fetched, in which order, what becomes of what cannot be, and when it is hopeless. How TMDB is asked
is `vendors/tmdb.py`'s, who asks for a seeding and what they are told `seed_command.py`'s and `refresh.py`'s.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import asyncpg
import structlog

from protocol.errors import OperationError
from protocol.movies import Feed
from storage.budget import Budget
from storage.movies import Movies
from storage.seedings import Seedings
from storage.tmdb_store import Stored
from wsserver.vendors.tmdb import (
    Tmdb,
    TmdbError,
    TmdbNotFoundError,
    TmdbRefusedError,
    TmdbUnavailableError,
    TmdbUnreadableError,
)
from wsserver.vendors.waiting import jittered

log = structlog.get_logger(__name__)

FEEDS: tuple[Feed, ...] = ("popular", "now_playing", "upcoming")

BATCH = 20
"""Films stored at once, as many as a page of a list has: this and what is on its way is all that a kill loses."""

TRIES = 4
"""Of one film or page, each within the deadline of a call to TMDB."""

PAUSE_S = 2.0
"""Before the second try; doubles, so that a film is given up after a minute in which TMDB was away."""

LONGEST_PAUSE_S = 300.0
"""However long TMDB wants to be left alone: after that it is asked whether it still means it."""

HOPELESS = 16
"""Calls in a row, or two for each at a time, without an answer: then it is TMDB, or the way there, and no film."""

STORE_PAUSES_S = (0.5, 2.0, 5.0)
"""Between tries to store: a failover of PostgreSQL takes some seconds, and what was fetched is worth the wait."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lists, how much of them, and in which language."""

    feeds: Sequence[Feed] = FEEDS
    pages: int = 5
    language: str = "zh-CN"
    region: str | None = None
    concurrency: int = 8


@dataclass(slots=True)
class Listing:
    """What was read of one list, in its order. `left_out` are pages that could not be read."""

    feed: Feed
    ids: list[int] = field(default_factory=list)
    pages: int = 0
    left_out: int = 0

    @property
    def whole(self) -> bool:
        return not self.left_out


@dataclass(slots=True)
class Tally:
    """How a seeding stands; who shows its progress reads it at any time."""

    listings: list[Listing] = field(default_factory=list)
    pages: int = 0
    films: int = 0
    skipped: int = 0
    """Films that were fetched before the last cut, or by somebody else since this began."""
    answered: int = 0
    """Films about which it is known what becomes of them; those fetched may still have to be stored."""
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    not_found: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    given_up: str | None = None
    """Why the rest was not tried."""
    refused: bool = False
    """TMDB does not take our credential, or what we ask for."""

    @property
    def left(self) -> int:
        return self.films - self.skipped - self.answered

    @property
    def succeeded(self) -> bool:
        return not self.failed and self.given_up is None and all(listing.whole for listing in self.listings)

    def counts(self) -> dict[str, Any]:
        """For a log line, or a row."""
        return {
            "lists": [listing.feed for listing in self.listings if listing.whole],
            "films": self.films,
            "skipped": self.skipped,
            "new": self.new,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "not_found": self.not_found,
            "failed": len(self.failed),
            "left": self.left,
            "given_up": self.given_up,
        }


class Seeding:
    """One seeding. `tally` says at any time how it stands.

    What was fetched since `since` is not fetched again. `share`, where there is one, holds it back from the budget that
    others need too. Its methods raise STORAGE_UNAVAILABLE; what TMDB does not do is in the tally.
    """

    def __init__(
        self,
        tmdb: Tmdb,
        movies: Movies,
        seedings: Seedings,
        wanted: Wanted,
        *,
        since: datetime,
        share: Budget | None = None,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.tally = Tally()
        self._movies = movies
        self._seedings = seedings
        self._wanted = wanted
        self._since = since
        self._asking = _Asking(tmdb, wanted, self.tally, share, pause_s)
        self._fetched: list[dict[str, Any]] = []
        self._absent: list[int] = []
        self._storing = asyncio.Lock()

    async def lists(self) -> None:
        """Read the lists, fetch their films, and keep the order of those lists that were read whole."""
        await self._asking.lists()
        listings = self.tally.listings
        await self.films(tmdb_id for listing in listings for tmdb_id in listing.ids)
        if self.tally.given_up is not None:
            return
        for listing in listings:
            # An empty answer is more likely a slip of TMDB's than a country without films.
            if listing.whole and listing.ids:
                await _patiently(partial(self._movies.replace_feed, listing.feed, listing.ids))

    async def films(self, ids: Iterable[int]) -> None:
        """Fetch films and store them."""
        wanted = list(dict.fromkeys(ids))
        known = await self._seedings.fetched(wanted, self._wanted.language, self._since)
        self.tally.films += len(wanted)
        self.tally.skipped += len(known)
        left = iter([tmdb_id for tmdb_id in wanted if tmdb_id not in known])
        await _together(self._work(left) for _ in range(self._wanted.concurrency))
        await self._store()

    async def _work(self, left: Iterator[int]) -> None:
        for tmdb_id in left:
            if self.tally.given_up is not None:
                # It was taken from the others and is dealt with by nobody: it stays among those that are left.
                return
            film = await self._asking.film(tmdb_id)
            if film is not None:
                self._fetched.append(film)
            elif tmdb_id not in self.tally.failed:
                self._absent.append(tmdb_id)
            if len(self._fetched) >= BATCH:
                await self._store()

    async def _store(self) -> None:
        # One at a time: else slow storing would gather films in memory.
        async with self._storing:
            films, self._fetched = self._fetched, []
            absent, self._absent = self._absent, []
            kept = await self._keep(films)
            if kept or absent:
                await _patiently(lambda: self._seedings.note([*kept, *absent], self._wanted.language))

    async def _keep(self, films: Sequence[dict[str, Any]]) -> list[int]:
        """Store what can be, and return its ids: one film that PostgreSQL does not take must not lose the others."""
        if not films:
            return []
        try:
            stored: Stored = await _patiently(lambda: self._movies.store(films, language=self._wanted.language))
        except (ValueError, asyncpg.PostgresError) as error:
            if len(films) > 1:
                return [tmdb_id for film in films for tmdb_id in await self._keep([film])]
            self.tally.failed[films[0]["id"]] = "cannot be stored"
            log.warning("film cannot be stored", tmdb_id=films[0]["id"], reason=type(error).__name__)
            return []
        self.tally.new += stored.new
        self.tally.changed += stored.changed
        self.tally.unchanged += stored.unchanged
        return [film["id"] for film in films]


async def read_lists(tmdb: Tmdb, wanted: Wanted, *, pause_s: float = PAUSE_S) -> Tally:
    """Only read the lists: what a seeding would fetch."""
    tally = Tally()
    await _Asking(tmdb, wanted, tally, None, pause_s).lists()
    return tally


class _Asking:
    """Asks TMDB with the patience of somebody whom nobody waits for."""

    def __init__(self, tmdb: Tmdb, wanted: Wanted, tally: Tally, share: Budget | None, pause_s: float) -> None:
        self._tmdb = tmdb
        self._wanted = wanted
        self._tally = tally
        self._share = share
        self._pause_s = pause_s
        self._failures = 0  # in a row

    async def lists(self) -> None:
        """Read the first pages of each list into the tally."""
        self._tally.listings = [Listing(feed) for feed in self._wanted.feeds]
        await _together(self._list(listing) for listing in self._tally.listings)

    async def _list(self, listing: Listing) -> None:
        """The first page says how many there are; the others are read at once, as a list moves while it is read."""
        read: dict[int, list[int]] = {}
        there = await self._page(listing, 1, read)
        last = self._wanted.pages if there is None else min(self._wanted.pages, there)
        left = iter(range(2, last + 1))
        at_once = max(1, self._wanted.concurrency // len(self._wanted.feeds))
        await _together(self._pages(listing, left, read) for _ in range(at_once))
        listing.ids = list(dict.fromkeys(tmdb_id for page in sorted(read) for tmdb_id in read[page]))

    async def _pages(self, listing: Listing, left: Iterator[int], read: dict[int, list[int]]) -> None:
        for page in left:
            await self._page(listing, page, read)

    async def _page(self, listing: Listing, page: int, read: dict[int, list[int]]) -> int | None:
        """Read a page; how many there are, or None when it could not be read, which costs the list its order only."""
        wanted = self._wanted
        asked = partial(self._tmdb.movie_list, listing.feed, page, language=wanted.language, region=wanted.region)
        try:
            if self._tally.given_up is None:
                answer = await self._patiently(asked)
                read[page] = answer.ids
                listing.pages += 1
                self._tally.pages += 1
                return answer.total_pages
        except TmdbRefusedError as error:
            self._tally.refused = True
            self._tally.given_up = str(error)
        except TmdbError as error:
            self._count(error)
            log.warning("page of a list cannot be read", feed=listing.feed, page=page, outcome=error.outcome)
        listing.left_out += 1
        return None

    async def film(self, tmdb_id: int) -> dict[str, Any] | None:
        """A film, or None when there is none to be had; the tally knows why."""
        film = None
        try:
            film = await self._patiently(lambda: self._tmdb.movie(tmdb_id, language=self._wanted.language))
        except TmdbNotFoundError:
            self._failures = 0
            self._tally.not_found += 1
        except TmdbError as error:
            self._tally.failed[tmdb_id] = error.outcome
            self._count(error)
        self._tally.answered += 1
        return film

    def _count(self, error: TmdbError) -> None:
        """One more failure in a row, unless TMDB did answer."""
        self._failures = 0 if isinstance(error, TmdbUnreadableError) else self._failures + 1
        if self._failures >= max(HOPELESS, 2 * self._wanted.concurrency):
            self._tally.given_up = str(error)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """An answer, if it takes several calls. Raises TmdbError."""
        pause_s = self._pause_s
        for _ in range(TRIES - 1):
            try:
                return await self._call(call)
            except TmdbUnavailableError as error:
                wait_s = max(jittered(pause_s), error.retry_after_s or 0.0)
            await asyncio.sleep(min(wait_s, LONGEST_PAUSE_S))
            pause_s *= 2
        return await self._call(call)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        if self._share is not None:
            await asyncio.sleep(await self._share.take())
        answer = await call()
        self._failures = 0
        return answer


async def _patiently(storing: Callable[[], Awaitable[T]]) -> T:
    """Store something, in spite of a short outage. Raises STORAGE_UNAVAILABLE after a long one."""
    for pause_s in STORE_PAUSES_S:
        try:
            return await storing()
        except OperationError as error:
            log.warning("storage is away, trying again", reason=error.kind.reason, pause_s=pause_s)
        await asyncio.sleep(pause_s)
    return await storing()


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do it all at once; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
