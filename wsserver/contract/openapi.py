"""The OpenAPI document (3.1) of every HTTP route, made from the declared operations. Pure: no server is needed for it.

What a socket says is in `asyncapi.py`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from protocol.errors import ERRORS, UNKNOWN_TYPE, ErrorKind
from protocol.operation import Access, AnyOperation, Route, Shape, StreamingOperation
from wsserver.contract.examples import (
    HTTP_REQUEST_ID,
    body_example,
    data_example,
    error_example,
    events_example,
    reply_example,
    request_example,
)
from wsserver.contract.failures import by_status, http_failures, route_failures
from wsserver.contract.operators import OPERATOR_ROUTES, OperatorRoute
from wsserver.contract.schemas import (
    ErrorBody,
    ErrorEnvelope,
    ErrorEvent,
    ErrorFrame,
    Json,
    Schemas,
    one_of,
)
from wsserver.http import MAX_GUEST_NAME
from wsserver.request_ids import HEADER, PATTERN

VERSION = "1.0.0"
"""The contract's, as in the subprotocol `cinewire.v1`: it only grows, so clients ignore what they do not know."""

EVENT_STREAM = "text/event-stream"

ABOUT = """\
The operations of CineWire over HTTP, for clients that cannot hold a socket. What goes over `/wechat/ws` and `/ws` is at
[/docs/ws](/docs/ws), and for programs in [/asyncapi.json](/asyncapi.json).

A bearer token, as `login` gives it, says who calls. Without one the caller is a guest, named by the body or by
`X-User-ID`, where the server allows guests. Errors carry a `reason` for programs; `retryable` and `retry_after_ms` say
whether and when the same request may be sent again. Every answer has an `X-Request-Id`, the one that was sent or a
new one, and an `error` repeats it: say it when you report something. Ignore keys, event types and reasons that you do
not know.
"""


def openapi(operations: Mapping[str, AnyOperation]) -> Json:
    """The document. Raises MissingExampleError for a declaration without an example."""
    schemas = Schemas(operations, [route.model for route in OPERATOR_ROUTES if route.model is not None])
    paths: dict[str, Json] = {"/api/v1/messages": {"post": _messages(operations, schemas)}}
    for operation in operations.values():
        for route in operation.routes:
            paths.setdefault(route.path, {})[route.method.lower()] = _route(operation, route, schemas)
    for operator_route in OPERATOR_ROUTES:
        paths[operator_route.path] = {"get": _operator_route(operator_route, schemas)}
    for described in (one for methods in paths.values() for one in methods.values()):
        _with_request_id(described)
    return {
        "openapi": "3.1.0",
        "info": {"title": "CineWire", "version": VERSION, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("messages", *dict.fromkeys(map(domain, operations.values())), "server")],
        "paths": paths,
        "components": {
            "schemas": reachable(schemas.components, paths),
            "headers": {HEADER: _ID_OF_ANSWER},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`token` of a `login_response`."},
            },
        },
    }


def domain(operation: AnyOperation) -> str:
    """The subject that the operation belongs to: the module that declares it."""
    return str(operation.request.__module__).rsplit(".", 1)[-1]


def reachable(components: Mapping[str, Json], root: Any) -> Json:
    """The components that `root` refers to, directly or through others."""
    found: Json = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            reference = str(node.get("$ref"))
            name = reference.rsplit("/", 1)[1] if reference.startswith("#/components/schemas/") else None
            if name is not None and name not in found:
                found[name] = components[name]
                waiting.append(components[name])
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return dict(sorted(found.items()))


# ---- POST /api/v1/messages ----


