"""The runs of this node: answers in the making, their frames in order, and whoever follows them.

A run belongs to the server. Its frames get their `seq` here, once; they go at once to the followers on this node and,
behind that, into the run's log. Nothing here knows what an answer is about or what a socket is.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog
from pydantic import BaseModel
from redis.exceptions import RedisError

from protocol.chat import Chunk
from protocol.envelope import Frame, encode_frame, error_object
from protocol.errors import DEADLINE_EXCEEDED, DRAINING, INTERNAL, OperationError
from storage.runs import Entry, RunLogs
from wsserver.tasks import Tasks
from wsserver.telemetry import Metrics

log = structlog.get_logger(__name__)

ReplyT = TypeVar("ReplyT", bound=BaseModel)

LOG_FLUSH_S = 0.25
"""How long frames gather before they are logged: a pipelined XADD costs about 30 µs, so one entry holds several."""

MAX_UNLOGGED_BYTES = 32 * 1024 * 1024
"""Frames that may wait for a Redis that is away: about a minute of a thousand answers. Beyond, a run loses its log."""

MAX_UNLOGGED_RUNS = 20_000
"""Runs whose descriptions may wait for it, at about a kilobyte each. Beyond, a run has no log."""

LOG_RETRY_S = 0.5
"""Between attempts to write a batch while Redis is away: two a second keep the gap after its return short."""

LOG_LAST_FLUSH_S = 3.0
"""How long a stop waits for Redis to take the last frames."""

FINISH_S = 40.0
"""How long a run may take to put away what it has, once it was stopped: PostgreSQL restarts in a few seconds."""

STOP_S = 5.0
"""The same when the server itself is stopping, where somebody waits for it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The last frame of a run that failed."""

    error: OperationError
    TYPE = "error"

    def wire(self) -> dict[str, object]:
        fields = error_object(self.error)
        del fields["type"]
        return fields


@dataclass(frozen=True, slots=True)
class Published:
    """A frame with its place in the run. `last` says that none comes after it."""

    seq: int
    frame: Frame = field(repr=False)
    encoded: bytes = field(repr=False)
    last: bool


Follower = Callable[[Published], None]
"""Takes a frame at once and never raises: a follower that cannot keep up drops itself."""


class Run(Generic[ReplyT]):
    """One answer in the making. Whoever makes it publishes; whoever wants it follows, or waits for the reply."""

    def __init__(
        self, hub: "Hub", *, request_id: str, user_id: str, message_id: str | None, accepted: BaseModel
    ) -> None:
        self.request_id = request_id
        self.user_id = user_id
        self.message_id = message_id
        self.accepted = accepted
        self.reply: asyncio.Future[ReplyT] = asyncio.get_running_loop().create_future()
        self.started = time.monotonic()
        self._hub = hub
        self._making: asyncio.Timeout | None = None
        self._stopped = False
        self._published: list[Published] = []
        self._followers: list[Follower] = []
        self._held_back: list[str] = []
        self._roll_up: asyncio.TimerHandle | None = None
        self._next_text_at = 0.0

    @contextlib.asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """The part of a run that its deadline and `stop` cut short: leave it for putting away what there is.

        Raises DEADLINE_EXCEEDED or, when stopped, DRAINING.
        """
        self._making = making = asyncio.timeout(0 if self._stopped else self._hub.deadline_s)
        try:
            async with making:
                yield
        except TimeoutError:
            if not making.expired():
                raise
            raise OperationError(DRAINING if self._stopped else DEADLINE_EXCEEDED, retry_after_ms=1000) from None
        finally:
            self._making = None

    def stop(self) -> None:
        """End the making of the answer now. Stopping twice is fine."""
        self._stopped = True
        if self._making is not None:
            self._making.reschedule(asyncio.get_running_loop().time())

    def text(self, delta: str) -> None:
        """Add to the answer's text. The first piece leaves at once, later ones at most every roll-up interval."""
        if not delta:
            return
        now = time.monotonic()
        if self._roll_up is None and now >= self._next_text_at:
            self._publish_text(delta, now)
            return
        self._held_back.append(delta)
        if self._roll_up is None:
            loop = asyncio.get_running_loop()
            self._roll_up = loop.call_later(self._next_text_at - now, self._release_text)

    def publish(self, frame: Frame, *, last: bool = False) -> None:
        """Send a frame, after whatever text was held back. After the last one nothing may be published."""
        self._release_text()
        self._publish(frame, last=last)

    def follow(self, follower: Follower, after_seq: int = 0) -> Callable[[], None]:
        """Hand over the frames after `after_seq` that are there, then each new one. Gives the way to stop it."""
        for published in self._published[after_seq:]:
            follower(published)
        self._followers.append(follower)

        def unfollow() -> None:
            with contextlib.suppress(ValueError):
                self._followers.remove(follower)

        return unfollow

    @property
    def ended(self) -> bool:
        """Whether the last frame was published."""
        return bool(self._published) and self._published[-1].last

    @property
    def text_started(self) -> bool:
        return self._next_text_at > 0.0

    def _publish_text(self, text: str, now: float) -> None:
        if not self.text_started:
            self._hub.metrics.first_chunk.observe(now - self.started)
        self._next_text_at = now + self._hub.roll_up_s
        self._publish(Chunk(text), last=False)

    def _release_text(self) -> None:
        if self._roll_up is not None:
            self._roll_up.cancel()
            self._roll_up = None
        if self._held_back:
            text = "".join(self._held_back)
            self._held_back.clear()
            self._publish_text(text, time.monotonic())

    def _publish(self, frame: Frame, *, last: bool) -> None:
        seq = len(self._published) + 1
        published = Published(seq, frame, encode_frame(self.request_id, seq, frame, self.message_id), last)
        self._published.append(published)
        for follower in tuple(self._followers):
            follower(published)
        self._hub.log_frame(self, published)


