"""Asks TMDB about films, shows and people: v3 of its API, developer.themoviedb.org.

It answers how often and how long TMDB is asked, and what its refusals mean. What an answer must be is
`tmdb_shapes.py`'s; how often all nodes may ask is `storage/budget.py`'s. Nothing is kept here.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import orjson
import structlog

from protocol.movies import Feed
from storage.budget import Budget
from wsserver.vendors import tmdb_shapes
from wsserver.vendors.tmdb_shapes import ListPage, MediaType, SearchHit
from wsserver.vendors.waiting import jittered, retry_after_s
from wsserver.vendors.wechat import without_queries

__all__ = [
    "ListPage",
    "SearchHit",
    "Tmdb",
    "TmdbError",
    "TmdbNotFoundError",
    "TmdbRefusedError",
    "TmdbUnavailableError",
    "TmdbUnreadableError",
]

log = structlog.get_logger(__name__)

DEADLINE_S = 10.0  # of a whole call, waiting for the budget and all tries included: somebody may look at a blank page
CONNECT_TIMEOUT_S = 3.0  # so that a second connect still fits in; some networks swallow the first
BACKOFF_S = 1.0  # doubles per try up to 8 s, with jitter, as TMDB's documentation asks for
LONGEST_BACKOFF_S = 8.0
BODY_LIMIT_BYTES = 8 * 1024 * 1024  # a film with 600 people and 60 translations takes 0.4 MiB

NOT_FOUND = (6, 34)  # TMDB's codes; a 404 without one is a proxy's, and says nothing about the film
NEVER_BETTER = (2, 44)  # of those with a status of 500 or more: no such service, no such kind of id
NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")

T = TypeVar("T")
Read = Callable[[Any], tuple[T, int]]
"""Makes of the JSON what was asked for, and says how many of its rows were left out. Raises ValueError."""


class TmdbError(Exception):
    """A call that got no answer. `retryable`: asked again later, TMDB may have one."""

    retryable = False
    outcome = "failed"


class TmdbNotFoundError(TmdbError):
    """TMDB has nothing of this id: worth remembering for a while."""

    outcome = "not_found"


class TmdbRefusedError(TmdbError):
    """Ours to mend: the credential, or the request."""

    outcome = "refused"

    def __init__(self, cause: str, *, status: int) -> None:
        super().__init__(cause)
        self.status = status


class TmdbUnreadableError(TmdbError):
    """An answer that is not what it should be about this id. It says nothing about others."""

    outcome = "unreadable"


class TmdbUnavailableError(TmdbError):
    """TMDB, or the way there, has a bad day, or the budget is used up; `retry_after_s` when it is known how long."""

    retryable = True
    outcome = "unavailable"

    def __init__(self, cause: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Call:
    """What the log line of one call says."""

    what: str
    ends_at: float
    started: float = field(default_factory=time.monotonic)
    outcome: str = "failed"
    tries: int = 0
    left_out: int = 0
    detail: str | None = None  # a status or the name of an exception, never its text

    def left_s(self) -> float:
        return self.ends_at - time.monotonic()

    def log(self) -> None:
        log.info(
            "tmdb call",
            outcome=self.outcome,
            what=self.what,
            detail=self.detail,
            rows_left_out=self.left_out,
            tries=self.tries,
            ms=round((time.monotonic() - self.started) * 1000),
        )


@dataclass(frozen=True, slots=True)
class _Reply:
    """A whole answer. `json` is None when it is none, `code` TMDB's own number for an error."""

    status: int
    json: Any = field(repr=False)
    code: int | None
    retry_after_s: float | None


def _nobody(_outcome: str, _elapsed_s: float) -> None:
    """Counts nothing."""


