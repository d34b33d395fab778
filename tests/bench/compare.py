"""The comparison: its parts in order, what each printed, and what is kept of it."""

import importlib.util
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.loads import LoadError
from tests.bench.machine import cores, described, note, pin_this
from tests.bench.parts import accept, ping, profile, scale, size, streams
from tests.bench.records import Plan, Result, keep
from tests.bench.report import write


@dataclass(frozen=True, slots=True)
class Part:
    """What is measured together. `title` stands over its tables."""

    title: str
    measure: Callable[[Plan], Result]
    render: Callable[[Result], str]


PARTS = {
    "ping": Part("A ping and its pong", ping.measure, ping.render),
    "streams": Part("Answers that stream", streams.measure, streams.render),
    "size": Part("Connections that say nothing", size.measure, size.render),
    "accept": Part("Taking a client in", accept.measure, accept.render),
    "scale": Part("How cost grows", scale.measure, scale.render),
    "profile": Part("Where the time goes", profile.measure, profile.render),
}


LONG_ONLY = ("scale", "profile")
"""Not in a quick comparison unless they are asked for by name: a minute, and half of one."""


def compare(names: Sequence[str], *, quick: bool, keeps: bool) -> None:
    """Measure these parts, print their tables, and write them down where that was asked for."""
    if importlib.util.find_spec("picows") is None:
        sys.exit("The load needs picows: `python3 run.py bench` installs what a comparison needs.")
    # All but the servers keeps off their core, this process too, and what it starts begins there.
    pin_this(cores().others)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly end: the servers, their data, the load
    for what, value in described().items():
        print(f"{what + ':':12} {value}")
    failed = []
    for name in names:
        part, began = PARTS[name], time.monotonic()
        try:
            measured = part.measure(Plan(quick))
        except (LoadError, RuntimeError) as error:
            # Twenty minutes are long: what was measured before is kept, and what comes after is measured.
            note(f"{name} could not be measured: {error}")
            failed.append(name)
            continue
        print(f"\n## {part.title}\n\n{part.render(measured)}", flush=True)
        note(f"{name} took {time.monotonic() - began:.0f} s")
        if keeps:
            keep(measured)
            write(
                {name: part.title for name, part in PARTS.items()}, {name: part.render for name, part in PARTS.items()}
            )
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}; why is above.")
