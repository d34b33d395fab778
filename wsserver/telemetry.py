"""Logs and metrics. Logs carry ids and never what people said, who they are or what proves it."""

import logging
import os
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a ping to an operation's deadline."""

ANSWER_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""From the catalogue assistant's first words to the longest answer of a slow model."""

DELAY_BUCKETS_S = (0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From what costs nothing, over the roll-up of 40 ms, to a loop that takes seconds a turn."""

CallEnded = Callable[[str, float], None]
"""Told the outcome of a vendor's call and how many seconds it took."""

VendorCalls = Callable[[str], CallEnded]
"""Whom to tell of the calls of a vendor, by its name."""


QUIET_LOGGERS = (
    "httpx",
    "httpcore",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "asyncio",
    "alembic.runtime.plugins",
)
"""httpx logs whole addresses at INFO, and WeChat's carry the app's secret; uvicorn logs every connection."""


class GatheredHistogram(Histogram):
    """For what happens ten thousand times a second: counted here, and added to the histogram when somebody looks.

    An `observe` of the library takes four locks and a search for its bucket: a tenth of what sending a frame costs. Of
    several workers one answers for all, and knows only what the others have added up by themselves (`gather`).
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._counts = [0] * len(self._upper_bounds)
        self._total = 0.0

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count one. There are no exemplars."""
        self._counts[bisect_left(self._upper_bounds, amount)] += 1
        self._total += amount

    def gather(self) -> None:
        """Add up what was counted since."""
        for bucket, count in zip(self._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(self._total)
        self._counts = [0] * len(self._counts)
        self._total = 0.0

    def _child_samples(self) -> Iterable[Any]:
        self.gather()
        return super()._child_samples()


class Metrics:
    """What an operator asks at night. One instance per server, so that several can run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Of several workers both gauges are the sum over those that live.
        self.connections = Gauge(
            "cinewire_connections", "Open sockets", registry=self.registry, multiprocess_mode="livesum"
        )
        self.closed = Counter("cinewire_connections_closed", "Sockets closed", ["code"], registry=self.registry)
        self.event_streams = Gauge(
            "cinewire_event_streams",
            "Open server-sent event streams",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.operations = GatheredHistogram(
            "cinewire_operation_seconds",
            "Time from request to reply, for a chat to its acceptance",
            ["operation", "outcome"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.refused = Counter(
            "cinewire_messages_refused", "Messages that were no request", ["reason"], registry=self.registry
        )
        self.runs = Gauge("cinewire_runs", "Answers in the making", registry=self.registry, multiprocess_mode="livesum")
        self.first_chunk = Histogram(
            "cinewire_first_chunk_seconds",
            "Time from a chat's acceptance to its first text",
            buckets=ANSWER_BUCKETS_S,
            registry=self.registry,
        )
        self.chunk_delay = GatheredHistogram(
            "cinewire_chunk_delay_seconds",
            "Time from a piece of an answer to the hand-out of the frame that has it, its roll-up included",
            buckets=DELAY_BUCKETS_S,
            registry=self.registry,
        )
        self.roll_up = Gauge(
            "cinewire_roll_up_seconds",
            "How far apart later pieces of an answer leave: it grows with how busy the process is",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.answers = Histogram(
            "cinewire_answer_seconds",
            "Time a run took, by how it ended",
            ["end"],
            buckets=ANSWER_BUCKETS_S,
            registry=self.registry,
        )
        self.log_dropped = Counter(
            "cinewire_run_log_dropped_frames", "Frames that could not be kept for resuming", registry=self.registry
        )
        self.resumes = Counter("cinewire_resumes", "Resumes, by what came of them", ["result"], registry=self.registry)
        self.vendor_calls = Counter(
            "cinewire_vendor_calls",
            "Calls of vendors, by how they ended",
            ["vendor", "outcome"],
            registry=self.registry,
        )
        self.vendor_seconds = Histogram(
            "cinewire_vendor_call_seconds",
            "Time that calls of vendors took, all tries of one together; of a model to the end of its answer",
            ["vendor"],
            buckets=ANSWER_BUCKETS_S,
            registry=self.registry,
        )
        self.overflows = Counter(
            "cinewire_outbox_overflows", "Connections given up because they read too slowly", registry=self.registry
        )
        self.outbox_bytes = Gauge(
            "cinewire_outbox_bytes",
            "Bytes that wait for sockets to read them",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.pool_connections = Gauge(
            "cinewire_pool_connections",
            "Open connections to PostgreSQL and Redis",
            ["pool", "state"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.pool_waiting = Gauge(
            "cinewire_pool_waiting",
            "Callers that wait for a connection",
            ["pool"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.loop_lag = Histogram(
            "cinewire_loop_lag_seconds",
            "How much later than wanted the event loop came to a timer",
            buckets=DELAY_BUCKETS_S,
            registry=self.registry,
        )
        # Read from /proc when somebody asks; of several workers nothing adds them up.
        ProcessCollector(registry=self.registry)
        self._operations: dict[tuple[str, str], GatheredHistogram] = {}

    def operation(self, name: str, outcome: str) -> GatheredHistogram:
        """Where calls of an operation that ended so are counted; looked up once, which costs as much as counting."""
        known = self._operations.get((name, outcome))
        if known is None:
            known = self._operations[name, outcome] = self.operations.labels(name, outcome)
        return known

    def gather(self) -> None:
        """Add up what was counted since, where other workers answer for this one."""
        self.chunk_delay.gather()
        for histogram in self._operations.values():
            histogram.gather()

    def vendor(self, name: str) -> CallEnded:
        """Counts the calls of one vendor."""
        seconds = self.vendor_seconds.labels(name)

        def ended(outcome: str, elapsed_s: float) -> None:
            self.vendor_calls.labels(name, outcome).inc()
            seconds.observe(elapsed_s)

        return ended

    def text(self) -> bytes:
        """All of it in Prometheus' format; in a worker that of all workers together."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def configure_logging(*, level: str, json: bool) -> None:
    """Send structlog and the standard library's loggers to stderr: a JSON object a line, or text for people.

    In JSON every line has `event`, `level` and `timestamp` (ISO 8601, UTC), what is known of where it belongs
    (`connection_id`, `request_id`, …), and a traceback as `exception`.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    traceback_as_text = [structlog.processors.format_exc_info] if json else []
    number = logging.getLevelName(level.upper())
    structlog.configure(
        processors=[
            *shared,
            *traceback_as_text,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *traceback_as_text, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.INFO))
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
