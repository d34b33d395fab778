"""Writes the logs of this node's runs behind the live path: in batches, without a hole, until Redis has all of it."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from redis.exceptions import RedisError

from protocol.errors import OperationError
from storage.runs import Appended, Claim, Entry, RunLogs
from wsserver.roll_up import Pace
from wsserver.telemetry import Metrics
from wsserver.wheel import Wheel

log = structlog.get_logger(__name__)

FLUSH_S = 0.25
"""How long frames gather before they are logged: a pipelined command costs about 25 µs, so an entry holds several."""

STRAINED_FLUSH_S = 1.0
"""The same on a node that is as busy as it may be. What is not logged when a node dies is made anew either way."""

WATCHED_FLUSH_S = 0.04
"""The same while another node follows the run: as often as it sends text."""

ROUND_S = 0.02
"""Between two rounds of writing: what falls due meanwhile shares a round trip."""

RETRY_S = 0.3
"""Between attempts while Redis is away: short, so that who resumes elsewhere after its return waits little."""

LAST_FLUSH_S = 3.0
"""How long a stop waits for Redis to take the last frames."""

RUNS_AT_ONCE = 100
"""Runs in one round trip: some milliseconds of this process, which everybody else waits for."""

ENTRY_FRAMES = 200
"""In one entry at most: some tens of kilobytes, so that no write is long enough to hold Redis up."""

MAX_ENDED_RUNS = 5_000
"""Ended runs that may wait for a Redis that is away, at some kilobytes each. Beyond, the oldest loses its log."""


class Logged(Protocol):
    """What the writer knows of a run."""

    request_id: str
    epoch: int
    first_seq: int
    logged_seq: int
    position: int
    description: dict[str, str]

    def encoded_after(self, seq: int, at_most: int) -> Sequence[bytes]: ...
    def fence(self) -> None: ...


class _State:
    __slots__ = ("awaited", "claimed", "ended", "on_logged", "watched")

    def __init__(self) -> None:
        self.claimed = False
        """Whether Redis knows the log as ours."""
        self.ended = False
        self.watched = False
        self.awaited = False
        """Whether it is in the wheel."""
        self.on_logged: Callable[[], None] | None = None


class RunLogWriter:
    """Keeps, for each run, how far its log is, and sends what comes after it."""

    def __init__(self, logs: RunLogs, metrics: Metrics, pace: Pace) -> None:
        self._logs = logs
        self._metrics = metrics
        self._pace = pace
        self._runs: dict[Logged, _State] = {}
        self._wheel: Wheel[Logged] = Wheel(ROUND_S)
        self._something = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = False
        self._warned = False

    def begin(self, run: Logged) -> None:
        """A run starts on this node."""
        self._runs[run] = state = _State()
        self._await(run, state, 0.0)

    def add(self, run: Logged) -> None:
        """The run has frames that are not logged yet."""
        state = self._runs.get(run)
        if state is not None and not state.awaited:
            self._await(run, state, self._patience_s(state))

    def end(self, run: Logged, state: str) -> None:
        """The run has no more frames to come."""
        run.description["state"] = state
        known = self._runs.get(run)
        if known is not None:
            known.ended = True
            self._await(run, known, 0.0)

    def when_logged(self, run: Logged, then: Callable[[], None]) -> None:
        """Call `then` when the log has all of an ended run, or was given up."""
        known = self._runs.get(run)
        if known is None:
            then()
        else:
            known.on_logged = then

    def _await(self, run: Logged, state: _State, wait_s: float) -> None:
        """Have the run written after `wait_s`; where it is awaited already, at the earlier of both times."""
        state.awaited = True
        self._wheel.put(run, time.monotonic() + wait_s)
        self._idle.clear()
        self._something.set()

    def _patience_s(self, state: _State) -> float:
        """How long what came now may gather."""
        if state.ended or not state.claimed:
            return 0.0
        if state.watched:
            return WATCHED_FLUSH_S
        return FLUSH_S + self._pace.strain * (STRAINED_FLUSH_S - FLUSH_S)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._something.wait()
            due = self._due()
            for first in range(0, len(due), RUNS_AT_ONCE):
                if not await self._write_or_keep(due[first : first + RUNS_AT_ONCE]):
                    for run in due[first:]:
                        self._again(run, wait_s=0.0)
                    await asyncio.sleep(RETRY_S)
                    break
            if self._wheel:
                await asyncio.sleep(ROUND_S)
            else:
                self._something.clear()
                self._idle.set()

    def _due(self) -> list[Logged]:
        """The runs that are to be written now, each once."""
        due = []
        for run in self._wheel.due(math.inf if self._hurry else time.monotonic()):
            state = self._runs.get(run)
            if state is not None and state.awaited:
                state.awaited = False
                due.append(run)
        return due

    def _again(self, run: Logged, wait_s: float | None = None) -> None:
        """Have the rest of a run written, if there is any."""
        state = self._runs.get(run)
        if state is None or state.awaited:
            return
        if not state.claimed or run.logged_seq < run.position or state.ended:
            self._await(run, state, self._patience_s(state) if wait_s is None else wait_s)

    async def _write_or_keep(self, due: Sequence[Logged]) -> bool:
        """Write these runs; False when Redis is away, and all of it is to be tried again."""
        try:
            await self._write(due)
        except OperationError as error:
            if not self._warned:
                log.warning("run logs wait", reason=error.kind.reason, runs=len(self._runs))
                self._warned = True
            self._drop_oldest()
            return False
        except RedisError:
            # It took the commands and refuses them: repeating them would hold up all other logs.
            log.exception("run logs refused", runs=len(due))
            for run in due:
                if run in self._runs:
                    self._give_up(run)
        self._warned = False
        return True

    async def _write(self, due: Sequence[Logged]) -> None:
        unclaimed = [run for run in due if not self._runs[run].claimed]
        await self._describe(unclaimed, state="running")
        for run in unclaimed:
            if run in self._runs:
                self._runs[run].claimed = True
        entries, owners = [], []
        for run in due:
            encoded = run.encoded_after(run.logged_seq, ENTRY_FRAMES)
            if encoded:
                last_seq = max(run.logged_seq, run.first_seq - 1) + len(encoded)
                entries.append(Entry(run.request_id, run.epoch, run.logged_seq, last_seq, encoded))
                owners.append(run)
        results = await self._logs.append(entries) if entries else []
        for run, entry, result in zip(owners, entries, results, strict=True):
            self._took(run, entry, result)
        left = {run: self._runs[run] for run in due if run in self._runs}
        # Only now: who reads that a run is over may rely on its log's being whole.
        whole = [run for run, state in left.items() if state.ended and state.claimed and run.logged_seq >= run.position]
        await self._describe(whole)
        for run in whole:
            self._finish(run)
        for run in due:
            self._again(run)

    async def _describe(self, runs: Sequence[Logged], **more: str) -> None:
        if runs:
            await self._logs.own_all([Claim(run.request_id, run.epoch, {**run.description, **more}) for run in runs])

    def _took(self, run: Logged, entry: Entry, result: Appended) -> None:
        state = self._runs[run]
        match result.outcome:
            case "added":
                run.logged_seq = entry.last_seq
                state.watched = result.watched
            case "there":
                run.logged_seq = entry.last_seq
            case "gap":
                # Redis lost what it had taken: the frames are still here.
                run.logged_seq = result.at
            case "unknown":
                state.claimed = False
                run.logged_seq = 0
            case "fenced":
                run.fence()
                self._finish(run)

    def _finish(self, run: Logged) -> None:
        state = self._runs.pop(run, None)
        if state is not None and state.on_logged is not None:
            state.on_logged()

    def _give_up(self, run: Logged) -> None:
        self._metrics.log_dropped.inc(max(0, run.position - max(run.logged_seq, run.first_seq - 1)))
        self._finish(run)

    def _drop_oldest(self) -> None:
        ended = [run for run, state in self._runs.items() if state.ended]
        for run in ended[: max(0, len(ended) - MAX_ENDED_RUNS)]:
            self._give_up(run)

    async def finish(self) -> None:
        """Write what is left, within LAST_FLUSH_S."""
        self._hurry = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_FLUSH_S):
                await self._idle.wait()
