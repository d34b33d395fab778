"""What the doctor says of one thing."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was looked at, `said` what is the case, `do` what to do about it where something is to be done."""

    status: Status
    what: str
    said: str
    do: str = ""


def ok(what: str, said: str) -> Finding:
    """All is well."""
    return Finding("ok", what, said)


def warn(what: str, said: str, do: str) -> Finding:
    """It serves, and something is worth knowing."""
    return Finding("warn", what, said, do)


def fail(what: str, said: str, do: str) -> Finding:
    """It does not serve, or not what one would want."""
    return Finding("fail", what, said, do)
