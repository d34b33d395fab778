"""The rules for clients, as `docs/conformance.yaml` has them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

RULES_FILE = Path(__file__).resolve().parents[2] / "docs" / "conformance.yaml"

Step = dict[str, Any] | str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, and the play that shows whether a client keeps it."""

    id: str
    level: Literal["must", "should"]
    given: str
    when: str
    then: str
    play: list[list[Step]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The play, where sockets are not to be had."""
    questions: list[str] = field(default_factory=lambda: ["one"])
    ends: dict[str, Any] = field(default_factory=dict)

    @property
    def stops(self) -> bool:
        """Whether the client stays away in the end."""
        return bool(self.ends.get("stopped", False))


def rules() -> list[Rule]:
    """All of them, in the order of the file."""
    return [Rule(**one) for one in yaml.safe_load(RULES_FILE.read_text("utf-8"))]
