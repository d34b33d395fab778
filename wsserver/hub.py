"""The runs of this node: answers in the making, and their frames in order.

A run belongs to the server. Its frames get their `seq` here, once; they go at once to the followers on this node and,
behind that, into the run's log, by which other nodes follow it. Nothing here knows what an answer is about or what a
socket is.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import structlog
from pydantic import BaseModel

from protocol.chat import Chunk
from protocol.envelope import ChunkEncoder, Frame, encode_frame, error_object
from protocol.errors import DEADLINE_EXCEEDED, DRAINING, INTERNAL, OperationError
from storage.runs import LoggedFrame, RunLogs
from wsserver.feed import PAGE_FRAMES, Feed
from wsserver.roll_up import Pace, RollUp
from wsserver.run_log import RunLogWriter
from wsserver.tails import Tail, Tails
from wsserver.tasks import Tasks
from wsserver.telemetry import Metrics

log = structlog.get_logger(__name__)

ReplyT = TypeVar("ReplyT", bound=BaseModel | None)

FINISH_S = 80.0
"""How long a run may take to put away what it has, once it was stopped: PostgreSQL restarts in a few seconds, and takes
half a minute for thousands of answers that end together."""

STOP_S = 5.0
"""The same when the server itself is stopping, where somebody waits for it."""

GATHER_S = 0.01
"""How long before its frame a maker's rest ends, so that what the model said meanwhile is read by then."""

GATHER_TICKS = 4
"""How many ticks a frame waits for that, where reading takes longer: a socket is read within three turns of the loop,
and each tick is one at least. What came too late would wait for the next frame."""

LATEST_S = 0.02
"""How late a frame may be for it. A model that says nothing is not waited for longer."""

Stop = Literal["cancelled", "interrupted", "handed over"]


@dataclass(frozen=True, slots=True)
class Failure:
    """The last frame of a run that failed."""

    error: OperationError
    TYPE = "error"

    def wire(self) -> dict[str, object]:
        fields = error_object(self.error)
        del fields["type"]
        return fields


