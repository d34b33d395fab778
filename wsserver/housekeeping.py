"""Forgets, hour by hour, what may not be kept for longer. Every node does it: doing it twice costs nothing."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

import structlog

from protocol.errors import OperationError

log = structlog.get_logger(__name__)

EVERY_S = 3600.0
"""What is kept for days or weeks is kept for an hour longer at most."""

MOST_AT_ONCE = 2_000
"""Statements of one forgetting: a million messages. What is left is for the next hour."""

PAUSE_S = 0.05
"""Between two statements of one forgetting, each of which is short."""

Forgetting = Callable[[], Awaitable[int]]
"""Forgets some and says how many, 0 when nothing is left to forget."""


async def keep_house(forgettings: Mapping[str, Forgetting], *, every_s: float = EVERY_S) -> None:
    """Have each forget, by name, until cancelled; the nodes of a deploy not all at the same time."""
    while True:
        await asyncio.sleep(every_s * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
        for what, forget in forgettings.items():
            try:
                await _forget_all(what, forget)
            except OperationError as error:
                log.warning("not forgotten", what=what, reason=error.kind.reason)


async def _forget_all(what: str, forget: Forgetting) -> None:
    forgotten = 0
    for _ in range(MOST_AT_ONCE):
        some = await forget()
        if not some:
            break
        forgotten += some
        # Those who ask come first.
        await asyncio.sleep(PAUSE_S)
    if forgotten:
        log.info("forgotten", what=what, number=forgotten)
