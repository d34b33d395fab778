"""Logs that lag behind or lost their end: who follows a run by its log misses nothing, and is told nothing else."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import pytest

from protocol.chat import Chunk, Complete, Restart
from protocol.envelope import Frame
from storage.redis import Redis
from storage.runs import Entry, LoggedFrame, RunLogs
from tests.clients import PATIENCE_S
from wsserver.feed import Follower
from wsserver.hub import Hub
from wsserver.tails import Tail
from wsserver.telemetry import Metrics

RUN = "log-loss"
LEFT, HAD, LAST = 90, 100, 101
"""What the log has left, what one follower has had, and where the owner stands."""

LAG_S = 4.0
"""How far the log lags behind the end of its run: a node that is busy for some seconds."""


def frame(seq: int) -> LoggedFrame:
    return LoggedFrame(seq, b'{"type":"chunk","seq":%d}' % seq)


async def log(logs: RunLogs, name: str, after_seq: int, last_seq: int) -> None:
    """As the run's owner does, after it found out how far the log is."""
    encoded = [frame(seq).encoded for seq in range(after_seq + 1, last_seq + 1)]
    (result,) = await logs.append([Entry(name, 1, after_seq, last_seq, encoded)])
    assert result.outcome == "added"


async def at_once(_size_bytes: int) -> None:
    """There is always room."""


async def ended(request_ids: Sequence[str]) -> Mapping[str, Sequence[Frame]]:
    """All of them are over, as far as PostgreSQL knows."""
    end: list[Frame] = [Restart("log_lost"), Chunk("whole"), Complete("whole", None, "stop", None)]
    return dict.fromkeys(request_ids, end)


@pytest.mark.slow
async def test_what_was_sent_under_a_seq_is_what_the_log_has_under_it(redis: Redis) -> None:
    name = f"{RUN}-lags"
    logs, sent = RunLogs(redis), dict[int, bytes]()
    await logs.own(name, 1, {"user_id": "u", "state": "running"})
    await log(logs, name, 0, LEFT)
    async with Hub(logs, Metrics(), roll_up_s=0.04, deadline_s=300).open() as hub, asyncio.timeout(PATIENCE_S):
        # The run has ended, and its owner is so busy that the log does not say so for a while.
        hub.tails.endings = ended
        feed = await hub.feed(name)
        feed.follow(Follower(lambda one: sent.update({one.seq: one.encoded}), at_once, after_seq=LEFT))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAG_S):
                while not sent:
                    await asyncio.sleep(0.05)
        await log(logs, name, LEFT, LAST)
        while not sent:
            await asyncio.sleep(0.05)
    logged = {one.seq: one.encoded for one in await logs.read(name, 0)}
    # Who has seen a frame and comes back goes on after its seq: there must not be another frame under it.
    assert {seq: frame for seq, frame in sent.items() if logged.get(seq, frame) != frame} == {}


@pytest.mark.slow
async def test_an_end_that_is_logged_and_only_read_late_is_not_made_up(redis: Redis) -> None:
    name = f"{RUN}-late"
    logs, sent = RunLogs(redis), list[bytes]()
    await logs.own(name, 1, {"user_id": "u", "state": "running"})
    await log(logs, name, 0, LEFT)

    async def logged_just_now(request_ids: Sequence[str]) -> Mapping[str, Sequence[Frame]]:
        await log(logs, name, LEFT, LAST)
        return await ended(request_ids)

    async with Hub(logs, Metrics(), roll_up_s=0.04, deadline_s=300).open() as hub, asyncio.timeout(PATIENCE_S):
        hub.tails.endings = logged_just_now
        feed = await hub.feed(name)
        feed.follow(Follower(lambda one: sent.append(one.encoded), at_once, after_seq=LEFT))
        while not sent:
            await asyncio.sleep(0.05)
    assert sent == [one.encoded for one in await logs.read(name, LEFT)]


async def test_a_follower_that_joins_while_the_log_lacks_its_end_gets_that_end_too(redis: Redis) -> None:
    logs, had, joined = RunLogs(redis), list[int](), list[int]()
    await logs.own(RUN, 1, {"user_id": "u", "state": "running"})
    await log(logs, RUN, 0, LEFT)
    async with Hub(logs, Metrics(), roll_up_s=0.04, deadline_s=300).open() as hub, asyncio.timeout(PATIENCE_S):
        # Somebody on this node has had more than the log knows by now.
        tail = Tail(hub.tails, RUN, frame(HAD))
        tail.follow(Follower(lambda one: had.append(one.seq), at_once, after_seq=HAD))
        tail.follow(Follower(lambda one: joined.append(one.seq), at_once, after_seq=85))
        while not joined or joined[-1] < LEFT:
            await asyncio.sleep(0.01)
        # Time to look once more and to find nothing, before the owner has sent it again.
        await asyncio.sleep(0.1)
        await log(logs, RUN, LEFT, LAST)
        while not had or not joined or joined[-1] < LAST:
            await asyncio.sleep(0.01)
    assert joined == list(range(86, LAST + 1))
    assert had == [LAST]