class StoppedError(Exception):
    """The making of an answer was cut short on purpose."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop)
        self.stop: Stop = stop


class Run(Feed):
    """One answer in the making on this node.

    `epoch` is the owner's number. A run taken over begins at `first_seq`, above whatever an earlier owner may have
    sent; `logged_seq` is where the log stands.
    """

    def __init__(
        self,
        hub: "Hub",
        *,
        request_id: str,
        user_id: str,
        message_id: str | None,
        epoch: int = 1,
        first_seq: int = 1,
        logged_seq: int = 0,
    ) -> None:
        super().__init__(request_id, hub.spawn)
        self.user_id = user_id
        self.message_id = message_id
        self.epoch = epoch
        self.first_seq = first_seq
        self.logged_seq = logged_seq
        self.position = logged_seq
        self.description = {"user_id": user_id, "state": "running"}
        self.started = time.monotonic()
        self.settled = False
        """Whether its end is being stored: from there on the table knows it as ended before we do."""
        self.fenced = False
        self._hub = hub
        self._inherited_seq = logged_seq
        self._making: asyncio.Timeout | None = None
        self._stop: Stop | None = None
        self._frames: list[bytes] = []
        """As they were sent, from `first_seq` on. Bytes only: of objects the garbage collector looks at each."""
        self._suspended: list[Frame] = []
        self._encode_chunk = ChunkEncoder(request_id, message_id)
        self._held_back: list[str] = []
        self._held_since = 0.0
        self._awaited = False
        """Whether the hub will ask for the text that is held back."""
        self._resting: asyncio.Future[None] | None = None
        self._had = self._ticks_left = 0
        """How many pieces were held back when the maker's rest ended, and for how many ticks more are waited for."""
        self._next_text_at = 0.0

    @contextlib.asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """The part of a run that its deadline and `stop` cut short: leave it for putting away what there is.

        Raises DEADLINE_EXCEEDED, or StoppedError when stopped.
        """
        self._making = making = asyncio.timeout(0 if self._stop else self._hub.deadline_s)
        try:
            async with making:
                yield
        except TimeoutError:
            if not making.expired():
                raise
            if self._stop is not None:
                raise StoppedError(self._stop) from None
            raise OperationError(DEADLINE_EXCEEDED, retry_after_ms=1000) from None
        finally:
            self._making = None

    def stop(self, stop: Stop) -> None:
        """End the making of the answer now. The first reason given counts."""
        if self._stop is None:
            self._stop = stop
            if self._making is not None:
                self._making.reschedule(asyncio.get_running_loop().time())

    def fence(self) -> None:
        """The run is another owner's by now: nothing of ours may reach anybody. Its followers go on by its log."""
        if not self.fenced:
            self.fenced = True
            self._suspended.clear()
            self.stop("handed over")
            self._hub.move_followers(self)

    def confirm(self) -> None:
        """The run is still ours: what was held because it might not be is sent."""
        suspended, self._suspended = self._suspended, []
        for frame in suspended:
            self._send(frame)

    def text(self, delta: str) -> "asyncio.Future[None] | None":
        """Add to the answer's text. The first piece leaves at once, later ones at most every roll-up interval.

        Gives what its maker had better wait for before it goes on: on a busy node, what a model says until this piece
        is due costs less when it is had in one go. None, where there is no need.
        """
        if not delta:
            return None
        if self._held_back:
            self._held_back.append(delta)
            return None
        now = time.monotonic()
        if now >= self._next_text_at:
            self._publish_text(delta, now, since=now)
            return None
        self._held_since = now
        self._held_back.append(delta)
        roll_up = self._hub.roll_up
        if roll_up.pace.rests and self._next_text_at - now > 2 * GATHER_S:
            self._resting = roll_up.rest()
        if not self._awaited:
            self._hold(self._next_text_at if self._resting is None else self._next_text_at - GATHER_S)
        return self._resting

    def release(self, now: float) -> None:
        """Have the maker go on that rests, or send the text that is held back; either if its time has come."""
        self._awaited = False
        due = self._next_text_at
        if self._resting is not None:
            if now < due - GATHER_S:
                self._hold(due - GATHER_S)  # what was held at first was taken along by another frame
                return
            self._wake()
            self._had, self._ticks_left = len(self._held_back), GATHER_TICKS
            self._hold(due)
        elif not self._held_back:
            return
        elif now < due:
            self._hold(due)
        elif self._ticks_left > 0 and len(self._held_back) == self._had and now < due + LATEST_S:
            self._ticks_left -= 1
            self._hold(now)
        else:
            self._release_text()
            # In step with what was due, or all runs that one stall held up would be due together from then on.
            in_step = due + self._hub.roll_up.pace.interval_s
            if in_step > now:
                self._next_text_at = in_step

    def _hold(self, until: float) -> None:
        self._awaited = True
        self._hub.roll_up.hold(self, until)

    def drop_text(self) -> None:
        """Forget the text that was held back: it is not to be shown."""
        self._held_back.clear()
        self._wake()

    def publish(self, frame: Frame) -> None:
        """Send a frame, after whatever text was held back. After one that ends the run nothing may be published."""
        self._release_text()
        self._publish(frame)

    def encoded_after(self, seq: int, at_most: int) -> Sequence[bytes]:
        """The next frames of this owner after `seq`."""
        first = max(0, seq - self.first_seq + 1)
        return self._frames[first : first + at_most]

    async def page(self, after_seq: int) -> Sequence[LoggedFrame]:
        if after_seq < self._inherited_seq:
            # What an earlier owner sent is in the log only.
            earlier = await self._hub.logs.read(self.request_id, after_seq)
            if earlier and earlier[0].seq <= self._inherited_seq:
                return [frame for frame in earlier if frame.seq <= self._inherited_seq]
        encoded = self.encoded_after(after_seq, PAGE_FRAMES)
        first = max(after_seq + 1, self.first_seq)
        return [LoggedFrame(seq, frame) for seq, frame in enumerate(encoded, first)]

    @property
    def text_started(self) -> bool:
        return self._next_text_at > 0.0

    def _publish_text(self, text: str, now: float, *, since: float) -> None:
        if not self.text_started:
            self._hub.metrics.first_chunk.observe(now - self.started)
        self._next_text_at = now + self._hub.roll_up.pace.interval_s
        self._publish(Chunk(text))
        self._hub.metrics.chunk_delay.observe(time.monotonic() - since)

    def _wake(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None and not resting.done():
            resting.set_result(None)

    def _release_text(self) -> None:
        self._wake()
        self._ticks_left = 0
        if self._held_back:
            text = "".join(self._held_back)
            self._held_back.clear()
            self._publish_text(text, time.monotonic(), since=self._held_since)

    def _publish(self, frame: Frame) -> None:
        if self.fenced:
            return
        if self._suspended or self._hub.stood_still():
            self._suspended.append(frame)
        else:
            self._send(frame)

    def _send(self, frame: Frame) -> None:
        seq = self.first_seq + len(self._frames)
        if isinstance(frame, Chunk):
            encoded = self._encode_chunk(seq, frame.text)
        else:
            encoded = encode_frame(self.request_id, seq, frame, self.message_id)
        self._frames.append(encoded)
        self.hand_out(LoggedFrame(seq, encoded))
        self._hub.log_writer.add(self)


@dataclass(frozen=True, slots=True)
class Stream(Generic[ReplyT]):
    """What a streaming operation answers: what is said at once, what can be followed, and the reply in the end.

    `feed` is None when there is nothing to follow; `message_id` is that of the message that asked for the answer.
    """

    request_id: str
    accepted: BaseModel
    feed: Feed | None
    reply: Callable[[], Awaitable[ReplyT]] = field(repr=False)
    after_seq: int = 0
    message_id: str | None = None


async def _nothing_to_settle(_run: Run) -> None:
    """Where no table knows of runs."""


class Hub:
    """Owns the tasks of this node's runs, the writing of their logs, and the reading of others'."""

    def __init__(self, logs: RunLogs, metrics: Metrics, *, roll_up_s: float, deadline_s: float) -> None:
        self.logs = logs
        self.metrics = metrics
        self.deadline_s = deadline_s
        self.roll_up = RollUp(Pace(roll_up_s), metrics.roll_up.set)
        self.log_writer = RunLogWriter(logs, metrics, self.roll_up.pace)
        self.tails = Tails(logs, self.spawn)
        self.settle_failed: Callable[[Run], Awaitable[None]] = _nothing_to_settle
        """Stores that a run ended by a mistake of ours. Raises OperationError, and StoppedError when it is not ours."""
        self.stood_still: Callable[[], bool] = lambda: False
        """Whether this process stood still for so long that its runs may be others' by now."""
        self._tasks = Tasks()
        self._runs: dict[str, Run] = {}
        self._running: dict[asyncio.Task[None], Run] = {}
        self._draining = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Hub"]:
        """Run until the block ends; then answers still in the making are put away as they are, and all is logged."""
        async with Tasks().open() as own:
            own.spawn(self.log_writer.run(), name="run log writer")
            own.keep(self.tails.read, name="run log reader")
            own.keep(self.tails.look_for_ends, name="ends of run logs")
            try:
                async with self._tasks.open():
                    try:
                        yield self
                    finally:
                        await self.stop_runs()
            finally:
                self.roll_up.close()
                await self.log_writer.finish()

    def spawn(self, work: Any, *, name: str) -> asyncio.Task[None]:
        """Start work that belongs to this node's runs."""
        return self._tasks.spawn(work, name=name)

    def accepts_runs(self) -> None:
        """Raises DRAINING when this node takes no new runs."""
        if self._draining:
            raise OperationError(DRAINING, retry_after_ms=1000)

    def start(self, run: Run, make: Callable[[Run], Awaitable[None]]) -> None:
        """Let `make` publish the run's frames, the last one included. It belongs to this hub from here on."""
        self._runs[run.request_id] = run
        self.log_writer.begin(run)
        task = self._tasks.spawn(self._drive(run, make), name=f"run {run.request_id}")
        self._running[task] = run
        self.metrics.runs.inc()
        task.add_done_callback(self._ended)

    def run(self, request_id: str) -> Run | None:
        """The run, when this node makes it or has just made it."""
        run = self._runs.get(request_id)
        return None if run is None or run.fenced else run

    def owned(self) -> Sequence[Run]:
        """The runs that this node is making."""
        return tuple(self._running.values())

    async def feed(self, request_id: str) -> Feed:
        """The run's frames, made here or elsewhere. Raises STORAGE_UNAVAILABLE."""
        return self.run(request_id) or await self.tails.tail(request_id)

    def move_followers(self, run: Run) -> None:
        """Have who follows a run that is no longer ours go on by its log."""
        followers, run.followers = run.followers, ()
        tail = Tail(self.tails, run.request_id, None)
        tail.position = run.position
        for follower in followers:
            follower.live = False
            tail.follow(follower)

    @property
    def draining(self) -> bool:
        return self._draining

    def start_draining(self) -> None:
        """Take no new runs."""
        self._draining = True

    async def drained(self, timeout_s: float) -> int:
        """Wait for the runs to end, at most that long. Gives how many are still running."""
        give_up_at = time.monotonic() + timeout_s
        # Again and again: a chat that was accepted before the drain may begin its run after it.
        while self._running and (left_s := give_up_at - time.monotonic()) > 0:
            await asyncio.wait(tuple(self._running), timeout=left_s)
        return len(self._running)

    async def stop_runs(self) -> None:
        """Give up every run as it is, within STOP_S: another node begins it anew."""
        self._draining = True
        for run in self._running.values():
            run.stop("handed over")
        await self.drained(STOP_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._running.pop(task)
        self.metrics.runs.dec()
        # The log may lag behind: until it has all, whoever comes back is served from here.
        self.log_writer.when_logged(run, lambda: self._forget(run))

    async def _store_failure(self, run: Run) -> None:
        try:
            await self.settle_failed(run)
        except (OperationError, StoppedError):
            log.warning("failure of a run is not stored", request_id=run.request_id)
        except Exception:
            log.exception("failure of a run cannot be stored", request_id=run.request_id)

    def _forget(self, run: Run) -> None:
        if self._runs.get(run.request_id) is run:
            del self._runs[run.request_id]

    async def _drive(self, run: Run, make: Callable[[Run], Awaitable[None]]) -> None:
        end = "complete"
        deadline = asyncio.timeout(2 * self.deadline_s + FINISH_S)
        try:
            async with deadline:
                await make(run)
        except StoppedError as stopped:
            end = stopped.stop
            run.fence()
        except OperationError as error:
            end = error.kind.reason
            run.publish(Failure(error))
        except asyncio.CancelledError:
            end = "handed over"
            run.fence()
            raise
        except Exception:
            kind = DEADLINE_EXCEEDED if deadline.expired() else INTERNAL
            end = kind.reason
            log.exception("run failed", request_id=run.request_id)
            # First that it is over, then the saying so: nobody may begin anew what was said to have failed.
            await self._store_failure(run)
            run.publish(Failure(OperationError(kind)))
        finally:
            elapsed_s = time.monotonic() - run.started
            self.metrics.answers.labels(end).observe(elapsed_s)
            self.log_writer.end(run, end)
            log.info("run ended", request_id=run.request_id, end=end, ms=round(elapsed_s * 1000))
