"""Chats: the question is stored, a run makes the answer, the answer is stored. The socket has no part in it."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import structlog

from protocol import chat
from protocol.chat import (
    ChatAccepted,
    ChatReply,
    Complete,
    FinishReason,
    HistoryPage,
    ReadHistory,
    Recommendations,
    SendChat,
    Status,
    Usage,
)
from protocol.errors import CONVERSATION_NOT_FOUND, MODEL_REFUSED, STORAGE_UNAVAILABLE, OperationError
from storage.chat import Conversations, PastMessage, Place
from wsserver.dispatch import Call, Handlers
from wsserver.hub import FINISH_S, Hub, Run
from wsserver.vendors.llm import Finished, LanguageModel, TextDelta, Turn

log = structlog.get_logger(__name__)

PROMPT_CHARACTERS = 24_000
"""Of history in a prompt: about 16,000 tokens of Chinese, half of the context of a small model of today."""

STORE_RETRY_S = 0.5
"""Between attempts to store an answer while PostgreSQL is away."""

DEFAULT_SYSTEM_PROMPT = (
    "You are the assistant of a cinema app. Answer in the language of the question, briefly and to the point. "
    "Say so when you do not know; never invent films, people, dates or figures."
)

AnswerEvent = TextDelta | Recommendations | Finished


class Answerer(Protocol):
    """Whatever makes answers: a language model, or the catalogue. Exactly one `Finished`, last; or OperationError."""

    name: str

    def answer(self, turns: Sequence[Turn], *, kb_prefix: str | None = None) -> AsyncGenerator[AnswerEvent, None]: ...


class ModelAnswerer:
    """A language model with its instructions, given as much of the conversation as fits."""

    name = "model"

    def __init__(self, model: LanguageModel, system_prompt: str) -> None:
        self._model = model
        self._system = Turn("system", system_prompt)

    async def answer(self, turns: Sequence[Turn], *, kb_prefix: str | None = None) -> AsyncGenerator[AnswerEvent, None]:
        """The model's own events. `kb_prefix` says nothing to it."""
        async with contextlib.aclosing(self._model.stream([self._system, *_newest(turns)])) as events:
            async for event in events:
                yield event


def _newest(turns: Sequence[Turn]) -> list[Turn]:
    """The last turns that fit, whole, the question always among them; the first one kept is the user's."""
    left = PROMPT_CHARACTERS
    kept: list[Turn] = []
    for turn in reversed(turns):
        left -= len(turn.content)
        if left < 0 and kept:
            break
        kept.append(turn)
    while len(kept) > 1 and kept[-1].role == "assistant":
        kept.pop()
    kept.reverse()
    return kept


@dataclass(slots=True)
class _Asked:
    """One question on its way to an answer. `place` is None when nothing of it is stored."""

    request: SendChat
    session_id: str
    conversation_id: UUID | None
    place: Place | None
    text: list[str] = field(default_factory=list, repr=False)
    recommendations: Recommendations | None = None
    usage: Usage | None = None


