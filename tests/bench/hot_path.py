"""What the two hottest paths cost, without a network: a ping from its text to its answer, a piece of an answer.

The clock of a busy machine says too much: each figure is the best of several rounds.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from protocol.accounts import Ping
from storage.embedded import embedded_services
from tests.node import TestNode, serving
from wsserver.dispatch import Call
from wsserver.hub import Run
from wsserver.telemetry import configure_logging

ROUNDS, CALLS = 15, 4_000


async def hot_path() -> None:
    """Microseconds of this process' time for a ping and for a chunk that one client follows."""
    configure_logging(level="warning", json=True)
    with tempfile.TemporaryDirectory(prefix="cinewire-bench-") as folder:
        Path(folder).chmod(0o755)
        with embedded_services(Path(folder) / "services") as services:
            async with serving(services, Path(folder), roll_up_ms=0) as node:
                print(f"a ping, dispatched               {await best_us(lambda: pings(node)):7.2f} µs")
                print(f"a chunk, handed out              {await best_us(lambda: chunks(node)):7.2f} µs")


async def best_us(work: Callable[[], Awaitable[None]]) -> float:
    """The best round's time for one of its calls."""
    best_s = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await work()
        best_s = min(best_s, time.perf_counter() - started)
        await asyncio.sleep(0)
    return best_s / CALLS * 1e6


async def pings(node: TestNode) -> None:
    dispatcher, ping = node.node.sockets.dispatcher, Ping(type="ping")
    for _ in range(CALLS):
        await dispatcher.call(Call(None), ping)


async def chunks(node: TestNode) -> None:
    run = Run(node.node.hub, request_id="bench", user_id="nobody", message_id=None)
    for _ in range(CALLS):
        run.text("影")
