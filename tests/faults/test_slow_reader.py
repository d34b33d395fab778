"""A client that stops reading costs what was agreed and nobody else anything; when it reads again it has everything."""

import asyncio
import re
import statistics
import time
from collections.abc import Iterator, Sequence

import asyncpg
import httpx
import pytest

from tests.faults.answer import Answer
from tests.faults.client import Client, Counts
from tests.faults.conftest import Ground, Table
from tests.faults.model import question
from tests.faults.nodes import Fleet, fleet

READERS = 200
PER_S = 5.0
"""Pieces a second for each of them: a thousand in all, which leaves two cores that everything shares half idle. Where
they are full, whatever else is done delays everybody."""

ALONE_S, STOPPED_S = 15.0, 30.0
"""They read without the one that stops, then beside it for as long as it stands still, then without it again."""

SLOW_AT_ONCE = 3
"""As many answers as a user has made at once."""

SLOW_DELTAS, SLOW_PER_S, SLOW_LENGTH = 240, 80.0, 1_200
"""Pieces of 3.6 kB, and all of them again in the last frame: 1.7 MB an answer."""

MOST_ANSWERS = 9
"""16 MB. Linux lets a socket hold 4 MB (tcp_wmem), the writer and the outbox 1 MiB each: it is full before that."""

RECEIVE_BUFFER_BYTES = 65_536
PATIENCE_S = 150.0


async def chunk_delays(name: str, seconds: float, ground: Ground, urls: Sequence[str], counts: Counts) -> list[float]:
    """How long each piece took from the model to its reader."""

    async def ask(number: int) -> Answer:
        async with Client(urls, counts, silence_s=None).open() as client:
            await asyncio.sleep(number / READERS)
            return await client.ask(question(f"{name}-{number}", deltas=round(seconds * PER_S), per_s=PER_S))

    answers = await asyncio.gather(*map(ask, range(READERS)))
    said = await ground.model.times()
    return [delay for answer in answers for delay in delays(answer, said[answer.query])]


def delays(answer: Answer, said: Sequence[float]) -> Iterator[float]:
    """Of each chunk, counted from the first piece in it."""
    pieces = 0
    for frame, arrived in zip(answer.frames, answer.arrivals, strict=True):
        if frame["type"] == "chunk":
            yield arrived - said[pieces]
            pieces += frame["content"].count("；")


def ask_for_more(client: Client, number: int) -> list[Answer]:
    """Answers that no conversation has to wait for."""
    asked = [
        question(f"慢-{number + one}", deltas=SLOW_DELTAS, per_s=SLOW_PER_S, length=SLOW_LENGTH)
        for one in range(SLOW_AT_ONCE)
    ]
    return [client.begin(query, incognito=True) for query in asked]


async def gives_up(nodes: Fleet) -> bool:
    """Whether a node has given up a client that does not read."""
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
        pages = [(await http.get(f"{node.url}/metrics")).text for node in nodes.nodes]
    return any(re.search(r"^cinewire_outbox_overflows_total [1-9]", page, re.MULTILINE) for page in pages)


async def runs_of_nobody(database_url: str) -> int:
    """How many answers that are in no conversation are being made."""
    connection = await asyncpg.connect(database_url)
    try:
        found: int = await connection.fetchval(
            "SELECT count(*) FROM chat.runs WHERE conversation_id IS NULL AND ended_at IS NULL"
        )
    finally:
        await connection.close()
    return found


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


@pytest.mark.slow
@pytest.mark.timeout(int(PATIENCE_S + 60))
async def test_a_reader_that_stops_holds_up_nobody_and_loses_nothing(ground: Ground, table: Table) -> None:
    alone, beside, slow = Counts(), Counts(), Counts()
    started = time.monotonic()
    async with (
        fleet(
            2,
            ground.folder,
            database_url=ground.database_url,
            redis_url=ground.redis_url,
            model_url=ground.model.url,
        ) as nodes,
        asyncio.timeout(PATIENCE_S),
    ):
        urls = [node.url for node in nodes.nodes]
        before = await chunk_delays("先", ALONE_S, ground, urls, alone)
        async with Client(urls, slow, silence_s=None, receive_buffer_bytes=RECEIVE_BUFFER_BYTES).open() as client:
            answers = ask_for_more(client, 0)
            while not all(answer.seq for answer in answers):
                await asyncio.sleep(0.02)
            client.reading.clear()
            stopped_at = time.monotonic()
            reading = asyncio.create_task(chunk_delays("旁", STOPPED_S, ground, urls, beside))
            while not await gives_up(nodes):
                if len(answers) < MOST_ANSWERS and not await runs_of_nobody(ground.database_url):
                    answers += ask_for_more(client, len(answers))
                await asyncio.sleep(0.1)
            given_up_s = time.monotonic() - stopped_at
            with_it = await reading
            stopped_s = time.monotonic() - stopped_at
            client.reading.set()
            for answer in answers:
                await client.over(answer)
        after = await chunk_delays("后", ALONE_S, ground, urls, alone)
        complaints = nodes.complaints()
    table(
        **{f"alone_{name}": value for name, value in alone.figures().items()},
        **{f"beside_{name}": value for name, value in beside.figures().items()},
        **{f"slow_{name}": value for name, value in slow.figures().items()},
        stopped_reading_for_s=stopped_s,
        given_up_after_s=given_up_s,
        p99_before_ms=p99(before) * 1000,
        p99_beside_ms=p99(with_it) * 1000,
        p99_after_ms=p99(after) * 1000,
        p99_ratio=f"{p99(with_it) / p99([*before, *after]):.2f}",
        complaints=len(complaints),
        seconds=time.monotonic() - started,
    )
    assert (alone.answers, beside.answers, slow.answers) == (2 * READERS, READERS, len(answers))
    assert stopped_s >= STOPPED_S
    for counts in (alone, beside):
        assert (counts.closes, counts.drops, counts.resumes) == ({}, 0, 0)
    # It was given up, and not its answers. After so long it may find no close any more, only that nobody is there;
    # coming back it may be given up again, now by how much it missed.
    assert set(slow.closes) <= {"4005"}
    assert slow.closes["4005"] + slow.drops >= 1
    assert slow.resumes + slow.resends >= 1
    assert complaints == []
