"""JSON schemas of everything on the wire, under the names by which both documents refer to them.

They are made from the models that decode and encode, so a schema cannot say what the server does not do.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_type_hints, is_typeddict

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from protocol.envelope import Frame
from protocol.operation import AnyOperation, MessageId, Noun, Shape, StreamingOperation
from protocol.unasked import UNASKED
from wsserver.http import STATUS_NAMES
from wsserver.request_ids import PATTERN

Json: TypeAlias = dict[str, Any]
Mode: TypeAlias = Literal["validation", "serialization"]

REF = "#/components/schemas/{model}"


def _not_there(schema: Json) -> None:
    """A key that may be missing, and is never null."""
    schema.pop("default", None)


class _Wire(BaseModel):
    """Base of what only the documents need a model of. Clients are told to expect further keys."""

    model_config = ConfigDict(extra="ignore")


class ErrorContent(_Wire):
    """For pages that read `content` of every frame."""

    message: str


class ErrorFrame(_Wire):
    """What went wrong. `message` is for people, `reason` for programs; `retryable` and `retry_after_ms` are promises.

    `field` names what was wrong in the message. A failed login has the type of its own reply. The last frame of a run
    that failed has `request_id` and `seq`.
    """

    type: str
    code: int
    message: str
    data: None
    reason: str
    retryable: bool
    retry_after_ms: int | None
    content: ErrorContent
    field: Annotated[str, Field(default=None, json_schema_extra=_not_there)]
    id: Annotated[MessageId, Field(default=None, json_schema_extra=_not_there)]
    request_id: Annotated[str, Field(default=None, json_schema_extra=_not_there)]
    seq: Annotated[int, Field(default=None, ge=1, json_schema_extra=_not_there)]


class ErrorEvent(_Wire):
    """The last event of a run that failed."""

    status: Literal["error"]
    code: int
    message: str
    data: None
    reason: str
    retryable: bool
    retry_after_ms: int | None
    content: ErrorContent
    id: Annotated[MessageId, Field(default=None, json_schema_extra=_not_there)]
    request_id: str
    seq: Annotated[int, Field(default=None, ge=1, json_schema_extra=_not_there)]


class ErrorDetails(_Wire):
    """What went wrong. `field` names what was wrong in the request; `request_id` is that of the header X-Request-Id."""

    code: int
    message: str
    reason: str
    retryable: bool
    retry_after_ms: Annotated[int | None, Field(default=None)]
    field: Annotated[str, Field(default=None, json_schema_extra=_not_there)]
    request_id: Annotated[str, Field(pattern=PATTERN)]


class ErrorBody(_Wire):
    """How routes without an envelope fail."""

    error: ErrorDetails


class ErrorEnvelope(_Wire):
    """How routes with an envelope fail: HTTP says 200, `code` says what it was."""

    code: Annotated[int, Field(ge=1)]
    message: str
    data: None
    reason: str
    retryable: bool
    retry_after_ms: Annotated[int | None, Field(default=None)]
    field: Annotated[str, Field(default=None, json_schema_extra=_not_there)]


FAILURES = (ErrorFrame, ErrorEvent, ErrorBody, ErrorEnvelope)


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """A field's name is title enough."""
        return False


