"""A client that stops reading costs what was agreed and nobody else anything; when it reads again it has everything."""

import asyncio
import re
import statistics
import time
from collections.abc import Sequence

import asyncpg
import httpx
import pytest

from tests.faults.answer import Answer
from tests.faults.client import Client, Counts
from tests.faults.conftest import Ground, Table
from tests.faults.model import question
from tests.faults.nodes import Fleet, fleet

READERS = 200
DELTAS, PER_S = 100, 20.0

SLOW_AT_ONCE = 3
"""As many answers as a user has made at once."""

SLOW_DELTAS, SLOW_PER_S, SLOW_LENGTH = 240, 80.0, 1_200
"""Pieces of 3.6 kB, and all of them again in the last frame: 1.7 MB an answer."""

MOST_ANSWERS = 9
"""16 MB. Linux lets a socket hold 4 MB (tcp_wmem), the writer and the outbox 1 MiB each: it is full before that."""

RECEIVE_BUFFER_BYTES = 65_536
PATIENCE_S = 60.0


async def durations(name: str, urls: Sequence[str], counts: Counts) -> list[float]:
    """How long each reader's answer took, from the question to its end."""

    async def ask(number: int) -> float:
        async with Client(urls, counts, silence_s=None).open() as client:
            await asyncio.sleep(number / READERS)
            started = time.monotonic()
            await client.ask(question(f"{name}-{number}", deltas=DELTAS, per_s=PER_S))
            return time.monotonic() - started

    return await asyncio.gather(*map(ask, range(READERS)))


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
@pytest.mark.timeout(120)
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
        before = await durations("独", urls, alone)
        began = time.monotonic()
        async with Client(urls, slow, silence_s=None, receive_buffer_bytes=RECEIVE_BUFFER_BYTES).open() as client:
            answers = ask_for_more(client, 0)
            while not all(answer.seq for answer in answers):
                await asyncio.sleep(0.02)
            client.reading.clear()
            reading = asyncio.create_task(durations("旁", urls, beside))
            while not await gives_up(nodes):
                if len(answers) < MOST_ANSWERS and not await runs_of_nobody(ground.database_url):
                    answers += ask_for_more(client, len(answers))
                await asyncio.sleep(0.1)
            stopped_s = time.monotonic() - began
            client.reading.set()
            for answer in answers:
                await client.over(answer)
            after = await reading
        complaints = nodes.complaints()
    table(
        **{f"alone_{name}": value for name, value in alone.figures().items()},
        **{f"beside_{name}": value for name, value in beside.figures().items()},
        **{f"slow_{name}": value for name, value in slow.figures().items()},
        stopped_reading_for_s=stopped_s,
        p99_alone_ms=p99(before) * 1000,
        p99_beside_ms=p99(after) * 1000,
        p99_ratio=p99(after) / p99(before),
        complaints=len(complaints),
        seconds=time.monotonic() - started,
    )
    assert (alone.answers, beside.answers, slow.answers) == (READERS, READERS, len(answers))
    for counts in (alone, beside):
        assert (counts.closes, counts.drops, counts.resumes) == ({}, 0, 0)
    # It was given up, and not its answers; coming back it may be given up again, now by how much it missed.
    assert set(slow.closes) == {"4005"}
    assert slow.resumes >= 1
    assert complaints == []
