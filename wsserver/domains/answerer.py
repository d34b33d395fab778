"""What an answerer is: whatever makes the answer to a conversation's last turn, a model or the catalogue."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from protocol.chat import Recommendations, Status
from wsserver.vendors.llm import Finished, TextDelta, Turn

MOVIE_BASE = "movie"
"""The knowledge base of films."""

AnswerEvent = Status | TextDelta | Recommendations | Finished


@dataclass(frozen=True, slots=True)
class Asking:
    """What an answer is made for. Without a `request_id` nothing of it may be logged: it is nobody's, or incognito.

    `kb_prefix` names a knowledge base to ask first; with none the answerer decides by the question.
    """

    request_id: str | None = None
    user_id: str = field(default="", repr=False)
    kb_prefix: str | None = None


class Answerer(Protocol):
    """Any number of events, exactly one `Finished`, last; or OperationError."""

    name: str

    def answer(self, turns: Sequence[Turn], asking: Asking) -> AsyncGenerator[AnswerEvent, None]: ...
