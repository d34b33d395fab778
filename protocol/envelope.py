"""Bytes to requests, and replies, errors and frames to bytes. What is sent is UTF-8 JSON, one object each.

Decoding has a fast path for good messages; what fails it is read a second time, slowly, to say what is wrong and where.
"""

import codecs
import contextlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Protocol, TypeVar, Union

from pydantic import BaseModel, Discriminator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_json

from protocol.errors import (
    BAD_JSON,
    DUPLICATE_KEY,
    INVALID_FIELD,
    NOT_AN_OBJECT,
    UNKNOWN_TYPE,
    OperationError,
)
from protocol.operation import AnyOperation, MessageId, Request

MAX_MESSAGE_BYTES = 65_536
"""A client message, in bytes of UTF-8: eight times the longest question in Chinese and its frame."""


MAX_BARE = 64
"""Messages of nothing but a type that are kept decoded: all that there are, as several clients write them."""


class Frame(Protocol):
    """A piece of a stream. `wire()` gives `content` and whatever else stands beside it.

    What `wire()` is declared to return is what the documents say: a TypedDict of its own for each frame.
    """

    @property
    def TYPE(self) -> str: ...  # noqa: N802 (a class constant in every frame)

    def wire(self) -> Mapping[str, object]: ...


class BadMessageError(OperationError):
    """What came is no request. `message_id` is the client's id where one could be read."""

    message_id: str | None = None


_MESSAGE_ID: TypeAdapter[str] = TypeAdapter(MessageId)


class Decoder:
    """Turns client messages into requests of the given operations.

    A request is a value, so the same bytes are the same request: pings, which are most of what is sent, are read once.
    """

    def __init__(self, operations: Mapping[str, AnyOperation]) -> None:
        self._operations = operations
        requests = tuple(operation.request for operation in operations.values())
        any_request: Any = Annotated[Union[requests], Discriminator("type")]  # noqa: UP007 (made of a tuple)
        self._adapter: TypeAdapter[Request] = TypeAdapter(any_request)
        self._bare: dict[bytes, Request] = {}

    def decode(self, message: bytes) -> Request:
        """The request in `message`, which is UTF-8. Raises BadMessageError with the reason and maybe the field."""
        if (bare := self._bare.get(message)) is not None:
            return bare
        try:
            request = self._adapter.validate_json(message)
        except ValidationError as error:
            raise self._diagnose(message.decode(), error) from None
        # Every key has its colon: as many colons as distinct keys that were read means that no key came twice.
        if message.count(b":") != len(request.model_fields_set):
            _check_duplicates(message.decode(), request.id)
        elif len(request.model_fields_set) == 1 and len(self._bare) < MAX_BARE:
            self._bare[message] = request
        return request

    def _diagnose(self, text: str, error: ValidationError) -> BadMessageError:
        try:
            message = _read_object(text)
        except BadMessageError as no_object:
            return no_object
        bad = self._problem(message, error)
        with contextlib.suppress(ValidationError):
            bad.message_id = _MESSAGE_ID.validate_python(message.get("id"), strict=True)
        return bad

    def _problem(self, message: dict[str, Any], error: ValidationError) -> BadMessageError:
        type_ = message.get("type")
        if type_ is None:
            return BadMessageError(INVALID_FIELD, "缺少字段 type", field="type")
        if not isinstance(type_, str):
            return BadMessageError(INVALID_FIELD, "字段 type：必须是字符串", field="type")
        if type_ not in self._operations:
            return BadMessageError(UNKNOWN_TYPE, f"未知的消息类型：{type_[:64]}", field="type")
        return _invalid(error, skip=1)


BodyT = TypeVar("BodyT", bound=BaseModel)


def decode_body(body: type[BodyT], text: str, path: Mapping[str, str] | None = None) -> BodyT:
    """The body of an HTTP route, its path parameters included: they count more than what the body says.

    Raises BadMessageError with the reason and, where there is one, the field.
    """
    try:
        decoded = body.model_validate({**_read_object(text), **path}) if path else body.model_validate_json(text)
    except ValidationError as error:
        _read_object(text)
        raise _invalid(error) from None
    _check_duplicates(text, None)
    return decoded


def decode_query(body: type[BodyT], fields: Mapping[str, str]) -> BodyT:
    """The same from a query string and path parameters."""
    try:
        return body.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from None


def _read_object(text: str) -> dict[str, Any]:
    """The object in `text`, for finding out what is wrong with it. Raises BadMessageError when it is none."""
    try:
        message = json.loads(text)
        if not isinstance(message, dict):
            raise BadMessageError(NOT_AN_OBJECT)
        for key, value in message.items():
            if not _is_unicode(key) or not _is_unicode(value):
                name = key if _is_unicode(key) else "?"
                raise BadMessageError(INVALID_FIELD, f"字段 {name}：含有不成对的代理字符", field=name)
    except RecursionError:
        raise BadMessageError(BAD_JSON, "消息嵌套太深") from None
    except ValueError:
        raise BadMessageError(BAD_JSON) from None
    return message


def _invalid(error: ValidationError, *, skip: int = 0) -> BadMessageError:
    """The first thing that is wrong. `skip` parts of its location are not the client's."""
    first = error.errors(include_url=False, include_context=True, include_input=False)[0]
    if first["type"] == "json_invalid":
        return BadMessageError(BAD_JSON)
    field = field_name(first["loc"][skip:])
    return BadMessageError(INVALID_FIELD, f"字段 {field}：{explain(first)}", field=field)