class Hub:
    """Owns the tasks of this node's runs and the writing of their logs."""

    def __init__(self, logs: RunLogs, metrics: Metrics, *, roll_up_s: float, deadline_s: float) -> None:
        self.metrics = metrics
        self.roll_up_s = roll_up_s
        self.deadline_s = deadline_s
        self._log_writer = _LogWriter(logs, metrics)
        self._tasks = Tasks()
        self._running: dict[asyncio.Task[None], Run[Any]] = {}
        self._draining = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Hub"]:
        """Run until the block ends; then answers still in the making are put away as they are, and all is logged."""
        async with Tasks().open() as own:
            own.spawn(self._log_writer.run(), name="run log writer")
            try:
                async with self._tasks.open():
                    try:
                        yield self
                    finally:
                        await self.stop_runs()
            finally:
                await self._log_writer.finish()

    def accepts_runs(self) -> None:
        """Raises DRAINING when this node takes no new runs."""
        if self._draining:
            raise OperationError(DRAINING, retry_after_ms=1000)

    def start(
        self, run: Run[ReplyT], make: Callable[[Run[ReplyT]], Awaitable[ReplyT]], meta: Mapping[str, str]
    ) -> None:
        """Let `make` publish the run's frames and give its reply. It belongs to this hub from here on."""
        self.accepts_runs()
        self._log_writer.begin(run.request_id, {"user_id": run.user_id, "state": "running", **meta})
        task = self._tasks.spawn(self._drive(run, make), name=f"run {run.request_id}")
        self._running[task] = run
        self.metrics.runs.inc()
        task.add_done_callback(self._forget)

    def log_frame(self, run: Run[Any], published: Published) -> None:
        """Have a frame written to its run's log, behind the live path."""
        self._log_writer.add(run.request_id, published)

    @property
    def draining(self) -> bool:
        return self._draining

    def start_draining(self) -> None:
        """Take no new runs."""
        self._draining = True

    async def drained(self, timeout_s: float) -> int:
        """Wait for the runs to end, at most that long. Gives how many are still running."""
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=timeout_s)
        return len(self._running)

    async def stop_runs(self) -> None:
        """Have every run put away what it has, within STOP_S."""
        self._draining = True
        for run in self._running.values():
            run.stop()
        await self.drained(STOP_S)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.metrics.runs.dec()

    async def _drive(self, run: Run[ReplyT], make: Callable[[Run[ReplyT]], Awaitable[ReplyT]]) -> None:
        end = "complete"
        deadline = asyncio.timeout(self.deadline_s + FINISH_S)
        try:
            async with deadline:
                reply = await make(run)
            run.reply.set_result(reply)
        except OperationError as error:
            end = error.kind.reason
            self._fail(run, error)
        except asyncio.CancelledError:
            end = "cancelled"
            self._fail(run, OperationError(DRAINING, retry_after_ms=1000))
            raise
        except Exception:
            kind = DEADLINE_EXCEEDED if deadline.expired() else INTERNAL
            end = kind.reason
            log.exception("run failed", request_id=run.request_id)
            self._fail(run, OperationError(kind))
        finally:
            elapsed_s = time.monotonic() - run.started
            self.metrics.answers.labels(end).observe(elapsed_s)
            self._log_writer.end(run.request_id, end)
            log.info("run ended", request_id=run.request_id, end=end, ms=round(elapsed_s * 1000))

    def _fail(self, run: Run[Any], error: OperationError) -> None:
        run.publish(Failure(error), last=True)
        if not run.reply.done():
            run.reply.set_exception(error)
            # Nobody may be waiting for the reply: a follower has the frame.
            run.reply.exception()


