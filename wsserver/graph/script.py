r"""The statements of export.py as a script for `cypher-shell`: parameters written out as literals.

Nothing here is sent or kept. A literal must mean the same to every Neo4j and every cypher-shell, whatever a title
holds. Two things are less simple than they look:

* Neo4j 4 and 5 replace `\u0027` by a quote before they look for the end of a text, newer ones after. So no backslash
  is ever followed by a `u` of a text: such a text is written in two halves with a plus between them.
* cypher-shell takes a line that begins with a colon for a command of its own, so a text never begins a line.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from wsserver.graph.export import CONSTRAINTS, Entity, statements_for

ENTITIES_PER_TRANSACTION = 20
"""About 100 kB of literals: Neo4j parses a statement ten times as large for seconds."""

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile(r"[\\'\n\r\t]")
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def head() -> bytes:
    """What a script begins with."""
    lines = (
        "// What CineWire knows about films. Run it with: cypher-shell --file this-file",
        "// It can be run again, and changes nothing then.",
        *(f"{constraint};" for constraint in CONSTRAINTS),
    )
    return "".join(f"{line}\n" for line in lines).encode()


def script_of(entities: Sequence[Entity]) -> bytes:
    """Transactions that tell the graph about some entities."""
    return "".join(_transactions(entities)).encode()


def _transactions(entities: Sequence[Entity]) -> Iterator[str]:
    for first in range(0, len(entities), ENTITIES_PER_TRANSACTION):
        yield ":begin\n"
        for text, rows in statements_for(entities[first : first + ENTITIES_PER_TRANSACTION]):
            yield text.strip().replace("$rows", literal(rows), 1) + ";\n"
        yield ":commit\n"


def literal(value: object) -> str:
    """A value as Cypher, on one line. Raises ValueError for what is none, and for numbers that Neo4j cannot keep."""
    match value:
        case None:
            written = "null"
        case bool():
            written = "true" if value else "false"
        case int() if -(2**63) <= value < 2**63:
            written = str(value)
        case float() if math.isfinite(value):
            written = repr(value)
        case str():
            written = _text(value)
        case Mapping():
            written = "{" + ", ".join(f"{_name(name)}: {literal(each)}" for name, each in value.items()) + "}"
        case Sequence():
            written = "[" + ", ".join(literal(each) for each in value) + "]"
        case _:
            raise ValueError(f"no value of Neo4j: {type(value).__name__}")
    return written


def _text(text: str) -> str:
    halves = re.split(r"(?<=\\)(?=u)", text)
    written = " + ".join("'" + _ESCAPED.sub(lambda found: _ESCAPES[found[0]], half) + "'" for half in halves)
    return f"({written})" if len(halves) > 1 else written


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"no name of a property: {name!r}")
    return name
