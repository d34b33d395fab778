"""The one path of every operation: find its handler, bound its time, turn what goes wrong into an error, count it.

Both edges come through here, so neither can skip a check that the other has. What was said and what was answered is
not looked at, and never logged.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel

from protocol.accounts import Caller
from protocol.errors import DEADLINE_EXCEEDED, INTERNAL, LOGIN_REQUIRED, OperationError
from protocol.operation import Access, AnyOperation, Operation, Rate, Request, StreamingOperation, StreamingRequest
from storage.limits import RateLimits
from wsserver.hub import Stream
from wsserver.telemetry import GatheredHistogram, Metrics
from wsserver.tracing import OperationSpan, Tracing

log = structlog.get_logger(__name__)

RequestT = TypeVar("RequestT", bound=Request)
StreamingRequestT = TypeVar("StreamingRequestT", bound=StreamingRequest)
ReplyT = TypeVar("ReplyT", bound=BaseModel | None)
StreamedT = TypeVar("StreamedT", bound=BaseModel | None)
AcceptedT = TypeVar("AcceptedT", bound=BaseModel)


class Call:
    """One operation being called. A handler that logs somebody in or out says so by setting `caller`.

    `address` is the client's, as far as proxies that are trusted say it; None when nobody does.
    """

    __slots__ = ("address", "caller")

    def __init__(self, caller: Caller | None, address: str | None = None) -> None:
        self.caller = caller
        self.address = address

    @property
    def known_caller(self) -> Caller:
        """Who calls. Raises LOGIN_REQUIRED when nobody is known to."""
        if self.caller is None:
            raise OperationError(LOGIN_REQUIRED)
        return self.caller


@dataclass(frozen=True, slots=True)
class Reply:
    """What an operation answered."""

    data: BaseModel | None


class Handlers:
    """The handlers of one domain, bound to declarations: a checker refuses one whose request or reply does not fit."""

    def __init__(self) -> None:
        self.bound: dict[str, Callable[[Call, Any], Awaitable[Any]]] = {}
        self.at_once: list[tuple[Operation[Any, Any], Callable[[Call, Any], Any]]] = []

    def on_at_once(
        self, operation: Operation[RequestT, ReplyT]
    ) -> Callable[[Callable[[Call, RequestT], ReplyT]], Callable[[Call, RequestT], ReplyT]]:
        """Bind a handler that waits for nothing: it is answered where it was read, without a task or a deadline."""

        def bind(handler: Callable[[Call, RequestT], ReplyT]) -> Callable[[Call, RequestT], ReplyT]:
            self.at_once.append((operation, handler))
            return handler

        return bind

    def on(
        self, operation: Operation[RequestT, ReplyT]
    ) -> Callable[[Callable[[Call, RequestT], Awaitable[ReplyT]]], Callable[[Call, RequestT], Awaitable[ReplyT]]]:
        """Bind a handler that gives the reply."""

        def bind(handler: Callable[[Call, RequestT], Awaitable[ReplyT]]) -> Callable[..., Awaitable[ReplyT]]:
            self.bound[operation.name] = handler
            return handler

        return bind

    def on_stream(
        self, operation: StreamingOperation[StreamingRequestT, AcceptedT, StreamedT]
    ) -> Callable[
        [Callable[[Call, StreamingRequestT], Awaitable[Stream[StreamedT]]]],
        Callable[[Call, StreamingRequestT], Awaitable[Stream[StreamedT]]],
    ]:
        """Bind a handler that gives what can be followed, and in the end the reply."""

        def bind(
            handler: Callable[[Call, StreamingRequestT], Awaitable[Stream[StreamedT]]],
        ) -> Callable[..., Awaitable[Stream[StreamedT]]]:
            self.bound[operation.name] = handler
            return handler

        return bind


class AtOnce:
    """An operation whose handler waits for nothing, with all that a call of it needs."""

    __slots__ = ("counted", "handler", "operation")

    def __init__(
        self, operation: Operation[Any, Any], handler: Callable[[Call, Any], Any], counted: GatheredHistogram
    ) -> None:
        if operation.rate is not None:
            raise ValueError(f"{operation.name}: whether an address has called too often is not known at once")
        self.operation = operation
        self.handler = handler
        self.counted = counted


class Dispatcher:
    """Calls handlers. Every declared operation has exactly one, or the server does not start."""

    def __init__(
        self,
        operations: Mapping[str, AnyOperation],
        domains: tuple[Handlers, ...],
        metrics: Metrics,
        rates: RateLimits,
        tracing: Tracing | None = None,
    ) -> None:
        bound = [name for domain in domains for name in (*domain.bound, *(one.name for one, _ in domain.at_once))]
        if twice := {name for name in bound if bound.count(name) > 1}:
            raise ValueError(f"operations with two handlers: {sorted(twice)}")
        if set(bound) != set(operations):
            raise ValueError(f"operations and handlers differ: {sorted(set(bound) ^ set(operations))}")
        self.operations = operations
        self._handlers = {name: handler for domain in domains for name, handler in domain.bound.items()}
        self.at_once = {
            operation.name: AtOnce(operation, handler, metrics.operation(operation.name, "ok"))
            for domain in domains
            for operation, handler in domain.at_once
        }
        """What `call_at_once` can call."""
        self._metrics = metrics
        self._rates = rates
        self._tracing = tracing
        # Asked once: to find out that nothing is logged costs as much as counting.
        self._logs_quiet_ones: bool = log.is_enabled_for(logging.DEBUG)

    def call_at_once(self, at_once: AtOnce, call: Call, request: Request) -> BaseModel | None:
        """The reply's data, of a handler that waits for nothing. Raises OperationError and nothing else."""
        operation = at_once.operation
        started = time.perf_counter()
        counted, outcome = at_once.counted, "ok"
        span = None if self._tracing is None else self._span(operation)
        try:
            authorise(operation, call.caller)
            data: BaseModel | None = at_once.handler(call, request)
        except OperationError as error:
            outcome = error.kind.reason
            raise
        except Exception as error:
            outcome = INTERNAL.reason
            log.exception("operation failed", operation=operation.name)
            raise OperationError(INTERNAL) from error
        finally:
            elapsed_s = time.perf_counter() - started
            if outcome != "ok":
                counted = self._metrics.operation(operation.name, outcome)
            counted.observe(elapsed_s)
            if not operation.quiet or self._logs_quiet_ones:
                self._log(operation, outcome, elapsed_s)
            if span is not None:
                span.end(outcome, None)
        return data

    async def call(self, call: Call, request: Request) -> Reply | Stream[Any]:
        """Run an operation: its reply, or the stream that answers it. Raises OperationError and nothing else."""
        operation = self.operations[request.type]
        if (at_once := self.at_once.get(operation.name)) is not None:
            return Reply(self.call_at_once(at_once, call, request))
        started = time.perf_counter()
        outcome = "ok"
        request_id: str | None = None
        span = self._span(operation)
        deadline = asyncio.timeout(operation.deadline_s)
        try:
            authorise(operation, call.caller)
            async with deadline:
                await self._limit(operation, call)
                answer = await self._handlers[operation.name](call, request)
            if isinstance(operation, StreamingOperation):
                request_id = answer.request_id
        except OperationError as error:
            outcome = error.kind.reason
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception as error:
            if deadline.expired():
                outcome = DEADLINE_EXCEEDED.reason
                raise OperationError(DEADLINE_EXCEEDED, retry_after_ms=1000) from None
            outcome = INTERNAL.reason
            log.exception("operation failed", operation=operation.name)
            raise OperationError(INTERNAL) from error
        finally:
            elapsed_s = time.perf_counter() - started
            self._metrics.operation(operation.name, outcome).observe(elapsed_s)
            self._log(operation, outcome, elapsed_s)
            if span is not None:
                span.end(outcome, request_id)
        return answer if isinstance(operation, StreamingOperation) else Reply(answer)

    def _span(self, operation: AnyOperation) -> OperationSpan | None:
        return None if self._tracing is None or operation.quiet else self._tracing.operation(operation.name)

    def _log(self, operation: AnyOperation, outcome: str, elapsed_s: float) -> None:
        level = logging.DEBUG if operation.quiet else logging.INFO
        log.log(level, "operation", operation=operation.name, outcome=outcome, ms=round(elapsed_s * 1000, 2))

    async def _limit(self, operation: AnyOperation, call: Call) -> None:
        """Raises RATE_LIMITED when too many of the address have called."""
        if operation.rate is Rate.LOGIN:
            await self._rates.login_allowed(call.address)
        elif operation.rate is Rate.CHAT and call.known_caller.kind == "guest":
            await self._rates.guest_chat_allowed(call.address)


def authorise(operation: AnyOperation, caller: Caller | None) -> None:
    """Raises LOGIN_REQUIRED when this caller may not call this operation."""
    if operation.access is Access.ANYONE:
        return
    if caller is None or (operation.access is Access.USER and caller.kind != "user"):
        raise OperationError(LOGIN_REQUIRED)
