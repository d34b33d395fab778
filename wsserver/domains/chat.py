"""Chats: the question is stored, a run makes the answer, the answer is stored. The socket has no part in it."""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import from_json

from protocol import branches, chat
from protocol.accounts import Caller
from protocol.branches import EditQuestion, RegenerateAnswer
from protocol.chat import (
    CancelAccepted,
    CancelRun,
    ChatAccepted,
    ChatReply,
    Chunk,
    Complete,
    HistoryPage,
    ReadHistory,
    Recommendations,
    Restart,
    Resumed,
    ResumeRun,
    SendChat,
)
from protocol.envelope import Frame
from protocol.errors import (
    CONVERSATION_BUSY,
    CONVERSATION_NOT_FOUND,
    ERRORS,
    RUN_LOST,
    RUN_NOT_FOUND,
    OperationError,
)
from protocol.watchlist import WatchlistCaptured
from storage.branches import Revision
from storage.chat import Conversations
from storage.limits import RateLimits
from storage.ownership import RunRow, RunTable
from storage.runs import LoggedFrame
from wsserver.auth import GuestSecrets
from wsserver.dispatch import Call, Handlers
from wsserver.domains.answering import Answering
from wsserver.feed import Feed, Follower, Recorded
from wsserver.hub import Failure, Hub, Stream
from wsserver.ownership import LEASE, Ownership

INTERRUPT_S = 8.0
"""How long a question waits for the answer that it interrupts: a cancel on another node takes half a second."""

INTERRUPT_POLL_S = 0.05

LOG_LAG_S, LOG_LAG_POLLS = 2.0, 20
"""How far a log may lag behind the end of its run (a busy node's batches), and how often that is waited for."""

LOG_WAIT_S = 30.0
"""How long after a run's end its log may still get it while its owner lives: a node whose loop takes six seconds a turn
needs several of them."""


