"""The command `export-graph`: what it may be asked, what it connects, and what it says in the end.

How a graph or a file is told is worker.py's and files.py's.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncpg

from protocol.errors import OperationError
from storage.embedded import EmbeddedError, Services
from storage.graph_outbox import GraphOutbox
from storage.postgres import Postgres
from storage.schema import SchemaError, migrate
from wsserver.connections import services_of
from wsserver.graph.files import FileFormat, StoppedError, write_file
from wsserver.graph.source import FILE_LEASE, LEASE, FromOutbox, Source, WholeCatalogue
from wsserver.graph.worker import GraphWorker, Tally
from wsserver.settings import Settings, SettingsError, load_settings
from wsserver.telemetry import configure_logging
from wsserver.vendors.neo4j import DriverMissingError, GraphError, Neo4j, require_driver

CONNECTIONS = 2
MAX_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. Without a format a Neo4j is told; an output of None is standard output."""

    follow: bool
    batch: int
    everything: bool
    file_format: FileFormat | None
    output: Path | None


def main(arguments: Sequence[str] = ()) -> int:
    """Tell the graph. Gives the exit code: 0 when all of it was told, 1 when it was not, 2 for wrong settings."""
    options = _options(arguments)
    try:
        settings = load_settings()
        if options.file_format is None and settings.neo4j_uri is None:
            raise SettingsError("NEO4J_URI: needed, or write a file with --format and --output")
    except SettingsError as error:
        return _say(f"Wrong settings:\n{error}", 2)
    configure_logging(level=settings.log_level, json=settings.json_logs)
    tally = Tally()
    try:
        if options.file_format is None:
            require_driver()
        with services_of(settings, redis=False) as services:
            whole = asyncio.run(_export(settings, options, services, tally))
    except (DriverMissingError, EmbeddedError, StoppedError) as error:
        reason = str(error)
    except SchemaError as error:
        reason = f"DATABASE_URL: {error}"
    except GraphError as error:
        reason = f"Neo4j at {settings.neo4j_uri} cannot be told: {error}"
    except OperationError as error:
        reason = f"PostgreSQL cannot be used: {error.__cause__ or error}"
    except (OSError, asyncpg.PostgresError) as error:
        reason = str(error) or type(error).__name__
    else:
        return 0 if whole else 1
    return _say(reason, 1)


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="run.py export-graph",
        description="Tell a Neo4j (NEO4J_URI) what changed in the catalogue since it was last told, or write it to a"
        " file. All other settings come from the environment.",
    )
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--once", action="store_true", help="stop when nothing is due (the default)")
    until.add_argument("--follow", action="store_true", help="keep running and tell what comes")
    parser.add_argument("--batch", type=int, default=200, metavar="N", help="entities per transaction (200)")
    parser.add_argument("--all", action="store_true", help="everything, whatever was told before; marks nothing")
    parser.add_argument("--format", choices=["cypher", "jsonl"], help="write a file instead: a script or JSON lines")
    parser.add_argument("--output", metavar="FILE", help="where to; - is standard output")
    asked = parser.parse_args(list(arguments))
    if not 1 <= asked.batch <= MAX_BATCH:
        parser.error(f"--batch: 1 to {MAX_BATCH}")
    if (asked.format is None) != (asked.output is None):
        parser.error("--format and --output need each other")
    if asked.follow and (asked.format or asked.all):
        parser.error("--follow tells a Neo4j what changes: it goes with neither --format nor --all")
    output = None if asked.output in {None, "-"} else Path(asked.output)
    if output is not None and output.is_dir():
        parser.error(f"--output: {output} is a folder")
    if output is not None and not asked.all and output.is_file() and output.stat().st_size:
        # Its entities are marked as told: what nobody has run yet would be lost.
        parser.error(f"--output: {output} exists. Run it and remove it, or name another file")
    return Options(asked.follow, asked.batch, asked.all, asked.format, output)


async def _export(settings: Settings, options: Options, services: Services, tally: Tally) -> bool:
    """Whether everything was told that was to be; who follows has no such end."""
    assert services.database_url is not None  # noqa: S101 (PostgreSQL was given or started)
    stop = _stop_on_signals()
    await migrate(services.database_url)
    async with Postgres.open(services.database_url, size=CONNECTIONS) as postgres:
        outbox = GraphOutbox(postgres)
        source: Source = (
            WholeCatalogue(outbox)
            if options.everything
            else FromOutbox(outbox, FILE_LEASE if options.file_format else LEASE)
        )
        progress = partial(_show_progress, tally)
        try:
            if options.file_format is not None:
                await write_file(
                    source,
                    options.output,
                    options.file_format,
                    tally,
                    batch=options.batch,
                    stop=stop,
                    on_progress=progress,
                )
            else:
                async with _graph(settings) as graph:
                    worker = GraphWorker(source, graph, tally, batch=options.batch, on_progress=progress)
                    if options.follow:
                        await worker.follow(stop, may_wait_for_storage=services.attached_to is None)
                    else:
                        await worker.once(stop)
        finally:
            _end_progress()
        left = await source.left()
        _say_what_was_done(tally, left, options)
    return options.follow or (tally.refused == 0 and (left == 0 or not stop.is_set()))


@contextlib.asynccontextmanager
async def _graph(settings: Settings) -> AsyncIterator[Neo4j]:
    assert settings.neo4j_uri is not None  # noqa: S101 (asked about before)
    password = settings.neo4j_password
    async with Neo4j.open(
        settings.neo4j_uri,
        user=settings.neo4j_user,
        password=password.get_secret_value() if password else None,
        database=settings.neo4j_database,
    ) as graph:
        yield graph


def _stop_on_signals() -> asyncio.Event:
    """Set by the first signal; the second ends the process at once, and leases give back what it had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop


def _show_progress(tally: Tally) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{tally.told} told")
        sys.stderr.flush()


def _end_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\n")


def _say_what_was_done(tally: Tally, left: int, options: Options) -> None:
    where = "Neo4j" if options.file_format is None else "The file" if options.output else "Standard output"
    parts = [f"{where} was told about {tally.told} entities, {tally.deleted} of them gone."]
    if tally.waiting:
        parts.append(f"{tally.waiting} were refused and are tried again later.")
    if tally.parked:
        parts.append(f"{tally.parked} cannot be told as they are and wait until they change; the log says why.")
    if left:
        parts.append(f"{left} wait in the outbox.")
    _say(" ".join(parts), 0)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code