class Tmdb:
    """TMDB with our credential. Every method raises TmdbError, and takes at most `deadline_s`."""

    def __init__(
        self,
        *,
        base_url: str,
        token: str | None,
        api_key: str | None,
        client: httpx.AsyncClient,
        budget: Budget,
        deadline_s: float = DEADLINE_S,
        backoff_s: float = BACKOFF_S,
        count: Callable[[str, float], None] = _nobody,
    ) -> None:
        """The token goes before the key. `count` is told the outcome of each call and its seconds."""
        if not token and not api_key:
            raise ValueError("TMDB is asked with an API Read Access Token or an API key")
        # h11 refuses such a header with an error that quotes it.
        if not re.fullmatch("[!-~]+", token or api_key or ""):
            raise ValueError("TMDB's credential has characters that no header can carry")
        self._base_url = base_url.rstrip("/")
        self._headers = {"accept": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        self._signature = {} if token else {"api_key": api_key or ""}
        self._client = client
        self._budget = budget
        self._deadline_s = deadline_s
        self._backoff_s = backoff_s
        self._count = count
        self._complained: set[int] = set()
        logging.getLogger("httpx").addFilter(without_queries)

    async def movie(self, tmdb_id: int, *, language: str) -> dict[str, Any]:
        """A film with its credits and translations, as TMDB says it and as `storage/film_rows.py` takes it."""
        return await self._detail("movie", tmdb_id, language, "credits,translations")

    async def tv(self, tmdb_id: int, *, language: str) -> dict[str, Any]:
        """A show with its credits and translations."""
        return await self._detail("tv", tmdb_id, language, "credits,translations")

    async def person(self, tmdb_id: int, *, language: str) -> dict[str, Any]:
        """Somebody with their films and translations."""
        return await self._detail("person", tmdb_id, language, "movie_credits,translations")

    async def movie_list(self, feed: Feed, page: int, *, language: str, region: str | None = None) -> ListPage:
        """A page, from 1 to 500, of a list. Lists move while they are read: what is missing is not gone."""
        query = {"language": language, "page": str(page)} | ({"region": region} if region else {})
        return await self._ask(feed, f"/3/movie/{feed}", query, tmdb_shapes.list_page)

    async def search_multi(self, query: str, *, language: str, page: int = 1) -> list[SearchHit]:
        """Films, shows and people that a text may mean, best first. A blank text means nobody and asks nobody."""
        if not query.strip():
            return []
        asked = {"query": query, "language": language, "page": str(page), "include_adult": "false"}
        return await self._ask("search", "/3/search/multi", asked, tmdb_shapes.search_hits)

    async def check(self) -> None:
        """Whether TMDB takes our credential."""
        await self._ask("authentication", "/3/authentication", {}, lambda raw: (raw, 0))

    async def _detail(self, media_type: MediaType, tmdb_id: int, language: str, append: str) -> dict[str, Any]:
        query = {"language": language, "append_to_response": append}
        return await self._ask(
            media_type,
            f"/3/{media_type}/{tmdb_id:d}",
            query,
            lambda raw: tmdb_shapes.detail(raw, media_type, tmdb_id),
        )

    async def _ask(self, what: str, path: str, query: Mapping[str, str], read: Read[T]) -> T:
        """One call: as many requests as it takes, within one deadline and with one line in the log."""
        call = _Call(what, time.monotonic() + self._deadline_s)
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._tries(path, query, read, call)
        except TimeoutError:
            call.outcome = TmdbUnavailableError.outcome
            call.detail = f"no answer in time; before: {call.detail}" if call.detail else "no answer in time"
        except TmdbError as error:
            call.outcome = error.outcome
            raise
        except asyncio.CancelledError:
            call.outcome = "cancelled"
            raise
        else:
            call.outcome = "ok"
            return answer
        finally:
            call.log()
            self._count(call.outcome, time.monotonic() - call.started)
        # Out here it has no context: httpx's errors hold the URL, and with it the key.
        raise TmdbUnavailableError("no answer in time")

    async def _tries(self, path: str, query: Mapping[str, str], read: Read[T], call: _Call) -> T:
        while True:
            await self._turn(call)
            call.tries += 1
            reply = await self._send(path, query, call)
            pause_s = jittered(min(self._backoff_s * 2 ** (call.tries - 1), LONGEST_BACKOFF_S))
            if reply is not None and reply.status == 429:
                # The next turn comes after the pause, for all nodes, or is refused when that is too late.
                await self._budget.pause(reply.retry_after_s or pause_s)
                continue
            if reply is not None and reply.status == 200 and reply.json is not None:
                return _read(reply.json, read, call)
            if reply is not None and (refusal := self._refusal(reply)):
                raise refusal
            named_s = reply.retry_after_s if reply else None
            pause_s = max(pause_s, named_s or 0)
            if pause_s >= call.left_s():
                raise TmdbUnavailableError(call.detail or "no answer", retry_after_s=named_s)
            await asyncio.sleep(pause_s)

    async def _turn(self, call: _Call) -> None:
        """Wait until the budget has room for a request."""
        wait_s = await self._budget.take(within_s=call.left_s())
        while wait_s > 0:
            if wait_s >= call.left_s():
                raise TmdbUnavailableError(call.detail or "no room in the budget", retry_after_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = await self._budget.held(within_s=call.left_s())

    async def _send(self, path: str, query: Mapping[str, str], call: _Call) -> _Reply | None:
        """One request; None when no whole answer came."""
        try:
            # The signed query is written here and not in a variable: tracebacks that show locals must not show it.
            async with self._client.stream(
                "GET",
                self._base_url + path,
                params={**query, **self._signature},
                headers=self._headers,
                follow_redirects=False,
                timeout=httpx.Timeout(self._deadline_s, connect=CONNECT_TIMEOUT_S),
            ) as response:
                body = bytearray()
                async for data in response.aiter_bytes():
                    body += data
                    if len(body) > BODY_LIMIT_BYTES:
                        call.detail = "body too large"
                        return None
        except httpx.HTTPError as error:
            call.detail = type(error).__name__
            return None
        reply = _reply(response, bytes(body))
        call.detail = f"status {reply.status}" + (f", code {reply.code}" if reply.code is not None else "")
        if reply.status == 200:
            call.detail = None if reply.json is not None else "not JSON"
        return reply

    def _refusal(self, reply: _Reply) -> TmdbError | None:
        """What an answer says that no second request would better; None when one may."""
        if reply.status == 404 and reply.code in NOT_FOUND:
            return TmdbNotFoundError("TMDB has nothing of this id")
        passes = reply.status == 408 or reply.status < 400 or reply.status >= 500
        if passes and reply.code not in NEVER_BETTER:
            return None
        if reply.status not in self._complained:
            self._complained.add(reply.status)
            log.error("tmdb refuses us", status=reply.status, code=reply.code)
        return TmdbRefusedError(f"status {reply.status}, code {reply.code}", status=reply.status)


def _read(raw: Any, read: Read[T], call: _Call) -> T:
    try:
        answer, call.left_out = read(raw)
    except ValueError:
        call.detail = "not what was asked for"
    else:
        return answer
    raise TmdbUnreadableError(call.detail)


def _reply(response: httpx.Response, body: bytes) -> _Reply:
    try:
        # PostgreSQL keeps no NUL, in JSON neither.
        raw = orjson.loads(NUL.sub(rb"\1", body) if rb"\u0000" in body else body)
    except ValueError:
        raw = None  # an edge's HTML, or an answer that was cut
    code = raw.get("status_code") if isinstance(raw, dict) else None
    return _Reply(
        response.status_code,
        raw,
        code if isinstance(code, int) else None,
        retry_after_s(response.headers.get("retry-after")),
    )
