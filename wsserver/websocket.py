"""The socket: messages in, frames out. No domain logic, and no rule that `protocol/session.py` does not say.

A `Connection` is fed texts and asked for frames; it knows no transport. `Sockets` holds the connections of this node
and speaks ASGI.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import structlog
from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from protocol.accounts import Caller
from protocol.envelope import (
    MAX_MESSAGE_BYTES,
    BadMessageError,
    Decoder,
    encode_error,
    encode_reply,
)
from protocol.errors import (
    BINARY_REFUSED,
    DRAINING,
    NORMAL,
    OVERLOADED,
    REPLACED,
    RESTARTING,
    REVOKED,
    SLOW_READER,
    UNKNOWN_TYPE,
    CloseCode,
    OperationError,
)
from protocol.operation import AnyOperation, Request, StreamingOperation, StreamingRequest
from protocol.session import Limits, Session
from protocol.unasked import Connected, Goodbye, ServerFacts
from storage.limits import RateLimits
from storage.redis import RESUME_WINDOW_S
from wsserver.auth import Authenticator, bearer_token
from wsserver.dispatch import AtOnce, Call, Dispatcher, Reply
from wsserver.feed import Follower
from wsserver.hub import Stream
from wsserver.news import News
from wsserver.outbox import Outbox
from wsserver.tasks import Tasks
from wsserver.telemetry import Metrics
from wsserver.watch import Seats, SessionWatch
from wsserver.wire import ABNORMAL, DIRECT_EXTENSION, Attach, Wire

log = structlog.get_logger(__name__)

SUBPROTOCOL = "cinewire.v1"
PING_INTERVAL_S = 25
"""Advertised to clients: below the shortest idle cut seen on the way (30 s), and a third of the silence allowed."""

SWEEP_S = 1.0
"""How often deadlines are looked at. One sweep for all connections is cheaper than a timer in each."""

SWEEP_BATCH = 1_000
"""Connections looked at in one turn of the loop: less than a millisecond, which everybody else waits for."""

CLOSE_BATCH, CLOSE_BATCH_S = 200, 0.1
"""Sockets closed at once when the node stops, and the pause after it: 2,000 a second, which other nodes can greet."""

CLOSE_GRACE_S = 5.0
"""How long a close waits for a client that does not read; then its task ends and the transport is dropped."""

ABORT_EXTENSION = "cinewire.abort"
"""ASGI extension: `{"abort": callable}` drops the connection at once. Without it a close waits for what is buffered."""

MAX_RUNS_KNOWN = 32
"""Runs that a socket remembers to have had: as many as it may ask for at once."""

MINI_PROGRAM_ORIGIN = "https://servicewechat.com"


class Connection:
    """One client. `feed` takes what it sent, `outbox` has what it shall get, `session.closing` how it must end.

    It is the `Receiver` of a `Wire`, where the server has one; else two tasks move its messages through ASGI.
    """

    __slots__ = (
        "_runs",
        "_sockets",
        "_unfollow",
        "abort",
        "address",
        "closed_at",
        "id",
        "leave_news",
        "leave_seat",
        "leave_session",
        "outbox",
        "session",
        "wire",
    )

    def __init__(self, sockets: "Sockets", connection_id: str, address: str | None) -> None:
        self.id = connection_id
        self.address = address
        self.leave_session: Callable[[], None] = _nothing
        self.leave_seat: Callable[[], None] = _nothing
        self.leave_news: Callable[[], None] = _nothing
        self.outbox = Outbox()
        self.session = Session(sockets.limits, time.monotonic())
        self.closed_at: float | None = None
        self.abort: Callable[[], None] | None = None
        self.wire: Wire | None = None
        self._sockets = sockets
        self._unfollow: dict[str, Callable[[], None]] | None = None
        self._runs: tuple[str, ...] = ()

    def feed(self, message: bytes) -> None:
        """Take a message: it is answered, now or when it is done, by frames in the outbox."""
        session, sockets = self.session, self._sockets
        if session.closing is not None:
            return
        request: Request | None = None
        try:
            session.received(time.monotonic())
            request = sockets.decoder.decode(message)
            session.was_good()
            operation = sockets.dispatcher.operations[request.type]
            session.authorise(operation.access)
            if (at_once := sockets.dispatcher.at_once.get(request.type)) is not None:
                self._answer_at_once(request, at_once)
                return
            session.begin()
        except BadMessageError as error:
            if error.kind is not UNKNOWN_TYPE:
                session.was_bad()
            self._refuse(error, error.message_id)
        except OperationError as error:
            self._refuse(error, None if request is None else request.id)
        else:
            sockets.spawn(self._answer(request, operation), name=f"{operation.name} on {self.id}")

    def feed_binary(self) -> None:
        """Take a binary frame, which is never a message."""
        if self.session.closing is not None:
            return
        try:
            self.session.received(time.monotonic())
            self.session.was_bad()
            self._refuse(OperationError(BINARY_REFUSED), None)
        except OperationError as error:
            self._refuse(error, None)

    def sent(self) -> None:
        """What was in the outbox is on its way."""
        self.session.sent(time.monotonic())

    def closing(self) -> tuple[int, str]:
        """How to close, once everything is sent."""
        code = self.session.closing or NORMAL
        return code.code, code.reason

    def gone(self, code: int) -> None:
        """The socket is over."""
        self._sockets.lost(self, code)

    def _refuse(self, error: OperationError, message_id: str | None) -> None:
        self._sockets.metrics.refused.labels(error.kind.reason).inc()
        self._put(encode_error(error, message_id=message_id))
        if self.session.closing is not None:
            self.close(self.session.closing)

    def _answer_at_once(self, request: Request, at_once: AtOnce) -> None:
        operation = at_once.operation
        call = Call(self.session.caller, self.address)
        try:
            data = self._sockets.dispatcher.call_at_once(at_once, call, request)
        except OperationError as error:
            self._put(encode_error(error, type_=operation.error_type, message_id=request.id))
        else:
            self._put(encode_reply(operation.reply_type, operation.message, data, request.id))

    async def _answer(self, request: Request, operation: AnyOperation) -> None:
        # In a task of its own: nobody else's lines get this id.
        structlog.contextvars.bind_contextvars(connection_id=self.id)
        asker = self.session.caller
        call = Call(asker, self.address)
        request_id: str | None = None
        try:
            answer = await self._sockets.dispatcher.call(call, request)
            if isinstance(answer, Reply):
                self._put_for(asker, encode_reply(operation.reply_type, operation.message, answer.data, request.id))
                self._become(asker, call.caller)
                return
            request_id = answer.request_id
            self._runs = (*self._runs[1 - MAX_RUNS_KNOWN :], request_id)
            assert isinstance(operation, StreamingOperation)  # noqa: S101 (only those are answered by a stream)
            accepted = encode_reply(operation.accepted_type, operation.accepted_message, answer.accepted, request.id)
            self._put_for(asker, accepted)
            if isinstance(request, StreamingRequest) and request.follows:
                self._follow(asker, answer)
                return
            reply = await answer.reply()
            self._put_for(asker, encode_reply(operation.reply_type, operation.message, reply, request.id))
        except OperationError as error:
            frame = encode_error(error, type_=operation.error_type, message_id=request.id, request_id=request_id)
            self._put_for(asker, frame)
        finally:
            self.session.end()

    def _is_still(self, asker: Caller | None) -> bool:
        """Whether an answer to `asker` is for who is here now: a socket may have changed hands meanwhile."""
        now = self.session.caller
        return asker is None or (now is not None and now.user_id == asker.user_id)

    def _put_for(self, asker: Caller | None, frame: bytes) -> None:
        if self._is_still(asker):
            self._put(frame)

    def _become(self, before: Caller | None, caller: Caller | None) -> None:
        """Take on the identity that a call established, or lose it."""
        if caller is before or not self._is_still(before):
            return
        if before is not None and (caller is None or caller.user_id != before.user_id):
            self._stop_following()
        self.session.caller = caller
        self._sockets.moved(self, before, caller)

    def _follow(self, asker: Caller | None, stream: Stream[Any]) -> None:
        feed = stream.feed
        if feed is None or not self._is_still(asker) or self.session.closing is not None:
            return
        # Following a run a second time begins it again from the seq that was asked for.
        self._unfollowed(stream.request_id)
        follower = Follower(
            lambda frame: self._put(frame.encoded),
            self.outbox.room,
            after_seq=stream.after_seq,
            on_last=lambda: self._unfollowed(stream.request_id),
        )
        if self._unfollow is None:
            self._unfollow = {}
        self._unfollow[stream.request_id] = feed.follow(follower)
        if follower.live and feed.ended:
            self._unfollowed(stream.request_id)

    def _unfollowed(self, request_id: str) -> None:
        if self._unfollow is not None and (unfollow := self._unfollow.pop(request_id, None)) is not None:
            unfollow()
            self._unfollow = self._unfollow or None

    def _stop_following(self) -> None:
        unfollow, self._unfollow = self._unfollow, None
        for stop in (unfollow or {}).values():
            stop()

    def _put(self, frame: bytes) -> None:
        if not self.outbox.put(frame) and self.outbox.overflowed and self.session.closing is None:
            self._sockets.metrics.overflows.inc()
            self.close(SLOW_READER)

    def close(self, code: CloseCode) -> None:
        """Close the socket, after what waits in the outbox. The first reason given is the one that is sent."""
        if self.session.closing is None:
            self.session.closing = code
        if self.closed_at is None:
            self.closed_at = time.monotonic()
        self._stop_following()
        self.outbox.close()

    def close_soon(self, code: CloseCode) -> None:
        """Stop listening to the client now and close at the next sweep: what is being answered still gets out."""
        if self.session.closing is None:
            self.session.closing = code
        self._stop_following()

    def is_stuck(self, now: float) -> bool:
        """Whether the close has waited for too long for the client to read what was sent before it."""
        return self.closed_at is not None and now - self.closed_at > CLOSE_GRACE_S

    def drop(self) -> None:
        """Give the connection up with whatever is still buffered for it."""
        if self.wire is not None:
            self.wire.drop()
        elif self.abort is not None:
            self.abort()

    def say(self, frame: bytes) -> None:
        """Send what nobody asked for."""
        self._put(frame)

    def has_run(self, request_id: str) -> bool:
        """Whether the run's frames or reply are for this socket, or were lately."""
        return request_id in self._runs


