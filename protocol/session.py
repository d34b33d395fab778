"""The rules of one connection, without IO: when it must have logged in, how fast it may send, when it is silent.

Times are seconds of a monotonic clock, handed in by whoever owns the socket, so that the rules are tested without
one. What the rules decide comes back as an OperationError to answer with, or a CloseCode to close with.
"""

import math
from dataclasses import dataclass

from protocol.accounts import Caller
from protocol.errors import (
    FAST_SENDER,
    LOGIN_REQUIRED,
    NO_LOGIN,
    NOT_THE_PROTOCOL,
    RATE_LIMITED,
    REVOKED,
    SILENT,
    TOO_MANY_IN_FLIGHT,
    CloseCode,
    OperationError,
)
from protocol.operation import Access


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may do. The defaults are those of the wire contract."""

    login_deadline_s: float = 60.0
    silence_s: float = 75.0
    """Three advertised pings of 25 s."""
    messages_per_s: float = 20.0
    burst: int = 40
    in_flight: int = 32
    """Operations of one connection at once: a page that asks for more has a loop in it."""
    bad_in_a_row: int = 10
    limited_in_a_row: int = 10


class Session:
    """One connection's state: who it is, what it has used up. Its owner reports what happens and asks what is due."""

    __slots__ = (
        "_bad",
        "_in_flight",
        "_last_traffic",
        "_limited",
        "_limits",
        "_login_by",
        "_refilled",
        "_tokens",
        "caller",
        "closing",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._login_by = now + limits.login_deadline_s
        self._last_traffic = now
        self._tokens = float(limits.burst)
        self._refilled = now
        self._bad = 0
        self._limited = 0
        self._in_flight = 0
        self.caller: Caller | None = None
        self.closing: CloseCode | None = None

    def received(self, now: float) -> None:
        """A message came. Raises RATE_LIMITED, and asks to be closed after too many of those in a row."""
        limits = self._limits
        self._last_traffic = now
        self._tokens = min(float(limits.burst), self._tokens + (now - self._refilled) * limits.messages_per_s)
        self._refilled = now
        if self._tokens < 1.0:
            self._limited += 1
            if self._limited >= limits.limited_in_a_row:
                self.closing = FAST_SENDER
            # A millisecond more than the sum says: what is promised must be enough after rounding.
            wait_ms = math.ceil((1.0 - self._tokens) / limits.messages_per_s * 1000) + 1
            raise OperationError(RATE_LIMITED, retry_after_ms=wait_ms)
        self._tokens -= 1.0
        self._limited = 0

    def was_good(self) -> None:
        """The message was a request."""
        self._bad = 0

    def was_bad(self) -> None:
        """The message was none; too many in a row and the client does not speak this protocol."""
        self._bad += 1
        if self._bad >= self._limits.bad_in_a_row:
            self.closing = NOT_THE_PROTOCOL

    def authorise(self, access: Access) -> None:
        """Raises LOGIN_REQUIRED before login, for everything that is not open to anyone."""
        if self.caller is None and access is not Access.ANYONE:
            raise OperationError(LOGIN_REQUIRED)

    def begin(self) -> None:
        """An operation starts. Raises TOO_MANY_IN_FLIGHT."""
        if self._in_flight >= self._limits.in_flight:
            raise OperationError(TOO_MANY_IN_FLIGHT, retry_after_ms=1000)
        self._in_flight += 1

    def end(self) -> None:
        """An operation that began is over."""
        self._in_flight -= 1

    def sent(self, now: float) -> None:
        """Something was sent to the client and taken by its socket: it is not silent."""
        self._last_traffic = now

    def overdue(self, now: float, epoch_now: float) -> CloseCode | None:
        """Why this connection must be closed now, if it must. `epoch_now` is what tokens expire by."""
        if self.closing is not None:
            return self.closing
        if self.caller is None:
            if now >= self._login_by:
                return NO_LOGIN
        elif self.caller.expires_at is not None and epoch_now >= self.caller.expires_at:
            return REVOKED
        if now - self._last_traffic >= self._limits.silence_s:
            return SILENT
        return None
