"""Runs: roll-up, order, followers, outboxes that fill, and logs that wait for Redis."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed

from protocol.chat import ChatAccepted, ChatReply, Complete
from protocol.errors import MODEL_INTERRUPTED, STORAGE_UNAVAILABLE, OperationError
from storage.redis import Redis
from storage.runs import Entry, RunLogs
from tests.clients import socket_client
from tests.conftest import ModelNode
from tests.standins.llm import rate
from wsserver.hub import Hub, Published, Run
from wsserver.outbox import Outbox
from wsserver.telemetry import Metrics


@pytest.fixture
async def hub(redis: Redis) -> AsyncIterator[Hub]:
    async with Hub(RunLogs(redis), Metrics(), roll_up_s=0.04, deadline_s=1.0).open() as opened:
        yield opened


def start(hub: Hub, name: str, make: Callable[[Run[ChatReply]], Awaitable[None]]) -> Run[ChatReply]:
    accepted = ChatAccepted(request_id=name, conversation_id=None)
    run: Run[ChatReply] = Run(hub, request_id=name, user_id="wx_a", message_id=None, accepted=accepted)

    async def whole(run: Run[ChatReply]) -> ChatReply:
        async with run.making():
            await make(run)
        run.publish(Complete("", None, "stop", None), last=True)
        return ChatReply(msg="", id=None, session_id="s", conversation_id=None, request_id=name)

    hub.start(run, whole, {})
    return run


def texts(frames: list[Published]) -> list[str]:
    return [str(frame.frame.wire()["content"]) for frame in frames if frame.frame.TYPE == "chunk"]


async def test_the_first_words_leave_at_once_and_later_ones_are_gathered(hub: Hub) -> None:
    seen: list[Published] = []

    async def make(run: Run[ChatReply]) -> None:
        run.text("first")
        assert texts(seen) == ["first"]
        for number in range(100):
            run.text(f" {number}")
        assert texts(seen) == ["first"]

    run = start(hub, "roll-up", make)
    run.follow(seen.append)
    await run.reply
    assert "".join(texts(seen)) == "first" + "".join(f" {number}" for number in range(100))
    assert len(texts(seen)) == 2
    assert [frame.seq for frame in seen] == [1, 2, 3]
    assert [frame.last for frame in seen] == [False, False, True]


async def test_held_back_words_leave_by_themselves(hub: Hub) -> None:
    arrived = asyncio.Event()

    async def make(run: Run[ChatReply]) -> None:
        run.text("first")
        run.text("second")
        await arrived.wait()

    run = start(hub, "held-back", make)
    run.follow(lambda frame: arrived.set() if frame.seq == 2 else None)
    async with asyncio.timeout(5):
        await run.reply


async def test_a_late_follower_gets_what_it_missed_and_then_the_rest(hub: Hub) -> None:
    go_on = asyncio.Event()
    early: list[Published] = []
    late: list[Published] = []

    async def make(run: Run[ChatReply]) -> None:
        run.text("one")
        await go_on.wait()
        run.text("two")

    run = start(hub, "late", make)
    unfollow = run.follow(early.append)
    await asyncio.sleep(0)
    run.follow(late.append)
    after_one: list[Published] = []
    run.follow(after_one.append, after_seq=1)
    unfollow()
    go_on.set()
    await run.reply
    assert texts(early) == ["one"]
    assert [frame.seq for frame in late] == [1, 2, 3]
    assert [frame.seq for frame in after_one] == [2, 3]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OperationError(MODEL_INTERRUPTED), "model_interrupted"),
        (RuntimeError("an inside"), "internal"),
        (TimeoutError("somebody else's"), "internal"),
    ],
)
async def test_a_run_that_fails_ends_with_its_error(hub: Hub, error: Exception, reason: str) -> None:
    async def make(run: Run[ChatReply]) -> None:
        run.text("so far")
        raise error

    seen: list[Published] = []
    run = start(hub, f"fails {reason}", make)
    run.follow(seen.append)
    with pytest.raises(OperationError) as failed:
        await run.reply
    assert failed.value.kind.reason == reason
    last = seen[-1].frame.wire()
    assert (seen[-1].frame.TYPE, last["reason"], seen[-1].last) == ("error", reason, True)
    assert "inside" not in str(last)


async def test_a_run_over_its_deadline_is_ended(hub: Hub) -> None:
    async def make(_run: Run[ChatReply]) -> None:
        await asyncio.Event().wait()

    with pytest.raises(OperationError) as late:
        await start(hub, "endless", make).reply
    assert late.value.kind.reason == "deadline_exceeded"


async def test_a_stopped_hub_lets_runs_put_away_what_they_have_and_takes_no_more(redis: Redis) -> None:
    put_away = asyncio.Event()

    async def make(_run: Run[ChatReply]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            put_away.set()

    async with Hub(RunLogs(redis), Metrics(), roll_up_s=0.04, deadline_s=60).open() as hub:
        run = start(hub, "stopped", make)
        await asyncio.sleep(0)
        hub.start_draining()
        with pytest.raises(OperationError, match="draining"):
            hub.accepts_runs()
        assert await hub.drained(0.01) == 1
    assert put_away.is_set()
    with pytest.raises(OperationError, match="draining"):
        run.reply.result()
    assert (await RunLogs(redis).meta("stopped"))["state"] == "draining"
    assert len(await RunLogs(redis).read("stopped", 0)) == 1


async def test_the_log_waits_for_redis_and_holds_every_frame_once(redis: Redis) -> None:
    class Away(RunLogs):
        failures = 2

        async def write(self, metas: object, entries: object) -> None:
            await super().write(metas, entries)  # type: ignore[arg-type]
            if self.failures:
                # Written, and the answer lost: the repetition must not add it again.
                self.failures -= 1
                raise OperationError(STORAGE_UNAVAILABLE)

    async def make(run: Run[ChatReply]) -> None:
        for word in ("a", "b", "c"):
            run.text(word)
            await asyncio.sleep(0.05)

    async with Hub(Away(redis), Metrics(), roll_up_s=0.0, deadline_s=60).open() as hub:
        await start(hub, "log-waits", make).reply
    logged = await RunLogs(redis).read("log-waits", 0)
    assert [frame.seq for frame in logged] == [1, 2, 3, 4]


async def test_an_entry_that_goes_back_is_left_out_by_redis(redis: Redis) -> None:
    logs = RunLogs(redis)
    await logs.write({"back": {"user_id": "wx_a"}}, [Entry("back", 3, [b"1", b"2", b"3"])])
    await logs.write({}, [Entry("back", 2, [b"x", b"y"]), Entry("back", 5, [b"4", b"5"])])
    assert [(frame.seq, frame.encoded) for frame in await logs.read("back", 1)] == [
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
        assert await client.closed() == 4005
