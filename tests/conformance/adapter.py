"""What a client must let the conformance test do and see. Each client has its adapter; another language, a process."""

import contextlib
from dataclasses import dataclass
from typing import Literal, Protocol

End = Literal["complete", "error", "stored"]

ANSWER = "abc"
"""What the model says to every question."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the user sees of an answer; `end` is None while it is being made."""

    text: str
    end: End | None


class Device(Protocol):
    """A client in use."""

    async def ask(self, question: str) -> None:
        """Ask, now or as soon as it is logged in; come back at once. No question waits for the answer to another."""

    async def shown(self, question: str) -> Shown: ...

    async def stopped(self) -> bool:
        """Whether it has given up: it will not connect again by itself."""

    async def waits_ms(self) -> list[int]:
        """How long it waited before each connection but the first; one in a hurry says what it would have waited."""


class Adapter(Protocol):
    """A kind of client."""

    def open(self, url: str) -> contextlib.AbstractAsyncContextManager[Device]:
        """A new client that connects to `ws://…` and stays until the block ends; HTTP is at the same host and port.

        In a hurry: it speaks or leaves after two seconds of silence at most.
        """
