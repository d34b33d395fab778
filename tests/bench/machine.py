"""The machine that is measured on: its cores and who runs where, what processes used, what it is called."""

import ctypes
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import psutil

ENOUGH_CORES = 4
"""Two for workers, and two for the load and the databases."""

SETTLE_POLL_S = 0.5
SETTLED_BYTES = 256 * 1024
"""Memory that grows by less than this in a poll is taken as settled."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the server has for itself, which ones all others share, and which one a second worker has.

    That is one of the others' where there are too few for more. All are empty where nothing can be pinned.
    """

    server: frozenset[int]
    others: frozenset[int]
    second: frozenset[int]

    @property
    def pinned(self) -> bool:
        return bool(self.server)


@cache
def cores() -> Cores:
    """One core for the server, the rest for the load and the databases: of those that this process had at first."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(allowed) < 2:
        return Cores(frozenset(), frozenset(), frozenset())
    others = allowed[2:] if len(allowed) >= ENOUGH_CORES else allowed[1:]
    return Cores(frozenset(allowed[:1]), frozenset(others), frozenset(allowed[1:2]))


def pin(to: Iterable[int]) -> Callable[[], None]:
    """What a child does before it becomes its program: keep to these cores, and take as many files as it may."""
    return partial(_prepare, frozenset(to))


def _prepare(to: frozenset[int]) -> None:
    pin_this(to)
    raise_file_limit()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h: nothing that was started outlives a bench that was killed
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGTERM), 0, 0, 0)


def pin_this(to: Iterable[int]) -> None:
    """Keep this process, and what it starts later, to these cores; where none are given, to none."""
    if to:
        os.sched_setaffinity(0, to)


def raise_file_limit() -> int:
    """Let this process open as many files as it may; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 1_000_000) if hard != resource.RLIM_INFINITY else 1_000_000
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def cpu_s(pids: Sequence[int]) -> float:
    """Seconds of CPU, user's and system's, that these processes have used so far."""
    total = 0.0
    for pid in pids:
        used = psutil.Process(pid).cpu_times()
        total += used.user + used.system
    return total


def memory_bytes(pids: Sequence[int]) -> int:
    """Memory of these processes: proportional (PSS) where the kernel says it, else what only they have (USS)."""
    return sum(_memory_bytes(pid) for pid in pids)


def _memory_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    if rollup.exists():
        line = next(line for line in rollup.read_text().splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024
    return int(psutil.Process(pid).memory_full_info().uss)


def settled_memory_bytes(pids: Sequence[int], timeout_s: float = 10.0) -> int:
    """Their memory when it has stopped changing: what is closed is freed a moment later."""
    give_up_at = time.monotonic() + timeout_s
    before = memory_bytes(pids)
    while True:
        time.sleep(SETTLE_POLL_S)
        now = memory_bytes(pids)
        if abs(now - before) < SETTLED_BYTES or time.monotonic() > give_up_at:
            return now
        before = now


def described() -> dict[str, str]:
    """What somebody who compares results must know of this machine."""
    found = cores()
    return {
        "cores": str(os.cpu_count()),
        "pinning": (
            f"server on core {', '.join(map(str, sorted(found.server)))}, all else on"
            f" {', '.join(map(str, sorted(found.others)))}"
            if found.pinned
            else "none: this system cannot pin, so figures are less certain"
        ),
        "processor": _processor(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Node": _said("node", "--version"),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not there"


def note(text: str) -> None:
    """Say how far the bench is, to whoever waits for it."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