class Schemas:
    """The schemas of the operations' models and of what they become on the wire. `ref` gives the name of one."""

    def __init__(self, operations: Mapping[str, AnyOperation], others: Iterable[type[BaseModel]] = ()) -> None:
        self.accepted = {
            name: _reply(each.accepted_type, each.accepted)
            for name, each in operations.items()
            if isinstance(each, StreamingOperation)
        }
        self.replies = {
            # Where there are only frames, the acceptance is the reply to who does not follow them.
            name: self.accepted[name] if is_only_followed(each) else _reply(each.reply_type, each.reply)
            for name, each in operations.items()
        }
        self.envelopes = {
            name: _envelope(name, each.reply)
            for name, each in operations.items()
            if any(route.shape is Shape.ENVELOPE for route in each.routes)
        }
        self.frames: dict[type, type[BaseModel]] = {}
        self.events: dict[type, type[BaseModel]] = {}
        self.openings: dict[tuple[str, str], type[BaseModel]] = {}
        for name, each in operations.items():
            if isinstance(each, StreamingOperation):
                for frame in each.frames:
                    self.frames.setdefault(type(frame), _frame(frame, "type", frame.TYPE, "Frame"))
                    event = _frame(frame, "status", STATUS_NAMES.get(frame.TYPE, frame.TYPE), "Event")
                    self.events.setdefault(type(frame), event)
                for key in ("type", "status"):
                    self.openings[name, key] = _opening(each, key)
        pairs = [*self._pairs(operations), *((model, "serialization") for model in others)]
        generated, whole = models_json_schema(list(dict.fromkeys(pairs)), ref_template=REF, schema_generator=_Generator)
        self.components: Json = whole.get("$defs", {})
        self._refs = generated

    def _pairs(self, operations: Mapping[str, AnyOperation]) -> Iterator[tuple[type[BaseModel], Mode]]:
        for operation in operations.values():
            yield operation.request, "validation"
            for route in operation.routes:
                yield route.body, "validation"
            if operation.reply is not type(None):
                yield operation.reply, "serialization"
        for models in (self.replies, self.accepted, self.envelopes, self.frames, self.events, self.openings):
            for model in models.values():
                yield model, "serialization"
        for failure in FAILURES:
            yield failure, "serialization"
        for unasked in UNASKED:
            yield type(unasked), "serialization"

    def ref(self, model: type[BaseModel], mode: Mode = "serialization") -> Json:
        """`{"$ref": …}` to the schema of a model."""
        return dict(self._refs[model, mode])

    def data(self, reply: type[Any]) -> Json:
        """The schema of a reply's data, which may be none."""
        return {"type": "null"} if reply is type(None) else self.ref(reply)

    def resolved(self, model: type[BaseModel], mode: Mode) -> Json:
        """The schema of a model itself, not its name."""
        name = self.ref(model, mode)["$ref"].rsplit("/", 1)[1]
        return dict(self.components[name])

    def drop(self, model: type[BaseModel], mode: Mode) -> None:
        """Leave out a model that is said in other words, as parameters are."""
        self.components.pop(self.ref(model, mode)["$ref"].rsplit("/", 1)[1], None)

    def add(self, name: str, schema: Json) -> Json:
        """Give a schema a name of its own, and refer to it."""
        if name in self.components:
            raise ValueError(f"two schemas are named {name}")
        self.components[name] = schema
        return {"$ref": REF.format(model=name)}


def is_only_followed(operation: AnyOperation) -> bool:
    """Whether the operation gives frames and no reply in the end."""
    return operation.streaming and operation.reply is type(None)


def one_of(refs: Mapping[str, Json], key: str) -> Json:
    """One of several objects that differ in what stands under `key`."""
    mapping = {value: ref["$ref"] for value, ref in refs.items()}
    return {"oneOf": list(refs.values()), "discriminator": {"propertyName": key, "mapping": mapping}}


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _model(name: str, about: str | None, fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    made: type[BaseModel] = create_model(name, __base__=_Wire, __doc__=about, **dict(fields))  # type: ignore[call-overload]
    return made


def _echo() -> tuple[Any, Any]:
    """The id of the message that asked, where it had one."""
    return (MessageId, Field(default=None, json_schema_extra=_not_there))


def _reply(type_: str, data: type[Any]) -> type[BaseModel]:
    fields = {"type": (Literal[type_], ...), "code": (Literal[0], ...), "message": (str, ...)}
    data_field = None if data is type(None) else data
    return _model(f"{_camel(type_)}Frame", None, {**fields, "data": (data_field, ...), "id": _echo()})


def _envelope(name: str, data: type[Any]) -> type[BaseModel]:
    data_field = None if data is type(None) else data
    return _model(
        f"{_camel(name)}Envelope", None, {"code": (Literal[0], ...), "message": (str, ...), "data": (data_field, ...)}
    )


def _frame(frame: Frame, key: str, name: str, suffix: str) -> type[BaseModel]:
    fields: dict[str, tuple[Any, Any]] = {
        key: (Literal[name], ...),
        "request_id": (str, ...),
        "seq": (Annotated[int, Field(ge=1)], ...),
        **_fields(get_type_hints(type(frame).wire)["return"]),
        "id": _echo(),
    }
    return _model(f"{type(frame).__name__}{suffix}", type(frame).__doc__, fields)


def _fields(typed: Any) -> dict[str, tuple[Any, Any]]:
    """The fields of a TypedDict. pydantic reads those of `typing` only from Python 3.12 on."""
    hints = get_type_hints(typed, include_extras=True)
    return {
        name: (_model(hint.__name__, hint.__doc__, _fields(hint)) if is_typeddict(hint) else hint, ...)
        for name, hint in hints.items()
    }


def _opening(operation: StreamingOperation[Any, Any, Any], key: str) -> type[BaseModel]:
    """The first event of a stream, as `wsserver.http.opening` makes it."""
    suffix = "Frame" if key == "type" else "Event"
    if operation.reply is type(None):
        name = operation.accepted_type
        about = {"code": (Literal[0], ...), "message": (str, ...), "data": (operation.accepted, ...)}
    else:
        name = "generate_start" if key == "type" else STATUS_NAMES["generate_start"]
        about = {"content": (operation.accepted, ...)}
    fields = {key: (Literal[name], ...), **about, "id": _echo()}
    return _model(f"{_camel(operation.name)}Opening{suffix}", "The first event: the question is accepted.", fields)


def noun_type(noun: Noun) -> str:
    """The `type` of what the server says unasked."""
    return str(noun.model_dump()["type"])
