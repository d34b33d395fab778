"""HTTP for clients that cannot hold a socket: the same operations, derived from their declarations.

Every operation answers at `POST /api/v1/messages`; those that declare routes answer there too, in the shape of the
older API that the route belongs to. A chat's frames go out as server-sent events. No domain logic.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import structlog
from pydantic import BaseModel
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as HttpRoute

from protocol.accounts import Caller
from protocol.envelope import (
    MAX_MESSAGE_BYTES,
    BadMessageError,
    Decoder,
    decode_body,
    decode_query,
    encode_error,
    encode_reply,
    error_object,
    to_ascii,
)
from protocol.errors import (
    BAD_JSON,
    INTERNAL,
    INVALID_FIELD,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    SESSION_REVOKED,
    TOO_LARGE,
    UNSUPPORTED_MEDIA,
    ErrorKind,
    OperationError,
)
from protocol.operation import Access, AnyOperation, Body, GuestClaim, Request, Route, Shape, StreamingOperation
from storage.runs import LoggedFrame
from wsserver.auth import Authenticator, bearer_token
from wsserver.dispatch import Call, Dispatcher, Reply
from wsserver.feed import Follower
from wsserver.hub import Stream
from wsserver.outbox import Outbox
from wsserver.request_ids import request_id_of
from wsserver.telemetry import Metrics
from wsserver.watch import SessionWatch

log = structlog.get_logger(__name__)

MAX_GUEST_NAME = 128

SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Neither caches nor nginx may hold events back."""

STATUS_NAMES = {"chunk": "token", "complete": "done", "generate_start": "start", "status": "progress"}
"""Frame types as older web pages know them; others keep their name."""

Render: TypeAlias = Callable[[LoggedFrame], bytes]
Endpoint: TypeAlias = Callable[[HttpRequest], Awaitable[Response]]


