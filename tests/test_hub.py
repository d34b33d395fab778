"""Runs: roll-up, order, followers here and on other nodes, outboxes that fill, logs that wait for Redis."""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import pytest
from pydantic_core import from_json
from websockets.exceptions import ConnectionClosed

import wsserver.tails
from protocol.chat import Complete, Restart, Status
from protocol.errors import MODEL_INTERRUPTED, RUN_NOT_FOUND, STORAGE_UNAVAILABLE, OperationError
from storage.embedded import Services
from storage.ownership import RunTable
from storage.postgres import Postgres
from storage.redis import RUN_LOG, RUN_META, Redis
from storage.runs import Appended, Entry, LoggedFrame, RunLogs
from tests.clients import PATIENCE_S, socket_client
from tests.conftest import ModelNode
from tests.standins.llm import rate
from wsserver.feed import Feed, Follower
from wsserver.heart import Heart
from wsserver.hub import Hub, Run, StoppedError
from wsserver.outbox import Outbox
from wsserver.ownership import Ownership
from wsserver.telemetry import Metrics


def name() -> str:
    return uuid.uuid4().hex


@pytest.fixture
async def hub(redis: Redis) -> AsyncIterator[Hub]:
    async with Hub(RunLogs(redis), Metrics(), roll_up_s=0.04, deadline_s=1.0).open() as opened:
        yield opened


def start(hub: Hub, name: str, make: Callable[[Run], Awaitable[None]], **options: int) -> Run:
    run = Run(hub, request_id=name, user_id="wx_a", message_id=None, **options)

    async def whole(run: Run) -> None:
        async with run.making():
            await make(run)
        run.publish(Complete("", None, "stop", None))

    hub.start(run, whole)
    return run


class Watcher:
    """A follower that remembers what it got."""

    def __init__(self, feed: Feed, after_seq: int = 0) -> None:
        self.frames: list[LoggedFrame] = []
        self.ended = asyncio.Event()
        self.unfollow = feed.follow(
            Follower(self.frames.append, self._room, after_seq=after_seq, on_last=self.ended.set)
        )

    async def _room(self, _size_bytes: int) -> None:
        return

    async def all(self) -> list[LoggedFrame]:
        async with asyncio.timeout(PATIENCE_S):
            await self.ended.wait()
        return self.frames

    def texts(self) -> list[str]:
        frames = [from_json(frame.encoded) for frame in self.frames]
        return [frame["content"] for frame in frames if frame["type"] == "chunk"]


async def test_the_first_words_leave_at_once_and_later_ones_are_gathered(hub: Hub) -> None:
    async def make(run: Run) -> None:
        run.text("first")
        assert watcher.texts() == ["first"]
        for number in range(100):
            run.text(f" {number}")
        assert watcher.texts() == ["first"]

    watcher = Watcher(start(hub, name(), make))
    await watcher.all()
    assert "".join(watcher.texts()) == "first" + "".join(f" {number}" for number in range(100))
    assert len(watcher.texts()) == 2
    assert [frame.seq for frame in watcher.frames] == [1, 2, 3]
    assert [frame.last for frame in watcher.frames] == [False, False, True]


async def test_held_back_words_leave_by_themselves(hub: Hub) -> None:
    go_on = asyncio.Event()

    async def make(run: Run) -> None:
        run.text("first")
        run.text("second")
        await go_on.wait()

    watcher = Watcher(start(hub, name(), make))
    async with asyncio.timeout(PATIENCE_S):
        while watcher.texts() != ["first", "second"]:
            await asyncio.sleep(0.01)
    go_on.set()
    await watcher.all()


async def test_words_held_back_after_a_frame_that_took_earlier_ones_along_leave_by_themselves_too(hub: Hub) -> None:
    go_on = asyncio.Event()

    async def make(run: Run) -> None:
        run.text("first")
        run.text("second")
        run.publish(Status("generation", {}))
        run.text("third")
        await go_on.wait()

    watcher = Watcher(start(hub, name(), make))
    async with asyncio.timeout(PATIENCE_S):
        while watcher.texts() != ["first", "second", "third"]:
            await asyncio.sleep(0.01)
    go_on.set()
    assert [frame.seq for frame in await watcher.all()] == [1, 2, 3, 4, 5]


