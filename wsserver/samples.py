"""What is measured now and then, rather than when it happens: pools, outboxes, and how late the event loop is.

Answers: how full a node is. Costs no request anything.
"""

import asyncio
from collections.abc import Callable, Mapping

from storage.pool import PoolUse
from wsserver.telemetry import Metrics

LAG_S = 0.25
"""Between two looks at how late the loop is: no stall of that length is missed, and four wake-ups cost nothing."""

GAUGES_EVERY = 4
"""Looks at the loop for each at the rest: once a second, because adding up 10,000 outboxes takes half a millisecond."""


async def sample(metrics: Metrics, pools: Mapping[str, Callable[[], PoolUse]], outbox_bytes: Callable[[], int]) -> None:
    """Measure until cancelled."""
    loop = asyncio.get_running_loop()
    gauges = [
        (
            use,
            metrics.pool_connections.labels(name, "in_use"),
            metrics.pool_connections.labels(name, "idle"),
            metrics.pool_waiting.labels(name),
        )
        for name, use in pools.items()
    ]
    while True:
        for use, in_use, idle, waiting in gauges:
            now = use()
            in_use.set(now.in_use)
            idle.set(now.idle)
            waiting.set(now.waiting)
        metrics.outbox_bytes.set(outbox_bytes())
        metrics.gather()
        for _ in range(GAUGES_EVERY):
            wanted = loop.time() + LAG_S
            await asyncio.sleep(LAG_S)
            metrics.loop_lag.observe(max(0.0, loop.time() - wanted))