class Chats:
    """Makes answers."""

    def __init__(self, hub: Hub, conversations: Conversations, answerer: Answerer) -> None:
        self._hub = hub
        self._conversations = conversations
        self._answerer = answerer

    async def start(self, call: Call, request: SendChat) -> Run[ChatReply]:
        """Store the question and begin its answer.

        Raises CONVERSATION_NOT_FOUND for a conversation that is not the caller's, DRAINING, STORAGE_UNAVAILABLE.
        """
        caller = call.known_caller
        self._hub.accepts_runs()
        request_id = uuid.uuid4().hex
        conversation_id: UUID | None = None
        place: Place | None = None
        if not request.incognito:
            conversation_id = request.conversation_id or caller.conversation_id
            place = await self._conversations.store_question(
                user_id=caller.user_id,
                conversation_id=conversation_id,
                create=conversation_id == caller.conversation_id,
                message_id=uuid.uuid4(),
                content=request.query,
                request_id=request_id,
            )
        run: Run[ChatReply] = Run(
            self._hub,
            request_id=request_id,
            user_id=caller.user_id,
            message_id=request.id,
            accepted=ChatAccepted(request_id=request_id, conversation_id=conversation_id),
        )
        asked = _Asked(request, caller.session_id, conversation_id, place)
        meta = {"conversation_id": str(conversation_id or "")}
        self._hub.start(run, lambda run: self._make(run, asked), meta)
        return run

    async def _make(self, run: Run[ChatReply], asked: _Asked) -> ChatReply:
        try:
            async with run.making():
                finished = await self._generate(run, asked)
        except OperationError as error:
            if asked.text and error.kind is not MODEL_REFUSED:
                await self._keep(run, asked, "interrupted")
            raise
        answer = "".join(asked.text)
        message_id = await self._keep(run, asked, finished.finish_reason)
        run.publish(Complete(answer, message_id, finished.finish_reason, asked.usage), last=True)
        return ChatReply(
            msg=answer,
            id=message_id,
            session_id=asked.session_id,
            conversation_id=asked.conversation_id,
            request_id=run.request_id,
            recommendations=asked.recommendations,
        )

    async def _generate(self, run: Run[ChatReply], asked: _Asked) -> Finished:
        turns = await self._turns(asked)
        if asked.request.debug:
            run.publish(Status("generation", {"answerer": self._answerer.name, "history": len(turns) - 1}))
        finished: Finished | None = None
        async with contextlib.aclosing(self._answerer.answer(turns, kb_prefix=asked.request.kb_prefix)) as events:
            async for event in events:
                match event:
                    case TextDelta(text):
                        asked.text.append(text)
                        run.text(text)
                    case Recommendations():
                        asked.recommendations = event
                        run.publish(event)
                    case Finished():
                        finished = event
        assert finished is not None  # noqa: S101 (every answerer ends with it)
        if finished.usage is not None:
            asked.usage = Usage(finished.usage.prompt_tokens, finished.usage.completion_tokens)
        return finished

    async def _turns(self, asked: _Asked) -> list[Turn]:
        past: list[PastMessage] = []
        if asked.conversation_id is not None and asked.place is not None:
            past = await self._conversations.before(asked.conversation_id, asked.place)
        return [*(Turn(message.role, message.content) for message in past), Turn("user", asked.request.query)]

    async def _keep(self, run: Run[ChatReply], asked: _Asked, finish_reason: FinishReason) -> UUID | None:
        """Store the answer, however long PostgreSQL is away within FINISH_S. Raises STORAGE_UNAVAILABLE after that."""
        if asked.conversation_id is None or asked.place is None:
            return None
        answer = "".join(asked.text)
        message_id = uuid.uuid4()
        give_up_at = time.monotonic() + FINISH_S / 2
        while True:
            try:
                stored_id, place = await self._conversations.store_answer(
                    conversation_id=asked.conversation_id,
                    message_id=message_id,
                    content=answer,
                    request_id=run.request_id,
                    finish_reason=finish_reason,
                    usage=asked.usage,
                    recommendations=asked.recommendations,
                )
                break
            except OperationError as error:
                if error.kind is not STORAGE_UNAVAILABLE or time.monotonic() > give_up_at:
                    raise
                log.warning("answer waits to be stored", request_id=run.request_id)
                await asyncio.sleep(STORE_RETRY_S)
        await self._conversations.remember(
            asked.conversation_id,
            [PastMessage(asked.place, "user", asked.request.query), PastMessage(place, "assistant", answer)],
        )
        return stored_id

    async def history(self, call: Call, request: ReadHistory) -> HistoryPage:
        """A page of messages. Raises CONVERSATION_NOT_FOUND for a conversation that is not the caller's."""
        caller = call.known_caller
        conversation_id = request.conversation_id or caller.conversation_id
        messages, more = await self._conversations.page(
            user_id=caller.user_id, conversation_id=conversation_id, limit=request.limit, before=request.before
        )
        if not messages and conversation_id != caller.conversation_id:
            owned = await self._conversations.owns(user_id=caller.user_id, conversation_id=conversation_id)
            if not owned:
                raise OperationError(CONVERSATION_NOT_FOUND)
        return HistoryPage.model_construct(items=messages, next_before=messages[0].id if more else None)


def chat_handlers(chats: Chats) -> Handlers:
    """Handlers of the chat operations."""
    handlers = Handlers()
    handlers.on_stream(chat.CHAT)(chats.start)
    handlers.on(chat.HISTORY)(chats.history)
    return handlers
