"""Logs and metrics. Logs carry ids and never what people said, who they are or what proves it."""

import logging
import os
import sys
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a ping to an operation's deadline."""

ANSWER_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""From the catalogue assistant's first words to the longest answer of a slow model."""


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


class Metrics:
    """What an operator asks at night. One instance per server, so that several can run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Of several workers both gauges are the sum over those that live.
        self.connections = Gauge(
            "cinewire_connections", "Open sockets", registry=self.registry, multiprocess_mode="livesum"
        )
        self.closed = Counter("cinewire_connections_closed", "Sockets closed", ["code"], registry=self.registry)
        self.operations = Histogram(
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
        self.vendor_calls = Counter(
            "cinewire_vendor_calls",
            "Calls of vendors, by how they ended",
            ["vendor", "outcome"],
            registry=self.registry,
        )
        self.overflows = Counter(
            "cinewire_outbox_overflows", "Connections given up because they read too slowly", registry=self.registry
        )

    def text(self) -> bytes:
        """All of it in Prometheus' format; in a worker that of all workers together."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def configure_logging(*, level: str, json: bool) -> None:
    """Send structlog and the standard library's loggers to stderr, in one format."""
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
