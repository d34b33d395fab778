"""The adapter of `examples/client.py`, which is written to be copied."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from examples.client import Answer, Client, ClosedError
from protocol.errors import OperationError
from protocol.reading import WrongReplyError
from tests.conformance.adapter import End, Shown

HEARTBEAT_S = 0.4
"""It pings after so long, and leaves after as long again. Long enough for a machine that is busy with other tests."""

HURRY = 0.05
"""It waits for this share of the time that it would."""


class Hurried(Client):
    """One that remembers how long it would have waited."""

    def __init__(self, url: str) -> None:
        async def get_code() -> str:
            return "code"

        super().__init__([f"{url}/wechat/ws"], get_code=get_code, heartbeat_s=HEARTBEAT_S)
        self.waits_s: list[float] = []

    def _pause_s(self, failures: int) -> float:
        self.waits_s.append(super()._pause_s(failures))
        return HURRY * self.waits_s[-1]

    @property
    def has_ended(self) -> bool:
        return self._over is not None


class ExampleDevice:
    """The client with somebody who watches its answers."""

    def __init__(self, client: Hurried, watching: asyncio.TaskGroup) -> None:
        self._client = client
        self._watching = watching
        self._answers: dict[str, Answer] = {}
        self._ends: dict[str, End] = {}

    async def ask(self, question: str) -> None:
        self._answers[question] = self._client.ask(question)
        self._watching.create_task(self._watch(question))

    async def _watch(self, question: str) -> None:
        try:
            await self._answers[question].whole()
        except (OperationError, WrongReplyError):
            self._ends[question] = "error"
        except ClosedError:
            pass  # `stopped` says it
        else:
            self._ends[question] = "complete"

    async def shown(self, question: str) -> Shown:
        return Shown(self._answers[question].text, self._ends.get(question))

    async def stopped(self) -> bool:
        return self._client.has_ended

    async def waits_ms(self) -> list[int]:
        return [round(wait_s * 1000) for wait_s in self._client.waits_s]


class ExampleAdapter:
    """It opens the example client."""

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[ExampleDevice]:
        # Closed first, the client ends what is watched.
        async with asyncio.TaskGroup() as watching, Hurried(url).open() as client:
            yield ExampleDevice(client, watching)
