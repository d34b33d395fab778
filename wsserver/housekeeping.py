"""Forgets, hour by hour, what may not be kept for longer. Every node does it: doing it twice costs nothing."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

import structlog

from protocol.errors import OperationError

log = structlog.get_logger(__name__)

EVERY_S = 3600.0
"""What is kept for days or weeks is kept for an hour longer at most."""

Forgetting = Callable[[], Awaitable[int]]
"""Forgets some and says how many."""


async def keep_house(forgettings: Mapping[str, Forgetting], *, every_s: float = EVERY_S) -> None:
    """Have each forget, by name, until cancelled; the nodes of a deploy not all at the same time."""
    while True:
        await asyncio.sleep(every_s * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
        for what, forget in forgettings.items():
            try:
                forgotten = await forget()
            except OperationError as error:
                log.warning("not forgotten", what=what, reason=error.kind.reason)
            else:
                if forgotten:
                    log.info("forgotten", what=what, number=forgotten)