async def test_on_a_busy_node_a_maker_rests_and_what_it_says_then_goes_along(hub: Hub) -> None:
    hub.roll_up.pace.look(elapsed_s=1.0, busy_s=1.0, late_s=0.0)
    go_on = asyncio.Event()

    async def make(run: Run) -> None:
        assert run.text("first") is None
        rest = run.text("second")
        assert rest is not None
        await rest
        assert watcher.texts() == ["first"]
        assert run.text("third") is None
        await go_on.wait()

    watcher = Watcher(start(hub, name(), make))
    async with asyncio.timeout(PATIENCE_S):
        while watcher.texts() != ["first", "secondthird"]:
            await asyncio.sleep(0.01)
    go_on.set()
    assert [frame.seq for frame in await watcher.all()] == [1, 2, 3]


class Clock:
    """The time of whoever is given it for `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("read_at", "ticks"),
    [
        (100.081, [100.07, 100.081, 100.085, 100.091]),
        (100.096, [100.07, 100.081, 100.085, 100.091, 100.096, 100.101]),
        (None, [100.07, 100.081, 100.085, 100.091, 100.092, 100.093, 100.094, 100.095]),
        (None, [100.07, 100.081, 100.085, 100.091, 100.111]),
        (None, [100.07, 100.3, 100.4]),
    ],
    ids=["read before the frame is due", "read late", "never read", "waited for too long", "the loop stood still"],
)
async def test_a_frame_waits_some_ticks_for_what_its_maker_reads_after_a_rest(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, read_at: float | None, ticks: list[float]
) -> None:
    monkeypatch.setattr("wsserver.hub.time", clock := Clock())
    hub.roll_up.pace.look(elapsed_s=1.0, busy_s=1.0, late_s=0.0)
    watcher = Watcher(run := Run(hub, request_id=name(), user_id="wx_a", message_id=None))
    run.text("first")
    clock.now = 100.02
    rest = run.text("second")
    assert rest is not None
    for clock.now in ticks:
        assert watcher.texts() == ["first"]
        run.release(clock.now)
        assert rest.done() == (clock.now >= 100.08)
        if clock.now == read_at:
            assert run.text("third") is None
    assert watcher.texts() == ["first", "second" if read_at is None else "secondthird"]


async def test_a_maker_that_rests_goes_on_when_another_frame_takes_its_text_along(hub: Hub) -> None:
    hub.roll_up.pace.look(elapsed_s=1.0, busy_s=1.0, late_s=0.0)

    async def make(run: Run) -> None:
        run.text("first")
        rest = run.text("second")
        assert rest is not None
        run.publish(Status("generation", {}))
        assert rest.done()
        run.text("third")

    watcher = Watcher(start(hub, name(), make))
    await watcher.all()
    assert watcher.texts() == ["first", "second", "third"]


async def test_a_maker_that_rests_is_stopped_at_once_and_keeps_what_it_said(hub: Hub) -> None:
    hub.roll_up.pace.look(elapsed_s=1.0, busy_s=1.0, late_s=0.0)
    stopped = asyncio.Event()

    async def make(run: Run) -> None:
        try:
            async with run.making():
                run.text("first")
                rest = run.text("second")
                assert rest is not None
                run.stop("cancelled")
                await rest
        except StoppedError as error:
            assert error.stop == "cancelled"
            stopped.set()
        run.publish(Complete("firstsecond", None, "cancelled", None))

    run = Run(hub, request_id=name(), user_id="wx_a", message_id=None)
    hub.start(run, make)
    watcher = Watcher(run)
    await watcher.all()
    assert stopped.is_set()
    assert watcher.texts() == ["first", "second"]


async def test_words_that_are_dropped_are_never_shown_and_later_ones_are(hub: Hub) -> None:
    async def make(run: Run) -> None:
        run.text("first")
        run.text("second")
        run.drop_text()
        run.text("third")

    watcher = Watcher(start(hub, name(), make))
    await watcher.all()
    assert watcher.texts() == ["first", "third"]


async def test_a_follower_that_leaves_while_it_is_handed_a_frame_costs_the_others_none(hub: Hub) -> None:
    async def make(run: Run) -> None:
        for number in range(3):
            run.publish(Status("generation", {"number": number}))

    run = start(hub, name(), make)
    had: list[int] = []

    def put(frame: LoggedFrame) -> None:
        had.append(frame.seq)
        leave()

    async def room(_size_bytes: int) -> None:
        return

    before, leave, after = Watcher(run), run.follow(Follower(put, room)), Watcher(run)
    assert [frame.seq for frame in await before.all()] == [1, 2, 3, 4]
    assert [frame.seq for frame in await after.all()] == [1, 2, 3, 4]
    assert had == [1]


async def test_a_late_follower_gets_what_it_missed_and_then_the_rest(hub: Hub) -> None:
    go_on = asyncio.Event()

    async def make(run: Run) -> None:
        run.text("one")
        await go_on.wait()
        run.text("two")

    run = start(hub, name(), make)
    early = Watcher(run)
    await asyncio.sleep(0)
    late, after_one = Watcher(run), Watcher(run, after_seq=1)
    early.unfollow()
    go_on.set()
    assert [frame.seq for frame in await late.all()] == [1, 2, 3]
    assert [frame.seq for frame in await after_one.all()] == [2, 3]
    assert early.texts() == ["one"]
    after_the_end = Watcher(run, after_seq=3)
    assert await after_the_end.all() == []


async def test_a_long_answer_is_replayed_in_pages_while_it_goes_on(hub: Hub) -> None:
    go_on = asyncio.Event()

    async def make(run: Run) -> None:
        for number in range(450):
            run.publish(Status("generation", {"number": number}))
        await go_on.wait()
        for number in range(450, 500):
            run.publish(Status("generation", {"number": number}))
            await asyncio.sleep(0)

    run = start(hub, name(), make)
    await asyncio.sleep(0)
    watchers = [Watcher(run, after_seq=seq) for seq in (0, 100, 449)]
    go_on.set()
    for watcher, seq in zip(watchers, (0, 100, 449), strict=True):
        assert [frame.seq for frame in await watcher.all()] == list(range(seq + 1, 502))


async def test_another_node_follows_by_the_log_without_gap_or_double(redis: Redis, hub: Hub) -> None:
    async with Hub(RunLogs(redis), Metrics(), roll_up_s=0.0, deadline_s=60).open() as elsewhere:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def make(run: Run) -> None:
            for number in range(300):
                run.text(f"{number} ")
                if number == 20:
                    begun.set()
                    await go_on.wait()
                await asyncio.sleep(0.002)

        run = start(elsewhere, name(), make)
        await begun.wait()
        there = Watcher(run)
        here = [Watcher(await hub.feed(run.request_id)), Watcher(await hub.feed(run.request_id), after_seq=10)]
        go_on.set()
        whole = await there.all()
        assert await here[0].all() == whole
        assert await here[1].all() == whole[10:]
    assert [frame.seq for frame in whole] == list(range(1, len(whole) + 1))
    ended = Watcher(await hub.feed(run.request_id), after_seq=len(whole) - 2)
    assert await ended.all() == whole[-2:]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OperationError(MODEL_INTERRUPTED), "model_interrupted"),
        (RuntimeError("an inside"), "internal"),
        (TimeoutError("somebody else's"), "internal"),
    ],
)
async def test_a_run_that_fails_ends_with_its_error(hub: Hub, error: Exception, reason: str) -> None:
    async def make(run: Run) -> None:
        run.text("so far")
        raise error

    last = (await Watcher(start(hub, name(), make)).all())[-1]
    said = from_json(last.encoded)
    assert (said["type"], said["reason"], last.last) == ("error", reason, True)
    assert "inside" not in str(said)


async def test_a_run_over_its_deadline_is_ended(hub: Hub) -> None:
    async def make(_run: Run) -> None:
        await asyncio.Event().wait()

    last = (await Watcher(start(hub, name(), make)).all())[-1]
    assert from_json(last.encoded)["reason"] == "deadline_exceeded"


async def test_each_runs_owner_hears_of_its_first_follower_elsewhere_however_lately_it_heard_of_others(
    hub: Hub, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsserver.tails, "WATCH_S", 3600.0)
    logs = RunLogs(redis)
    for run in (name(), name()):
        await logs.own(run, 1, {"user_id": "wx_a", "state": "running"})
        Watcher(await hub.feed(run))
        async with asyncio.timeout(PATIENCE_S):
            while "watched" not in await logs.meta(run):
                await asyncio.sleep(0.01)


async def test_a_stopped_hub_gives_its_runs_up_without_a_word_and_takes_no_more(redis: Redis) -> None:
    put_away = asyncio.Event()

    async def make(_run: Run) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            put_away.set()

    async with Hub(RunLogs(redis), Metrics(), roll_up_s=0.04, deadline_s=60).open() as hub:
        run = start(hub, name(), make)
        await asyncio.sleep(0)
        hub.start_draining()
        with pytest.raises(OperationError, match="draining"):
            hub.accepts_runs()
        assert await hub.drained(0.01) == 1
    assert put_away.is_set()
    assert (await RunLogs(redis).meta(run.request_id))["state"] == "handed over"
    assert await RunLogs(redis).read(run.request_id, 0) == []


async def test_a_drain_waits_for_answers_that_began_after_it(hub: Hub) -> None:
    first_may_end, second_may_end = asyncio.Event(), asyncio.Event()

    async def make_first(_run: Run) -> None:
        await first_may_end.wait()

    async def make_second(_run: Run) -> None:
        await second_may_end.wait()

    start(hub, name(), make_first)
    draining = asyncio.create_task(hub.drained(PATIENCE_S))
    await asyncio.sleep(0)
    second = start(hub, name(), make_second)
    first_may_end.set()
    async with asyncio.timeout(PATIENCE_S):
        while hub.owned() != (second,):
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not draining.done()
    second_may_end.set()
    assert await draining == 0


async def test_the_log_waits_for_redis_and_holds_every_frame_once(redis: Redis) -> None:
    class Away(RunLogs):
        failures = 3

        async def append(self, entries: Sequence[Entry]) -> list[Appended]:
            results = await super().append(entries)
            if self.failures:
                # Written, and the answer lost: the repetition must not add it again.
                self.failures -= 1
                raise OperationError(STORAGE_UNAVAILABLE)
            return results

    async def make(run: Run) -> None:
        for word in ("a", "b", "c"):
            run.text(word)
            await asyncio.sleep(0.3)

    async with Hub(Away(redis), Metrics(), roll_up_s=0.0, deadline_s=60).open() as hub:
        run = start(hub, name(), make)
        await Watcher(run).all()
    logged = await RunLogs(redis).read(run.request_id, 0)
    assert [frame.seq for frame in logged] == [1, 2, 3, 4]


@pytest.mark.parametrize("lost", ["the log", "everything"])
async def test_what_redis_lost_is_logged_again(redis: Redis, lost: str) -> None:
    logs, go_on = RunLogs(redis), asyncio.Event()

    async def make(run: Run) -> None:
        for word in ("a", "b", "c"):
            run.text(word)
            await asyncio.sleep(0.3)
        await go_on.wait()
        run.text("d")

    async with Hub(logs, Metrics(), roll_up_s=0.0, deadline_s=60).open() as hub:
        run = start(hub, name(), make)
        async with asyncio.timeout(PATIENCE_S):
            while len(await logs.read(run.request_id, 0)) < 3:
                await asyncio.sleep(0.02)
        await redis.delete(RUN_LOG(run.request_id), *([RUN_META(run.request_id)] if lost == "everything" else []))
        go_on.set()
        await Watcher(run).all()
    assert [frame.seq for frame in await logs.read(run.request_id, 0)] == [1, 2, 3, 4, 5]


async def test_an_owner_that_lost_its_run_can_add_nothing_and_its_followers_go_on_with_the_new_one(
    redis: Redis, hub: Hub
) -> None:
    logs, told, go_on = RunLogs(redis), asyncio.Event(), asyncio.Event()

    async def make(run: Run) -> None:
        run.text("from the first owner")
        await told.wait()
        run.text(" and too late")
        await go_on.wait()

    async def make_again(run: Run) -> None:
        run.publish(Restart("node_lost"))
        run.text("from the second owner")

    async with Hub(logs, Metrics(), roll_up_s=0.0, deadline_s=60).open() as first:
        run = start(first, name(), make)
        watcher = Watcher(run)
        async with asyncio.timeout(PATIENCE_S):
            while not await logs.read(run.request_id, 0):
                await asyncio.sleep(0.02)
        logged_seq = await logs.own(run.request_id, 2, {"user_id": "wx_a"})
        told.set()
        again = start(hub, run.request_id, make_again, epoch=2, first_seq=logged_seq + 1000, logged_seq=logged_seq)
        await watcher.all()
        assert run.fenced
        go_on.set()
    assert watcher.frames[-1].seq > 1000
    everything = await Watcher(again).all()
    assert [from_json(frame.encoded)["type"] for frame in everything] == ["chunk", "restart", "chunk", "complete"]
    assert [frame.seq for frame in everything] == [1, 1001, 1002, 1003]
    assert "too late" not in str([frame.encoded for frame in await logs.read(run.request_id, 0)])


async def test_an_entry_is_taken_only_after_the_one_before_it_and_from_the_owner(redis: Redis) -> None:
    logs, run = RunLogs(redis), name()
    assert await logs.own(run, 1, {"user_id": "wx_a"}) == 0

    async def append(epoch: int, after: int, last: int) -> Appended:
        frames = [str(seq).encode() for seq in range(after + 1, last + 1)]
        return (await logs.append([Entry(run, epoch, after, last, frames)]))[0]

    assert (await append(1, 0, 3)).outcome == "added"
    assert (await append(1, 0, 3)).outcome == "there"
    assert await append(1, 5, 6) == Appended("gap", at=3)
    assert (await append(1, 3, 5)).outcome == "added"
    assert await logs.own(run, 2, {"user_id": "wx_a"}) == 5
    assert (await append(1, 5, 6)).outcome == "fenced"
    assert [(frame.seq, frame.encoded) for frame in await logs.read(run, 1)] == [
        (2, b"2"),
        (3, b"3"),
        (4, b"4"),
        (5, b"5"),
    ]


async def test_an_outbox_that_is_full_empties_and_stays_closed() -> None:
    outbox = Outbox(limit_bytes=10)
    assert outbox.put(b"12345")
    assert outbox.put(b"67890")
    assert not outbox.overflowed
    assert not outbox.put(b"!")
    assert outbox.overflowed
    assert await outbox.take() == []
    assert not outbox.put(b"1")


async def test_one_frame_over_the_limit_fits_when_nothing_waits() -> None:
    outbox = Outbox(limit_bytes=10)
    assert outbox.put(b"a long page of history")
    assert await outbox.take() == [b"a long page of history"]
    assert outbox.put(b"and the next")


async def test_an_outbox_gives_all_that_waits_and_after_closing_the_rest() -> None:
    outbox = Outbox()
    outbox.put(b"a")
    outbox.put(b"b")
    assert await outbox.take() == [b"a", b"b"]
    outbox.put(b"c")
    outbox.close()
    assert not outbox.put(b"d")
    assert await outbox.take() == [b"c"]
    assert await outbox.take() == []


@pytest.mark.slow
async def test_a_client_that_does_not_read_is_given_up_and_its_answer_is_not(model_node: ModelNode) -> None:
    # 9 MB in 3 s: more than the kernel's buffers on both sides (4 MiB at most to send, 4 KiB here to receive).
    model_node.model.queue(rate(500, 1_500, "电影" * 1_000))
    host = urlsplit(model_node.url)
    stuck = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    stuck.connect((host.hostname, host.port))
    code = model_node.wechat.issue_code()
    async with socket_client(model_node.url, sock=stuck, max_queue=1) as client:
        await client.login(code)
        await client.send({"type": "chat", "query": "很长的回答", "stream": True})
        async with socket_client(model_node.url, max_size=None) as other:
            await other.login(code)
            async with asyncio.timeout(30):
                while len(history := (await other.call({"type": "history"}))["data"]["items"]) < 2:
                    await asyncio.sleep(0.2)
        assert history[1]["content"] == "电影" * 1_500_000
        metrics = model_node.node.node.sockets.metrics
        assert metrics.registry.get_sample_value("cinewire_outbox_overflows_total") == 1
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.receive()
        # It is told why, unless it did not read for so long that it was dropped.
        assert await client.closed() in (4005, 1006)


async def test_an_end_that_came_too_late_to_be_stored_holds_nothing_up(
    hub: Hub, postgres: Postgres, services: Services
) -> None:
    ownership = Ownership(RunTable(postgres), hub, Heart(services.database_url or ""))
    tried = asyncio.Event()

    async def taken_by_another() -> None:
        tried.set()
        raise OperationError(RUN_NOT_FOUND)

    stored = asyncio.Event()

    async def still_ours() -> None:
        stored.set()

    ownership.settle_later("theirs", taken_by_another)
    ownership.settle_later("ours", still_ours)
    async with ownership.open(), asyncio.timeout(PATIENCE_S):
        await tried.wait()
        await stored.wait()


async def test_there_is_room_for_a_long_frame_when_nothing_waits_any_more() -> None:
    outbox = Outbox(limit_bytes=100)
    outbox.put(b"." * 30)
    async with asyncio.timeout(PATIENCE_S):
        await outbox.room(20)
    waiting = [asyncio.create_task(outbox.room(90)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    await outbox.take()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*waiting)


async def test_replays_of_long_frames_beside_each_other_never_fill_the_outbox(hub: Hub) -> None:
    outbox = Outbox(limit_bytes=10_000)
    ended = [asyncio.Event() for _ in range(3)]

    async def make(run: Run) -> None:
        for _ in range(10):
            run.publish(Status("generation", {"text": "." * 1_000}))
        run.publish(Status("generation", {"text": "." * 9_000}))

    runs = [start(hub, name(), make) for _ in ended]
    for run in runs:
        await Watcher(run).all()

    def put(frame: LoggedFrame) -> None:
        outbox.put(frame.encoded)

    for run, over in zip(runs, ended, strict=True):
        run.follow(Follower(put, outbox.room, on_last=over.set))
    taken = 0
    async with asyncio.timeout(PATIENCE_S):
        while not all(over.is_set() for over in ended) or taken < 36:
            taken += len(await outbox.take())
            await asyncio.sleep(0)
    assert not outbox.overflowed
    assert taken == 36
