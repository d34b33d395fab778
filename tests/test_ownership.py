"""Who makes a run and how it ends: beats under load, ends that logs lack, failures that are our own."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest

from protocol.chat import Chunk, Complete, Restart
from storage.embedded import Services
from storage.ownership import Owned, RunTable
from storage.postgres import Postgres
from storage.redis import Redis
from storage.runs import Claim, RunLogs
from tests.clients import PATIENCE_S, SocketClient, socket_client
from tests.conftest import ModelNode
from tests.node import TestNode
from tests.standins.llm import stalls
from tests.standins.server import Gate
from wsserver.domains.model_answers import ModelAnswerer
from wsserver.heart import BEAT_S, STILL_S, Heart
from wsserver.hub import Hub, Run
from wsserver.ownership import Ownership
from wsserver.telemetry import Metrics


@pytest.fixture
def database_url(services: Services) -> str:
    assert services.database_url is not None
    return services.database_url


async def ended_run(table: RunTable, node: str) -> str:
    """A run that `node` has ended, with its answer stored."""
    name, user = uuid.uuid4().hex, f"wx_{uuid.uuid4().hex}"
    row, _ = await table.begin(
        request_id=name,
        user_id=user,
        session_id="s",
        client_id=None,
        conversation_id=uuid.uuid4(),
        create_conversation=True,
        request={"query": "?"},
        question="?",
        node=node,
        enqueue=False,
    )
    await table.finish(
        request_id=name,
        epoch=row.epoch,
        state="done",
        message_id=uuid.uuid4(),
        content="whole",
        finish_reason="stop",
        usage=None,
        recommendations=None,
    )
    return name


async def test_an_end_is_made_up_only_when_the_log_cannot_get_it_any_more(
    node: TestNode, postgres: Postgres, redis: Redis
) -> None:
    table, logs = RunTable(postgres), RunLogs(redis)
    alive, dead = uuid.uuid4().hex, uuid.uuid4().hex
    for owner in (alive, dead):
        await table.beat(owner)  # or a server would take their runs over
    being_logged, left_by_the_dead = await ended_run(table, alive), await ended_run(table, dead)
    lost, cut_short = await ended_run(table, alive), await ended_run(table, alive)
    await table.leave(dead)
    for name, state in ((being_logged, "running"), (left_by_the_dead, "running"), (cut_short, "complete")):
        await logs.own_all([Claim(name, 1, {"user_id": "u", "state": state})])
    endings = node.node.hub.tails.endings
    assert endings is not None
    found = await endings([being_logged, left_by_the_dead, lost, cut_short])
    assert set(found) == {left_by_the_dead, lost, cut_short}
    for frames in found.values():
        restart, chunk, complete = frames
        assert restart == Restart("log_lost")
        assert chunk == Chunk("whole")
        assert isinstance(complete, Complete)
    await postgres_execute(
        postgres, "UPDATE chat.runs SET ended_at = now() - interval '40 s' WHERE request_id = $1", being_logged
    )
    assert set(await endings([being_logged])) == {being_logged}


async def postgres_execute(postgres: Postgres, sql: str, *parameters: object) -> None:
    async with postgres.connection() as connection:
        await connection.execute(sql, *parameters)


async def test_who_follows_a_run_whose_row_is_deleted_is_told_that_it_is_lost(
    model_node: ModelNode, postgres: Postgres
) -> None:
    gate = Gate()
    model_node.model.queue(stalls(gate, "第一句"))
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        await client.send({"type": "chat", "query": "讲个长故事"})
        accepted = (await client.receive_until("chat_processing"))[-1]
        await gate.reached.wait()
        await postgres_execute(postgres, "DELETE FROM chat.runs WHERE request_id = $1", accepted["data"]["request_id"])
        lost = await client.receive()
        assert (lost["type"], lost["reason"]) == ("error", "run_lost")


async def test_a_failure_of_our_own_is_stored_before_it_is_said_and_the_run_not_begun_anew(
    model_node: ModelNode, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def breaks(_self: object, *_turns: object, **_more: object) -> AsyncGenerator[Any, None]:
        nonlocal calls
        calls += 1
        raise RuntimeError("nobody foresaw this")
        yield

    monkeypatch.setattr(ModelAnswerer, "answer", breaks)
    async with socket_client(model_node.url) as client:
        await client.login(model_node.wechat.issue_code())
        accepted, *frames = await client.stream({"type": "chat", "query": "？", "stream": True})
        assert frames[-1]["type"] == "error"
        assert frames[-1]["reason"] == "internal"
        async with postgres.connection() as connection:
            state = await connection.fetchval(
                "SELECT state FROM chat.runs WHERE request_id = $1", accepted["data"]["request_id"]
            )
    assert state == "failed"
    assert calls == 1


async def test_a_node_beats_while_all_its_connections_are_busy_with_chats(
    node: TestNode, postgres: Postgres, client: SocketClient
) -> None:
    first = await client.call({"type": "chat", "query": "你好"})
    del first
    async with postgres.connection() as connection:
        user_id = await connection.fetchval("SELECT user_id FROM chat.runs ORDER BY created_at DESC LIMIT 1")

    async def beat() -> datetime:
        async with postgres.connection() as connection:
            at: datetime = await connection.fetchval(
                "SELECT beat FROM chat.nodes WHERE id = $1", node.node.ownership.node
            )
        return at

    async with postgres.connection() as holder:
        await holder.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", user_id)
        try:
            for number in range(20):
                await client.send({"type": "chat", "id": f"waits-{number}", "query": "你好", "incognito": True})
            async with asyncio.timeout(PATIENCE_S):
                while await waiting_for_locks(postgres) < 10:
                    await asyncio.sleep(0.02)
                blocked_at = datetime.now(UTC)
                while await beat() < blocked_at:
                    await asyncio.sleep(0.05)
        finally:
            await holder.execute("SELECT pg_advisory_unlock_all()")


async def waiting_for_locks(postgres: Postgres) -> int:
    async with postgres.connection() as connection:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
    return count


async def test_a_look_that_fails_as_nobody_foresaw_does_not_end_the_looking(
    postgres: Postgres, redis: Redis, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = RunTable(postgres)
    looks = asyncio.Semaphore(0)

    async def owned(_node: str) -> list[Owned]:
        looks.release()
        raise ValueError("a row that nobody foresaw")

    monkeypatch.setattr(table, "owned", owned)
    async with Hub(RunLogs(redis), Metrics(), roll_up_s=0.04, deadline_s=1.0).open() as hub:
        ownership = Ownership(table, hub, Heart(database_url))
        async with asyncio.timeout(PATIENCE_S):
            async with ownership_open(ownership, monkeypatch):
                for _ in range(3):
                    await looks.acquire()


def ownership_open(ownership: Ownership, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Without the giving up at the end, which asks what is owned too."""

    async def nothing() -> None:
        """Nothing is owned."""

    monkeypatch.setattr(ownership, "hand_over", nothing)
    return ownership.open()


