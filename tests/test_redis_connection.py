"""Connections to Redis: a cancellation ends whoever waits for Redis, whatever moment it comes at."""

import asyncio

from storage.redis import Redis

TURNS = 40
"""More turns of the loop than a command takes."""


async def test_no_cancellation_is_lost_in_a_command(redis: Redis) -> None:
    lost = 0
    for turns in range(TURNS):
        for _ in range(5):

            async def works() -> None:
                while True:
                    await redis.get("nothing")
                    await asyncio.Event().wait()

            task = asyncio.create_task(works())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            _, running = await asyncio.wait([task], timeout=2.0)
            if running:
                lost += 1
                task.cancel()
                await asyncio.wait([task])
    assert lost == 0


async def test_no_cancellation_is_lost_in_a_pipeline(redis: Redis) -> None:
    lost = 0
    for turns in range(TURNS):

        async def works() -> None:
            pipeline = redis.pipeline(transaction=False)
            pipeline.get("nothing")
            pipeline.get("nothing else")
            await pipeline.execute()
            await asyncio.Event().wait()

        task = asyncio.create_task(works())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        _, running = await asyncio.wait([task], timeout=2.0)
        if running:
            lost += 1
            task.cancel()
            await asyncio.wait([task])
    assert lost == 0
    assert await redis.ping()