class HttpEdge:
    """Makes the routes. Each endpoint reads, finds out who calls, dispatches and dresses what comes back."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        dispatcher: Dispatcher,
        authenticator: Authenticator,
        sessions: SessionWatch,
        metrics: Metrics,
        heartbeat_s: float,
    ) -> None:
        self._decoder = decoder
        self._dispatcher = dispatcher
        self._authenticator = authenticator
        self._sessions = sessions
        self._metrics = metrics
        self._heartbeat_s = heartbeat_s

    def routes(self) -> list[HttpRoute]:
        """One route for any message, and those that operations declare: a fixed path before one with a parameter there.

        The first that fits is taken: `/movies/{tmdb_id}` would else take `/movies/search` where it is declared first.
        """
        routes = [HttpRoute("/api/v1/messages", self._message, methods=["POST"])]
        declared = [
            (operation, route) for operation in self._dispatcher.operations.values() for route in operation.routes
        ]
        for operation, route in sorted(declared, key=lambda pair: _parameters(pair[1].path)):
            endpoint = self._endpoint(operation, route)
            routes.append(HttpRoute(route.path, endpoint, methods=[route.method], name=route.path))
        return routes

    async def _message(self, http: HttpRequest) -> Response:
        message_id: str | None = None
        error_type = "error"
        try:
            request = self._decoder.decode((await _read_text(http)).encode())
            message_id = request.id
            operation = self._dispatcher.operations[request.type]
            error_type = operation.error_type
            caller, answer = await self._call(http, operation, request, None)
            if isinstance(answer, Reply):
                data = answer.data
            elif "text/event-stream" in http.headers.get("accept", ""):
                return self._events(operation, answer, Shape.TYPED_SSE, caller)
            else:
                data = await answer.reply() or answer.accepted
            return _json(encode_reply(operation.reply_type, operation.message, data, message_id))
        except OperationError as error:
            if isinstance(error, BadMessageError):
                message_id = error.message_id
            return _json(encode_error(error, type_=error_type, message_id=message_id), error.kind.code, _headers(error))

    def _endpoint(self, operation: AnyOperation, route: Route) -> Endpoint:
        async def endpoint(http: HttpRequest) -> Response:
            try:
                body = await _read_body(http, route)
                request = operation.request.model_validate({"type": operation.name, **body.message()})
                caller, answer = await self._call(http, operation, request, body.guest())
                if isinstance(answer, Stream) and route.shape in (Shape.TYPED_SSE, Shape.STATUS_SSE):
                    return self._events(operation, answer, route.shape, caller)
                data = answer.data if isinstance(answer, Reply) else await answer.reply()
            except OperationError as error:
                return dress_error(error, route.shape, request_id_of(http.scope))
            if route.shape is Shape.ENVELOPE:
                return _json(to_json({"code": 0, "message": operation.message, "data": data}))
            return _json(to_json(data))

        return endpoint

    async def _call(
        self, http: HttpRequest, operation: AnyOperation, request: Request, claim: GuestClaim | None
    ) -> tuple[Caller | None, Reply | Stream[Any]]:
        caller = await self._caller(http, operation, claim)
        address = http.client.host if http.client else None
        return caller, await self._dispatcher.call(Call(caller, address), request)

    async def _caller(self, http: HttpRequest, operation: AnyOperation, claim: GuestClaim | None) -> Caller | None:
        """A token says who calls; without one the caller is a guest. A bad token is never overlooked."""
        authorization = http.headers.get("authorization")
        if authorization is not None:
            return await self._authenticator.authenticate(bearer_token(authorization))
        if operation.access not in (Access.GUEST, Access.NAMED):
            return None
        claim = claim or _claim_of_header(http)
        if claim is None and operation.access is Access.NAMED:
            return None
        return self._authenticator.guest(claim)

    def _events(self, operation: AnyOperation, stream: Stream[Any], shape: Shape, caller: Caller | None) -> Response:
        render = typed_event if shape is Shape.TYPED_SSE else status_event
        start = opening(operation, stream.accepted)
        if stream.message_id is not None:
            start["id"] = stream.message_id
        first = sse_event(start if shape is Shape.TYPED_SSE else status_of(start))
        revoked = error_object(OperationError(SESSION_REVOKED)) | {"request_id": stream.request_id}
        last_words = sse_event(revoked if shape is Shape.TYPED_SSE else status_of(revoked))
        session_id = caller.session_id if caller is not None and caller.kind == "user" else None
        return StreamingResponse(
            self._follow(stream, first, render, session_id, last_words),
            media_type="text/event-stream; charset=utf-8",
            headers=SSE_HEADERS,
        )

    async def _follow(
        self, stream: Stream[Any], first: bytes, render: Render, session_id: str | None, last_words: bytes
    ) -> AsyncIterator[bytes]:
        """The events, until the last one or, with `last_words`, until the session is over that they are for."""
        yield first
        if stream.feed is None:
            return
        outbox = Outbox()
        follower = Follower(
            lambda frame: _put(outbox, render(frame)),
            outbox.room,
            after_seq=stream.after_seq,
            on_last=outbox.close,
        )
        unfollow = stream.feed.follow(follower)

        def end() -> None:
            outbox.put(last_words)
            outbox.close()

        let_go = _nothing if session_id is None else self._sessions.hold(session_id, end)
        self._metrics.event_streams.inc()
        try:
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        events = await outbox.take()
                except TimeoutError:
                    yield b": ping\n\n"
                    continue
                if not events:
                    return
                yield b"".join(events)
        finally:
            self._metrics.event_streams.dec()
            unfollow()
            let_go()


def _parameters(path: str) -> list[bool]:
    return [segment.startswith("{") for segment in path.split("/")]


def _nothing() -> None:
    """Lets go of what was not held."""


def _put(outbox: Outbox, event: bytes) -> None:
    outbox.put(event)


def opening(operation: AnyOperation, accepted: BaseModel) -> dict[str, object]:
    """The fields of the first event of a stream."""
    if isinstance(operation, StreamingOperation) and operation.reply is type(None):
        # What is only followed has been answered already when it is accepted.
        return {
            "type": operation.accepted_type,
            "code": 0,
            "message": operation.accepted_message,
            "data": accepted,
        }
    return {"type": "generate_start", "content": accepted}


def typed_event(frame: LoggedFrame) -> bytes:
    """A frame as an event of TYPED_SSE."""
    return b"id: %d\ndata: %b\n\n" % (frame.seq, to_ascii(frame.encoded))


def status_event(frame: LoggedFrame) -> bytes:
    """A frame as an event of STATUS_SSE."""
    return sse_event(status_of(from_json(frame.encoded)))


def status_of(frame: Mapping[str, object]) -> dict[str, object]:
    """A frame's fields as older web pages know them."""
    renamed = dict(frame)
    type_ = str(renamed.pop("type"))
    return {"status": STATUS_NAMES.get(type_, type_), **renamed}


