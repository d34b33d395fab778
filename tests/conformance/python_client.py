"""The adapter of `tests.faults.client.Client`.

That one is as strict as a test: what a server must not do ends it. Two things that other clients live with, and for
which only a test has reason to end, are lived with here: what it does not know, and refusals.
"""

import contextlib
from collections.abc import AsyncIterator

from tests.conformance.adapter import ANSWER, Shown
from tests.faults.answer import Answer, BrokenPromiseError, Frame
from tests.faults.client import HURRY, Client, Counts

SILENCE_S = 1.5
"""It pings after a third of it. Long enough for a machine that is busy with other tests."""


class Phone(Client):
    """A client that ignores what it does not know, and gives up what is refused for good."""

    def _unknown(self, frame: Frame) -> None:
        """Ignored."""

    def _refused_for_good(self, frame: Frame) -> None:
        answer = self._asked.pop(frame.get("id", ""), None)
        if answer is not None:
            answer.end = frame
            self._is_over(answer)
        elif frame["type"] == "auth_response":
            self.token = None
        else:
            super()._refused_for_good(frame)

    @property
    def has_ended(self) -> bool:
        return self._task is not None and self._task.done()


class PythonDevice:
    """The client as a test sees it."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._answers: dict[str, Answer] = {}

    async def ask(self, question: str) -> None:
        self._answers[question] = self._phone.begin(question, expected=ANSWER)

    async def shown(self, question: str) -> Shown:
        answer = self._answers[question]
        if answer.stored is not None:
            return Shown(answer.shown, "stored")
        if answer.end is None:
            return Shown(answer.shown, None)
        return Shown(answer.shown, "complete" if answer.end["type"] == "complete" else "error")

    async def stopped(self) -> bool:
        return self._phone.has_ended

    async def waits_ms(self) -> list[int]:
        return [round(wait_s / HURRY * 1000) for wait_s in self._phone.waits_s]


class PythonAdapter:
    """It opens clients of this project's own tests."""

    def __init__(self, kind: type[Phone] = Phone) -> None:
        self._kind = kind

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[PythonDevice]:
        phone = self._kind([url.replace("ws://", "http://")], Counts(), silence_s=SILENCE_S)
        # A strict client ends by what breaks a promise; the test has seen by then what it showed.
        with contextlib.suppress(BrokenPromiseError):
            async with phone.open():
                yield PythonDevice(phone)
