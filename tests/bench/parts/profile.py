"""Where the time of a ping and of a streamed answer goes, by py-spy: this server's functions by their own time.

It stops for a moment what it looks at: its figures are shares, not costs.
"""

import collections
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from tests.bench.loads import Loads, loading
from tests.bench.machine import note
from tests.bench.parts.streams import chatting
from tests.bench.records import Plan, Record, Result, result, table
from tests.bench.servers import KINDS, OURS, Running, services, serving

RATE = 200
"""Samples a second."""

SECONDS, QUICK_SECONDS = 8, 3
CHATS = 300
SOCKETS = 64
DELAY_S = {"ping": 1, "streams": 4}
"""What the load takes to begin: opening, logging in, the first questions."""

SHOWN = 20
LEAST = 0.002
"""Stacks that are rarer than this share of all samples are not kept."""

STOP_S = 60.0

LINE = re.compile(r"^(?P<stack>.*) (?P<count>\d+)$")
LOOP_THREAD = "MainThread"
NATIVE = ["--native"]
"""Frames of C and Cython too: not every machine can unwind them."""


def measure(plan: Plan) -> Result:
    """A recording of each load."""
    spy = _spy()
    if spy is None:
        return result("profile", plan, [], {"the profile": "py-spy is not installed"})
    records: list[Record] = []
    left_out: dict[str, str] = {}
    with services() as storage, loading() as loads, serving(KINDS[OURS], storage) as server:
        for load in DELAY_S:
            note(f"profile: {load}")
            seconds = QUICK_SECONDS if plan.quick else SECONDS
            stacks = _recorded(spy, NATIVE, loads, server, load, seconds)
            stacks = stacks or _recorded(spy, [], loads, server, load, seconds)
            if stacks:
                records += _by_own_time(load, stacks)
            else:
                left_out[load] = "py-spy may not look into other processes here"
    return result("profile", plan, records, left_out)


def _spy() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _recorded(spy: str, how: list[str], loads: Loads, server: Running, load: str, seconds: int) -> dict[str, int]:
    """How often each stack was seen; nothing when py-spy cannot."""
    with tempfile.TemporaryDirectory(prefix="cinewire-bench-") as folder:
        stacks = Path(folder) / "stacks"
        recorder = subprocess.Popen(
            [
                *("sh", "-c", 'sleep "$0"; exec "$@"', str(DELAY_S[load])),
                *(spy, "record", "--pid", str(server.process.pid), "--rate", str(RATE), "--duration", str(seconds)),
                *(*how, "--function", "--threads", "--format", "raw", "--output", str(stacks)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if load == "ping":
                loads.open("profile", server, SOCKETS, login="profile")
                loads.ping("profile", server, seconds=seconds + 1.0)
                loads.close("profile")
            else:
                chatting(loads, server, CHATS, seconds + 2.0)
            recorder.wait(STOP_S)
        finally:
            if recorder.poll() is None:
                recorder.kill()
                recorder.wait()
        if recorder.returncode != 0 or not stacks.exists():
            return {}
        found = [LINE.match(line) for line in stacks.read_text().splitlines()]
        return _of_the_loop({one["stack"]: int(one["count"]) for one in found if one is not None})


def _of_the_loop(stacks: dict[str, int]) -> dict[str, int]:
    """What the thread did that serves: others only wait, which frames of C do not show."""
    kept: collections.Counter[str] = collections.Counter()
    for stack, count in stacks.items():
        thread, _, rest = stack.partition(";")
        if LOOP_THREAD in thread:
            kept[rest] += count
    return dict(kept)


def _by_own_time(load: str, stacks: dict[str, int]) -> list[Record]:
    """The functions that were on top most often; and the stacks, for a flame graph."""
    own: collections.Counter[str] = collections.Counter()
    within: collections.Counter[str] = collections.Counter()
    for stack, count in stacks.items():
        frames = stack.split(";")
        own[frames[-1]] += count
        for frame in set(frames):
            within[frame] += count
    total = sum(own.values())
    about = {"case": load, "server": OURS, "round": 0}
    functions = [
        {**about, "function": function, "own": count / total, "within": within[function] / total}
        for function, count in own.most_common(SHOWN)
    ]
    often = {stack: count for stack, count in stacks.items() if count >= LEAST * total}
    return [*functions, {**about, "case": f"{load} stacks", "samples": total, "stacks": often}]


def render(what: Result) -> str:
    """A table for each load."""
    parts = []
    for load, title in (("ping", f"{SOCKETS} sockets that ping"), ("streams", f"{CHATS} answers at a time")):
        rows = [
            (f"`{one['function'].replace('|', '/')}`", f"{one['own']:.1%}", f"{one['within']:.1%}")
            for one in what.where(case=load)
        ]
        for kept in what.where(case=f"{load} stacks"):
            header = ("function", "its own time", "with what it calls")
            parts.append(f"{title}, {kept['samples']:,} samples:\n\n{table(header, rows)}")
    parts += [f"{name} is left out: {why}." for name, why in what.left_out.items()]
    return "\n\n".join(parts)
