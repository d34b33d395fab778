"""`run.py seed-movies`: its arguments, what it says while it works and at its end, and its exit code.

What is fetched and kept is `seeding.py`'s.
"""

import argparse
import asyncio
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

from protocol.errors import OperationError
from protocol.movies import Feed
from storage.movies import Movies
from storage.seedings import Seedings
from wsserver.progress import Progress, Step
from wsserver.seeding import FEEDS, Listing, Seeding, Tally, Wanted, read_lists
from wsserver.vendors.tmdb import Tmdb
from wsserver.vendors.tmdb_shapes import PAGES

MAX_CONCURRENCY = 64
"""More connections than this do not make TMDB faster: the budget does."""

NAMED = 20
"""Ids of failed films that the summary names."""

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit codes; the last is what shells answer for SIGINT."""

REFUSED = "TMDB refuses us ({}): check TMDB_API_TOKEN or TMDB_API_KEY."


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """What was typed. Without a language it is the settings'."""

    feeds: Sequence[Feed]
    pages: int
    language: str | None
    region: str | None
    concurrency: int
    dry_run: bool
    resume: bool
    typed: Sequence[str] = field(repr=False)

    def wanted(self, language: str) -> Wanted:
        return Wanted(self.feeds, self.pages, self.language or language, self.region, self.concurrency)

    def resuming(self) -> str:
        """What to type to go on."""
        typed = [each for each in self.typed if each != "--resume"]
        return shlex.join(["python3", "run.py", "seed-movies", *typed, "--resume"])


class Requests:
    """Counts what an HTTP client sends."""

    def __init__(self) -> None:
        self.count = 0

    async def note(self, _request: httpx.Request) -> None:
        self.count += 1


def seed_options(arguments: Sequence[str]) -> SeedOptions:
    """Read the arguments. Ends the process with 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        prog="run.py seed-movies",
        description="Fill the catalogue with the films of TMDB's lists. It can be repeated and cut off at any time.",
    )
    parser.add_argument(
        "--type", action="append", choices=FEEDS, dest="feeds", help="a list; may be repeated; all when none is given"
    )
    parser.add_argument("--pages", type=_number(PAGES), default=5, help="of each list, 20 films each (default: 5)")
    parser.add_argument("--language", type=_matching("[a-z]{2}(-[A-Z]{2})?"), help="default: TMDB_LANGUAGE, or zh-CN")
    parser.add_argument("--region", type=_matching("[A-Z]{2}"), help="whose releases, for example CN")
    parser.add_argument(
        "--concurrency", type=_number(MAX_CONCURRENCY), default=8, help="films fetched at a time (default: 8)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="read the lists, say what would be fetched, keep nothing"
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out what the last run fetched before it was cut off"
    )
    given = parser.parse_args(list(arguments))
    feeds = tuple(dict.fromkeys(given.feeds or FEEDS))
    return SeedOptions(
        feeds, given.pages, given.language, given.region, given.concurrency, given.dry_run, given.resume, arguments
    )


async def seed(
    options: SeedOptions, wanted: Wanted, tmdb: Tmdb, *, movies: Movies, seedings: Seedings, requests: Requests
) -> int:
    """Fill the catalogue; returns the exit code."""
    row = await seedings.unfinished(wanted.language) if options.resume else None
    if options.resume and row is None:
        _note("There is nothing to resume: every run came to its end. Beginning anew.")
    row = row or await seedings.begin(wanted.language)
    started = time.monotonic()
    seeding = Seeding(tmdb, movies, seedings, wanted, since=row.since)
    try:
        async with seedings.turn(lambda: _note("Another seed-movies is at work; waiting for its end …")):
            started = time.monotonic()
            async with Progress(sys.stderr, lambda: _step(seeding.tally)).shown():
                await seeding.lists()
        if seeding.tally.succeeded:
            await seedings.end(row.id)
        await seedings.forget_old_films()
        await seedings.forget_old_seedings()
    except (asyncio.CancelledError, OperationError) as error:
        _say(_summary(seeding.tally, requests, time.monotonic() - started))
        why = "PostgreSQL is not there" if isinstance(error, OperationError) else "Interrupted"
        _note(f"{why}. What is stored stays; go on with: {options.resuming()}")
        if isinstance(error, OperationError):
            return FAILED
        raise
    _say(_summary(seeding.tally, requests, time.monotonic() - started))
    return _code(seeding.tally, options)


async def rehearse(options: SeedOptions, wanted: Wanted, tmdb: Tmdb, seedings: Seedings | None) -> int:
    """Say what `seed` would fetch; returns the exit code. Without `seedings` there is no catalogue yet."""
    tally = await read_lists(tmdb, wanted)
    ids = list(dict.fromkeys(tmdb_id for listing in tally.listings for tmdb_id in listing.ids))
    row = await seedings.unfinished(wanted.language) if seedings and options.resume else None
    known = await seedings.fetched(ids, wanted.language, row.since) if seedings and row else set()
    for listing in tally.listings:
        missing = f"; pages that could not be read: {listing.left_out}" if listing.left_out else ""
        _say(_listed(listing) + missing)
    _say(f"Would fetch {len(ids) - len(known)} films in {wanted.language}; {len(known)} were fetched before the cut.")
    return _code(tally, options)


def _code(tally: Tally, options: SeedOptions) -> int:
    if tally.refused:
        _note(REFUSED.format(tally.given_up))
        return WRONG
    if tally.given_up is not None:
        _note(f"TMDB cannot be used ({tally.given_up}): {tally.left} films were not tried.")
    if not tally.succeeded and not options.dry_run:
        _note(f"What failed is tried again by: {options.resuming()}")
    return OK if tally.succeeded else FAILED


def _summary(tally: Tally, requests: Requests, seconds: float) -> str:
    lines = [
        _listed(listing)
        + (f"; pages that could not be read: {listing.left_out}, its old order stays" if listing.left_out else "")
        for listing in tally.listings
    ]
    lines.append(
        f"Films: {tally.films}, of them new {tally.new}, changed {tally.changed}, unchanged {tally.unchanged},"
        f" not found {tally.not_found}, failed {len(tally.failed)}, fetched before {tally.skipped}, left {tally.left}"
    )
    if tally.failed:
        named = [f"{tmdb_id} ({outcome})" for tmdb_id, outcome in list(tally.failed.items())[:NAMED]]
        lines.append(f"Failed: {', '.join(named)}{' …' if len(tally.failed) > NAMED else ''}")
    rate = requests.count / seconds if seconds else 0.0
    lines.append(f"{seconds:.1f} s, {requests.count} requests, {rate:.1f} requests/s")
    return "\n".join(lines)


def _listed(listing: Listing) -> str:
    return f"{listing.feed}: {len(listing.ids)} films on {listing.pages} page{'' if listing.pages == 1 else 's'}"


def _step(tally: Tally) -> Step:
    if not tally.films:
        return Step("pages of lists", tally.pages, None)
    return Step("films", tally.answered, tally.films - tally.skipped)


def _number(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {most}")
        return int(text)

    return read


def _matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not like {pattern}")
        return text

    return read


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
