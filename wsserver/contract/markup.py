"""HTML as values: what is text is escaped, what is markup is not; and JSON with its parts in classes for colours."""

import html
import json
import re
from collections.abc import Iterable
from typing import Any

INLINE_CHARACTERS = 44
"""An array or object that is shorter stands on one line: what a column of examples shows without scrolling."""

_TOKENS = re.compile(r'("(?:\\.|[^"\\])*")(?=(\s*:)?)|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)')

_CODE = re.compile(r"`([^`]+)`")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Text as HTML; what is HTML stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def joined(parts: Iterable[str], between: str = "") -> Markup:
    return Markup(escaped(between).join(map(escaped, parts)))


def tag(name: str, *children: str, **attributes: str | None) -> Markup:
    """An element. `class_` is `class`; an attribute that is None is left out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{said}>{joined(children)}</{name}>")


def link(target: str, *children: str, class_: str | None = None) -> Markup:
    return tag("a", *children, href=target, class_=class_)


def code(text: str) -> Markup:
    return tag("code", text)


def prose(text: str) -> Markup:
    """A sentence in which `…` is code."""
    return Markup(_CODE.sub(r"<code>\1</code>", escaped(text)))


def paragraphs(text: str) -> Markup:
    """Prose, a paragraph for each blank line."""
    return joined(tag("p", prose(" ".join(part.split()))) for part in text.split("\n\n") if part.strip())


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], class_: str) -> Markup:
    """A table whose cells say what column they are of, for narrow screens where they stand below each other."""
    names = list(heads)
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    body = tag(
        "tbody",
        *(tag("tr", *(tag("td", cell, data_of=name) for name, cell in zip(names, row, strict=True))) for row in rows),
    )
    return tag("table", head, body, class_=class_)


def pretty(value: Any, indent: str = "") -> str:
    """JSON for people: what is short on one line, what is long on several."""
    compact = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or len(indent) + len(compact) <= INLINE_CHARACTERS:
        return compact
    deeper = indent + "  "
    if isinstance(value, list):
        inner = [pretty(one, deeper) for one in value]
        first, last = "[", "]"
    else:
        inner = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(one, deeper)}" for key, one in value.items()]
        first, last = "{", "}"
    return f"{first}\n{deeper}" + f",\n{deeper}".join(inner) + f"\n{indent}{last}"


def coloured(text: str) -> Markup:
    """JSON with its keys, strings, numbers and words in classes."""
    parts: list[str] = []
    at = 0
    for found in _TOKENS.finditer(text):
        string, colon, word, number = found.groups()
        kind = ("key" if colon else "string") if string else ("word" if word else "number")
        parts += [text[at : found.start()], tag("span", string or word or number, class_=f"j-{kind}")]
        at = found.end()
    return joined([*parts, text[at:]])


def json_block(value: Any) -> Markup:
    # A region that scrolls must be reachable by keyboard.
    return tag("pre", tag("code", coloured(pretty(value))), tabindex="0")


def json_line(value: Any) -> Markup:
    return tag("code", coloured(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))
