"""Nodes die, stand still and are replaced, and the storage goes away and comes back, while many are being answered.

No answer is ever wrong. Each ends, with `complete` or with an error that says to try again; each question is stored
once, and at most one answer to it.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import asyncpg
import pytest

from examples import client as example
from tests.clients import new_code, socket_client
from tests.faults.answer import Answer
from tests.faults.client import Client, Counts
from tests.faults.conftest import Ground, Table
from tests.faults.model import ScriptedModel, question, text_for
from tests.faults.nodes import Fleet, fleet
from tests.test_outages import Service, own_services

CLIENTS = 90
"""On three nodes. What is tested is what becomes of each run; more of them are more of the same."""

DELTAS, PER_S = 120, 15.0
"""Answers of eight seconds: time enough for something to happen in their middle."""

SHORT_DELTAS = 45
"""Answers of three seconds, where many are asked for one after the other."""

ARRIVAL_S = 4.0
"""Over so long the clients come that are there when a node is killed: some have just asked, some have not yet."""

KILLED_S = 3.0
"""After the first client's arrival."""

FROZEN_S = 20.0
"""A frozen node is taken over after six seconds; it thaws long after its answers ended elsewhere."""

RESTART_S = 2.0
"""How long storage is away that is restarted."""

LONG_S = 8.0
"""How long it is away when it moves to another machine: longer than the six seconds of a node's lease."""

UNLOGGED_CLIENTS = 4
UNLOGGED_FRAMES = 2_500
"""Sent while Valkey is away and in no log, when the node dies: a minute and a half of them at 25 a second."""

UNLOGGED_DELTAS, UNLOGGED_PER_S = 4_000, 500.0

