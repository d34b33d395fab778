"""Every socket is cut every other second, and everybody comes back to some other node: nobody sees a difference."""

import asyncio
import os
import re
from collections import Counter

import asyncpg
import pytest

from tests.faults.client import Counts
from tests.faults.conftest import Ground, Table
from tests.faults.load import Load, Outcome, run_load
from tests.faults.model import text_for
from tests.faults.nodes import Fleet, fleet

CLIENTS = int(os.environ.get("DROPS_CLIENTS", "1000"))

DELTAS = 400
PER_S = min(25.0, 4_000.0 / CLIENTS)
"""Pieces a second for each: as many as two cores carry that clients, proxies, nodes, model and storage share. With more
everybody would wait for the processors and not for the network, and be cut off before being connected again."""

CUT_EVERY_S = 2.0
RAMP_S = max(3.0, CLIENTS / 200.0)
"""Two hundred more a second: a crowd comes in and leaves, and does not all begin and end in the same moment."""

PROCESSES = 2
PATIENCE_S = max(60.0, 3.0 * DELTAS / PER_S)


@pytest.mark.slow
@pytest.mark.timeout(int(PATIENCE_S + 120))
async def test_clients_that_are_cut_off_all_the_time_get_every_byte_once(ground: Ground, table: Table) -> None:
    # Without roll-up each of the model's pieces is a frame of its own: 401 chances to lose one.
    async with fleet(
        2,
        ground.folder,
        database_url=ground.database_url,
        redis_url=ground.redis_url,
        model_url=ground.model.url,
        roll_up_ms="0",
        run_deadline_s=str(PATIENCE_S),
    ) as nodes:
        loads = [
            Load(
                name=f"断{number}",
                ports=[node.port for node in nodes.nodes],
                clients=CLIENTS // PROCESSES,
                deltas=DELTAS,
                per_s=PER_S,
                cut_every_s=CUT_EVERY_S,
                ramp_s=RAMP_S,
                patience_s=PATIENCE_S,
            )
            for number in range(PROCESSES)
        ]
        outcomes = await asyncio.gather(*map(run_load, loads))
        complaints = nodes.complaints()
        await explain(outcomes, nodes, ground.database_url)
    questions = [asked for load in loads for asked in load.questions]
    calls = await ground.model.calls()
    counts, cuts = Counts(), Counter[str]()
    for outcome in outcomes:
        counts.add(outcome.counts)
        cuts += outcome.cuts
    called = Counter(calls[asked] for asked in questions)
    table(
        **counts.figures(),
        cuts=cuts["fin"] + cuts["rst"],
        calls_per_question=dict(called),
        complaints=len(complaints),
        seconds=max(outcome.elapsed_s for outcome in outcomes),
    )
    assert [outcome.failure for outcome in outcomes if outcome.failure] == []
    assert counts.answers + counts.stored == CLIENTS
    assert called == {1: CLIENTS}
    # No node died: nobody is told to begin anew.
    assert counts.restarts == 0
    assert complaints == []
    await check_stored(ground.database_url, questions)


async def explain(outcomes: list[Outcome], nodes: Fleet, database_url: str) -> None:
    """Say what is known of runs whose ends somebody still waited for."""
    names = re.findall(r"run ([0-9a-f]{32})", " ".join(outcome.failure or "" for outcome in outcomes))
    connection = await asyncpg.connect(database_url)
    try:
        for name in names:
            print(await connection.fetchrow("SELECT *, now() FROM chat.runs WHERE request_id = $1", name))
            for node in nodes.nodes:
                print(*(line for line in node.log.read_text().splitlines() if name in line), sep="\n")
    finally:
        await connection.close()


async def check_stored(database_url: str, questions: list[str]) -> None:
    """Each question is stored once, and its answer once and as the model said it."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            """
            SELECT asked.content AS question, array_agg(answered.content) AS answers
            FROM chat.messages AS asked LEFT JOIN chat.messages AS answered
                ON answered.request_id = asked.request_id AND answered.role = 'assistant'
            WHERE asked.role = 'user' GROUP BY asked.request_id, asked.content
            """
        )
    finally:
        await connection.close()
    stored = Counter(row["question"] for row in rows)
    assert stored == Counter(questions)
    for row in rows:
        assert row["answers"] == [text_for(row["question"])]
