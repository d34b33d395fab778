"""Writes what the graph has to be told to a file, or to whoever reads our standard output, for a Neo4j elsewhere.

A file is there whole or not at all: it is written beside its place and renamed. Only then are its entities marked as
told. Nothing here speaks to a Neo4j.
"""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from protocol.errors import OperationError
from wsserver.graph.export import Entity, as_json
from wsserver.graph.script import head, script_of
from wsserver.graph.source import Source
from wsserver.graph.worker import Tally, entities_of, refusals

FileFormat = Literal["cypher", "jsonl"]

MARKED_AT_ONCE = 10_000
"""Ids of a statement that marks them: some ten milliseconds."""


class StoppedError(Exception):
    """Somebody wanted an end before the file was whole; it is not there, and its entities are due again."""


async def write_file(
    source: Source,
    output: Path | None,
    file_format: FileFormat,
    tally: Tally,
    *,
    batch: int,
    stop: asyncio.Event,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Write until nothing is due, to standard output without an `output`.

    Raises OSError, STORAGE_UNAVAILABLE and StoppedError, then with no file and nothing marked.
    """
    written: list[int] = []
    try:
        async with _file(output) as file:
            if file_format == "cypher":
                await asyncio.to_thread(file.write, head())
            taken: set[int] = set()
            while claimed := await source.take(batch):
                entities = await entities_of(claimed, refusals(source, tally))
                # After a lease that was too short for the file they come again, as they are in it.
                new = [one for one in entities if one.outbox_id == 0 or one.outbox_id not in taken]
                taken.update(one.outbox_id for one in new)
                written += [one.outbox_id for one in new]
                await asyncio.to_thread(file.write, _lines(new, file_format))
                tally.count(new)
                on_progress()
                if stop.is_set():
                    raise StoppedError("Stopped before the file was whole.")
    except (OSError, StoppedError) as error:
        with suppress(OperationError):  # else the lease gives them back
            await source.given_back(written, str(error), at_once=True)
        raise
    for first in range(0, len(written), MARKED_AT_ONCE):
        await source.told(written[first : first + MARKED_AT_ONCE])


def _lines(entities: Sequence[Entity], file_format: FileFormat) -> bytes:
    return script_of(entities) if file_format == "cypher" else b"".join(as_json(entity) for entity in entities)


@asynccontextmanager
async def _file(output: Path | None) -> AsyncIterator[BinaryIO]:
    """A file that is on the disk when the block has ended without an error, and gone else."""
    if output is None:
        yield sys.stdout.buffer
        await asyncio.to_thread(_flush, sys.stdout.buffer)
        return
    place = await asyncio.to_thread(output.resolve)
    if await asyncio.to_thread(_is_special, place):
        with await asyncio.to_thread(place.open, "wb") as file:
            yield file
            await asyncio.to_thread(_flush, file)
        return
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            await asyncio.to_thread(_flush, file)
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        await asyncio.to_thread(os.fsync, folder)  # else a power cut could undo the renaming
    finally:
        os.close(folder)


def _is_special(place: Path) -> bool:
    """A device or a pipe: it must not be replaced by a file."""
    return place.exists() and not place.is_file()


def _flush(file: BinaryIO) -> None:
    file.flush()
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.fsync(file.fileno())