PATIENCE_S = 60.0
"""A wait that ends here is an answer that never ended."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@dataclass(slots=True)
class Crowd:
    """Clients that ask one question each, and what they got."""

    counts: Counts
    questions: list[str]
    answers: list[Answer] = field(default_factory=list)
    tasks: list[asyncio.Task[Answer]] = field(default_factory=list)

    async def over(self) -> None:
        """Wait for all answers. Raises the first broken promise."""
        async with asyncio.timeout(PATIENCE_S):
            self.answers += await asyncio.gather(*self.tasks)


@contextlib.asynccontextmanager
async def crowd(
    name: str,
    urls: Sequence[str],
    *,
    arrival_s: float = 0.0,
    silence_s: Callable[[int], float | None] = lambda _number: 3.0,
) -> AsyncIterator[Crowd]:
    """Start asking, all at once or one after the other, over `arrival_s`."""
    asking = Crowd(Counts(), [question(f"{name}-{number}", deltas=DELTAS, per_s=PER_S) for number in range(CLIENTS)])

    async def ask(client: Client, number: int) -> Answer:
        await asyncio.sleep(arrival_s * number / CLIENTS)
        return await client.ask(asking.questions[number])

    async with contextlib.AsyncExitStack() as stack:
        for number in range(CLIENTS):
            client = await stack.enter_async_context(Client(urls, asking.counts, silence_s=silence_s(number)).open())
            asking.tasks.append(asyncio.create_task(ask(client, number)))
        try:
            yield asking
        finally:
            for task in asking.tasks:
                task.cancel()
            await asyncio.gather(*asking.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def three(ground: Ground, **settings: str) -> AsyncIterator[Fleet]:
    async with fleet(
        3,
        ground.folder,
        database_url=ground.database_url,
        redis_url=ground.redis_url,
        model_url=ground.model.url,
        **settings,
    ) as nodes:
        yield nodes


async def everybody_has_begun(asking: Crowd) -> None:
    """Wait until every answer is in its middle: each client has had some of it."""
    async with asyncio.timeout(PATIENCE_S):
        while asking.counts.chats < len(asking.questions) or asking.counts.frames < 10 * len(asking.questions):
            await asyncio.sleep(0.05)


async def everybody_is_back(asking: Crowd) -> None:
    """Wait until every client that was cut off follows its answer again."""
    async with asyncio.timeout(PATIENCE_S):
        while asking.counts.resumes < asking.counts.drops:
            await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Kept:
    """What PostgreSQL has of a question."""

    request_id: str
    question: str
    answers: list[str]
    finish_reason: str | None
    state: str
    epoch: int


async def kept(database_url: str) -> list[Kept]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            """
            SELECT asked.request_id, asked.content AS question, runs.state, runs.epoch,
                   array_remove(array_agg(answered.content), NULL) AS answers,
                   max(answered.finish_reason) AS finish_reason
            FROM chat.messages AS asked
            JOIN chat.runs ON runs.request_id = asked.request_id
            LEFT JOIN chat.messages AS answered
                ON answered.request_id = asked.request_id AND answered.role = 'assistant'
            WHERE asked.role = 'user'
            GROUP BY asked.request_id, asked.content, runs.state, runs.epoch
            """
        )
    finally:
        await connection.close()
    return [Kept(**row) for row in rows]


def check_kept(rows: Sequence[Kept], asking: Crowd) -> None:
    """Every question once; every answer at most once, and as the model said it or as far as an error let it."""
    assert Counter(row.question for row in rows) == Counter(asking.questions)
    by_question = {row.question: row for row in rows}
    for answer in asking.answers:
        row = by_question[answer.query]
        assert row.request_id == answer.request_id
        assert row.state in ("done", "failed"), row
        assert len(row.answers) <= 1
        if answer.stored is not None or (answer.end is not None and answer.end["type"] == "complete"):
            assert row.answers == [text_for(answer.query)], (row.request_id, row.state, answer.end)
        else:
            assert answer.end is not None
            assert answer.end["retryable"] is True, answer.end
            assert all(text_for(answer.query).startswith(partial) for partial in row.answers)


async def report(table: Table, asking: Crowd, model: ScriptedModel, started: float, **more: Any) -> Counter[str]:
    """Say what was counted; gives how often each question was asked of the model."""
    calls = await model.calls()
    theirs = Counter({asked: calls[asked] for asked in asking.questions})
    table(
        **asking.counts.figures(),
        calls_per_question=dict(sorted(Counter(theirs.values()).items())),
        **more,
        seconds=time.monotonic() - started,
    )
    return theirs


async def test_a_killed_nodes_answers_are_begun_anew_and_all_others_go_on(ground: Ground, table: Table) -> None:
    started = time.monotonic()
    async with three(ground) as nodes:
        async with crowd("杀", nodes.urls, arrival_s=ARRIVAL_S) as asking:
            await asyncio.sleep(KILLED_S)
            await nodes.kill(0)
            await asking.over()
        rows = await kept(ground.database_url)
        complaints = nodes.complaints()
    calls = await report(
        table, asking, ground.model, started, taken_over=sum(row.epoch > 1 for row in rows), complaints=len(complaints)
    )
    check_kept(rows, asking)
    restarted = {answer.query for answer in asking.answers if answer.restarts}
    assert asking.counts.answers + asking.counts.stored == CLIENTS
    assert restarted, "nobody was answered by the node that was killed"
    for row in rows:
        # Begun anew once, or never touched. Who died just after storing the question had not asked the model yet.
        assert calls[row.question] in ((1, 2) if row.epoch > 1 else (1,)), row
        assert row.epoch <= 2, row
        assert row.question not in restarted or row.epoch == 2, row
    assert complaints == []


async def test_a_frozen_node_that_thaws_says_nothing_of_what_others_took_over(ground: Ground, table: Table) -> None:
    started = time.monotonic()
    async with three(ground) as nodes:

        def patience(number: int) -> float | None:
            # Every second one waits on the frozen socket for as long as it takes: it must hear how it ended, once.
            return None if number % 2 else 3.0

        async with crowd("冻", nodes.urls, silence_s=patience) as asking:
            await everybody_has_begun(asking)
            nodes.nodes[0].freeze()
            await asyncio.sleep(FROZEN_S)
            nodes.nodes[0].thaw()
            await asking.over()
            # Whatever the thawed node still does, it does now: a frame after the last one would break a promise.
            await asyncio.sleep(3.0)
        rows = await kept(ground.database_url)
        complaints = nodes.complaints()
        alive = nodes.nodes[0].process.process.returncode is None
    calls = await report(
        table, asking, ground.model, started, taken_over=sum(row.epoch > 1 for row in rows), complaints=len(complaints)
    )
    check_kept(rows, asking)
    assert asking.counts.answers + asking.counts.stored == CLIENTS
    assert alive
    assert any(answer.restarts for answer in asking.answers)
    for row in rows:
        assert row.epoch <= 2, row
        assert calls[row.question] == row.epoch, row
        assert row.finish_reason == "stop"
    assert complaints == []


async def test_an_answer_can_be_cancelled_while_its_node_is_frozen(ground: Ground, table: Table) -> None:
    code, asked = new_code(), question("停", deltas=600, per_s=10.0)
    async with (
        three(ground) as nodes,
        socket_client(nodes.nodes[0].url) as here,
        socket_client(nodes.nodes[1].url) as there,
    ):
        await here.login(code)
        await there.login(code)
        await here.send({"type": "chat", "query": asked, "stream": True, "id": "long"})
        request_id = (await here.receive_until("chunk"))[-1]["request_id"]
        nodes.nodes[0].freeze()
        started = time.monotonic()
        accepted = await there.call({"type": "cancel", "chat_id": "long"})
        accepted_s = time.monotonic() - started
        assert accepted["data"] == {"request_id": request_id, "running": True}
        await there.send({"type": "resume", "request_id": request_id})
        followed = await there.receive_until("complete", "error")
        ended_s = time.monotonic() - started
        nodes.nodes[0].thaw()
        # The socket on the node that stood still hears the same end, and nothing after it.
        heard = await here.receive_until("complete", "error")
        assert (await here.call({"type": "ping"}))["type"] == "pong"
        rows = await kept(ground.database_url)
    table(cancelled_ms=1000 * accepted_s, ended_after_ms=1000 * ended_s, frames=len(followed))
    for frames in (followed, heard):
        assert (frames[-1]["type"], frames[-1]["finish_reason"]) == ("complete", "cancelled")
        assert text_for(asked).startswith(frames[-1]["answer"])
    assert followed[-1] == heard[-1]
    assert [(row.question, row.state) for row in rows] == [(asked, "done")]
    assert len(rows[0].answers) <= 1
    assert (await ground.model.calls())[asked] <= 2


async def a_code() -> str:
    return new_code()


async def test_a_deploy_of_all_nodes_costs_nobody_a_frame(ground: Ground, table: Table) -> None:
    started = time.monotonic()
    asking, deployed = Crowd(Counts(), []), asyncio.Event()

    async def ask_again_and_again(number: int) -> None:
        async with Client(nodes.urls, asking.counts, silence_s=None).open() as client:
            asked = 0
            while not deployed.is_set():
                asked += 1
                query = question(f"换-{number}-{asked}", deltas=SHORT_DELTAS, per_s=PER_S)
                asking.questions.append(query)
                asking.answers.append(await client.ask(query))

    async def ask_as_the_example_does() -> None:
        async with example.Client(nodes.socket_urls, get_code=a_code).open() as client:
            while not deployed.is_set():
                query = question(f"例-{asking.counts.answers}", deltas=SHORT_DELTAS, per_s=PER_S)
                asking.questions.append(query)
                assert (await client.ask(query).whole()).answer == text_for(query)
                asking.counts.answers += 1

    async with three(ground, rate_limit_chats_per_min="1000") as nodes:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as clients:
            clients.create_task(ask_as_the_example_does())
            for number in range(CLIENTS):
                clients.create_task(ask_again_and_again(number))
            while asking.counts.frames < 10 * CLIENTS:
                await asyncio.sleep(0.05)
            await nodes.roll()
            deployed.set()
        rows = await kept(ground.database_url)
        complaints = nodes.complaints()
    calls = await report(table, asking, ground.model, started, complaints=len(complaints))
    check_kept(rows, asking)
    assert len(asking.questions) > 2 * CLIENTS
    assert asking.counts.answers + asking.counts.stored == len(asking.questions)
    assert asking.counts.closes.keys() == {"1012"}
    # Nodes are given time to finish: nothing is begun anew.
    assert asking.counts.restarts == 0
    assert set(calls.values()) == {1}
    assert complaints == []


async def test_a_deploy_that_cannot_wait_hands_the_answers_over(ground: Ground, table: Table) -> None:
    started = time.monotonic()
    async with three(ground, drain_timeout_s="0.5") as nodes:
        async with crowd("急", nodes.urls, silence_s=lambda _number: None) as asking:
            await everybody_has_begun(asking)
            nodes.nodes[0].terminate()
            nodes.proxies[0].target = None
            assert await nodes.nodes[0].ended() == 0
            await nodes.replace(0)
            await asking.over()
        rows = await kept(ground.database_url)
        complaints = nodes.complaints()
    calls = await report(
        table, asking, ground.model, started, taken_over=sum(row.epoch > 1 for row in rows), complaints=len(complaints)
    )
    check_kept(rows, asking)
    assert asking.counts.answers + asking.counts.stored == CLIENTS
    assert any(answer.restarts for answer in asking.answers)
    assert all(calls[row.question] == row.epoch <= 2 for row in rows)
    assert complaints == []


async def test_who_had_much_that_no_log_has_hears_of_the_new_beginning(
    data_dir: Path, scripted: ScriptedModel, table: Table
) -> None:
    started = time.monotonic()
    with own_services(data_dir / "unlogged") as (services, _postgres, valkey):
        assert services.database_url is not None
        assert services.redis_url is not None
        ground = Ground(data_dir / "unlogged" / "nodes", services.database_url, services.redis_url, scripted)
        asking = Crowd(Counts(), [])
        async with three(ground, roll_up_ms="0") as nodes, contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(Client(nodes.urls[:1], asking.counts, silence_s=3.0).open())
                for _ in range(UNLOGGED_CLIENTS)
            ]
            for number, client in enumerate(clients):
                query = question(f"没记-{number}", deltas=UNLOGGED_DELTAS, per_s=UNLOGGED_PER_S)
                asking.questions.append(query)
                asking.answers.append(client.begin(query))
            async with asyncio.timeout(PATIENCE_S):
                while not all(answer.seq for answer in asking.answers):
                    await asyncio.sleep(0.02)
                await asyncio.to_thread(valkey.stop)
                while not all(answer.seq > UNLOGGED_FRAMES for answer in asking.answers):
                    await asyncio.sleep(0.02)
                await nodes.kill(0)
                for client in clients:
                    client.urls = nodes.urls[1:]
                valkey.start()
                try:
                    for client, answer in zip(clients, asking.answers, strict=True):
                        await client.over(answer)
                finally:
                    await report(table, asking, scripted, started, seqs=[answer.seq for answer in asking.answers])
        rows = await kept(ground.database_url)
    check_kept(rows, asking)
    assert asking.counts.answers + asking.counts.stored == UNLOGGED_CLIENTS
    assert all(answer.restarts == 1 for answer in asking.answers)


@dataclass(frozen=True, slots=True)
class Outage:
    """What goes away, how, and for how long."""

    store: Literal["valkey", "postgresql"]
    is_killed: bool
    away_s: float

    def begin(self, service: Service) -> None:
        if self.is_killed:
            # What it has not written to its file is lost: up to a second.
            assert service._process is not None
            service._process.kill()
            service._process.wait(PATIENCE_S)
            service._process = None
        else:
            service.stop()


OUTAGES = {
    "valkey-restarted": Outage("valkey", is_killed=False, away_s=RESTART_S),
    "valkey-killed": Outage("valkey", is_killed=True, away_s=RESTART_S),
    "postgresql-restarted": Outage("postgresql", is_killed=False, away_s=RESTART_S),
    "postgresql-away-for-longer": Outage("postgresql", is_killed=False, away_s=LONG_S),
}


@pytest.mark.parametrize("name", OUTAGES)
async def test_storage_that_goes_and_comes_back_costs_no_answer_and_doubles_none(
    name: str, data_dir: Path, scripted: ScriptedModel, table: Table
) -> None:
    started, outage = time.monotonic(), OUTAGES[name]
    with own_services(data_dir / name) as (services, postgres, valkey):
        assert services.database_url is not None
        assert services.redis_url is not None
        ground = Ground(data_dir / name / "nodes", services.database_url, services.redis_url, scripted)
        service = valkey if outage.store == "valkey" else postgres
        async with three(ground) as nodes:
            async with crowd(name, nodes.urls) as asking:
                await everybody_has_begun(asking)
                # Some follow from another node than the one that answers: it is those that need the store.
                for proxy in nodes.proxies:
                    proxy.cut_some(0.5)
                await everybody_is_back(asking)
                await asyncio.to_thread(outage.begin, service)
                await asyncio.sleep(outage.away_s / 2)
                # Who is cut off meanwhile comes back to nodes that cannot ask anybody.
                for proxy in nodes.proxies:
                    proxy.cut_some(0.3)
                await asyncio.sleep(outage.away_s / 2)
                service.start()
                await asking.over()
            rows = await kept(ground.database_url)
            complaints = nodes.complaints()
    calls = await report(
        table, asking, ground.model, started, taken_over=sum(row.epoch > 1 for row in rows), complaints=len(complaints)
    )
    check_kept(rows, asking)
    assert sum(asking.counts.errors.values()) + asking.counts.answers + asking.counts.stored == CLIENTS
    # The nodes live: nothing need be begun anew because a store was away.
    assert set(calls.values()) == {1}
    assert complaints == []
