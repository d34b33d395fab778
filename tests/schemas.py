"""Checks values against schemas that stand in a document of the API."""

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator


def problems(document: dict[str, Any], schema: dict[str, Any], value: object) -> list[str]:
    """What is wrong with a value by a schema of the document."""
    whole = {**schema, "components": document["components"]}
    return [f"{error.json_path}: {error.message[:300]}" for error in Draft202012Validator(whole).iter_errors(value)]


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`POST /path` and what the document says of it."""
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield f"{method.upper()} {path}", described


def examples_of(media: dict[str, Any]) -> list[Any]:
    """The examples of a media type or a parameter."""
    return [media["example"]] if "example" in media else [one["value"] for one in media["examples"].values()]