async def test_a_node_that_has_just_started_takes_over_nothing_yet(
    postgres: Postgres, redis: Redis, database_url: str
) -> None:
    table = RunTable(postgres)
    looks = asyncio.Semaphore(0)
    taken: list[str] = []
    whole_look, take_over = table.owned, table.take_over

    async def owned(node: str) -> list[Owned]:
        looks.release()
        return await whole_look(node)

    async def taking(node: str, lease: Any, limit: int) -> Any:
        taken.append(node)
        return await take_over(node, lease, 0)

    table.owned = owned  # type: ignore[method-assign]
    table.take_over = taking  # type: ignore[method-assign]
    async with Hub(RunLogs(redis), Metrics(), roll_up_s=0.04, deadline_s=1.0).open() as hub:
        ownership = Ownership(table, hub, Heart(database_url))
        async with asyncio.timeout(PATIENCE_S), ownership.open():
            for _ in range(3):
                await looks.acquire()
            assert taken == []
            while not taken:
                await looks.acquire()


async def test_the_logs_of_runs_that_begin_together_are_claimed_together(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = RunLogs(redis)
    claimed: list[int] = []
    own_all = logs.own_all

    async def counted(claims: Any) -> list[int]:
        claimed.append(len(claims))
        return await own_all(claims)

    monkeypatch.setattr(logs, "own_all", counted)

    async def make(run: Run) -> None:
        run.text("one")
        run.publish(Complete("one", None, "stop", None))

    async with Hub(logs, Metrics(), roll_up_s=0.04, deadline_s=10.0).open() as hub:
        runs = [Run(hub, request_id=uuid.uuid4().hex, user_id="u", message_id=None) for _ in range(50)]
        for run in runs:
            hub.start(run, make)
    assert sum(claimed) >= len(runs)
    assert len(claimed) <= 5
    for run in runs:
        assert (await logs.meta(run.request_id))["state"] == "complete"
        assert [frame.last for frame in await logs.read(run.request_id, 0)] == [False, True]


async def beat_of(postgres: Postgres, node: str) -> tuple[datetime, float]:
    """When the node's heart beat last, and how many seconds ago that is."""
    async with postgres.connection() as connection:
        row = await connection.fetchrow(
            "SELECT beat, extract(epoch FROM clock_timestamp() - beat)::float8 AS s_ago FROM chat.nodes WHERE id = $1",
            node,
        )
    return (datetime.min.replace(tzinfo=UTC), 0.0) if row is None else (row["beat"], row["s_ago"])


@pytest.mark.slow
async def test_a_heart_beats_while_the_loop_is_busy(postgres: Postgres, database_url: str) -> None:
    async with Heart(database_url).open() as heart, asyncio.timeout(PATIENCE_S):
        before = datetime.now(UTC)
        while (await beat_of(postgres, heart.node))[0] < before:
            await asyncio.sleep(0.05)
        busy_since = datetime.now(UTC)
        time.sleep(3 * BEAT_S)  # noqa: ASYNC251 (nothing else turns in the meantime: that is what is tested)
        last_beat, _ = await beat_of(postgres, heart.node)
        assert last_beat > busy_since
        assert heart.woke_at < 0


@pytest.mark.slow
async def test_a_node_whose_loop_hangs_is_silent_and_knows_it_afterwards(
    postgres: Postgres, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart = Heart(database_url, stuck_s=1.0)
    turns = asyncio.Event()
    turn = heart._turn

    async def hangs() -> None:
        await turns.wait()
        await turn()

    monkeypatch.setattr(heart, "_turn", hangs)
    async with heart.open(), asyncio.timeout(PATIENCE_S):
        while (await beat_of(postgres, heart.node))[1] < 2 * BEAT_S + STILL_S:
            await asyncio.sleep(0.1)
        assert time.monotonic() - heart.pulse_at > STILL_S
        turns.set()
        while heart.woke_at < 0:
            await asyncio.sleep(0.05)
        while (await beat_of(postgres, heart.node))[1] > BEAT_S:
            await asyncio.sleep(0.05)