class Sockets:
    """The sockets of this node: an ASGI application, and what must be told to all of them or to some."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        dispatcher: Dispatcher,
        authenticator: Authenticator,
        metrics: Metrics,
        limits: Limits,
        rates: RateLimits,
        sessions: SessionWatch,
        seats: Seats,
        news: News,
        origins: frozenset[str],
    ) -> None:
        self.decoder = decoder
        self.dispatcher = dispatcher
        self.metrics = metrics
        self.limits = limits
        self._authenticator = authenticator
        self._rates = rates
        self._sessions = sessions
        self._seats = seats
        self._news = news
        self._origins = origins
        self._tasks = Tasks()
        self._connections: set[Connection] = set()
        self._draining = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Sockets"]:
        """Own the sockets' tasks and watch over their deadlines until the block ends."""
        async with self._tasks.open():
            self._tasks.keep(self._sweep, name="deadlines of sockets")
            yield self

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Start work that outlives the socket which asked for it."""
        self._tasks.spawn(work, name=name)

    def moved(self, connection: Connection, before: Caller | None, after: Caller | None) -> None:
        """A connection logged in, out, or as somebody else."""
        if connection not in self._connections:
            after = None
        if before is None or after is None or after.session_id != before.session_id:
            connection.leave_session()
            connection.leave_session = _nothing
            if after is not None:
                # Soon: the socket that asked to be logged out gets its reply first.
                end = partial(connection.close_soon, REVOKED)
                connection.leave_session = self._sessions.hold(after.session_id, end)
        if before is None or after is None or after.user_id != before.user_id:
            connection.leave_seat()
            connection.leave_seat = _nothing
            connection.leave_news()
            connection.leave_news = _nothing
            if after is not None:
                connection.leave_seat = self._seats.take(after.user_id, partial(connection.close, REPLACED))
                connection.leave_news = self._news.hold(after.user_id, connection)

    def say_goodbye(self) -> None:
        """Tell every client that this node is about to stop, and when to come back."""
        self._draining = True
        for connection in tuple(self._connections):
            connection.say(_goodbye())

    async def close_all(self) -> None:
        """Close every socket because the node stops, in batches: their clients come back at about this rate."""
        while connections := [one for one in self._connections if one.session.closing is None][:CLOSE_BATCH]:
            for connection in connections:
                connection.close(RESTARTING)
            await asyncio.sleep(CLOSE_BATCH_S)

    def __len__(self) -> int:
        return len(self._connections)

    def outbox_bytes(self) -> int:
        """What waits for all clients together."""
        return sum(connection.outbox.size_bytes for connection in self._connections)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket (ASGI 3, `websocket`)."""
        headers = Headers(scope=scope)
        await receive()  # websocket.connect
        if not self._origin_is_fine(headers):
            log.info("socket refused", reason="origin")
            await send({"type": "websocket.close", "code": 1008})
            return
        if self._draining:
            # Before the handshake: a balancer then gives the client another node, and the client notices nothing.
            self.metrics.refused.labels(DRAINING.reason).inc()
            await _refuse_handshake(scope, send)
            return
        offered = SUBPROTOCOL in scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if offered else None})
        extensions = scope.get("extensions", {})
        address = scope["client"][0] if scope.get("client") else None
        connection = Connection(self, secrets.token_hex(8), address)
        connection.abort = extensions.get(ABORT_EXTENSION, {}).get("abort")
        attach: Attach | None = extensions.get(DIRECT_EXTENSION, {}).get("attach")
        # Nothing may be awaited before: what the client sends from now on is the wire's.
        connection.wire = None if attach is None else attach(connection, connection.outbox)
        self._connections.add(connection)
        self.metrics.connections.inc()
        structlog.contextvars.bind_contextvars(connection_id=connection.id)
        if connection.wire is None:
            await self._serve(connection, headers, receive, send)
        else:
            await self._start(connection, connection.wire, headers)

    def lost(self, connection: Connection, code: int) -> None:
        """A socket is over; `code` is what its client closed it with."""
        if connection in self._connections:
            self._connections.discard(connection)
            closing = connection.session.closing
            self.moved(connection, connection.session.caller, None)
            connection.close(NORMAL)
            connection.wire = None
            self.metrics.connections.dec()
            self.metrics.closed.labels(str(code if closing is None else closing.code)).inc()

    async def _start(self, connection: Connection, wire: Wire, headers: Headers) -> None:
        """Greet, and leave the rest to the wire: of the handshake nothing stays."""
        try:
            await self._greet(connection, headers.get("authorization"))
        except BaseException:
            wire.drop()
            raise
        wire.listen()

    async def _greet(self, connection: Connection, authorization: str | None) -> None:
        try:
            await self._rates.socket_allowed(connection.address)
        except OperationError as error:
            self.metrics.refused.labels(error.kind.reason).inc()
            connection.say(encode_error(error))
            connection.close(OVERLOADED)
            return
        connection.say(_GREETING % connection.id.encode())
        if self._draining:
            connection.say(_goodbye())
            connection.close(RESTARTING)
        elif authorization is not None:
            try:
                connection.session.caller = await self._authenticator.authenticate(bearer_token(authorization))
                self.moved(connection, None, connection.session.caller)
            except OperationError as error:
                connection.say(encode_error(error))

    async def _serve(self, connection: Connection, headers: Headers, receive: Receive, send: Send) -> None:
        """The same through ASGI, in this task and two more."""
        codes: list[int] = []
        try:
            await self._greet(connection, headers.get("authorization"))
            writer = asyncio.create_task(self._write(connection, send), name=f"writer of {connection.id}")
            reader = asyncio.create_task(self._read(connection, receive, codes), name=f"reader of {connection.id}")
            try:
                await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
                if writer.done() and not reader.done():
                    # Our close was sent; the client has this long to answer it.
                    await asyncio.wait((reader,), timeout=CLOSE_GRACE_S)
            finally:
                for task in (writer, reader):
                    task.cancel()
                results = await asyncio.gather(writer, reader, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result
        finally:
            self.lost(connection, codes[0] if codes else ABNORMAL)

    async def _read(self, connection: Connection, receive: Receive, codes: list[int]) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            if text is None:
                connection.feed_binary()
            else:
                connection.feed(text.encode())
        codes.append(message.get("code", ABNORMAL))

    async def _write(self, connection: Connection, send: Send) -> None:
        try:
            while frames := await connection.outbox.take():
                for frame in frames:
                    await send({"type": "websocket.send", "text": frame.decode()})
                connection.sent()
            closing = connection.session.closing or NORMAL
            await send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})
        except (OSError, RuntimeError) as error:
            # How servers say that the client is gone: OSError by the ASGI specification, RuntimeError after a close.
            log.debug("socket gone while sending", error=type(error).__name__)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now, epoch_now = time.monotonic(), time.time()
            for number, connection in enumerate(tuple(self._connections), 1):
                if number % SWEEP_BATCH == 0:
                    await asyncio.sleep(0)
                code = connection.session.overdue(now, epoch_now)
                if code is not None:
                    connection.close(code)
                if connection.is_stuck(now):
                    connection.drop()
                elif connection.wire is not None:
                    connection.wire.check(now)

    def _origin_is_fine(self, headers: Headers) -> bool:
        """Browsers name the page that opens a socket; scripts name none, mini programs WeChat's."""
        origin = headers.get("origin")
        if origin is None or origin == MINI_PROGRAM_ORIGIN or origin in self._origins:
            return True
        return urlsplit(origin).netloc == headers.get("host")


def _nothing() -> None:
    """Leaves what was not taken."""


async def _refuse_handshake(scope: Scope, send: Send) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": RESTARTING.code})
        return
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    await send({"type": "websocket.http.response.start", "status": DRAINING.code, "headers": headers})
    body = encode_error(OperationError(DRAINING, retry_after_ms=1000))
    await send({"type": "websocket.http.response.body", "body": body})


_GREETING = to_json(
    Connected(
        server=ServerFacts(
            connection_id="%b",
            ping_interval_s=PING_INTERVAL_S,
            resume_window_s=RESUME_WINDOW_S,
            max_message_bytes=MAX_MESSAGE_BYTES,
        )
    )
)


def _goodbye() -> bytes:
    # Spread over five seconds, so that a node's clients do not all come back at once.
    wait_ms = 200 + secrets.randbelow(4_800)
    return to_json(Goodbye(retry_after_ms=wait_ms))
