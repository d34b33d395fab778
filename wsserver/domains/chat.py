"""Chats: the question is stored, a run makes the answer, the answer is stored. The socket has no part in it."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID

import structlog
from pydantic_core import from_json

from protocol import chat
from protocol.accounts import Caller
from protocol.chat import (
    CancelAccepted,
    CancelRun,
    ChatAccepted,
    ChatReply,
    Chunk,
    Complete,
    FinishReason,
    HistoryPage,
    ReadHistory,
    Recommendations,
    Restart,
    Resumed,
    ResumeRun,
    SendChat,
    Status,
    Usage,
)
from protocol.envelope import Frame
from protocol.errors import (
    CONVERSATION_BUSY,
    CONVERSATION_NOT_FOUND,
    ERRORS,
    MODEL_REFUSED,
    RUN_LOST,
    RUN_NOT_FOUND,
    STORAGE_UNAVAILABLE,
    OperationError,
)
from storage.chat import Conversations, PastMessage, Place
from storage.limits import RateLimits
from storage.ownership import RunRow, RunTable
from storage.runs import LoggedFrame
from wsserver.dispatch import Call, Handlers
from wsserver.hub import FINISH_S, SEQ_GAP, Failure, Feed, Follower, Hub, Recorded, Run, StoppedError, Stream
from wsserver.ownership import Ownership
from wsserver.vendors.llm import Finished, LanguageModel, TextDelta, Turn

log = structlog.get_logger(__name__)

PROMPT_CHARACTERS = 24_000
"""Of history in a prompt: about 16,000 tokens of Chinese, half of the context of a small model of today."""

STORE_RETRY_S = 0.5
"""Between attempts to store an answer while PostgreSQL is away."""

INTERRUPT_S = 8.0
"""How long a question waits for the answer that it interrupts: a cancel on another node takes half a second."""

INTERRUPT_POLL_S = 0.05

LOG_LAG_S, LOG_LAG_POLLS = 2.0, 20
"""How far a log may lag behind the end of its run (a busy node's batches), and how often that is waited for."""

MAX_TAKEOVERS = 1
"""An answer that costs two nodes their lives is not tried on a third."""

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
    """One question on its way to an answer. `place` is None while it waits, and when nothing of it is stored."""

    request: SendChat
    conversation_id: UUID | None
    place: Place | None
    turn: asyncio.Future[Place] | None = None
    text: list[str] = field(default_factory=list, repr=False)
    recommendations: Recommendations | None = None
    usage: Usage | None = None

    @property
    def answer(self) -> str:
        return "".join(self.text)


class Chats:
    """Makes answers, each once, and leads everybody who asks for one to it."""

    def __init__(
        self,
        hub: Hub,
        *,
        table: RunTable,
        ownership: Ownership,
        conversations: Conversations,
        answerer: Answerer,
        rates: RateLimits,
    ) -> None:
        self._rates = rates
        self._hub = hub
        self._table = table
        self._ownership = ownership
        self._conversations = conversations
        self._answerer = answerer
        self._waiting: dict[str, asyncio.Future[Place]] = {}
        hub.epilogue = self._epilogue
        ownership.taken = self._take
        ownership.started = self._its_turn

    async def start(self, call: Call, request: SendChat) -> Stream[ChatReply]:
        """Store the question and begin its answer; sent again under the same id it leads to the answer that there is.

        Raises CONVERSATION_NOT_FOUND for a conversation that is not the caller's, CONVERSATION_BUSY, QUEUE_FULL,
        TOO_MANY_RUNS, RATE_LIMITED, DRAINING, STORAGE_UNAVAILABLE.
        """
        caller = call.known_caller
        self._hub.accepts_runs()
        await self._rates.chat_allowed(caller.user_id, request.id)
        conversation_id = None if request.incognito else request.conversation_id or caller.conversation_id
        row, is_new = await self._begin(caller, request, conversation_id)
        if is_new:
            feed: Feed = self._launch(row, request)
        else:
            feed = await self._feed_of(row)
        return Stream(
            request_id=row.request_id,
            accepted=ChatAccepted(request_id=row.request_id, conversation_id=row.conversation_id),
            feed=feed,
            reply=lambda: self._reply(feed, row, caller.session_id),
            message_id=request.id,
        )

    async def _begin(self, caller: Caller, request: SendChat, conversation_id: UUID | None) -> tuple[RunRow, bool]:
        give_up_at = time.monotonic() + INTERRUPT_S
        while True:
            try:
                return await self._table.begin(
                    request_id=uuid.uuid4().hex,
                    user_id=caller.user_id,
                    session_id=caller.session_id,
                    client_id=request.id,
                    conversation_id=conversation_id,
                    create_conversation=conversation_id == caller.conversation_id,
                    request=request.model_dump(mode="json", exclude={"id"}),
                    question=request.query,
                    node=self._ownership.node,
                    enqueue=request.on_busy == "enqueue",
                )
            except OperationError as error:
                busy = error.kind is CONVERSATION_BUSY and conversation_id is not None
                if not busy or request.on_busy != "interrupt" or time.monotonic() > give_up_at:
                    raise
            await self._interrupt(caller.user_id, conversation_id)
            await asyncio.sleep(INTERRUPT_POLL_S)

    async def _interrupt(self, user_id: str, conversation_id: UUID | None) -> None:
        running = conversation_id and await self._table.running_in(conversation_id)
        if running:
            await self._table.ask_to_stop(user_id=user_id, request_id=running, client_id=None, stop="interrupted")
            run = self._hub.run(running)
            if run is not None:
                run.stop("interrupted")

    def _launch(self, row: RunRow, request: SendChat) -> Run:
        """Make a new run go on this node, at once or when it is its turn."""
        run = Run(self._hub, request_id=row.request_id, user_id=row.user_id, message_id=row.client_id, epoch=row.epoch)
        asked = self._asked(row, request)
        self._hub.start(run, lambda run: self._make(run, asked))
        return run

    def _asked(self, row: RunRow, request: SendChat) -> _Asked:
        asked = _Asked(request, row.conversation_id, row.place)
        if row.state == "queued":
            asked.turn = self._waiting[row.request_id] = asyncio.get_running_loop().create_future()
        return asked

    def _its_turn(self, row: RunRow) -> None:
        turn = self._waiting.pop(row.request_id, None)
        if turn is not None and row.place is not None and not turn.done():
            turn.set_result(row.place)

    def _take(self, row: RunRow) -> None:
        self._hub.spawn(self._begin_anew(row), name=f"takeover of {row.request_id}")

    async def _begin_anew(self, row: RunRow) -> None:
        """Make a run whose owner is gone, under its own name and above its last frame; the second time, end it."""
        self._ownership.beginning.add(row.request_id)
        try:
            logged_seq = await self._fence_log(row)
        finally:
            self._ownership.beginning.discard(row.request_id)
        run = Run(
            self._hub,
            request_id=row.request_id,
            user_id=row.user_id,
            message_id=row.client_id,
            epoch=row.epoch,
            first_seq=logged_seq + SEQ_GAP,
            logged_seq=logged_seq,
        )
        asked = self._asked(row, SendChat.model_validate(row.request, strict=False))
        if row.takeovers > MAX_TAKEOVERS and row.state == "running":
            self._hub.start(run, lambda run: self._lose(run, asked))
            return
        if row.state == "running":
            self._hub.start(run, lambda run: self._make_again(run, asked))
        else:
            self._hub.start(run, lambda run: self._make(run, asked))

    async def _fence_log(self, row: RunRow) -> int:
        """Become the log's owner, however long Redis is away, and say where it ends."""
        while True:
            try:
                description = {"user_id": row.user_id, "state": "running"}
                return await self._hub.logs.own(row.request_id, row.epoch, description)
            except OperationError:
                await asyncio.sleep(STORE_RETRY_S)

    async def _make_again(self, run: Run, asked: _Asked) -> None:
        run.publish(Restart("node_lost"))
        await self._make(run, asked)

    async def _lose(self, run: Run, asked: _Asked) -> None:
        run.publish(Restart("node_lost"))
        await self._settle(run, asked, "failed", None)
        raise OperationError(RUN_LOST)

    async def _make(self, run: Run, asked: _Asked) -> None:
        finish_reason: FinishReason
        try:
            if asked.turn is not None:
                async with run.making():
                    asked.place = await asked.turn
            async with run.making():
                finish_reason = await self._generate(run, asked)
        except StoppedError as stopped:
            if stopped.stop == "handed over":
                raise
            finish_reason = stopped.stop
        except OperationError as error:
            keep = bool(asked.text) and error.kind is not MODEL_REFUSED
            await self._settle(run, asked, "failed", "interrupted" if keep else None)
            raise
        finally:
            self._waiting.pop(run.request_id, None)
        message_id = await self._settle(run, asked, "done", finish_reason)
        run.publish(Complete(asked.answer, message_id, finish_reason, asked.usage))

    async def _generate(self, run: Run, asked: _Asked) -> FinishReason:
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
        return finished.finish_reason

    async def _turns(self, asked: _Asked) -> list[Turn]:
        past: list[PastMessage] = []
        if asked.conversation_id is not None and asked.place is not None:
            past = await self._conversations.before(asked.conversation_id, asked.place)
        turns = (Turn(message.role, message.content) for message in past if message.content)
        return [*turns, Turn("user", asked.request.query)]

    async def _settle(
        self, run: Run, asked: _Asked, state: Literal["done", "failed"], finish_reason: FinishReason | None
    ) -> UUID | None:
        """Store how the run ended and, with a `finish_reason`, its answer, however long PostgreSQL is away.

        Raises StoppedError when the run is another owner's by now, and STORAGE_UNAVAILABLE after FINISH_S: then it is
        stored as soon as PostgreSQL is back.
        """
        message_id = uuid.uuid4() if finish_reason is not None and (asked.text or finish_reason == "stop") else None
        run.settled = True

        async def finish() -> tuple[UUID, Place] | None:
            return await self._table.finish(
                request_id=run.request_id,
                epoch=run.epoch,
                state=state,
                message_id=message_id,
                content=asked.answer,
                finish_reason=finish_reason or "stop",
                usage=asked.usage,
                recommendations=asked.recommendations,
            )

        stored = await self._insist(run, finish)
        if stored is None or asked.conversation_id is None or asked.place is None:
            return None
        stored_id, place = stored
        question = PastMessage(asked.place, "user", asked.request.query)
        answer = PastMessage(place, "assistant", asked.answer)
        await self._conversations.remember(asked.conversation_id, [question, answer])
        return stored_id

    async def _insist(
        self, run: Run, finish: Callable[[], Awaitable[tuple[UUID, Place] | None]]
    ) -> tuple[UUID, Place] | None:
        give_up_at = time.monotonic() + FINISH_S / 2
        while True:
            try:
                return await finish()
            except OperationError as error:
                if error.kind is RUN_NOT_FOUND:
                    run.fence()
                    raise StoppedError("handed over") from None
                if error.kind is not STORAGE_UNAVAILABLE:
                    raise
                if time.monotonic() > give_up_at:
                    self._ownership.settle_later(run.request_id, finish)
                    raise
            log.warning("answer waits to be stored", request_id=run.request_id)
            await asyncio.sleep(STORE_RETRY_S)

    async def resume(self, call: Call, request: ResumeRun) -> Stream[None]:
        """Where an answer stands, and its frames from there on. Raises RUN_NOT_FOUND, for somebody else's too."""
        caller = call.known_caller
        run = self._hub.run(request.request_id)
        if run is not None:
            feed: Feed = _theirs(run.user_id, caller, run)
        else:
            row = await self._table.find(user_id=caller.user_id, request_id=request.request_id)
            meta = await self._meta(request.request_id, row)
            if "user_id" in meta:
                feed = _theirs(meta["user_id"], caller, await self._hub.feed(request.request_id))
            elif row is not None and row.state in ("queued", "running"):
                feed = await self._hub.feed(request.request_id)
            else:
                return await self._gone(caller, request.request_id, row)
        if feed.ended and request.after_seq > feed.position:
            # It has had more than the log ever got: what was stored is all that there is to add.
            row = await self._table.find(user_id=caller.user_id, request_id=request.request_id)
            return await self._gone(caller, request.request_id, row)
        return Stream(
            request_id=request.request_id,
            accepted=Resumed(recovered=True, last_seq=feed.position, running=not feed.ended),
            feed=feed,
            reply=_no_reply,
            after_seq=request.after_seq,
        )

    async def _meta(self, request_id: str, row: RunRow | None) -> dict[str, str]:
        """What the log knows of the run; of one that has just ended it may know a moment later."""
        for _ in range(LOG_LAG_POLLS):
            meta = await self._hub.logs.meta(request_id)
            lags = row is not None and row.ended_s_ago is not None and row.ended_s_ago < LOG_LAG_S
            if "user_id" in meta or not lags:
                break
            await asyncio.sleep(LOG_LAG_S / LOG_LAG_POLLS)
        return meta

    async def _gone(self, caller: Caller, request_id: str, row: RunRow | None) -> Stream[None]:
        """What is left of a run after its window. Raises RUN_NOT_FOUND when that is nothing."""
        message = await self._table.answer(user_id=caller.user_id, request_id=request_id)
        if message is None and row is None:
            raise OperationError(RUN_NOT_FOUND)
        gone = Resumed(recovered=False, last_seq=0, running=False, message=message)
        return Stream(request_id=request_id, accepted=gone, feed=None, reply=_no_reply)

    async def cancel(self, call: Call, request: CancelRun) -> CancelAccepted:
        """Have a run end, wherever it is made. Raises RUN_NOT_FOUND, for somebody else's too."""
        row = await self._table.ask_to_stop(
            user_id=call.known_caller.user_id,
            request_id=request.request_id,
            client_id=request.chat_id,
            stop="cancelled",
        )
        if row is None:
            raise OperationError(RUN_NOT_FOUND)
        run = self._hub.run(row.request_id)
        if run is not None:
            run.stop("cancelled")
        return CancelAccepted(request_id=row.request_id, running=row.state in ("queued", "running"))

    async def _feed_of(self, row: RunRow) -> Feed:
        """The frames of a run that was begun before; after its window, its stored answer as one."""
        run = self._hub.run(row.request_id)
        if run is not None:
            return run
        feed = await self._hub.feed(row.request_id)
        if feed.position == 0 and row.state in ("done", "failed"):
            return Recorded(self._hub, row.request_id, await self._ending(row), row.client_id)
        return feed

    async def _ending(self, row: RunRow) -> list[Frame]:
        message = await self._table.answer(user_id=row.user_id, request_id=row.request_id)
        if message is None or message.finish_reason is None:
            return [Failure(OperationError(RUN_LOST))]
        return [Chunk(message.content), Complete(message.content, message.id, message.finish_reason, None)]

    async def _epilogue(self, request_id: str) -> list[Frame] | None:
        """The end of a run whose log has none: Redis lost it, or never had it. None while the run goes on."""
        meta = await self._hub.logs.meta(request_id)
        row = await self._table.find(user_id=meta.get("user_id", ""), request_id=request_id)
        if row is None or row.state in ("queued", "running"):
            return None
        return [Restart("log_lost"), *await self._ending(row)]

    async def _reply(self, feed: Feed, row: RunRow, session_id: str) -> ChatReply:
        """Wait for the run's end, wherever it is made, and give its whole answer. Raises what the run failed with."""
        ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        recommendations: list[Recommendations] = []

        def look(frame: LoggedFrame) -> None:
            if frame.encoded.startswith(b'{"type":"recommendations"'):
                recommendations[:] = [Recommendations(**from_json(frame.encoded)["content"])]
            if frame.last and not ended.done():
                ended.set_result(from_json(frame.encoded))

        unfollow = feed.follow(Follower(look, _at_once))
        try:
            last = await ended
        finally:
            unfollow()
        if last["type"] == "error":
            raise OperationError(ERRORS[last["reason"]], last["message"], retry_after_ms=last["retry_after_ms"])
        return ChatReply(
            msg=last["answer"],
            id=last["message_id"] and UUID(last["message_id"]),
            session_id=session_id,
            conversation_id=row.conversation_id,
            request_id=row.request_id,
            recommendations=recommendations[0] if recommendations else None,
        )

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


def _theirs(user_id: str, caller: Caller, feed: Feed) -> Feed:
    if user_id != caller.user_id:
        raise OperationError(RUN_NOT_FOUND)
    return feed


async def _at_once() -> None:
    """There is always room in a look."""


async def _no_reply() -> None:
    """Who resumes wants frames; there is no reply beside them."""


def chat_handlers(chats: Chats) -> Handlers:
    """Handlers of the chat operations."""
    handlers = Handlers()
    handlers.on_stream(chat.CHAT)(chats.start)
    handlers.on_stream(chat.RESUME)(chats.resume)
    handlers.on(chat.CANCEL)(chats.cancel)
    handlers.on(chat.HISTORY)(chats.history)
    return handlers