def _messages(operations: Mapping[str, AnyOperation], schemas: Schemas) -> Json:
    requests = schemas.add(
        "ClientMessage",
        one_of({name: schemas.ref(each.request, "validation") for name, each in operations.items()}, "type"),
    )
    streaming = [each for each in operations.values() if isinstance(each, StreamingOperation)]
    kinds = [UNKNOWN_TYPE]
    for operation in operations.values():
        kinds += http_failures(operation, posts=True, run=True)
    replies = {each.reply_type: schemas.ref(schemas.replies[name]) for name, each in operations.items()}
    success: Json = {
        "description": "The reply of the operation, the same as over the socket.",
        "content": {
            "application/json": {
                "schema": schemas.add("Reply", one_of(replies, "type")),
                "examples": {name: {"value": reply_example(each)} for name, each in operations.items()},
            }
        },
    }
    if streaming:
        success["content"][EVENT_STREAM] = {
            "schema": schemas.add("MessageEvents", _events(streaming, Shape.TYPED_SSE, schemas)),
            "examples": {each.name: {"value": events_example(each, Shape.TYPED_SSE)} for each in streaming},
        }
        success["description"] += f" With `Accept: {EVENT_STREAM}` the frames of a streaming one as events."
    return {
        "operationId": "post_api_v1_messages",
        "summary": "Any client message",
        "description": "The same messages as over the socket: the operation is named by `type`.",
        "tags": ["messages"],
        "security": [{"bearer": []}, {}],
        "parameters": [_GUEST_HEADER],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": requests,
                    "examples": {
                        name: {"summary": each.summary, "value": request_example(each)}
                        for name, each in operations.items()
                    },
                }
            },
        },
        "responses": {"200": success, **_failures(dict.fromkeys(kinds), None, schemas)},
    }


# ---- routes of operations ----


def _route(operation: AnyOperation, route: Route, schemas: Schemas) -> Json:
    example = body_example(operation, route)
    body = schemas.resolved(route.body, "validation")
    in_path = re.findall(r"\{(\w+)[^}]*\}", route.path)
    as_parameters = in_path if route.method == "POST" else list(body.get("properties", {}))
    described: Json = {
        "operationId": f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "summary": operation.summary,
        "description": " ".join(filter(None, (operation.request.__doc__, route.body.__doc__))),
        "tags": [domain(operation)],
        "security": _security(operation.access),
        "parameters": [
            *(_parameter(name, body, name in in_path, example) for name in as_parameters),
            *([_GUEST_HEADER] if operation.access in (Access.GUEST, Access.NAMED) else []),
            *([_LAST_EVENT_ID] if route.method != "POST" and "after_seq" in as_parameters else []),
        ],
        "responses": {
            "200": _success(operation, route, schemas),
            **_failures(route_failures(operation, route), route.shape, schemas),
        },
    }
    if route.method == "POST":
        schema = schemas.ref(route.body, "validation")
        if in_path:
            schema = {
                **body,
                "properties": {name: one for name, one in body["properties"].items() if name not in in_path},
                "required": [name for name in body.get("required", []) if name not in in_path],
            }
        value = {name: one for name, one in example.items() if name not in in_path}
        described["requestBody"] = {
            "required": any(name not in in_path for name in body.get("required", [])),
            "content": {"application/json": {"schema": schema, "example": value}},
        }
    return described


def _success(operation: AnyOperation, route: Route, schemas: Schemas) -> Json:
    if isinstance(operation, StreamingOperation) and route.shape in (Shape.TYPED_SSE, Shape.STATUS_SSE):
        return {
            "description": "The answer while it is made: one JSON object an event.",
            "content": {
                EVENT_STREAM: {
                    "schema": _events([operation], route.shape, schemas),
                    "example": events_example(operation, route.shape),
                }
            },
        }
    data = data_example(operation)
    if route.shape is not Shape.ENVELOPE:
        return {
            "description": "The reply's data.",
            "content": {"application/json": {"schema": schemas.data(operation.reply), "example": data}},
        }
    kinds = route_failures(operation, route)
    return {
        "description": "The reply's data, or with another `code` than 0 why there is none: HTTP says 200 always.",
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        schemas.ref(schemas.envelopes[operation.name]),
                        _with_reasons(schemas.ref(ErrorEnvelope), kinds),
                    ]
                },
                "examples": {
                    "ok": {"value": {"code": 0, "message": operation.message, "data": data}},
                    **{kind.reason: {"value": error_example(kind, route.shape)} for kind in kinds},
                },
            }
        },
    }


def _events(operations: Iterable[StreamingOperation[Any, Any, Any]], shape: Shape, schemas: Schemas) -> Json:
    """A stream as the text that it is, and the JSON in each of its events."""
    key, kinds = ("type", schemas.frames) if shape is Shape.TYPED_SSE else ("status", schemas.events)
    refs: dict[str, Json] = {}
    for operation in operations:
        models = [schemas.openings[operation.name, key], *(kinds[type(frame)] for frame in operation.frames)]
        for model in models:
            ref = schemas.ref(model)
            refs[ref["$ref"]] = ref
    error = schemas.ref(ErrorFrame if shape is Shape.TYPED_SSE else ErrorEvent)
    refs[error["$ref"]] = error
    return {
        "type": "string",
        "description": (
            "Server-sent events; `contentSchema` is what stands in the `data` of one. Lines that begin with a colon"
            " keep the connection open. " + ("`id` is the `seq` of a frame." if shape is Shape.TYPED_SSE else "")
        ).strip(),
        "contentMediaType": EVENT_STREAM,
        "contentSchema": {"anyOf": list(refs.values())},
    }


