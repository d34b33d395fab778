"""Thousands come, log in, ask and go: the node keeps nothing of them."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Mapping

import httpx
import psutil
import pytest

from tests.clients import PATIENCE_S, new_code, socket_client, text_of
from tests.faults.conftest import Ground, Table
from tests.faults.model import question, text_for
from tests.faults.nodes import JWT_SECRET, NodeProcess
from tests.faults.processes import ROOT

CYCLES = 10_000
"""A cycle takes about 6 ms on two cores that client, node, model and storage share: this many take a minute."""

WARM = 1_000
"""After these, all caches and pools have the size that they keep."""

AT_ONCE = 8
DELTAS, PER_S = 3, 10_000.0
MAX_GROWTH = 0.05


class Memory:
    """What a node holds: memory that is its own alone, and all that is resident, in MiB."""

    def __init__(self, pid: int) -> None:
        full = psutil.Process(pid).memory_full_info()
        self.own, self.resident = full.uss / 2**20, full.rss / 2**20

    def __str__(self) -> str:
        return f"{self.own:.1f} MiB own, {self.resident:.1f} MiB resident"


async def cycle(url: str, number: int) -> None:
    asked = question(f"来-{number}", deltas=DELTAS, per_s=PER_S)
    async with socket_client(url) as client:
        await client.login(new_code())
        frames = await client.stream({"type": "chat", "query": asked, "id": str(number)})
    assert text_of(frames) == frames[-1]["answer"] == text_for(asked)


async def cycles(url: str, first: int, count: int) -> float:
    """Run them, some at once. Gives the seconds that they took."""
    numbers = iter(range(first, first + count))
    started = time.monotonic()

    async def visit() -> None:
        for number in numbers:
            await cycle(url, number)

    async with asyncio.TaskGroup() as visitors:
        for _ in range(AT_ONCE):
            visitors.create_task(visit())
    return time.monotonic() - started


async def memory_at_rest(node: NodeProcess) -> Memory:
    """What it holds when nobody is connected, all logs are written and its garbage is collected."""
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as http, asyncio.timeout(PATIENCE_S):
        while (await gauges(http)).keys() & {"cinewire_connections", "cinewire_runs"}:
            await asyncio.sleep(0.05)
    # The log of a run is written within a quarter of a second after its end.
    await asyncio.sleep(1.0)
    node.process.signal(signal.SIGUSR1)
    assert await node.process.line() == "collected"
    return Memory(node.pid)


async def gauges(http: httpx.AsyncClient) -> Mapping[str, float]:
    """The metrics that are not zero."""
    lines = (await http.get("/metrics")).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if float(value)}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_node_forgets_who_has_gone(ground: Ground, table: Table) -> None:
    settings = {
        "DATABASE_URL": ground.database_url,
        "REDIS_URL": ground.redis_url,
        "LLM_BASE_URL": f"{ground.model.url}/v1",
        "LLM_MODEL": "scripted",
        "LLM_TITLES": "false",
        "LOG_LEVEL": "warning",
        "PYTHONPATH": str(ROOT),
        "JWT_SECRET": JWT_SECRET,
    }
    node = await NodeProcess.start(settings, ground.folder, program=("-m", "tests.faults.collected"))
    try:
        warm_s = await cycles(node.url, 0, WARM)
        warm = await memory_at_rest(node)
        elapsed_s = await cycles(node.url, WARM, CYCLES - WARM)
        at_last = await memory_at_rest(node)
        complaints = node.complaints()
    finally:
        await node.process.end()
    calls = await ground.model.calls()
    called = Counter(count for asked, count in calls.items() if asked.startswith("来-"))
    growth = at_last.own / warm.own - 1
    table(
        cycles=CYCLES,
        ms_per_cycle=1000 * (warm_s + elapsed_s) / CYCLES,
        calls_per_question=dict(called),
        after_the_first=f"{WARM}: {warm}",
        after_all=at_last,
        growth=f"{growth:+.1%}",
        complaints=len(complaints),
    )
    assert called == {1: CYCLES}
    assert growth < MAX_GROWTH
    assert complaints == []
