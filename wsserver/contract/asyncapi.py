"""The AsyncAPI document (3.0) of the sockets, made from the declared operations. Pure: no server is needed for it.

An operation here is a message of the client with what answers it. HTTP is in `openapi.py`.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from protocol.envelope import MAX_MESSAGE_BYTES
from protocol.errors import CLOSE_CODES, ERRORS, ErrorKind
from protocol.operation import Access, AnyOperation, Noun, StreamingOperation
from protocol.unasked import UNASKED
from wsserver.contract.advice import after_error
from wsserver.contract.examples import (
    accepted_example,
    error_example,
    frame_examples,
    reply_example,
    request_example,
)
from wsserver.contract.failures import SOCKET_ITSELF, socket_failures
from wsserver.contract.meanings import meaning
from wsserver.contract.openapi import VERSION, domain, reachable
from wsserver.contract.schemas import ErrorFrame, Json, Schemas, is_only_followed, noun_type

SOCKETS = {"wechat": "/wechat/ws", "plain": "/ws"}
"""The addresses by the names of their channels. Both are the same; the first is what mini programs use."""

ABOUT = f"""\
One socket carries everything: text frames of one JSON object each, at most {MAX_MESSAGE_BYTES} bytes. A message may
have an `id`, which every answer to it echoes; messages are handled concurrently. A token comes in the handshake
(`Authorization: Bearer …`) or by `login` or `auth`. The subprotocol `cinewire.v1` is accepted and not needed.

An error has a `reason` for programs; `retryable` and `retry_after_ms` say whether and when the same message may be sent
again. The socket stays open, unless it is closed with one of `x-close-codes`. A page of an origin that the server does
not know is refused in the handshake, with HTTP 403. Ignore keys, types and reasons that you do not know. The same
operations over HTTP are in [/openapi.json](/openapi.json).
"""


def asyncapi(operations: Mapping[str, AnyOperation]) -> Json:
    """The document. Raises MissingExampleError for a declaration without an example."""
    schemas = Schemas(operations)
    messages = _Messages(schemas)
    exchanges = {name: messages.exchange(operation) for name, operation in operations.items()}
    unasked = {f"say_{noun_type(noun)}": messages.unasked(noun) for noun in UNASKED}
    unasked["refuse"] = messages.refusal()
    described = {
        _in_channel(name, channel): made
        for channel in SOCKETS
        for name, made in (
            *((name, _receives(operations[name], channel, *exchanges[name])) for name in operations),
            *((name, _sends(channel, message)) for name, message in unasked.items()),
        )
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "CineWire", "version": VERSION, "description": ABOUT},
        "defaultContentType": "application/json",
        "servers": {
            "node": {
                "host": "{address}",
                "protocol": "ws",
                "description": "Any node; over TLS the protocol is wss.",
                "variables": {"address": {"default": "127.0.0.1:8000"}},
            }
        },
        "channels": {channel: _channel(address, messages.made) for channel, address in SOCKETS.items()},
        "operations": described,
        "components": {"messages": messages.made, "schemas": _explained(reachable(schemas.components, messages.made))},
        "x-errors": [
            {
                "reason": kind.reason,
                "code": kind.code,
                "message": kind.message,
                "retryable": kind.retryable,
                "do": after_error(kind).en,
            }
            for kind in ERRORS.values()
        ],
    }


class _Messages:
    """The messages by their names in the document, each described once."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self.made: Json = {}

    def exchange(self, operation: AnyOperation) -> tuple[str, list[str]]:
        """A client's message and everything that may answer it: names in the document."""
        schemas = self._schemas
        ref = schemas.ref(operation.request, "validation")
        request = self._add(ref, operation.name, operation.summary, [request_example(operation)])
        answers = []
        if isinstance(operation, StreamingOperation):
            accepted = schemas.ref(schemas.accepted[operation.name])
            about = "The run has begun" if not is_only_followed(operation) else "Where the run stands"
            answers.append(self._add(accepted, operation.accepted_type, about, [accepted_example(operation)]))
            examples = frame_examples(operation)
            for frame in operation.frames:
                ref, about = schemas.ref(schemas.frames[type(frame)]), _first_line(type(frame).__doc__)
                answers.append(self._add(ref, frame.TYPE, about, [examples[type(frame)]]))
        if not is_only_followed(operation):
            ref = schemas.ref(schemas.replies[operation.name])
            answers.append(self._add(ref, operation.reply_type, "The reply", [reply_example(operation)]))
        answers.append(self._failure(f"{operation.name}_failed", socket_failures(operation), operation.error_type))
        return request, list(dict.fromkeys(answers))

    def unasked(self, noun: Noun) -> str:
        """What the server says without having been asked."""
        ref = self._schemas.ref(type(noun))
        return self._add(ref, noun_type(noun), _first_line(type(noun).__doc__), [noun.model_dump(mode="json")])

    def refusal(self) -> str:
        """The answer to what is no message of any operation."""
        return self._failure("refused", SOCKET_ITSELF, "error")

    def _add(self, ref: Json, type_: str, about: str, examples: Iterable[Json]) -> str:
        name: str = ref["$ref"].rsplit("/", 1)[1]
        self.made.setdefault(name, _message(type_, about, ref, ({"payload": example} for example in examples)))
        return name

    def _failure(self, name: str, kinds: Iterable[ErrorKind], type_: str) -> str:
        reasons = [kind.reason for kind in kinds]
        # A message that is refused before it is known what it asks for has the general type.
        properties = {"type": {"enum": sorted({"error", type_})}, "reason": {"enum": reasons}}
        payload = {"allOf": [self._schemas.ref(ErrorFrame), {"type": "object", "properties": properties}]}
        examples = ({"name": reason, "payload": error_example(ERRORS[reason], None, type_=type_)} for reason in reasons)
        self.made[name] = _message(type_, "Why not: `reason` says it", payload, examples)
        return name


