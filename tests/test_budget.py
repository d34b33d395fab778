"""The budget of a vendor's calls that all nodes share, and what a node does alone while Redis is away."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from storage import redis_presence
from storage.budget import LONGEST_S, Budget
from storage.redis import BUDGET, Redis, open_redis
from tests.clients import PATIENCE_S
from tests.logs import logged_of
from tests.valkeys import Valkey, free_ports, started, until

CALL_S = 100.0
"""Between two calls: so long that what a test itself takes cannot be mistaken for it."""

BURST = 3


def budget(redis: Redis, name: str) -> Budget:
    return Budget(redis, name, per_s=1 / CALL_S, burst=BURST)


@pytest.fixture
def name() -> str:
    return f"test-{secrets.token_hex(4)}"


def in_calls(waits: Sequence[float]) -> list[int]:
    """Waits in units of CALL_S. They are a little shorter for what has passed since."""
    assert all(-(wait % -CALL_S) < PATIENCE_S for wait in waits), waits
    return [round(wait / CALL_S) for wait in waits]


async def waits_of(taker: Budget, number: int) -> list[int]:
    return in_calls([await taker.take() for _ in range(number)])


# With Redis.


async def test_a_full_bucket_is_spent_at_once_and_then_calls_come_one_by_one(redis: Redis, name: str) -> None:
    taker = budget(redis, name)
    assert [await taker.take() for _ in range(BURST)] == [0.0] * BURST
    assert await waits_of(taker, 4) == [1, 2, 3, 4]


async def test_two_nodes_share_one_budget(redis: Redis, name: str) -> None:
    one, other = budget(redis, name), budget(redis, name)
    taken = await asyncio.gather(*(taker.take() for _ in range(4) for taker in (one, other)))
    assert sorted(in_calls(taken)) == [0, 0, 0, 1, 2, 3, 4, 5]


async def test_budgets_of_different_names_have_nothing_to_do_with_each_other(redis: Redis, name: str) -> None:
    assert await waits_of(budget(redis, name), BURST + 1) == [0, 0, 0, 1]
    assert await waits_of(budget(redis, f"{name}-other"), 1) == [0]


async def test_the_bucket_fills_again(redis: Redis, name: str) -> None:
    taker = Budget(redis, name, per_s=50, burst=2)
    assert await taker.take() == await taker.take() == 0.0

    async def is_free() -> bool:
        return await taker.take(within_s=0) == 0.0

    await until(is_free)
    await until(is_free)


async def test_who_cannot_wait_so_long_takes_nothing_from_the_others(redis: Redis, name: str) -> None:
    taker = budget(redis, name)
    await waits_of(taker, BURST)
    for _ in range(5):
        assert in_calls([await taker.take(within_s=CALL_S / 2)]) == [1]
    assert await waits_of(taker, 2) == [1, 2]


async def test_nobody_calls_during_a_pause_and_after_it_there_is_no_burst(redis: Redis, name: str) -> None:
    one, other = budget(redis, name), budget(redis, name)
    await one.pause(7 * CALL_S)
    assert await waits_of(other, 3) == [7, 8, 9]
    assert await waits_of(one, 1) == [10]


async def test_a_pause_holds_for_a_node_with_other_figures(redis: Redis, name: str) -> None:
    await Budget(redis, name, per_s=1 / CALL_S, burst=1).pause(7 * CALL_S)
    assert await waits_of(budget(redis, name), 1) == [7]


async def test_a_shorter_pause_does_not_end_a_longer_one(redis: Redis, name: str) -> None:
    one, other = budget(redis, name), budget(redis, name)
    await one.pause(7 * CALL_S)
    await other.pause(CALL_S)
    assert await waits_of(other, 1) == [7]


async def test_a_call_that_was_reserved_before_the_pause_is_reserved_anew(redis: Redis, name: str) -> None:
    one, other = budget(redis, name), budget(redis, name)
    assert await waits_of(one, BURST + 2) == [0, 0, 0, 1, 2]
    assert await one.held() == 0.0
    await other.pause(7 * CALL_S)
    # Two had waited; they get what is free after the pause, each another call.
    assert in_calls([await one.held(), await one.held()]) == [7, 8]
    assert in_calls([await one.held(within_s=CALL_S)]) == [9]
    assert in_calls([await one.held()]) == [9]


async def test_a_call_that_was_reserved_may_be_made_when_there_is_no_pause_and_costs_nothing_more(
    redis: Redis, name: str
) -> None:
    taker = budget(redis, name)
    assert await waits_of(taker, BURST + 1) == [0, 0, 0, 1]
    assert [await taker.held(within_s=0) for _ in range(5)] == [0.0] * 5
    assert await waits_of(taker, 1) == [2]


async def test_the_key_outlives_every_pause_and_wait_and_not_much_else(redis: Redis, name: str) -> None:
    taker = budget(redis, name)
    await taker.take()
    assert 0 < await redis.ttl(BUDGET(name)) <= BUDGET.ttl_s
    await taker.pause(365 * 86_400)
    assert LONGEST_S - PATIENCE_S < await taker.take(within_s=0) <= LONGEST_S
    assert await redis.ttl(BUDGET(name)) >= LONGEST_S + CALL_S * BURST


@pytest.mark.parametrize(("per_s", "burst"), [(0, 1), (-1, 1), (1, 0), (0.001, 20)])
async def test_a_budget_without_calls_is_refused(redis: Redis, per_s: float, burst: int) -> None:
    with pytest.raises(ValueError, match="a budget needs"):
        Budget(redis, "none", per_s=per_s, burst=burst)


# Without Redis.


@pytest.fixture
def asks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_presence, "ASK_AGAIN_S", 0.05)


@pytest.fixture
async def server(data_dir: Path) -> AsyncIterator[Valkey]:
    (port,) = free_ports(1)
    valkey = Valkey(data_dir / f"budget{port}", port, "--bind", "127.0.0.1", "--save", "")
    async with started([valkey]):
        yield valkey


async def test_without_redis_a_node_goes_on_from_what_it_last_heard(server: Valkey, name: str) -> None:
    async with open_redis(f"redis://127.0.0.1:{server.port}") as redis:
        taker = budget(redis, name)
        assert await waits_of(taker, 2) == [0, 0]
        await server.kill()
        assert await waits_of(taker, 3) == [0, 1, 2]
        assert in_calls([await taker.take(within_s=CALL_S / 2)]) == [3]
        assert await waits_of(taker, 1) == [3]


async def test_without_redis_a_pause_holds_for_this_node(server: Valkey, name: str) -> None:
    async with open_redis(f"redis://127.0.0.1:{server.port}") as redis:
        told, untold = budget(redis, name), budget(redis, name)
        await told.pause(7 * CALL_S)
        await server.kill()
        assert await waits_of(told, 2) == [7, 8]
        assert await waits_of(untold, BURST + 1) == [0, 0, 0, 1]
        assert await untold.held() == 0.0
        await untold.pause(2 * CALL_S)
        assert in_calls([await untold.held(), await untold.held()]) == [2, 3]
        assert await waits_of(untold, 1) == [4]


@pytest.mark.usefixtures("asks_often")
async def test_when_redis_is_back_it_hears_of_a_pause_that_began_without_it(server: Valkey, name: str) -> None:
    async with open_redis(f"redis://127.0.0.1:{server.port}") as redis:
        throttled, other = budget(redis, name), budget(redis, name)
        await throttled.take()
        await server.kill()
        await throttled.pause(7 * CALL_S)
        assert await waits_of(throttled, 1) == [7]
        await server.start()

        async def is_told() -> bool:
            await throttled.take(within_s=0)
            return bool(await redis.exists(BUDGET(name)))

        await until(is_told)
        assert await waits_of(other, 1) == [7]


@pytest.mark.usefixtures("asks_often")
async def test_each_outage_is_said_once(server: Valkey, name: str) -> None:
    async with open_redis(f"redis://127.0.0.1:{server.port}") as redis:
        taker = budget(redis, name)
        await taker.take()
        for _ in range(2):
            with logged_of("budget") as lines:
                await server.kill()
                for _ in range(5):
                    await taker.take(within_s=0)
                    await asyncio.sleep(0.06)
            assert [line["event"] for line in lines] == [
                f"each node has a budget of its own for {name} while Redis is away"
            ]
            with logged_of("budget") as lines:
                await server.start()

                async def is_back() -> bool:
                    await taker.take(within_s=0)
                    return bool(lines)

                await until(is_back)
            assert [line["event"] for line in lines] == [f"all nodes share the budget for {name} again"]


async def test_a_redis_that_hangs_is_asked_once_and_not_by_everybody(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(redis_presence, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(redis_presence, "ASK_AGAIN_S", 2 * PATIENCE_S)
    asked = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        while await reader.read(1024):
            pass
        writer.close()

    silent = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with silent, open_redis(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}") as redis:
        taker = budget(redis, name)
        async with asyncio.timeout(PATIENCE_S):
            assert await waits_of(taker, 10) == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert asked == 1
