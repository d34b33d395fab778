"""Asking Redis for what can be done without it: whether it is there, and asking again when it may be back.

What is done without it is the asker's. Nobody waits for a Redis that is known to be away.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from protocol.errors import OperationError
from storage.redis import reachable

log = structlog.get_logger(__name__)

ANSWER_WITHIN_S = 2.0
"""Longer than a busy loop ever kept a command waiting, and what a caller loses at most when Redis hangs."""

ASK_AGAIN_S = 1.0
"""While Redis is away one caller in this time finds out whether it is back; the others do not wait for it."""

Answer = TypeVar("Answer")


class Presence:
    """Whether Redis answers somebody who can do without it. `gone` and `back` are logged, each once an outage."""

    def __init__(self, *, gone: str, back: str) -> None:
        self._gone = gone
        self._back = back
        self._ask_at = 0.0
        self.away = False

    async def answer(self, question: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """What Redis says, None while it is away. A mistake in the question is raised as redis-py raises it."""
        now = time.monotonic()
        if self.away:
            if now < self._ask_at:
                return None
            self._ask_at = now + ASK_AGAIN_S
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S), reachable():
                answer = await question()
        except (OperationError, TimeoutError):
            if not self.away:
                log.warning(self._gone)
            self.away = True
            self._ask_at = time.monotonic() + ASK_AGAIN_S
            return None
        if self.away:
            log.info(self._back)
            self.away = False
        return answer