def sse_event(fields: Mapping[str, object]) -> bytes:
    """An event without a number."""
    return b"data: %b\n\n" % to_ascii(to_json(fields))


def _claim_of_header(http: HttpRequest) -> GuestClaim | None:
    name = http.headers.get("x-user-id")
    if name is None:
        return None
    if not name.strip() or len(name) > MAX_GUEST_NAME:
        raise OperationError(INVALID_FIELD, f"请求头 X-User-ID：1 到 {MAX_GUEST_NAME} 个字符", field="X-User-ID")
    return GuestClaim("header", name)


async def _read_body(http: HttpRequest, route: Route) -> Body:
    if route.method != "POST":
        fields = {**http.query_params, **http.path_params}
        if (seen := http.headers.get("last-event-id")) is not None:
            fields.setdefault("after_seq", seen)
        return decode_query(route.body, fields)
    # No body says as much as an empty object: `POST /api/v1/conversations` needs none.
    return decode_body(route.body, await _read_text(http) or "{}", http.path_params)


async def _read_text(http: HttpRequest) -> str:
    """The request's body. Raises TOO_LARGE, UNSUPPORTED_MEDIA or BAD_JSON."""
    media_type = http.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise OperationError(UNSUPPORTED_MEDIA)
    body = bytearray()
    try:
        async for piece in http.stream():
            body += piece
            if len(body) > MAX_MESSAGE_BYTES:
                raise OperationError(TOO_LARGE, f"请求体最多 {MAX_MESSAGE_BYTES} 字节")
        return body.decode()
    except ClientDisconnect:
        # Nobody reads this; it is no mistake of ours, and must not be logged as one.
        raise OperationError(BAD_JSON, "请求体不完整") from None
    except UnicodeDecodeError:
        raise OperationError(BAD_JSON, "请求体不是 UTF-8") from None


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def _headers(error: OperationError) -> dict[str, str]:
    headers = {}
    if error.retry_after_ms is not None:
        headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
    if error.kind.code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def http_status(kind: ErrorKind, shape: Shape | None) -> int:
    """The HTTP status of an error; without a shape as `POST /api/v1/messages` answers it."""
    if shape is Shape.ENVELOPE:
        return 200
    # A body that is JSON but breaks a rule is 422 in REST (RFC 9110 §15.5.21).
    return 422 if kind is INVALID_FIELD and shape is not None else kind.code


def dress_error(error: OperationError, shape: Shape, request_id: str) -> Response:
    """An error in the shape of the API that was called; `request_id` is the HTTP request's."""
    fields = error_object(error)
    about: dict[str, object] = {
        key: fields[key] for key in ("reason", "retryable", "retry_after_ms", "field") if key in fields
    }
    if shape is Shape.ENVELOPE:
        return _json(to_json({"code": error.kind.code, "message": error.message, "data": None, **about}))
    status = http_status(error.kind, shape)
    dressed = {"code": status, "message": error.message, **about, "request_id": request_id}
    return _json(to_json({"error": dressed}), status, _headers(error))


async def on_http_exception(http: HttpRequest, error: Exception) -> Response:
    """Answer what no route took, and what broke in one, in the shape of its surface and with its own status."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    kind = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}.get(status, INTERNAL)
    shape = Shape.ENVELOPE if http.scope["path"].startswith("/wechat/") else Shape.BARE
    response = dress_error(OperationError(kind), shape, request_id_of(http.scope))
    response.status_code = kind.code
    response.headers.update(headers)
    return response
