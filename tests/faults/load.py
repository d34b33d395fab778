"""Many clients in a process of its own: `python -m tests.faults.load '{…}'` runs a `Load` and prints what came of it.

One Python process can follow a few thousand frames a second; the clients of a big test are spread over several. The
proxies that cut their connections run in the same process.
"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import uvloop

from tests.faults.answer import Answer, BrokenPromiseError
from tests.faults.client import Client, Counts
from tests.faults.model import question
from tests.faults.processes import python_process
from tests.faults.proxy import Proxy

SPARE_S = 30.0
"""For starting the process and for its last words."""


CONNECTING = 25
"""Clients of one process that connect at the same time. If all tried at once, as thousands do here that share two cores
with their server, each would be cut off again before its turn came, and the time would go into handshakes."""


@dataclass(frozen=True, slots=True)
class Load:
    """Clients that ask one question each, behind proxies that cut. `name` makes the questions this load's own."""

    name: str
    ports: Sequence[int]
    clients: int
    deltas: int
    per_s: float
    cut_every_s: float
    ramp_s: float
    patience_s: float

    @property
    def questions(self) -> list[str]:
        """What is asked, by each client one."""
        return [
            question(f"{self.name}-{number}", deltas=self.deltas, per_s=self.per_s) for number in range(self.clients)
        ]


@dataclass(slots=True)
class Outcome:
    """What came of a load. `failure` is the first broken promise, or who was still waiting in the end."""

    counts: Counts
    cuts: Counter[str]
    elapsed_s: float
    failure: str | None


async def run_load(load: Load) -> Outcome:
    """Run it in a process of its own."""
    async with python_process("-m", "tests.faults.load", orjson.dumps(load).decode()) as process:
        said: dict[str, Any] = orjson.loads(await process.line(load.patience_s + SPARE_S))
    return Outcome(Counts.from_json(said["counts"]), Counter(said["cuts"]), said["elapsed_s"], failure=said["failure"])


async def _run(load: Load) -> Outcome:
    gate = asyncio.Semaphore(CONNECTING)
    counts, open_answers = Counts(), dict[str, Answer]()
    failure: str | None = None
    started = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(Proxy(port, cut_every_s=load.cut_every_s).open()) for port in load.ports
        ]
        urls = [proxy.url for proxy in proxies]

        async def ask(number: int, asked: str) -> None:
            await asyncio.sleep(load.ramp_s * number / load.clients)
            # It is the machine that is slow here, and cuts are many: silence says nothing.
            async with Client(urls, counts, silence_s=None, gate=gate).open() as client:
                answer = open_answers[asked] = client.begin(asked)
                await client.over(answer)
                del open_answers[asked]

        try:
            async with asyncio.timeout(load.patience_s), asyncio.TaskGroup() as clients:
                for number, asked in enumerate(load.questions):
                    clients.create_task(ask(number, asked))
        except* BrokenPromiseError as broken:
            failure = str(broken.exceptions[0])
        except* TimeoutError:
            waiting = [f"run {answer.request_id} at seq {answer.seq}" for answer in open_answers.values()]
            failure = f"{len(waiting)} answers were still waited for: {', '.join(waiting[:5])}"
        cuts = sum((proxy.counts for proxy in proxies), Counter[str]())
    return Outcome(counts, cuts, time.monotonic() - started, failure)


if __name__ == "__main__":
    outcome = uvloop.run(_run(Load(**orjson.loads(sys.argv[1]))))
    print(orjson.dumps(outcome).decode(), flush=True)
