"""TMDB for tests and by hand: details, lists and the search of v3 of its API, answering and misbehaving as it does.

`TmdbStandIn().app` is served over real HTTP. It has the films that it is told to know, made up by `tmdb_films.py`. A
queued fault is met by the next request. `python -m tests.standins.tmdb` serves it until it is killed.
"""

import argparse
import asyncio
import contextlib
import copy
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.standins import tmdb_films as made_up
from tests.standins.server import Gate, cut, serve, unless_left
from tests.standins.tmdb_films import PEOPLE, Json

PAGE = 20
PAGES = 500
"""Later ones are refused, whatever `total_pages` says."""

TOTAL_PAGES = 49_821
OVERLAP = 1
"""Films of a page that the next one has again."""

SEARCHED = 10_000
"""The search looks at so many films, as nobody waits for more of them to be made up."""

MESSAGES = {
    1: (200, "Success."),
    7: (401, "Invalid API key: You must be granted a valid key."),
    11: (500, "Internal error: Something went wrong, contact TMDb."),
    22: (400, "Invalid page: Pages start at 1 and max at 500. They are expected to be an integer."),
    25: (429, "Your request count (41) is over the allowed limit of (40)."),
    27: (400, "Too many append to response objects: The maximum number of remote calls is 20."),
    34: (404, "The resource you requested could not be found."),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came in."""

    path: str
    query: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """What one request meets. Without a status it gets its own answer, changed or late."""

    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[Any], Any] | None = None
    delay_s: float = 0.0
    stall: Gate | None = None
    reset: bool = False


def answers(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Fault:
    """This body, as JSON, or as it is when it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return Fault(status, content, headers or {})


def refuses(code: int, *, retry_after: str | None = None) -> Fault:
    """One of TMDB's own errors."""
    status, _ = MESSAGES[code]
    return answers(_error(code), status, {} if retry_after is None else {"retry-after": retry_after})


def throttles(retry_after: str | None = "1", times: int = 1) -> list[Fault]:
    return [refuses(25, retry_after=retry_after)] * times


def html(status: int = 503, times: int = 1) -> list[Fault]:
    """What the network in front of TMDB says when TMDB is away."""
    body = f"<html><head><title>{status}</title></head><body><h1>ERROR</h1></body></html>".encode()
    return [Fault(status, body, {"content-type": "text/html", "server": "CloudFront"})] * times


def changed(change: Callable[[Any], Any]) -> Fault:
    """The right answer after `change`, which gets a copy of it and gives what is sent."""
    return Fault(change=change)


def late(seconds: float) -> Fault:
    """The right answer, that much later. Never a means of synchronisation."""
    return Fault(delay_s=seconds)


def stalls(gate: Gate) -> Fault:
    """The right answer, when the gate is opened."""
    return Fault(stall=gate)


def resets() -> Fault:
    """The connection goes away before the answer."""
    return Fault(reset=True)


class TmdbStandIn:
    """The server. `calls` counts the requests by path, `seen` are the last of them, `at_once` those that wait for an
    answer now, and `most_at_once` how many did at the same moment.

    `films` and `shows` are the ids that it has; `feeds` the films of a list, all of them where nothing is said.
    `changes` are laid over what is made up, by path: `{"/3/movie/1": {"title": ""}}`. With a `ceiling_per_s` it refuses
    what is more within a second.
    """

    def __init__(
        self, *, token: str = "eyJhbGciOiJIUzI1NiJ9.c3RhbmQtaW4.x", api_key: str = "0123456789abcdef0123456789abcdef"
    ) -> None:
        self.token = token
        self.api_key = api_key
        self.calls: Counter[str] = Counter()
        self.seen: deque[Call] = deque(maxlen=1000)
        self.at_once = 0
        self.reset()
        self.app = Starlette(routes=[Route("/{path:path}", _Endpoint(self), methods=["GET"])])

    def reset(self) -> None:
        self.films: Collection[int] = range(1, 1001)
        self.shows: Collection[int] = range(1, 101)
        self.feeds: dict[str, list[int]] = {}
        self.changes: dict[str, Json] = {}
        self.total_pages: int | None = TOTAL_PAGES
        self.latency_s = 0.0
        self.ceiling_per_s: int | None = None
        self.throttled = 0
        self.most_at_once = 0
        self.calls.clear()
        self.seen.clear()
        self._faults: list[Fault] = []
        self._times: deque[float] = deque()

    def queue(self, *faults: Fault) -> None:
        self._faults.extend(faults)

    def take(self, call: Call) -> Fault:
        """What is to be done about one request."""
        self.calls[call.path] += 1
        self.seen.append(call)
        if self._is_over_the_ceiling():
            self.throttled += 1
            return refuses(25, retry_after="1")
        fault = self._faults.pop(0) if self._faults else Fault()
        if fault.status is not None:
            return fault
        status, body = self._answer(call)
        if fault.change is not None:
            body = fault.change(copy.deepcopy(body))
        return replace(answers(body, status), delay_s=fault.delay_s, stall=fault.stall, reset=fault.reset)

    def _is_over_the_ceiling(self) -> bool:
        now = time.monotonic()
        while self._times and self._times[0] <= now - 1:
            self._times.popleft()
        if self.ceiling_per_s is not None and len(self._times) >= self.ceiling_per_s:
            return True
        self._times.append(now)
        return False

    def _answer(self, call: Call) -> tuple[int, Any]:
        by_token = call.headers.get("authorization") == f"Bearer {self.token}"
        if not by_token and call.query.get("api_key") != self.api_key:
            return _refusal(7)
        status, body = self._resource(call.path.removeprefix("/3/").split("/"), call)
        return (status, body | self.changes[call.path]) if call.path in self.changes else (status, body)

    def _resource(self, parts: list[str], call: Call) -> tuple[int, Any]:
        match parts:
            case ["authentication"]:
                return 200, _error(1)
            case ["movie", ("popular" | "now_playing" | "upcoming" | "top_rated") as feed]:
                return self._list(feed, call.query)
            case ["movie" | "tv" | "person" as kind, number] if number.isascii() and number.isdigit():
                return self._detail(kind, int(number), call.query)
            case ["search", "multi"]:
                return self._search(call.query)
        return _refusal(34)

    def _detail(self, kind: str, tmdb_id: int, query: Mapping[str, str]) -> tuple[int, Any]:
        language = query.get("language", "en-US")
        appended = [name for name in query.get("append_to_response", "").split(",") if name]
        if len(appended) > 20:
            return _refusal(27)
        if tmdb_id not in {"movie": self.films, "tv": self.shows, "person": PEOPLE}[kind]:
            return _refusal(34)
        if kind == "person":
            body = made_up.person(tmdb_id)
            last = max(self.films, default=0)
            parts = {"movie_credits": lambda: made_up.films_of(tmdb_id, self.films, last, language)}
        else:
            body = made_up.film(tmdb_id, language) if kind == "movie" else made_up.show(tmdb_id, language)
            parts = {"credits": lambda: made_up.credits_of(tmdb_id)}
        texts_of = {"movie": "film", "tv": "show", "person": "person"}[kind]
        parts["translations"] = lambda: made_up.translations_of(tmdb_id, texts_of)
        return 200, body | {name: parts[name]() for name in appended if name in parts}

    def _list(self, feed: str, query: Mapping[str, str]) -> tuple[int, Any]:
        page = _page(query)
        if page is None:
            return _refusal(22)
        ids = self.feeds.get(feed)
        if ids is None:
            ids = sorted(self.films)[: PAGE * PAGES]
        first = (page - 1) * (PAGE - OVERLAP)
        language = query.get("language", "en-US")
        body = self._page_of([made_up.film_row(tmdb_id, language) for tmdb_id in ids[first : first + PAGE]], page, ids)
        window = {"dates": {"maximum": "2026-11-25", "minimum": "2026-10-14"}}
        return 200, body | (window if feed in {"now_playing", "upcoming"} else {})

    def _search(self, query: Mapping[str, str]) -> tuple[int, Any]:
        if not query.get("query"):
            return 422, {"errors": ["query must be provided"]}
        page = _page(query)
        if page is None:
            return _refusal(22)
        language, wanted = query.get("language", "en-US"), query["query"].casefold()
        rows = [
            *(
                self._row("movie", made_up.film_row(tmdb_id, language)) | {"media_type": "movie"}
                for tmdb_id in sorted(self.films)[:SEARCHED]
            ),
            *(self._row("tv", made_up.show_row(tmdb_id, language)) | {"media_type": "tv"} for tmdb_id in self.shows),
            *(
                self._row("person", made_up.person(tmdb_id)) | {"media_type": "person", "known_for": []}
                for tmdb_id in PEOPLE
            ),
        ]
        found = [row for row in rows if any(wanted in name.casefold() for name in _names(row))]
        if any(row["media_type"] == "movie" for row in found):
            name = f"{query['query']}（系列）"
            found.insert(1, {"id": 900_001, "media_type": "collection", "name": name, "original_name": name})
        return 200, self._page_of(found[(page - 1) * PAGE : page * PAGE], page, found) | {
            "total_pages": -(-len(found) // PAGE)
        }

    def _row(self, kind: str, row: Json) -> Json:
        """A row of a list, with what is changed in the answer about it."""
        changes = self.changes.get(f"/3/{kind}/{row['id']}", {})
        return row | {name: value for name, value in changes.items() if name in row}

    def _page_of(self, rows: list[Json], page: int, of: Collection[object]) -> Json:
        pages = -(-len(of) // (PAGE - OVERLAP)) if self.total_pages is None else self.total_pages
        return {"page": page, "results": rows, "total_pages": pages, "total_results": pages * PAGE}


class _Endpoint:
    """The raw ASGI side, which can break its own connection."""

    def __init__(self, standin: TmdbStandIn) -> None:
        self._standin = standin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standin = self._standin
        standin.at_once += 1
        standin.most_at_once = max(standin.most_at_once, standin.at_once)
        try:
            await self._answer(scope, receive, send)
        finally:
            standin.at_once -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        fault = self._standin.take(Call(request.url.path, dict(request.query_params), dict(request.headers)))
        if fault.stall is not None and not await unless_left(receive, fault.stall.wait()):
            return
        pause_s = fault.delay_s + self._standin.latency_s
        if pause_s and not await unless_left(receive, asyncio.sleep(pause_s)):
            return
        if fault.reset:
            cut(receive)
            return
        length = str(len(fault.body))
        headers = {"content-type": "application/json;charset=utf-8", "content-length": length, **fault.headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": fault.status, "headers": raw})
        await send({"type": "http.response.body", "body": fault.body})


def _error(code: int) -> Json:
    _, message = MESSAGES[code]
    return {"success": code == 1, "status_code": code, "status_message": message}


def _refusal(code: int) -> tuple[int, Json]:
    return MESSAGES[code][0], _error(code)


def _page(query: Mapping[str, str]) -> int | None:
    number = query.get("page", "1")
    return int(number) if number.isascii() and number.isdigit() and 1 <= int(number) <= PAGES else None


def _names(row: Json) -> list[str]:
    return [row[field] for field in ("title", "original_title", "name", "original_name") if row.get(field)]


async def _serve(standin: TmdbStandIn) -> None:
    async with serve(standin.app) as url:
        print(f"TMDB_API_BASE={url}", f"TMDB_API_TOKEN={standin.token}", f"TMDB_API_KEY={standin.api_key}", sep="\n")
        print(flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until killed, on a port of its own choice, and say where."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--films", type=int, default=100_000, help="it has the ids from 1 to this one")
    parser.add_argument("--latency-ms", type=float, default=0, help="of every answer")
    parser.add_argument("--ceiling-per-s", type=int, help="more requests than this are answered 429")
    options = parser.parse_args()
    standin = TmdbStandIn()
    standin.films = range(1, options.films + 1)
    standin.latency_s = options.latency_ms / 1000
    standin.ceiling_per_s = options.ceiling_per_s
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(standin))


if __name__ == "__main__":
    main()
