"""Plots of the results, as PNG files beside them; none where matplotlib is not installed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench import flames
from tests.bench.capacity import LIMIT_MS
from tests.bench.machine import note
from tests.bench.records import RESULTS, Record, Result, by_server, median
from tests.bench.servers import BARE, OURS

WIDTH, HEIGHT, DPI = 8.0, 3.4, 110
"""Inches, and dots of an inch: as wide as GitHub shows a README."""

COLOURS = {OURS: "#c2410c", BARE: "#0f766e"}
OTHER = "#94a3b8"

AGES_MS = (10, 20, 50, 100, 200, 500, 1000, 2000)

Drawn = list[tuple[Path, str]]


def draw(what: Result) -> Drawn:
    """Draw what belongs to a part: the files, and what they show."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - only `bench` installs it
    except ImportError:
        note("no plots: matplotlib is not installed")
        return []
    mpl.use("Agg")
    drawers: dict[str, Callable[[Result], Drawn]] = {
        "ping": _ping,
        "streams": _streams,
        "size": _size,
        "accept": _accept,
        "scale": _scale,
        "profile": _profile,
    }
    return drawers[what.part](what) if what.part in drawers else []


def _ping(what: Result) -> Drawn:
    return [_bars("ping.png", what.where(sockets=64), "us", "µs of server CPU per ping, 64 sockets", "{:.1f}")]


def _streams(what: Result) -> Drawn:
    cost = what.where(case="cost")
    most = max(one["chats"] for one in cost)
    records = [one for one in cost if one["chats"] == most]
    return [
        _bars("streams.png", records, "us", f"µs of server CPU per piece of an answer, {most} answers", "{:.1f}"),
        _lines_of_age([*what.where(case="capacity"), *what.where(case="http")]),
    ]


def _lines_of_age(records: Sequence[Record]) -> tuple[Path, str]:
    figure, axes = _axes()
    for name, own in by_server(records).items():
        steps = sorted(own, key=lambda one: float(one["chats"]))
        shown = [(one["chats"], min(one["p99_ms"], 10 * LIMIT_MS)) for one in steps]
        axes.plot([at for at, _ in shown], [ms for _, ms in shown], "o-", label=name, color=_colour(name))
    axes.axhline(LIMIT_MS, color="#475569", linestyle="--", linewidth=1)
    axes.set_xlabel("answers at a time, 50 pieces a second each, on one core")
    axes.set_ylabel("99th percentile of age, ms")
    axes.set_yscale("log")
    axes.set_yticks(AGES_MS, [str(age) for age in AGES_MS])
    axes.minorticks_off()
    axes.set_ylim(AGES_MS[0], AGES_MS[-1])
    axes.legend(frameon=False)
    return _saved(figure, "capacity.png", "How old pieces come, by how many answers run")


def _size(what: Result) -> Drawn:
    sizes = what.where(case="size")
    return [_bars("size.png", sizes, "kib", "KiB per idle connection", "{:.1f}")]


def _accept(what: Result) -> Drawn:
    return [_bars("accept.png", what.records, "us", "µs of server CPU per client that comes, pings and goes", "{:.0f}")]


def _scale(what: Result) -> Drawn:
    figure, axes = _axes(columns=3)
    by_idle = what.where(case="connections")
    for name, own in by_server(by_idle).items():
        _curve(axes[0], own, "idle", "us", name)
    axes[0].set_xlabel("idle connections")
    axes[0].set_ylabel("µs per ping")
    axes[0].legend(frameon=False)
    for place, (case, label) in enumerate((("followers", "followers of an answer"), ("nodes", "nodes")), start=1):
        _curve(axes[place], what.where(case=case), case, "us_frame", OURS)
        axes[place].set_xlabel(label)
        axes[place].set_ylabel("µs per delivered frame")
    for each in axes:
        each.set_ylim(bottom=0)
    return [_saved(figure, "scale.png", "How cost grows with connections, followers and nodes")]


def _profile(what: Result) -> Drawn:
    titles = {"ping stacks": "Where the time of pings goes", "streams stacks": "Where the time of answers goes"}
    return [
        (flames.draw(one["stacks"], f"flames-{case.split()[0]}.png"), title)
        for case, title in titles.items()
        for one in what.where(case=case)
    ]


def _curve(axes: Any, records: Sequence[Record], along: str, key: str, name: str) -> None:
    levels = sorted({one[along] for one in records})
    middle = [median([one for one in records if one[along] == level], key) for level in levels]
    axes.plot(levels, middle, "o-", label=name, color=_colour(name))


def _bars(file: str, records: Sequence[Record], key: str, title: str, label: str) -> tuple[Path, str]:
    """A bar for each server, the least at the top."""
    values = sorted(((median(own, key), name) for name, own in by_server(records).items()), reverse=True)
    figure, axes = _axes(height=0.7 + 0.36 * len(values))
    bars = axes.barh(
        [name for _, name in values], [value for value, _ in values], color=[_colour(name) for _, name in values]
    )
    axes.bar_label(bars, labels=[label.format(value) for value, _ in values], padding=4)
    axes.margins(x=0.1)
    axes.set_title(title, loc="left", fontsize=11)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    return _saved(figure, file, title)


def _axes(*, columns: int = 1, height: float = HEIGHT) -> tuple[Any, Any]:
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(1, columns, figsize=(WIDTH, height), layout="constrained")
    for each in axes if columns > 1 else [axes]:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _colour(name: str) -> str:
    if name.startswith(OURS):
        return COLOURS[OURS] if name == OURS else "#fb923c"
    return COLOURS.get(name, OTHER)


def _saved(figure: Any, file: str, title: str) -> tuple[Path, str]:
    from matplotlib import pyplot  # noqa: PLC0415

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / file
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    pyplot.close(figure)
    return path, title
