"""A flame graph as a picture: how wide a function is, so often it was on the stack; on top is what ran."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.records import RESULTS

WIDTH, ROW, DPI = 16.0, 0.17, 110
TRUNK = 0.97
"""Of a function's samples: when one callee has more, it is the way to something and nothing of its own."""

LEAST = 0.004
"""Of all samples: what is narrower is not drawn."""

COLOURS = ("#fdba74", "#fb923c", "#fed7aa", "#f97316")
CHARACTERS = 190
"""Of the smallest type across the picture."""

DEEPEST = 60


@dataclass(slots=True)
class Flame:
    """A function as it was called from there, and what it called."""

    name: str
    count: int = 0
    above: dict[str, "Flame"] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return 1 + max((one.depth for one in self.above.values()), default=0)


def grown(stacks: Mapping[str, int]) -> Flame:
    """The tree of these stacks, beginning where they part: below that are only ways into the loop."""
    root = Flame("all")
    for stack, count in stacks.items():
        here = root
        here.count += count
        for frame in stack.split(";")[:DEEPEST]:
            here = here.above.setdefault(frame, Flame(frame))
            here.count += count
    while root.above and (widest := max(root.above.values(), key=lambda one: one.count)).count > TRUNK * root.count:
        root = widest
    return root


def draw(stacks: Mapping[str, int], file: str) -> Path:
    """Draw it beside the results."""
    from matplotlib import pyplot  # noqa: PLC0415 - only `bench` installs it

    root = grown(stacks)
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.4 + ROW * root.depth), layout="constrained")
    _draw(axes, root, 0.0, 0, root.count)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, root.depth)
    axes.axis("off")
    path = RESULTS / file
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    pyplot.close(figure)
    return path


def _draw(axes: Any, flame: Flame, left: float, row: int, total: int) -> None:
    share = flame.count / total
    if share < LEAST:
        return
    colour = COLOURS[sum(flame.name.encode()) % len(COLOURS)]
    axes.barh(row + 0.5, share, left=left, height=0.94, color=colour, edgecolor="white", linewidth=0.4)
    room = int(share * CHARACTERS)
    if room > 4:
        axes.text(left + 0.001, row + 0.5, flame.name[:room], va="center", fontsize=5.5, clip_on=True)
    for above in sorted(flame.above.values(), key=lambda one: one.name):
        _draw(axes, above, left, row + 1, total)
        left += above.count / total