class _LogWriter:
    """Gathers frames of all runs and writes them in batches; repeats a batch until Redis has taken it."""

    def __init__(self, logs: RunLogs, metrics: Metrics) -> None:
        self._logs = logs
        self._metrics = metrics
        self._frames: dict[str, list[Published]] = {}
        self._metas: dict[str, dict[str, str]] = {}
        self._size_bytes = 0
        self._lost: set[str] = set()
        self._something = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._finishing = False

    def add(self, request_id: str, published: Published) -> None:
        if request_id in self._lost:
            self._metrics.log_dropped.inc()
        elif self._size_bytes + len(published.encoded) > MAX_UNLOGGED_BYTES:
            self._lose(request_id)
        else:
            self._size_bytes += len(published.encoded)
            self._frames.setdefault(request_id, []).append(published)
            self._wake()

    def begin(self, request_id: str, meta: Mapping[str, str]) -> None:
        if len(self._metas) >= MAX_UNLOGGED_RUNS:
            self._lost.add(request_id)
        else:
            self._describe(request_id, meta)

    def end(self, request_id: str, state: str) -> None:
        if request_id in self._lost:
            self._lost.remove(request_id)
        else:
            self._describe(request_id, {"state": state})

    def _lose(self, request_id: str) -> None:
        """Give up a run's log, and say so in its description: a log with a silent hole would be a lie."""
        dropped = self._frames.pop(request_id, [])
        self._size_bytes -= _size_bytes(dropped)
        self._metrics.log_dropped.inc(1 + len(dropped))
        self._lost.add(request_id)
        self._describe(request_id, {"state": "log incomplete"})

    def _describe(self, request_id: str, meta: Mapping[str, str]) -> None:
        self._metas.setdefault(request_id, {}).update(meta)
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._something.set()

    async def run(self) -> None:
        while True:
            await self._something.wait()
            if not self._finishing:
                await asyncio.sleep(LOG_FLUSH_S)
            self._something.clear()
            metas, self._metas = self._metas, {}
            frames, self._frames = self._frames, {}
            await self._write(metas, frames)
            self._size_bytes -= sum(map(_size_bytes, frames.values()))
            if not self._something.is_set():
                self._idle.set()

    async def _write(self, metas: dict[str, dict[str, str]], frames: dict[str, list[Published]]) -> None:
        entries = [
            Entry(request_id, many[-1].seq, [one.encoded for one in many]) for request_id, many in frames.items()
        ]
        warned = False
        while True:
            try:
                await self._logs.write(metas, entries)
            except OperationError as error:
                if not warned:
                    log.warning("run log waits", reason=error.kind.reason, entries=len(entries))
                    warned = True
                await asyncio.sleep(LOG_RETRY_S)
            except RedisError:
                # It took the commands and refuses them: repeating them would hold up all other logs.
                log.exception("run log refused", entries=len(entries))
                self._metrics.log_dropped.inc(sum(map(len, frames.values())))
                return
            else:
                return

    async def finish(self) -> None:
        """Write what is left, within LOG_LAST_FLUSH_S."""
        self._finishing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOG_LAST_FLUSH_S):
                await self._idle.wait()


def _size_bytes(frames: Sequence[Published]) -> int:
    return sum(len(published.encoded) for published in frames)