class Chats:
    """Has answers made, each once, and leads everybody who asks for one to it."""

    def __init__(
        self,
        hub: Hub,
        *,
        table: RunTable,
        ownership: Ownership,
        conversations: Conversations,
        answering: Answering,
        rates: RateLimits,
        guest_secrets: GuestSecrets,
    ) -> None:
        self._rates = rates
        self._guest_secrets = guest_secrets
        self._hub = hub
        self._table = table
        self._ownership = ownership
        self._conversations = conversations
        self._answering = answering
        hub.tails.endings = self._endings

    async def start(self, call: Call, request: SendChat) -> Stream[ChatReply]:
        """Store the question and begin its answer; sent again under the same id it leads to the answer that there is.

        Raises CONVERSATION_NOT_FOUND for a conversation that is not the caller's, CONVERSATION_BUSY, QUEUE_FULL,
        TOO_MANY_RUNS, RATE_LIMITED, DRAINING, STORAGE_UNAVAILABLE.
        """
        caller = call.known_caller
        conversation_id = None if request.incognito else request.conversation_id or caller.conversation_id
        return await self._start(caller, request, conversation_id)

    async def regenerate(self, call: Call, request: RegenerateAnswer) -> Stream[ChatReply]:
        """Begin another answer to a question. Raises MESSAGE_NOT_FOUND, for somebody else's too, and as `start`."""
        return await self._revise(call.known_caller, request, None)

    async def edit(self, call: Call, request: EditQuestion) -> Stream[ChatReply]:
        """Store a question instead of an earlier one, and begin its answer. Raises as `regenerate`."""
        return await self._revise(call.known_caller, request, request.query)

    async def _revise(
        self, caller: Caller, request: RegenerateAnswer | EditQuestion, query: str | None
    ) -> Stream[ChatReply]:
        question = await self._table.question(user_id=caller.user_id, message_id=request.message_id)
        wish = request.model_dump(exclude={"type", "message_id", "query"})
        asked = SendChat(type="chat", query=query or question.content, conversation_id=question.conversation_id, **wish)
        revision = Revision(question.id, asks_otherwise=query is not None)
        return await self._start(caller, asked, question.conversation_id, revision)

    async def _start(
        self, caller: Caller, request: SendChat, conversation_id: UUID | None, revision: Revision | None = None
    ) -> Stream[ChatReply]:
        self._hub.accepts_runs()
        await self._rates.chat_allowed(caller.user_id, request.id)
        request_id = uuid.uuid4().hex
        self._ownership.beginning.add(request_id)
        try:
            row, is_new = await self._begin(request_id, caller, request, conversation_id, revision)
            feed: Feed = self._answering.launch(row, request) if is_new else await self._feed_of(row)
        finally:
            self._ownership.beginning.discard(request_id)
        secret = None if row.nonce is None else self._guest_secrets.of(row.user_id, row.nonce)
        return Stream(
            request_id=row.request_id,
            accepted=ChatAccepted(request_id=row.request_id, conversation_id=row.conversation_id, guest_secret=secret),
            feed=feed,
            reply=lambda: self._reply(feed, row, caller.session_id, secret),
            message_id=request.id,
        )

    async def _begin(
        self,
        request_id: str,
        caller: Caller,
        request: SendChat,
        conversation_id: UUID | None,
        revision: Revision | None,
    ) -> tuple[RunRow, bool]:
        give_up_at = time.monotonic() + INTERRUPT_S
        while True:
            try:
                return await self._table.begin(
                    request_id=request_id,
                    user_id=caller.user_id,
                    session_id=caller.session_id,
                    client_id=request.id,
                    conversation_id=conversation_id,
                    create_conversation=conversation_id == caller.conversation_id,
                    request=request.model_dump(mode="json", exclude={"id"}),
                    question=request.query,
                    node=self._ownership.node,
                    enqueue=request.on_busy == "enqueue",
                    revision=revision,
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

    async def resume(self, call: Call, request: ResumeRun) -> Stream[None]:
        """Where an answer stands, and its frames from there on. Raises RUN_NOT_FOUND, for somebody else's too."""
        resumes = self._hub.metrics.resumes
        try:
            stream = await self._resume(call, request)
        except OperationError as error:
            if error.kind is RUN_NOT_FOUND:
                resumes.labels("not_found").inc()
            raise
        resumes.labels("recovered" if stream.feed is not None else "gone").inc()
        return stream

    async def _resume(self, call: Call, request: ResumeRun) -> Stream[None]:
        caller = call.known_caller
        run = self._hub.run(request.request_id)
        if run is not None and not run.ended:
            feed: Feed = _theirs(run.user_id, caller, run)
        else:
            # Of one that has ended the table says whose it is: a guest's may have become a user's.
            row = await self._table.find(user_id=caller.user_id, request_id=request.request_id)
            if row is None or (run is None and not await self._has_frames(row)):
                return await self._gone(caller, request.request_id, row)
            feed = await self._hub.feed(request.request_id)
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

    async def _has_frames(self, row: RunRow) -> bool:
        """Whether the run goes on, or its log is kept; of one that has just ended that may be seen a moment later."""
        if row.state in ("queued", "running"):
            return True
        for _ in range(LOG_LAG_POLLS):
            if "user_id" in await self._hub.logs.meta(row.request_id):
                return True
            if row.ended_s_ago is None or row.ended_s_ago >= LOG_LAG_S:
                return False
            await asyncio.sleep(LOG_LAG_S / LOG_LAG_POLLS)
        return False

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
        if await self._has_frames(row):
            return await self._hub.feed(row.request_id)
        return Recorded(row.request_id, await self._ending(row), row.client_id, self._hub.spawn)

    async def _ending(self, row: RunRow) -> list[Frame]:
        message = await self._table.answer(user_id=row.user_id, request_id=row.request_id)
        if message is None or message.finish_reason is None:
            return [Failure(OperationError(RUN_LOST))]
        return [Chunk(message.content), Complete(message.content, message.id, message.finish_reason, None)]

    async def _endings(self, request_ids: Sequence[str]) -> Mapping[str, Sequence[Frame]]:
        """The ends of the runs that are over and whose logs will not say so: Redis lost it, or never had it."""
        endings: dict[str, Sequence[Frame]] = {}
        for ended in await self._table.ended(request_ids, LEASE):
            if ended.owner_beats and ended.s_ago < LOG_WAIT_S:
                meta = await self._hub.logs.meta(ended.row.request_id)
                # Its owner describes the run as ended when it has logged all of it.
                if meta.get("state") == "running":
                    continue
            endings[ended.row.request_id] = [Restart("log_lost"), *await self._ending(ended.row)]
        for request_id in await self._table.forgotten(request_ids):
            # Nobody will ever end it: who follows it would do so for ever.
            endings[request_id] = [Restart("log_lost"), Failure(OperationError(RUN_LOST))]
        return endings

    async def _reply(self, feed: Feed, row: RunRow, session_id: str, guest_secret: str | None) -> ChatReply:
        """Wait for the run's end, wherever it is made, and give its whole answer. Raises what the run failed with."""
        ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        recommendations: list[Recommendations] = []
        captured: list[WatchlistCaptured] = []

        def look(frame: LoggedFrame) -> None:
            if frame.encoded.startswith(b'{"type":"recommendations"'):
                recommendations[:] = [Recommendations(**from_json(frame.encoded)["content"])]
            elif frame.encoded.startswith(b'{"type":"watchlist"'):
                captured[:] = [WatchlistCaptured.model_validate(from_json(frame.encoded)["content"])]
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
            watchlist=captured[0] if captured else None,
            guest_secret=guest_secret,
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


async def _at_once(_size_bytes: int) -> None:
    """There is always room in a look."""


async def _no_reply() -> None:
    """Who resumes wants frames; there is no reply beside them."""


def chat_handlers(chats: Chats) -> Handlers:
    """Handlers of the chat operations."""
    handlers = Handlers()
    handlers.on_stream(chat.CHAT)(chats.start)
    handlers.on_stream(branches.REGENERATE)(chats.regenerate)
    handlers.on_stream(branches.EDIT)(chats.edit)
    handlers.on_stream(chat.RESUME)(chats.resume)
    handlers.on(chat.CANCEL)(chats.cancel)
    handlers.on(chat.HISTORY)(chats.history)
    return handlers
