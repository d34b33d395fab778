"""Which errors an operation may answer on each surface: its own, and those of the way to it.

The rules of the two edges and of the dispatcher, said once more as data; the tests hold the running server to them.
"""

from collections.abc import Iterable

from protocol import errors
from protocol.errors import ErrorKind
from protocol.operation import Access, AnyOperation, Route, Shape, StreamingOperation
from wsserver.http import http_status

EVERYWHERE = (errors.INTERNAL, errors.STORAGE_UNAVAILABLE, errors.DEADLINE_EXCEEDED)
BAD_TOKEN = (errors.TOKEN_INVALID, errors.TOKEN_EXPIRED, errors.SESSION_REVOKED)
NO_OBJECT = (errors.BAD_JSON, errors.NOT_AN_OBJECT, errors.DUPLICATE_KEY)
BAD_BODY = (*NO_OBJECT, errors.TOO_LARGE, errors.UNSUPPORTED_MEDIA)
SOCKET_ITSELF = (
    *NO_OBJECT,
    errors.BINARY_REFUSED,
    errors.UNKNOWN_TYPE,
    errors.INVALID_FIELD,
    errors.RATE_LIMITED,
    errors.TOO_MANY_IN_FLIGHT,
    *BAD_TOKEN,
    errors.STORAGE_UNAVAILABLE,
)
"""What a socket answers to what is no request, to too many of them, and to a bad token in its handshake."""


def own_failures(operation: AnyOperation, *, run: bool) -> tuple[ErrorKind, ...]:
    """What the operation itself may fail with, on any surface; with `run`, what the run that it starts ends with too.

    A run fails after its acceptance: who follows it gets that as a frame, who waits for the reply as the reply.
    """
    kinds = [*EVERYWHERE, errors.INVALID_FIELD, *operation.errors]
    if operation.rate is not None:
        kinds.append(errors.RATE_LIMITED)
    if run and isinstance(operation, StreamingOperation):
        kinds += operation.run_errors
    return tuple(dict.fromkeys(kinds))


def socket_failures(operation: AnyOperation) -> tuple[ErrorKind, ...]:
    """What a message of the operation may be answered with on the socket, instead of its reply."""
    kinds = [*own_failures(operation, run=True), errors.RATE_LIMITED, errors.TOO_MANY_IN_FLIGHT, errors.DUPLICATE_KEY]
    if operation.access is not Access.ANYONE:
        kinds.append(errors.LOGIN_REQUIRED)
    return tuple(dict.fromkeys(kinds))


def http_failures(operation: AnyOperation, *, posts: bool, run: bool) -> tuple[ErrorKind, ...]:
    """What a call of the operation may be answered with over HTTP; `posts` whether it has a body."""
    kinds = [*own_failures(operation, run=run), *BAD_TOKEN]
    if operation.access in (Access.GUEST, Access.NAMED):
        kinds.append(errors.GUESTS_OFF)
    if operation.access in (Access.NAMED, Access.USER):
        kinds.append(errors.LOGIN_REQUIRED)
    if posts:
        kinds += BAD_BODY
    return tuple(dict.fromkeys(kinds))


def route_failures(operation: AnyOperation, route: Route) -> tuple[ErrorKind, ...]:
    """What a route of the operation may answer."""
    streams = operation.streaming and route.shape in (Shape.TYPED_SSE, Shape.STATUS_SSE)
    return http_failures(operation, posts=route.method == "POST", run=not streams)


def by_status(kinds: Iterable[ErrorKind], shape: Shape | None) -> dict[int, list[ErrorKind]]:
    """The kinds by their HTTP status; without a shape as `POST /api/v1/messages` answers them."""
    sorted_out: dict[int, list[ErrorKind]] = {}
    for kind in kinds:
        sorted_out.setdefault(http_status(kind, shape), []).append(kind)
    return dict(sorted(sorted_out.items()))
