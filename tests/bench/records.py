"""What a part measured: one record for each figure's round, kept as JSON; and medians, spreads and ratios of them."""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.bench.machine import described
from tests.bench.servers import BARE, KINDS, PEERS

RESULTS = Path(__file__).resolve().parent / "results"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a part may take."""

    quick: bool

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 3


@dataclass(frozen=True, slots=True)
class Result:
    """A part's records. `left_out` says why servers are not in it."""

    part: str
    records: list[Record]
    left_out: Mapping[str, str] = field(default_factory=dict)
    quick: bool = False
    at: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def where(self, **wanted: Any) -> list[Record]:
        return [one for one in self.records if all(one.get(key) == value for key, value in wanted.items())]


def result(part: str, plan: Plan, records: list[Record], left_out: Mapping[str, str] | None = None) -> Result:
    """A result of now, on this machine."""
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return Result(part, records, left_out or {}, plan.quick, at, described(), versions())


def versions() -> dict[str, str]:
    """Of what is measured, as far as it is installed."""
    found = {}
    for package in ("starlette", "uvicorn", "uvloop", "websockets", "fastapi", "aiohttp", "channels", "daphne"):
        found[package] = _version(package)
    found["python-socketio"] = _version("python-socketio")
    found["picows (load)"] = _version("picows")
    for package in ("ws", "socket.io"):
        described_in = PEERS / "node_modules" / package / "package.json"
        found[f"npm {package}"] = json.loads(described_in.read_text())["version"] if described_in.exists() else "-"
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def keep(what: Result) -> Path:
    """Write it where the README of the results is made from."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{what.part}.json"
    fields = {
        **{"part": what.part, "at": what.at, "quick": what.quick, "machine": what.machine, "versions": what.versions},
        **{"left_out": what.left_out, "records": what.records},
    }
    path.write_text(json.dumps(fields, ensure_ascii=False, indent=1) + "\n")
    return path


def kept() -> list[Result]:
    """All that was written so far."""
    return [Result(**json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))]


# ---- of several rounds ----


def median(records: Iterable[Record], key: str) -> float:
    return float(statistics.median(one[key] for one in records))


def spread(records: Sequence[Record], key: str) -> tuple[float, float]:
    values = [one[key] for one in records]
    return min(values), max(values)


def ratio(records: Sequence[Record], beside: Sequence[Record], key: str) -> float | None:
    """The median of each round's own ratio to what stands beside it; None when nothing stands there."""
    others = {one["round"]: one[key] for one in beside}
    ratios = [one[key] / others[one["round"]] for one in records if others.get(one["round"])]
    return statistics.median(ratios) if ratios else None


def servers_of(records: Iterable[Record]) -> list[str]:
    """In the order in which they were measured."""
    return list(dict.fromkeys(one["server"] for one in records))


def by_server(records: Sequence[Record]) -> dict[str, list[Record]]:
    return {name: [one for one in records if one["server"] == name] for name in servers_of(records)}


# ---- tables ----


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is words, the others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(value: float | None, digits: int = 1) -> str:
    if value is None or math.isnan(value):
        return "-"
    return "∞" if value == float("inf") else f"{value:,.{digits}f}"


def with_spread(records: Sequence[Record], key: str, digits: int = 1) -> str:
    """The median, and the least and greatest of the rounds where there are several."""
    middle = figure(median(records, key), digits)
    if len(records) < 2:
        return middle
    least, greatest = spread(records, key)
    return f"{middle} ({figure(least, digits)}–{figure(greatest, digits)})"


def load_share(records: Iterable[Record]) -> str:
    """The greatest share of a core that any process of the load used."""
    return f"{max(one['load'] for one in records):.0%}"


def ratio_to_bare(records: Sequence[Record], all_records: Sequence[Record], key: str) -> str:
    found = ratio(records, [one for one in all_records if one["server"] == BARE], key)
    return "-" if found is None else f"{found:.2f}"


def left_out_lines(what: Result) -> str:
    return "\n".join(f"* {name} is left out: {why}" for name, why in what.left_out.items())


Render = Callable[[Result], str]
ALL = tuple(KINDS)
