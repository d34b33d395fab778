"""How an answer is made: by which answerer, from which turns, and what is stored of it. Once, whoever makes it.

Begun anew by another node it keeps its name; what was begun a second time is ended. Who asks and who follows is
`chat.py`'s business.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import structlog
from pydantic import ValidationError

from protocol.chat import Complete, FinishReason, Recommendations, Restart, Retract, SendChat, Usage
from protocol.errors import (
    CONTENT_REFUSED,
    CONTENT_UNCHECKED,
    RUN_LOST,
    RUN_NOT_FOUND,
    STORAGE_UNAVAILABLE,
    OperationError,
)
from protocol.unasked import ConversationUpdated
from storage.chat import Conversations, PastMessage, Place
from storage.ownership import RunRow, RunTable, StoredAnswer
from wsserver.domains.answerer import MOVIE_BASE, Answerer, Asking
from wsserver.domains.content_safety import ContentSafety, Watch
from wsserver.domains.titles import Titles
from wsserver.domains.watchlist_capture import WatchlistCapture
from wsserver.hub import FINISH_S, Hub, Run, StoppedError
from wsserver.news import News
from wsserver.ownership import Ownership
from wsserver.tails import SEQ_GAP
from wsserver.vendors.llm import Finished, TextDelta, Turn

log = structlog.get_logger(__name__)

STORE_RETRY_S = 0.5
"""Between attempts to store an answer while PostgreSQL is away."""

MAX_TAKEOVERS = 1
"""An answer that costs two nodes their lives is not tried on a third."""


@dataclass(slots=True)
class Asked:
    """One question on its way to an answer. `place` is None while it waits, and when nothing of it is stored."""

    request: SendChat
    conversation_id: UUID | None
    place: Place | None
    turn: asyncio.Future[Place] | None = None
    text: list[str] = field(default_factory=list, repr=False)
    recommendations: Recommendations | None = None
    usage: Usage | None = None
    session_id: str = field(default="", repr=False)
    watch: Watch | None = None
    was_refused: bool = False

    @property
    def answer(self) -> str:
        return "".join(self.text)


def _asking(run: Run, asked: Asked) -> Asking:
    request = asked.request
    base = request.kb_prefix or (MOVIE_BASE if request.use_auto_rag else None)
    return Asking(None if request.incognito else run.request_id, run.user_id, base)


class Answering:
    """Makes the runs of this node: the new ones, the ones whose turn has come, and the ones that others left."""

    def __init__(
        self,
        hub: Hub,
        *,
        table: RunTable,
        ownership: Ownership,
        conversations: Conversations,
        answerer: Answerer,
        capture: WatchlistCapture | None = None,
        safety: ContentSafety | None = None,
        titles: Titles | None = None,
        news: News | None = None,
    ) -> None:
        self._titles = titles
        self._news = news
        self._capture = capture
        self._safety = safety
        self._hub = hub
        self._table = table
        self._ownership = ownership
        self._conversations = conversations
        self._answerer = answerer
        self._waiting: dict[str, asyncio.Future[Place]] = {}
        hub.settle_failed = self._settle_failed
        ownership.taken = self._take
        ownership.started = self._its_turn

    def launch(self, row: RunRow, request: SendChat) -> Run:
        """Make a new run go on this node, at once or when it is its turn."""
        run = Run(self._hub, request_id=row.request_id, user_id=row.user_id, message_id=row.client_id, epoch=row.epoch)
        asked = self._asked(row, request)
        self._hub.start(run, lambda run: self._make(run, asked))
        return run

    def _asked(self, row: RunRow, request: SendChat) -> Asked:
        asked = Asked(request, row.conversation_id, row.place, session_id=row.session_id)
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
        """Make a run whose owner is gone, under its own name and above its last frame.

        The second time, and where its question cannot be read, end it.
        """
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
        if row.takeovers > MAX_TAKEOVERS and row.state == "running":
            self._hub.start(run, self._lose)
            return
        try:
            request = SendChat.model_validate(row.request, strict=False)
        except ValidationError as error:
            # Another version's perhaps: tried on, it would fail on one node after the other and never end.
            fields = [".".join(map(str, wrong["loc"])) for wrong in error.errors(include_input=False)]
            log.error("question of a run cannot be read", request_id=row.request_id, fields=fields)
            self._hub.start(run, self._lose)
            return
        asked = self._asked(row, request)
        make = self._make_again if row.state == "running" else self._make
        self._hub.start(run, lambda run: make(run, asked))

    async def _fence_log(self, row: RunRow) -> int:
        """Become the log's owner, however long Redis is away, and say where it ends."""
        while True:
            try:
                description = {"user_id": row.user_id, "state": "running"}
                return await self._hub.logs.own(row.request_id, row.epoch, description)
            except OperationError:
                await asyncio.sleep(STORE_RETRY_S)

    async def _make_again(self, run: Run, asked: Asked) -> None:
        run.publish(Restart("node_lost"))
        await self._make(run, asked)

    async def _lose(self, run: Run) -> None:
        run.publish(Restart("node_lost"))
        await self._settle_failed(run)
        raise OperationError(RUN_LOST)

    async def _make(self, run: Run, asked: Asked) -> None:
        finish_reason: FinishReason
        try:
            if asked.turn is not None:
                async with run.making():
                    asked.place = await asked.turn
            async with self._watched(run, asked), run.making(), self._capturing(run, asked.request):
                finish_reason = await self._generate(run, asked)
        except StoppedError as stopped:
            if stopped.stop == "handed over":
                raise
            finish_reason = stopped.stop
        except OperationError as error:
            taken_back = error.kind in (CONTENT_REFUSED, CONTENT_UNCHECKED)
            if taken_back and run.text_started:
                run.drop_text()
                run.publish(Retract("content_refused" if error.kind is CONTENT_REFUSED else "content_unchecked"))
            asked.was_refused = error.kind is CONTENT_REFUSED and not run.text_started
            keep = bool(asked.text) and not taken_back
            self._tell(run, await self._settle(run, asked, "failed", "interrupted" if keep else None))
            raise
        finally:
            self._waiting.pop(run.request_id, None)
        stored = await self._settle(run, asked, "done", finish_reason)
        message_id = None if stored is None else stored.id
        run.publish(Complete(asked.answer, message_id, finish_reason, asked.usage))
        self._tell(run, stored)
        conversation = None if stored is None else stored.conversation
        if self._titles is not None and conversation is not None and conversation.title is None:
            naming = self._titles.give(run.user_id, conversation.id)
            self._hub.spawn(naming, name=f"title after {run.request_id}")

    def _tell(self, run: Run, stored: StoredAnswer | None) -> None:
        """Tell the user's other sockets that there is an answer, where one is kept."""
        if self._news is not None and stored is not None and stored.conversation is not None:
            answered = ConversationUpdated.of(stored.conversation, "answered")
            self._news.tell(run.user_id, answered, request_id=run.request_id)

    def _capturing(self, run: Run, request: SendChat) -> contextlib.AbstractAsyncContextManager[None]:
        """Beside the making of an answer, note what its question says of films, where that is wanted."""
        if self._capture is None or not request.watchlist_auto_capture or request.incognito:
            return contextlib.nullcontext()
        return self._capture.beside(run, request.query, self._hub.spawn)

    @contextlib.asynccontextmanager
    async def _watched(self, run: Run, asked: Asked) -> AsyncIterator[None]:
        """Have what is said checked while the answer is made, where that is wanted."""
        if self._safety is None:
            yield
            return
        async with self._safety.over(run, asked.session_id, self._hub.spawn) as asked.watch:
            yield

    async def _generate(self, run: Run, asked: Asked) -> FinishReason:
        if asked.watch is not None:
            await asked.watch.question(asked.request.query)
        turns = await self._turns(asked)
        finished: Finished | None = None
        async with contextlib.aclosing(self._answerer.answer(turns, _asking(run, asked))) as events:
            async for event in events:
                # Text first, and by itself: there are fifty of it a second, and one of each of the others.
                if isinstance(event, TextDelta):
                    asked.text.append(event.text)
                    rest = run.text(event.text)
                    if asked.watch is not None:
                        asked.watch.add(event.text)
                    if rest is not None:
                        await rest
                elif isinstance(event, Finished):
                    finished = event
                elif isinstance(event, Recommendations):
                    asked.recommendations = event
                    run.publish(event)
                elif asked.request.debug:
                    run.publish(event)
        assert finished is not None  # noqa: S101 (every answerer ends with it)
        if finished.usage is not None:
            asked.usage = Usage(finished.usage.prompt_tokens, finished.usage.completion_tokens)
        return finished.finish_reason

    async def _turns(self, asked: Asked) -> list[Turn]:
        past: list[PastMessage] = []
        if asked.conversation_id is not None and asked.place is not None:
            past = await self._conversations.before(asked.conversation_id, asked.place)
        turns = (Turn(message.role, message.content) for message in past if message.content)
        return [*turns, Turn("user", asked.request.query)]

    async def _settle(
        self, run: Run, asked: Asked, state: Literal["done", "failed"], finish_reason: FinishReason | None
    ) -> StoredAnswer | None:
        """Store how the run ended and, with a `finish_reason`, its answer, however long PostgreSQL is away.

        Raises StoppedError when the run is another owner's by now, and STORAGE_UNAVAILABLE after FINISH_S: then it is
        stored as soon as PostgreSQL is back.
        """
        message_id = uuid.uuid4() if finish_reason is not None and (asked.text or finish_reason == "stop") else None
        run.settled = True

        async def finish() -> StoredAnswer | None:
            return await self._table.finish(
                request_id=run.request_id,
                epoch=run.epoch,
                state=state,
                message_id=message_id,
                content=asked.answer,
                finish_reason=finish_reason or "stop",
                usage=asked.usage,
                recommendations=asked.recommendations,
                withhold_question=asked.was_refused,
            )

        stored = await self._insist(run, finish)
        if asked.was_refused and asked.conversation_id is not None:
            # What is withheld, PostgreSQL knows: the copy may still tell it.
            await self._conversations.forget(asked.conversation_id)
        if stored is None or asked.conversation_id is None or asked.place is None:
            return None
        question = PastMessage(asked.place, "user", asked.request.query)
        answer = PastMessage(stored.place, "assistant", asked.answer)
        await self._conversations.remember(asked.conversation_id, [question, answer])
        return stored

    async def _settle_failed(self, run: Run) -> None:
        """Store that a run ended without anybody's wish; of its answer nothing is kept."""
        run.settled = True

        async def finish() -> StoredAnswer | None:
            return await self._table.finish(
                request_id=run.request_id,
                epoch=run.epoch,
                state="failed",
                message_id=None,
                content="",
                finish_reason="stop",
                usage=None,
                recommendations=None,
            )

        await self._insist(run, finish)

    async def _insist(self, run: Run, finish: Callable[[], Awaitable[StoredAnswer | None]]) -> StoredAnswer | None:
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
