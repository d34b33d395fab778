"""Tasks that somebody owns, where the failure of one is logged and harms no other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


CANCEL_AGAIN_S = 5.0
"""After which a task is cancelled once more: a library that met the cancellation may have taken it for its own."""

AGAIN_S = 1.0
"""Between a failure of work that has to go on and its next beginning: soon, and not so often that logs overflow."""


class Tasks:
    """A group of independent tasks. asyncio's TaskGroup stops them all when one fails; a server must not."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Tasks"]:
        """Own tasks until the block ends; those still running are cancelled and waited for."""
        try:
            yield self
        finally:
            running = set(self._running)
            while running:
                for task in running:
                    task.cancel()
                _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_S)

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> asyncio.Task[None]:
        """Start work that is never done. A failure that nobody foresaw is logged, and it is begun again."""

        async def again_and_again() -> None:
            while True:
                try:
                    await work()
                except Exception:
                    log.exception("task failed and is begun again", task=name)
                    await asyncio.sleep(AGAIN_S)

        return self.spawn(again_and_again(), name=name)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", task=task.get_name(), exc_info=error)
