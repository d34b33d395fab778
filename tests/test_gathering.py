"""Questions of many in one round trip: each gets its own answer, and nobody's failure or cancellation is another's."""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence

import asyncpg
import pytest
from redis.exceptions import ResponseError

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage.accounts import CREATE, NOTE, Sessions, StoredSession
from storage.gathering import MAX_TOGETHER, TRIPS, Gathering
from storage.postgres import Postgres
from storage.redis import Redis, open_redis
from storage.users import Known, Users
from tests.clients import PATIENCE_S


class Trips:
    """Doubles numbers, when it is let; refuses negative ones, and all of a trip with a zero in it."""

    def __init__(self) -> None:
        self.taken: list[list[int]] = []
        self.gate = asyncio.Event()

    async def ask(self, numbers: Sequence[int]) -> list[int | BaseException]:
        self.taken.append(list(numbers))
        await self.gate.wait()
        if 0 in numbers:
            raise OSError("away")
        return [2 * number if number > 0 else ValueError(number) for number in numbers]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_asked_in_one_turn_and_during_trips_goes_together() -> None:
    trips = Trips()
    async with asyncio.timeout(PATIENCE_S), Gathering(trips.ask).open() as gathering, asyncio.TaskGroup() as tasks:
        first = [tasks.create_task(gathering.ask(number)) for number in (1, 2, 3)]
        await turns()
        assert trips.taken == [[1, 2, 3]]
        others = [tasks.create_task(gathering.ask(4))]
        await turns()
        others += [tasks.create_task(gathering.ask(number)) for number in range(5, 5 + MAX_TOGETHER + 1)]
        await turns()
        assert len(trips.taken) == TRIPS == 2
        trips.gate.set()
        assert [await task for task in first] == [2, 4, 6]
        assert [await task for task in others] == [2 * number for number in range(4, 5 + MAX_TOGETHER + 1)]
    assert max(len(taken) for taken in trips.taken) == MAX_TOGETHER


async def test_what_is_asked_as_the_last_trips_end_is_answered_too() -> None:
    trips = Trips()

    async def ask_again() -> int:
        return await gathering.ask(await gathering.ask(1))

    async with asyncio.timeout(PATIENCE_S), Gathering(trips.ask).open() as gathering, asyncio.TaskGroup() as tasks:
        again = tasks.create_task(ask_again())
        await turns()
        for number in range(1, TRIPS):
            tasks.create_task(gathering.ask(number))
            await turns()
        assert len(trips.taken) == TRIPS
        trips.gate.set()
        assert await again == 4


async def test_a_refused_question_harms_no_other_and_a_failed_trip_only_its_own() -> None:
    trips = Trips()
    trips.gate.set()
    async with asyncio.timeout(PATIENCE_S), Gathering(trips.ask).open() as gathering:
        good, bad = await asyncio.gather(gathering.ask(1), gathering.ask(-1), return_exceptions=True)
        assert good == 2
        assert isinstance(bad, ValueError)
        lost = await asyncio.gather(gathering.ask(1), gathering.ask(0), return_exceptions=True)
        assert [type(one) for one in lost] == [OSError, OSError]
        assert await gathering.ask(3) == 6


async def test_who_stops_waiting_takes_nothing_from_the_others_and_the_end_keeps_nobody() -> None:
    trips = Trips()
    async with asyncio.timeout(PATIENCE_S):
        async with Gathering(trips.ask).open() as gathering:
            gone, stays = (asyncio.create_task(gathering.ask(number)) for number in (1, 2))
            await turns()
            gone.cancel()
            await turns()
            trips.gate.set()
            assert await stays == 4
            trips.gate.clear()
            left = [asyncio.create_task(gathering.ask(number)) for number in range(1, 4)]
            await turns()
        with pytest.raises(asyncio.CancelledError):
            await left[0]
        assert all(task.cancelled() for task in (gone, *left))


async def test_a_command_that_redis_refuses_harms_no_other_callers(redis: Redis) -> None:
    await redis.set("not a hash", "1", ex=60)
    async with asyncio.TaskGroup() as tasks:
        right = tasks.create_task(
            redis.together(lambda pipeline: (pipeline.get("not a hash"), pipeline.ttl("not a hash")))
        )
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await redis.together(lambda pipeline: pipeline.hgetall("not a hash"))
    assert right.result() == [b"1", 60]


async def test_a_server_that_has_forgotten_the_scripts_is_told_them_again(redis: Redis) -> None:
    sessions = Sessions(redis)
    for name in ("before", "after"):
        await redis.script_flush()
        await asyncio.gather(
            *(sessions.create(StoredSession(f"{name}-{number}", "u", "o", None, b""), 60) for number in range(3))
        )
        assert await sessions.gone([f"{name}-{number}" for number in range(3)]) == []
        # It knows them by now, and is not told.
        assert all(await redis.script_exists(*(hashlib.sha1(text.encode()).hexdigest() for text in (NOTE, CREATE))))


async def test_while_redis_is_away_every_caller_hears_so() -> None:
    async with open_redis("redis://127.0.0.1:1") as nowhere:
        sessions = Sessions(nowhere)
        answers = await asyncio.gather(*(sessions.find(str(number)) for number in range(5)), return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, OperationError)
        assert answer.kind is STORAGE_UNAVAILABLE


async def test_a_login_that_postgresql_refuses_takes_no_other_along(postgres: Postgres) -> None:
    names = [f"wx_{uuid.uuid4().hex}" for _ in range(3)]
    logins = [Known(name, openid, None) for name, openid in zip(names, ("one", "no\0name", "other"), strict=True)]
    async with Users(postgres).open() as users:
        outcomes = await asyncio.gather(*map(users.logged_in, logins), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), asyncpg.CharacterNotInRepertoireError, type(None)]
    async with postgres.connection() as connection:
        rows = await connection.fetch("SELECT openid FROM chat.users WHERE id = ANY($1) ORDER BY openid", names)
    assert [row["openid"] for row in rows] == ["one", "other"]
