"""Tasks that somebody owns: they end with their owner, and one that fails harms no other."""

import asyncio
import contextlib

import pytest

from tests.clients import PATIENCE_S
from wsserver import tasks
from wsserver.tasks import Tasks
from wsserver.watch import keep_looking


async def test_a_task_that_swallowed_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.05)
    cancelled = 0

    async def stubborn() -> None:
        nonlocal cancelled
        while cancelled < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1

    async with asyncio.timeout(PATIENCE_S), Tasks().open() as owned:
        owned.spawn(stubborn(), name="stubborn")
        await asyncio.sleep(0)
    assert cancelled == 2


async def test_a_task_that_fails_harms_no_other() -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def fails() -> None:
        go_on.set()
        raise RuntimeError("nobody foresaw this")

    async def works() -> None:
        await go_on.wait()
        done.set()

    async with asyncio.timeout(PATIENCE_S), Tasks().open() as owned:
        owned.spawn(fails(), name="fails")
        owned.spawn(works(), name="works")
        await done.wait()


async def test_the_owner_that_is_cancelled_takes_its_tasks_along() -> None:
    ended, began = asyncio.Event(), asyncio.Event()

    async def works() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def owner() -> None:
        async with Tasks().open() as owned:
            owned.spawn(works(), name="works")
            await asyncio.Event().wait()

    owning = asyncio.create_task(owner())
    async with asyncio.timeout(PATIENCE_S):
        await began.wait()
        owning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await owning
    assert ended.is_set()


async def test_a_look_that_fails_as_nobody_foresaw_does_not_end_a_watch() -> None:
    looks = asyncio.Semaphore(0)
    changed = asyncio.Event()

    async def look() -> None:
        looks.release()
        changed.set()
        raise ValueError("an entry that nobody foresaw")

    async with asyncio.timeout(PATIENCE_S), Tasks().open() as owned:
        owned.keep(lambda: keep_looking(look, changed, "everything"), name="watch")
        for _ in range(2):
            await looks.acquire()
