"""Reads JSON schemas for people: which fields an object has, of what type, within what bounds.

It knows what the declarations make of themselves, and no more of JSON Schema than that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wsserver.contract.markup import Markup, code, escaped, joined, link
from wsserver.contract.reference_words import Words
from wsserver.contract.schemas import Json

MAX_INT_32, MAX_SAFE_INTEGER = 2_147_483_647, 9_007_199_254_740_991
"""Bounds that say how a number is kept, not what it may be: they are left out."""


@dataclass(frozen=True, slots=True)
class FieldRow:
    """A field of an object. `owner` is the name of the schema that it stands in."""

    owner: str
    name: str
    schema: Json
    required: bool

    @property
    def default(self) -> Any:
        """Its default, None for none."""
        return self.schema.get("default")


def fields_of(name: str, schema: Json) -> Iterator[FieldRow]:
    """The fields of an object's schema of that name."""
    required = schema.get("required", [])
    for field, described in schema.get("properties", {}).items():
        yield FieldRow(name, field, described, field in required)


def target(schema: Json) -> str | None:
    """The name of the schema that this one refers to, directly or as one that may be null."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[1]
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    return target(choices[0]) if len(choices) == 1 else None


def type_of(schema: Json, words: Words, refer: Callable[[str], str]) -> Markup:
    """The type of a value. `refer` gives the address at which a schema of a name is shown."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[1]
        return link(refer(name), name)
    if "anyOf" in schema:
        return joined((type_of(choice, words, refer) for choice in schema["anyOf"]), words.or_)
    if "const" in schema:
        return code(_literal(schema["const"]))
    if "enum" in schema:
        return joined((code(_literal(one)) for one in schema["enum"]), " | ")
    return _plain_type(schema, words, refer)


def _plain_type(schema: Json, words: Words, refer: Callable[[str], str]) -> Markup:
    match schema.get("type"):
        case "array":
            items = type_of(schema["items"], words, refer)
            return joined((words.list_of, items, _bounds(schema, "minItems", "maxItems", words.items)))
        case "string":
            form = words.formats.get(schema.get("format", ""), words.string)
            return joined((form, _bounds(schema, "minLength", "maxLength", words.characters)))
        case "integer" | "number" as kind:
            name = words.integer if kind == "integer" else words.number
            return joined((name, _bounds(schema, "minimum", "maximum", "")))
        case "object":
            return _inline_object(schema, words, refer)
        case other:
            return escaped({"boolean": words.boolean, "null": "null"}.get(str(other), words.anything))


def _inline_object(schema: Json, words: Words, refer: Callable[[str], str]) -> Markup:
    known = schema.get("properties", {})
    inner = [joined((code(name), ": ", type_of(one, words, refer))) for name, one in known.items()]
    if schema.get("additionalProperties", True):
        inner.append(escaped("…"))
    return joined((words.object_, " { ", joined(inner, ", "), " }"))


def _bounds(schema: Json, least: str, most: str, unit: str) -> Markup:
    low, high = schema.get(least), schema.get(most)
    if high in (MAX_INT_32, MAX_SAFE_INTEGER):
        high = None
    if low is None and high is None:
        return Markup()
    if low is None:
        span = f"≤ {high:,}"
    elif high is None:
        span = f"≥ {low:,}"
    else:
        span = f"{low:,}–{high:,}" if low != high else f"{low:,}"
    return joined((", ", span, f" {unit}" if unit else ""))


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else ("null" if value is None else str(value).lower())