def _explained(schemas: Json) -> Json:
    """The schemas, each field of them with its meaning."""
    return {
        name: schema | {"properties": {key: _with_meaning(name, key, one) for key, one in schema["properties"].items()}}
        if "properties" in schema
        else schema
        for name, schema in schemas.items()
    }


def _with_meaning(model: str, field: str, schema: Json) -> Json:
    said = meaning(model, field)
    # Beside a reference nothing else may stand (AsyncAPI 3.0); what it refers to says what it is.
    return schema if said is None or "$ref" in schema else {"description": said.en, **schema}


def _message(type_: str, about: str, payload: Json, examples: Iterable[Json]) -> Json:
    return {
        "name": type_,
        "title": type_,
        "summary": about,
        "contentType": "application/json",
        "correlationId": {"location": "$message.payload#/id", "description": "The client's own name for its message"},
        "payload": payload,
        "examples": list(examples),
    }


def _channel(address: str, messages: Mapping[str, Json]) -> Json:
    return {
        "address": address,
        "title": f"The socket at {address}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "properties": {"Authorization": {"type": "string", "description": "Bearer and a token; optional."}},
                },
            }
        },
        "x-close-codes": [
            {"code": close.code, "reason": close.reason, "do": close.advice} for close in CLOSE_CODES.values()
        ],
    }


def _receives(operation: AnyOperation, channel: str, request: str, answers: Iterable[str]) -> Json:
    login = "Also before login." if operation.access is Access.ANYONE else "After login."
    about = "\n\n".join(filter(None, (inspect.cleandoc(operation.request.__doc__ or ""), login)))
    return {
        "action": "receive",
        "title": operation.name,
        "summary": operation.summary,
        "description": about,
        "tags": [{"name": domain(operation)}],
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [_in(channel, request)],
        "reply": {
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [_in(channel, answer) for answer in answers],
        },
    }


def _sends(channel: str, message: str) -> Json:
    return {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "messages": [_in(channel, message)]}


def _in(channel: str, message: str) -> dict[str, Any]:
    return {"$ref": f"#/channels/{channel}/messages/{message}"}


def _in_channel(name: str, channel: str) -> str:
    return name if channel == "wechat" else f"{name}_on_{channel}"


def _first_line(about: str | None) -> str:
    return (about or "").strip().partition("\n")[0]