def field_name(location: Iterable[int | str]) -> str:
    """A field as a client would write it: `ids.3`."""
    return ".".join(str(part) for part in location)


_EXPLANATIONS = {
    "missing": "缺少",
    "string_type": "必须是字符串",
    "string_too_short": "不能为空",
    "string_too_long": "最多 {max_length} 个字符",
    "int_type": "必须是整数",
    "int_from_float": "必须是整数",
    "int_parsing": "必须是整数",
    "int_parsing_size": "数字太大",
    "greater_than_equal": "不能小于 {ge}",
    "less_than_equal": "不能大于 {le}",
    "bool_type": "必须是 true 或 false",
    "bool_parsing": "必须是 true 或 false",
    "list_type": "必须是数组",
    "too_short": "至少 {min_length} 项",
    "too_long": "最多 {max_length} 项",
    "literal_error": "只能是 {expected}",
    "uuid_parsing": "必须是 UUID",
    "uuid_type": "必须是 UUID",
    "model_type": "必须是对象",
}


def explain(details: ErrorDetails) -> str:
    """What is wrong with a field, for people."""
    context = details.get("ctx", {})
    if details["type"] == "value_error":
        return str(context["error"])
    return _EXPLANATIONS.get(details["type"], "值有误").format(**context)


def _check_duplicates(text: str, message_id: str | None) -> None:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        seen: dict[str, object] = {}
        for key, value in pairs:
            if key in seen:
                bad = BadMessageError(DUPLICATE_KEY, f"键 {key[:64]} 出现了两次", field=key[:64])
                bad.message_id = message_id
                raise bad
            seen[key] = value
        return seen

    json.loads(text, object_pairs_hook=unique)


def _is_unicode(value: object) -> bool:
    """Whether every string in `value` is real Unicode: a lone surrogate cannot be stored or sent on."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, list):
        return all(_is_unicode(item) for item in value)
    if isinstance(value, dict):
        return all(_is_unicode(key) and _is_unicode(item) for key, item in value.items())
    return True


def encode_reply(type_: str, message: str, data: BaseModel | None, message_id: str | None) -> bytes:
    """A reply: `{type, code: 0, message, data}` and the request's id."""
    if data is None and message_id is None:
        return _constant_reply(type_, message)
    return b"".join(
        (
            _reply_head(type_, message),
            b"null" if data is None else data.__pydantic_serializer__.to_json(data),
            b"}" if message_id is None else b',"id":' + to_json(message_id) + b"}",
        )
    )


@cache  # as many as there are operations
def _reply_head(type_: str, message: str) -> bytes:
    return b'{"type":%b,"code":0,"message":%b,"data":' % (to_json(type_), to_json(message))


@cache
def _constant_reply(type_: str, message: str) -> bytes:
    return _reply_head(type_, message) + b"null}"


def error_object(error: OperationError) -> dict[str, object]:
    """The error as every surface shows it; `content` is for pages that read stream frames only."""
    return {
        "type": "error",
        "code": error.kind.code,
        "message": error.message,
        "data": None,
        "reason": error.kind.reason,
        "retryable": error.kind.retryable,
        "retry_after_ms": error.retry_after_ms,
        **({} if error.field is None else {"field": error.field}),
        "content": {"message": error.message},
    }


def encode_error(
    error: OperationError, *, type_: str = "error", message_id: str | None = None, request_id: str | None = None
) -> bytes:
    """An error frame. A failed login carries its own reply's type, because pages wait for that one."""
    fields = error_object(error) | {"type": type_}
    if message_id is not None:
        fields["id"] = message_id
    if request_id is not None:
        fields["request_id"] = request_id
    return to_json(fields)


def encode_frame(request_id: str, seq: int, frame: Frame, message_id: str | None) -> bytes:
    """A stream frame: `{type, request_id, seq, content, …}` and the id of the message that asked."""
    fields: dict[str, object] = {"type": frame.TYPE, "request_id": request_id, "seq": seq, **frame.wire()}
    if message_id is not None:
        fields["id"] = message_id
    return to_json(fields)


class ChunkEncoder:
    """`encode_frame` for the chunks of one run, in a quarter of its time: they differ in seq and text only."""

    __slots__ = ("_head", "_tail")

    def __init__(self, request_id: str, message_id: str | None) -> None:
        self._head = b'{"type":"chunk","request_id":' + to_json(request_id) + b',"seq":'
        self._tail = b"}" if message_id is None else b',"id":' + to_json(message_id) + b"}"

    def __call__(self, seq: int, text: str) -> bytes:
        return b'%b%d,"content":%b%b' % (self._head, seq, to_json(text), self._tail)


_LAST_FRAMES = (b'{"type":"complete"', b'{"type":"error"')


def ends_run(encoded: bytes) -> bool:
    """Whether an encoded frame is the last of its run."""
    return encoded.startswith(_LAST_FRAMES)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end


codecs.register_error("json-ascii", _escape)


def to_ascii(encoded: bytes) -> bytes:
    """The same JSON in ASCII. WeChat's chunked requests may cut a UTF-8 character in two.

    In JSON, whatever is not ASCII stands inside a string, where `\\uXXXX` means the same.
    """
    return encoded if encoded.isascii() else encoded.decode().encode("ascii", "json-ascii")
