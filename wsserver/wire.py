"""A WebSocket after its handshake, straight between uvicorn's transport and the application: no ASGI in between.

ASGI puts a queue, a task that waits and two dictionaries around each message, and each connection keeps what served its
handshake. Here messages are calls, and what is to be sent is fetched once a turn of the event loop and written in one
piece. What a frame is, `frames.py` knows; who gets what, the application.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from wsserver.frames import PING_FRAME, Binary, Closed, FrameReader, framed
from wsserver.outbox import Outbox

DIRECT_EXTENSION = "cinewire.direct"
"""ASGI extension of an accepted WebSocket: `{"attach": Attach}`."""

WRITE_BYTES = 65_536
"""Handed to the transport at once: what it keeps before it asks for a pause. What follows waits where it is counted."""

PING_AFTER_S = 27.0
"""Of silence; a client that keeps to the 25 s that are advertised is never asked. Below the shortest idle cut, 30 s."""

PONG_WITHIN_S = 20.0
"""For the answer. A client that reads nothing for so long is frozen, or its network is gone."""

LINGER_S = 2.0
"""For what a client had on its way when it was refused: a message of megabytes, over a slow network."""

ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART = 1006, 1011, 1012
"""Close codes (RFC 6455, section 7.4.1, and IANA's registry)."""


class Receiver(Protocol):
    """The application's end of one connection. No method raises."""

    def feed(self, message: bytes) -> None:
        """Take a text message, in UTF-8."""

    def feed_binary(self) -> None:
        """Take a binary message, which is none of ours."""

    def sent(self) -> None:
        """All that was in the outbox is on its way, without the client's having said anything."""

    def closing(self) -> tuple[int, str]:
        """Code and reason to close with, when the outbox is closed and empty."""

    def gone(self, code: int) -> None:
        """The connection is over. Nothing else is called after it."""


Attach = Callable[[Receiver, Outbox], "Wire | None"]
"""Hand the connection over: the receiver gets what comes, and what it puts into the outbox is sent. Only right after it
was accepted; nothing is read before `Wire.listen`. None where it cannot be done, and ASGI goes on."""


class Cork:
    """The connections that have something to send in this turn of the loop. One for all of them."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Wire] = deque()

    def add(self, wire: "Wire") -> None:
        if not self._waiting:
            self._loop.call_soon(self._pull)
        self._waiting.append(wire)

    def _pull(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        try:
            while waiting:
                waiting.popleft().flush()
        finally:
            # Also after a mistake with one of them: it is not the others', which nobody would wake again.
            if waiting:
                self._waiting.extendleft(reversed(waiting))
                self._loop.call_soon(self._pull)


class Wire(asyncio.Protocol):
    """One connection, for its receiver and for uvicorn."""

    __slots__ = (
        "_asked_at",
        "_code",
        "_connections",
        "_cork",
        "_corked",
        "_heard",
        "_heard_at",
        "_held_back",
        "_lingers",
        "_outbox",
        "_paused",
        "_reader",
        "_receiver",
        "_transport",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        receiver: Receiver,
        outbox: Outbox,
        *,
        max_message_bytes: int,
        cork: Cork,
        connections: set[Any],
        now: float,
    ) -> None:
        """`connections` are those that uvicorn tells to shut down and waits for; `now` is of a monotonic clock."""
        self._transport = transport
        self._receiver = receiver
        self._outbox = outbox
        self._reader = FrameReader(max_message_bytes)
        self._cork = cork
        self._connections = connections
        self._code = ABNORMAL
        self._corked = False
        self._paused = False
        self._held_back = False
        self._lingers = False
        self._heard = False
        self._heard_at = now
        self._asked_at: float | None = None
        outbox.taker = self
        connections.add(self)
        transport.set_protocol(self)
        transport.pause_reading()

    def listen(self) -> None:
        """Read what the client sends, from now on. What is to be sent goes with the end of the handshake."""
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self.flush()

    def wake(self) -> None:
        """Fetch what is to be sent, and send it, in the next turn of the loop."""
        if not self._corked:
            self._corked = True
            self._cork.add(self)

    def flush(self) -> None:
        """Send what is in the outbox, as far as the client reads."""
        if self._send():
            self._receiver.sent()

    def _send(self) -> bool:
        """Whether something was sent, and all of it."""
        self._corked = False
        outbox, transport = self._outbox, self._transport
        if self._paused or self._reader.closing or transport.is_closing():
            return False
        some = False
        while outbox.size_bytes:
            some = True
            transport.write(framed(outbox.drain(WRITE_BYTES)))
            if self._paused:
                return False
        if outbox.closed:
            self._reader.close(*self._receiver.closing())
            self._send_replies()
        return some

    def check(self, now: float) -> None:
        """Ask a silent client whether it is there; end the connection when it does not say so. To be called often."""
        if self._heard:
            self._heard = False
            self._heard_at, self._asked_at = now, None
        elif self._asked_at is not None:
            if now - self._asked_at > PONG_WITHIN_S and not self._reader.ended:
                self._code = INTERNAL_ERROR
                self._reader.fail(INTERNAL_ERROR, "keepalive ping timeout")
                self._send_replies()
        elif now - self._heard_at > PING_AFTER_S and not (self._reader.closing or self._transport.is_closing()):
            self._asked_at = now
            self._transport.write(PING_FRAME)

    def drop(self) -> None:
        """Give the connection up: at once where the client does not take what was sent."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    # What uvicorn and its transport call.

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._corked = True  # what is said meanwhile goes out below
        for event in self._reader.feed(data):
            if type(event) is bytes:
                self._receiver.feed(event)
            elif type(event) is Binary:
                self._receiver.feed_binary()
            elif type(event) is Closed:
                self._code = event.code
        if self._reader.replies or self._reader.ended:
            self._send_replies()
        self._send()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._held_back:
            self._held_back = False
            self._transport.resume_reading()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._outbox.taker = None
        self._receiver.gone(self._code)

    def shutdown(self) -> None:
        """The server stops, and waits for this connection to end."""
        self._reader.close(SERVICE_RESTART, "")
        self._send_replies()
        self._transport.close()

    def _send_replies(self) -> None:
        """Send what the frames themselves ask for, and end the connection when nothing more is read of it."""
        if self._lingers:
            return
        self._transport.write(self._reader.to_send())
        if self._reader.failed:
            self._linger()
        elif self._reader.ended:
            self._transport.close()
        elif self._paused and not self._held_back:
            # Pongs count nowhere: who asks for them and reads none would have them pile up here without end.
            self._held_back = True
            self._transport.pause_reading()

    def _linger(self) -> None:
        """End our side of TCP, and read on for a while without listening.

        A client that is still sending what was refused would get RST for it, and with that, on some systems, lose the
        closing frame that says why: it would come back and send it again.
        """
        if not self._transport.is_closing():
            self._lingers = True
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self.drop)
