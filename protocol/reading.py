"""What a client reads: replies, errors and frames from the wire, as the types that they were sent from.

The other way round is `envelope.py`. What came into the world later than this file is no mistake: a frame of a type
that is not known is None, an error of a reason that is not known is taken at its word.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from protocol.chat import ChatFrame, Chunk, Complete, Status
from protocol.errors import ERRORS, ErrorKind, OperationError

Json = Mapping[str, Any]
NounT = TypeVar("NounT", bound=BaseModel | None)

_FRAMES: dict[str, TypeAdapter[Any]] = {frame.TYPE: TypeAdapter(frame) for frame in get_args(ChatFrame)}


class WrongReplyError(Exception):
    """What came is nothing that the contract knows."""


def read_reply(frame: Json, noun: type[NounT], type_: str) -> NounT:
    """The data of a reply of the type that was waited for. Raises WrongReplyError."""
    if frame["type"] != type_:
        raise WrongReplyError(f"{frame['type']} where {type_} was waited for")
    try:
        data: NounT = TypeAdapter(noun).validate_python(frame["data"])
    except (ValidationError, KeyError) as error:
        raise WrongReplyError(f"{type_}: {error}") from None
    return data


def read_whole(frame: Json, noun: type[NounT]) -> NounT:
    """What a frame says that was not asked for. Raises WrongReplyError."""
    try:
        said: NounT = TypeAdapter(noun).validate_python(frame)
    except ValidationError as error:
        raise WrongReplyError(f"{frame['type']}: {error}") from None
    return said


def read_error(frame: Json) -> OperationError:
    """The error that a frame says. Raises WrongReplyError."""
    try:
        kind = ErrorKind(frame["reason"], frame["code"], frame["message"], frame["retryable"])
        return OperationError(
            ERRORS.get(kind.reason, kind),
            kind.message,
            field=frame.get("field"),
            retry_after_ms=frame["retry_after_ms"],
        )
    except KeyError as missing:
        raise WrongReplyError(f"an error without {missing}: {frame['type']}") from None


def read_frame(frame: Json) -> ChatFrame | None:
    """The frame of an answer, unless it is its error. Raises WrongReplyError."""
    type_, fields = frame["type"], frame.get("content")
    if type_ == Chunk.TYPE:
        fields = {"text": fields}
    elif type_ == Complete.TYPE:
        fields = frame
    elif type_ == Status.TYPE and isinstance(fields, dict):
        facts = dict(fields)
        fields = {"stage": facts.pop("stage", None), "facts": facts}
    try:
        typed: ChatFrame | None = _FRAMES[type_].validate_python(fields) if type_ in _FRAMES else None
    except ValidationError as error:
        raise WrongReplyError(f"{type_}: {error}") from None
    return typed
