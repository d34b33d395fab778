"""The README of the results, made from what is kept of every part, whenever it was measured."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.bench.plots import draw
from tests.bench.records import RESULTS, Render, Result, kept, table

TITLE = "# Measured beside the alternatives\n\n"

HOW = """\
Made by `python3 run.py bench`; please do not edit it. The numbers behind the tables are the `.json` files beside it,
one for each part, and a part can be measured anew without the others.

* Servers are started in the same run and take turns, round after round: a table shows the median and, in brackets, the
  least and the greatest round. **"To bare" is the ratio to bare Starlette on uvicorn of the same rounds**, which is
  what to trust: machines differ and are noisy.
* The server that is measured has a core of its own. The load, PostgreSQL and Valkey share the others. The load never
  is the bottleneck: its own CPU, in shares of a core, stands in the tables.
* CPU is what the server's processes used, the user's and the system's, as the kernel counts it.
* Peers do nothing with a message: they parse it and answer. This server validates it, looks up who asks, keeps its
  limits (lifted so far that no load meets them) and counts; an answer of its is stored in PostgreSQL and logged in
  Valkey, so that it survives its socket and its node.
* The model is the same code in all Python servers, and the same schedule in those for Node. A piece of an answer says
  when it was due, by the machine's clock: its age is from then to when the client has it, and a server that falls
  behind cannot slow the model down.
"""


def write(titles: Mapping[str, str], renders: Mapping[str, Render]) -> Path:
    """Write the plots and the README anew, from the parts that there are."""
    parts = {one.part: one for one in kept()}
    there = [(name, parts[name]) for name in titles if name in parts]
    sections = [TITLE + HOW, _machines([what for _, what in there])]
    for name, what in there:
        plots = "\n\n".join(f"![{caption}]({path.name})" for path, caption in draw(what))
        measured = f"Measured on {what.at}{', shortened' if what.quick else ''}."
        sections.append("\n\n".join(filter(None, [f"## {titles[name]}", measured, plots, renders[name](what)])))
    path = RESULTS / "README.md"
    path.write_text("\n\n".join(section.strip() for section in sections) + "\n")
    return path


def _machines(results: Iterable[Result]) -> str:
    """Each machine and set of versions once, with the parts that were measured there."""
    lines = ["## The machine"]
    seen: dict[str, list[str]] = {}
    for what in results:
        rows = [*what.machine.items(), *((f"{name}", version) for name, version in what.versions.items())]
        seen.setdefault(table(("what", "is"), rows), []).append(what.part)
    for described, parts in seen.items():
        if len(seen) > 1:
            lines.append(f"For {', '.join(parts)}:")
        lines.append(described)
    return "\n\n".join(lines)