# ---- parameters, security, errors ----


def _parameter(name: str, body: Json, in_path: bool, example: Json) -> Json:
    schema = {key: value for key, value in body["properties"][name].items() if key != "default" or value is not None}
    # In a path or a query there is no null: what is not said is left out.
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        schema = {key: value for key, value in schema.items() if key != "anyOf"} | choices[0]
    parameter: Json = {
        "name": name,
        "in": "path" if in_path else "query",
        "required": in_path or name in body.get("required", []),
        "schema": schema,
    }
    return parameter | ({"example": example[name]} if name in example else {})


_GUEST_HEADER: Json = {
    "name": "X-User-ID",
    "in": "header",
    "required": False,
    "description": "A guest's name, where no token and no body says who calls.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_GUEST_NAME},
    "example": "u1",
}
_LAST_EVENT_ID: Json = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The `id` of the last event that was had, as browsers send it; `after_seq` comes first.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 2_147_483_647},
    "example": 4,
}
_ID_OF_REQUEST: Json = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "An id of the client's own for the request; one that is not of this form is not taken over.",
    "schema": {"type": "string", "pattern": PATTERN},
    "example": HTTP_REQUEST_ID,
}
_ID_OF_ANSWER: Json = {
    "description": "The request's id: the client's, or a new one.",
    "required": True,
    "schema": {"type": "string", "pattern": PATTERN},
}


def _with_request_id(described: Json) -> None:
    described["parameters"] = [*described.get("parameters", []), _ID_OF_REQUEST]
    for response in described["responses"].values():
        response.setdefault("headers", {})[HEADER] = {"$ref": f"#/components/headers/{HEADER}"}


def _security(access: Access) -> list[Json]:
    return [{"bearer": []}] if access is Access.USER else [{"bearer": []}, {}]


def _with_reasons(ref: Json, kinds: Iterable[ErrorKind]) -> Json:
    """An error's schema, narrowed to these reasons."""
    return {"allOf": [ref, {"type": "object", "properties": {"reason": {"enum": [kind.reason for kind in kinds]}}}]}


def _failures(kinds: Iterable[ErrorKind], shape: Shape | None, schemas: Schemas) -> Json:
    """The responses that say what went wrong, by status; in an envelope they are part of the 200."""
    if shape is Shape.ENVELOPE:
        return {}
    return {str(status): _failure(found, shape, schemas) for status, found in by_status(kinds, shape).items()}


def _failure(kinds: list[ErrorKind], shape: Shape | None, schemas: Schemas) -> Json:
    if shape is None:
        schema = _with_reasons(schemas.ref(ErrorFrame), kinds)
    else:
        inner = {"type": "object", "properties": {"reason": {"enum": [kind.reason for kind in kinds]}}}
        schema = {"allOf": [schemas.ref(ErrorBody), {"type": "object", "properties": {"error": inner}}]}
    headers: Json = {}
    if any(kind.code == 401 for kind in kinds):
        headers["WWW-Authenticate"] = {"schema": {"const": "Bearer"}}
    if any(kind.retryable for kind in kinds):
        headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}
    return {
        "description": "; ".join(f"`{kind.reason}`: {ERRORS[kind.reason].message}" for kind in kinds),
        **({"headers": headers} if headers else {}),
        "content": {
            "application/json": {
                "schema": schema,
                "examples": {kind.reason: {"value": error_example(kind, shape)} for kind in kinds},
            }
        },
    }


def _operator_route(route: OperatorRoute, schemas: Schemas) -> Json:
    media_type, schema = "application/json", {} if route.model is None else schemas.ref(route.model)
    if route.model is None:
        media_type, schema = "text/plain", {"type": "string"}
    return {
        "operationId": f"get_{route.path.strip('/').replace('/', '_')}",
        "summary": route.summary,
        "tags": ["server"],
        "security": [],
        "responses": {
            str(status): {
                "description": route.summary,
                "content": {media_type: {"schema": schema, "example": example}},
            }
            for status, example in route.examples.items()
        },
    }
