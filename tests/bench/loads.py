"""The load's processes as a bench sees them: told the same thing together, what they answer added up."""

import contextlib
import json
import math
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.histogram import Counts, added, percentile_ms
from tests.bench.machine import cores, pin
from tests.bench.servers import OURS, ROOT, Running

SOURCES = [f"127.0.0.{last}" for last in range(1, 9)]
"""Loopback addresses to come from: each has 28,000 ports, and those of closed sockets rest for a minute."""

MOST_PROCESSES = 4
STARTS_PER_S, PEER_STARTS_PER_S = 250, 1_000
"""Chats that begin: each is a transaction or two for this server, and nothing but its first piece for a peer."""

HEAD_START_S = 0.3
STOP_S = 10.0
ANSWER_S = 240.0
"""The longest of what is told takes a minute: 15,000 logins."""


class LoadError(Exception):
    """A process of the load could not do what it was told."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the load saw of one window. `load_shares` are its processes' shares of a core."""

    operations: int
    seconds: float
    server_cpu_s: float
    load_shares: tuple[float, ...]
    latency: Counts
    more: Mapping[str, Any]

    @property
    def per_s(self) -> float:
        return self.operations / self.seconds

    @property
    def us(self) -> float:
        """Microseconds of the server's CPU for one operation."""
        return self.server_cpu_s / self.operations * 1e6 if self.operations else math.nan

    @property
    def server_share(self) -> float:
        return self.server_cpu_s / self.seconds

    def ms(self, percent: float) -> float:
        """A percentile of the latency; infinite when nothing came at all."""
        found = percentile_ms(self.latency, percent)
        return math.inf if found is None else found

    def first_ms(self, percent: float) -> float:
        found = percentile_ms(self.more["first"], percent)
        return math.inf if found is None else found


class Loads:
    """The processes. Sockets are dealt out to them evenly."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def open(self, group: str, server: Running, count: int, *, first: int = 0, login: str | None = None) -> float:
        """Open `count` more sockets under that name, and give the seconds that it took."""
        told = {"do": "open", "group": group, "url": server.url, "speech": server.kind.speech, "sources": SOURCES}
        commands = [
            {**told, "count": share, "first": first + begin, "login": login} for begin, share in self._shares(count)
        ]
        return max(float(answer["seconds"]) for answer in self._tell(commands))

    def close(self, group: str) -> int:
        """Close them, and give how many were closed before by somebody else."""
        answers = self._tell([{"do": "close", "group": group}] * len(self._processes))
        return sum(answer["gone_before"] for answer in answers)

    def ping(self, group: str, server: Running, *, seconds: float, warm_s: float = 0.5) -> Seen:
        return self._measure({"do": "ping", "group": group}, server, seconds=seconds, warm_s=warm_s)

    def chats(self, group: str, server: Running, *, count: int, answer_s: float, seconds: float) -> Seen:
        """Keep `count` answers running, begun at a rate that no server minds, and measure when all have begun."""
        spread_s = max(1.0, count / (STARTS_PER_S if server.kind.name == OURS else PEER_STARTS_PER_S))
        command = {
            **{"do": "chats", "group": group, "answer_s": answer_s, "spread_s": spread_s},
            "cancels": server.kind.name == OURS,
        }
        counts = [share for _, share in self._shares(count)]
        return self._measure(command, server, seconds=seconds, warm_s=spread_s + 1.0, each={"count": counts})

    def follow(
        self,
        groups: Sequence[tuple[str, Sequence[str]]],
        servers: Sequence[Running],
        *,
        answer_s: float,
        seconds: float,
    ) -> Seen:
        """Have the first group of each pair ask and the others follow, and measure when all have begun."""
        command = {"do": "follow", "groups": groups, "answer_s": answer_s}
        return self._measure(command, *servers, seconds=seconds, warm_s=2.0)

    def knock(self, server: Running, *, seconds: float, at_once: int, **command: Any) -> Seen:
        told = {"do": "knock", "port": server.port, "sources": SOURCES, **command}
        counts = [share for _, share in self._shares(at_once)]
        return self._measure(told, server, seconds=seconds, warm_s=0.5, each={"at_once": counts})

    def _shares(self, count: int) -> list[tuple[int, int]]:
        """Where each process' sockets begin, and how many they are."""
        several = len(self._processes)
        edges = [count * number // several for number in range(several + 1)]
        return [(edges[number], edges[number + 1] - edges[number]) for number in range(several)]

    def _measure(
        self,
        command: dict[str, Any],
        *servers: Running,
        seconds: float,
        warm_s: float,
        each: Mapping[str, Sequence[Any]] | None = None,
    ) -> Seen:
        window = {"seconds": seconds, "begin_at": time.monotonic() + HEAD_START_S + warm_s}
        commands = [
            {
                **command,
                **window,
                **{key: values[number] for key, values in (each or {}).items()},
                "pids": [pid for server in servers for pid in server.pids] if number == 0 else [],
            }
            for number in range(len(self._processes))
        ]
        commands = [command for command in commands if command.get("count") != 0 and command.get("at_once") != 0]
        return _seen(self._tell(commands))

    def _tell(self, commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        for process, command in zip(self._processes, commands, strict=False):
            assert process.stdin is not None
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        answers = []
        for process, command in zip(self._processes, commands, strict=False):
            assert process.stdout is not None
            # One line is answered to one command: nothing can wait in the buffer that select would not see.
            if not select.select([process.stdout], [], [], ANSWER_S)[0]:
                raise LoadError(f"a load process has done {command['do']!r} for more than {ANSWER_S:g} s")
            line = process.stdout.readline()
            if not line:
                raise LoadError(f"a load process ended while it did {command['do']!r}; what it said is above")
            answers.append(json.loads(line))
        for answer in answers:
            if "failed" in answer:
                raise LoadError(answer["failed"])
        return answers


def _seen(answers: Sequence[dict[str, Any]]) -> Seen:
    sums = ("frames", "answers", "missing", "doubled", "errors", "gone", "wrong", "followed")
    more: dict[str, Any] = {key: sum(answer[key] for answer in answers) for key in sums if key in answers[0]}
    if "first" in answers[0]:
        more["first"] = added(answer["first"] for answer in answers)
    if "error" in answers[0]:
        more["error"] = next((answer["error"] for answer in answers if answer["error"]), "")
    return Seen(
        operations=sum(answer["operations"] for answer in answers),
        seconds=answers[0]["seconds"],
        server_cpu_s=answers[0]["server_cpu_s"],
        load_shares=tuple(answer["load_cpu_s"] / answer["seconds"] for answer in answers),
        latency=added(answer["latency"] for answer in answers),
        more=more,
    )


@contextlib.contextmanager
def loading() -> Iterator[Loads]:
    """The load's processes until the block ends: one for each core that is not the server's."""
    others = sorted(cores().others)
    count = max(1, min(MOST_PROCESSES, len(others)))
    with contextlib.ExitStack() as stack:
        processes = []
        for number in range(count):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.load"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=pin(others[number : number + 1]),  # noqa: PLW1509 - there are no threads here
            )
            stack.callback(_stop, process)
            processes.append(process)
        yield Loads(processes)


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it may have ended before it was told to
        process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
    assert process.stdout is not None
    process.stdout.close()
