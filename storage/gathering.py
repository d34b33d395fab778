"""Questions of many callers that share round trips: a trip costs this process more than what it carries.

What is asked, and of whom, is the asker's. A question waits for no other: those of one turn of the loop go together,
and while as many trips as may be are under way, what comes meanwhile goes with the next.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar

MAX_TOGETHER = 100
"""Questions in one trip: beyond, packing and reading them would hold up the loop for milliseconds."""

TRIPS = 2
"""Under way at once. One gathers most, but a trip that hangs would have everybody wait behind it twice as long."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gathering(Generic[Question, Answer]):
    """Asks for many at once. `ask` gives the answers in the questions' order; one that is an exception is raised."""

    def __init__(self, ask: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | BaseException]]]) -> None:
        self._ask = ask
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._trips: set[asyncio.Task[None] | None] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Gathering[Question, Answer]"]:
        """Answer until the block ends. Who still waits then is cancelled."""
        try:
            yield self
        finally:
            while self._waiting:
                self._waiting.popleft()[1].cancel()
            trips = [trip for trip in self._trips if trip is not None]
            for trip in trips:
                trip.cancel()
            await asyncio.gather(*trips, return_exceptions=True)

    async def ask(self, question: Question) -> Answer:
        """The answer to one question. Raises what the trip failed with. Cancelled, it may have been asked or not."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, answer))
        if len(self._trips) < TRIPS:
            self._trips.add(loop.create_task(self._travel(), name="questions of many"))
        return await answer

    async def _travel(self) -> None:
        try:
            while self._waiting:
                await self._trip()
        finally:
            # Not a turn later, by a callback: what was asked in between would wait for a trip that has ended.
            self._trips.remove(asyncio.current_task())

    async def _trip(self) -> None:
        together = [self._waiting.popleft() for _ in range(min(MAX_TOGETHER, len(self._waiting)))]
        together = [(question, answer) for question, answer in together if not answer.done()]
        answers: Sequence[Answer | BaseException] = []
        try:
            if together:
                answers = await self._ask([question for question, _ in together])
        except Exception as error:
            answers = [error] * len(together)
        except asyncio.CancelledError:
            for _, answer in together:
                answer.cancel()
            raise
        for (_, answer), answered in zip(together, answers, strict=True):
            if answer.done():
                continue  # who asked was cancelled meanwhile
            if isinstance(answered, BaseException):
                answer.set_exception(answered)
            else:
                answer.set_result(answered)
