"""The Chinese names of the people in films."""

import json
from functools import cache
from pathlib import Path


@cache
def people_in_chinese() -> dict[str, list[str]]:
    """Chinese names of people by the name that TMDB credits them with; the first is the one to show."""
    names: dict[str, list[str]] = json.loads(Path(__file__).with_name("people_zh.json").read_text("utf-8"))
    return names
