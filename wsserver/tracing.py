"""Traces: a span for each operation and for each call of a vendor, told to an OTLP receiver, and their id in the logs.

Nothing of OpenTelemetry is imported before somebody wants traces; its packages are not installed with the rest.
Spans have names, outcomes and the request_id of a chat: never what people said, nor who they are. Pings have none.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextvars import Token
from typing import TYPE_CHECKING, Any

import structlog

from protocol.errors import ERRORS
from wsserver.telemetry import CallEnded, VendorCalls

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

log = structlog.get_logger(__name__)

EXPORT_TIMEOUT_S = 5.0
"""Of one request to the receiver. It is made from a thread of its own: nobody waits for it."""

LAST_EXPORT_S = 5.0
"""How long a stop waits for the last spans to be taken."""

HOW_TO_INSTALL = (
    "OTEL_EXPORTER_OTLP_ENDPOINT: traces need packages that are not here:"
    " .venv/bin/python -m pip install 'opentelemetry-sdk>=1.45,<2' 'opentelemetry-exporter-otlp-proto-http>=1.45,<2'"
)


class TracingError(Exception):
    """Why traces cannot be made, in words for who set their endpoint."""


class OperationSpan:
    """One operation under way. What it starts, its answer's making too, belongs to its trace."""

    __slots__ = ("_logged", "_span", "_token")

    def __init__(self, span: "Span") -> None:
        from opentelemetry import context, trace  # noqa: PLC0415 - only where there are traces

        self._span = span
        self._token: Token[Context] = context.attach(trace.set_span_in_context(span))
        ids = span.get_span_context()
        self._logged: Mapping[str, Any] = structlog.contextvars.bind_contextvars(
            trace_id=trace.format_trace_id(ids.trace_id), span_id=trace.format_span_id(ids.span_id)
        )

    def end(self, outcome: str, request_id: str | None) -> None:
        """It is over. `request_id` is that of the answer that it began or follows."""
        from opentelemetry import context  # noqa: PLC0415

        structlog.contextvars.reset_contextvars(**self._logged)
        context.detach(self._token)
        if request_id is not None:
            self._span.set_attribute("cinewire.request_id", request_id)
        _finish(self._span, outcome, None)


class Tracing:
    """Makes the spans of this node."""

    def __init__(self, tracer: "Tracer") -> None:
        self._tracer = tracer

    def operation(self, name: str) -> OperationSpan:
        """An operation begins, in the task that does all of it."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        return OperationSpan(self._tracer.start_span(name, kind=SpanKind.SERVER))

    def vendors(self, calls: VendorCalls) -> VendorCalls:
        """`calls`, with a span for each call: made at its end, which says how long it took."""
        return lambda name: self._vendor(name, calls(name))

    def _vendor(self, name: str, counted: CallEnded) -> CallEnded:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        def ended(outcome: str, elapsed_s: float) -> None:
            counted(outcome, elapsed_s)
            now = time.time_ns()
            span = self._tracer.start_span(name, kind=SpanKind.CLIENT, start_time=now - round(elapsed_s * 1e9))
            _finish(span, outcome, now)

        return ended


def _finish(span: "Span", outcome: str, at_ns: int | None) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415

    span.set_attribute("cinewire.outcome", outcome)
    kind = ERRORS.get(outcome)
    if kind is not None and kind.code >= 500:
        span.set_status(StatusCode.ERROR, outcome)
    span.end(at_ns)


@contextlib.asynccontextmanager
async def open_tracing(endpoint: str | None, *, node: str) -> AsyncIterator[Tracing | None]:
    """Traces until the block ends, None where nobody wants them. Raises TracingError.

    The SDK's own variables hold for the rest: OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, ….
    """
    if endpoint is None:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise TracingError(HOW_TO_INSTALL) from error
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "cinewire"}
    provider = TracerProvider(resource=Resource.create({**named, "service.instance.id": node}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Tracing(provider.get_tracer("cinewire"))
    finally:
        # A thread that does not hold the process up, where the receiver is away and the SDK tries again and again.
        last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        await asyncio.to_thread(last.join, LAST_EXPORT_S)
        if last.is_alive():
            log.warning("the last spans were not taken in time")
