"""A client as an app has one: typed, and in spite of every lost connection each thing is asked once and answered whole.

Over one socket it calls the operations that `protocol/` declares and follows answers while they are made. It comes back
by itself, to the next of several nodes, as the server's close codes say. It keeps nothing on disk: who wants to go on
after a new start keeps `token` and an answer's `request_id`, and calls `follow`.

    .venv/bin/python examples/client.py ws://127.0.0.1:8000/wechat/ws "推荐三部诺兰导演的电影"
    .venv/bin/python examples/client.py ws://127.0.0.1:8000/wechat/ws --film 603
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import secrets
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

sys.path.append(str(Path(__file__).resolve().parent.parent))  # started as a script, it finds `protocol/` beside itself

from protocol import accounts, belongings, branches, chat, conversations, errors, guests, movies, watchlist
from protocol.chat import ChatAccepted, ChatFrame, Chunk, Complete, Recommendations, Restart, Retract
from protocol.envelope import MAX_MESSAGE_BYTES
from protocol.errors import CLOSE_CODES, CloseCode, OperationError
from protocol.operation import Operation, Request, StreamingOperation, StreamingRequest
from protocol.reading import WrongReplyError, read_error, read_frame, read_reply, read_whole
from protocol.session import Limits
from protocol.unasked import ChangedConversation, Connected, ConversationUpdated, Goodbye

CONNECT_S, LOGIN_S = 10.0, 30.0
"""A node that takes longer is left for the next; a login alone may take WeChat's ten seconds."""

CALL_S = 30.0
"""How long a call takes at most, lost connections included, unless its caller says otherwise."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Back-off: doubled with each attempt that fails, and spread, so that not all come back in the same moment."""

ROOM = 1_000
"""Frames kept for who does not read them. What comes after is let go, and asked for again when those are read."""

LIMITS = Limits()
"""What a connection may send. It is kept to here: a refusal for being too fast does not say which message it means."""

FINAL = {errors.TOO_BIG.code, errors.NOT_THE_PROTOCOL.code, errors.REPLACED.code}
"""Close codes after which a client does not come back by itself."""

REPEATABLE = {
    operation.name
    for operation in (
        *(movies.MOVIES_BULK, chat.HISTORY, chat.CANCEL, branches.BRANCH_CHOOSE, conversations.FEEDBACK),
        *(conversations.CONVERSATION_RENAME, watchlist.WATCHLIST_ADD, watchlist.WATCHLIST_UNDO, guests.ADOPT_GUEST),
    )
}
"""Done twice they do no more and answer the same, as does what has a GET. Others are sent once."""

LEAVING = {accounts.LOGOUT.name, belongings.ACCOUNT_DELETE.name}

Frame = dict[str, Any]
Inbox = asyncio.Queue[Frame | None]
"""What has come for one caller; None when no more will: the connection was lost, or there was no room."""

RequestT = TypeVar("RequestT", bound=Request)
ReplyT = TypeVar("ReplyT", bound=BaseModel | None)
StreamingRequestT = TypeVar("StreamingRequestT", bound=StreamingRequest)


class ClosedError(Exception):
    """The client is gone for good; `close` says why, and what its owner may do."""

    def __init__(self, close: CloseCode) -> None:
        self.close = close
        super().__init__(f"{close.code} {close.reason}: {close.advice}")


class LostError(Exception):
    """The connection was lost under a call that must not be made twice: it may have been done, or not."""


class Client:
    """One user's socket, to one of `urls` after the other, for as long as the block of `open` lasts.

    `get_code` gives a fresh code of wx.login; without it `token` is the only way in. `on_change` is told what
    became of the user's conversations. `heartbeat_s` replaces what the server advertises.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        get_code: Callable[[], Awaitable[str]] | None = None,
        token: str | None = None,
        on_change: Callable[[ChangedConversation], None] | None = None,
        heartbeat_s: float | None = None,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self.token = token
        self.openid: str | None = None
        self._urls = urls
        self._get_code = get_code
        self._on_change = on_change
        self._heartbeat_s = heartbeat_s
        self._first_wait_s = first_wait_s
        self._max_bytes = MAX_MESSAGE_BYTES
        self._code: str | None = None
        self._socket: ClientConnection | None = None
        self._over: BaseException | None = None
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._sent_up_to = self._not_before = 0.0
        self._refresh_at = math.inf
        self._is_leaving = False
        self._inboxes: dict[str, Inbox] = {}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Be there until the block ends. Calls wait for the connection, and raise why there will be none any more."""
        task = asyncio.create_task(self._stay(), name="connection")
        task.add_done_callback(self._ended)
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def call(
        self, operation: Operation[RequestT, ReplyT], request: RequestT, *, timeout_s: float = CALL_S
    ) -> ReplyT:
        """The reply. What may be tried again after a time is tried again then.

        Raises OperationError, TimeoutError, LostError, ClosedError, WrongReplyError.
        """
        may_repeat = operation.name in REPEATABLE or any(route.method == "GET" for route in operation.routes)
        async with asyncio.timeout(timeout_s):
            while True:
                async with self.exchange(request.model_copy(update={"id": new_id()})) as inbox:
                    frame = await inbox.get()
                if frame is None:
                    if not may_repeat:
                        raise LostError(operation.name)
                elif frame["code"] == 0:
                    self._is_leaving |= operation.name in LEAVING
                    return read_reply(frame, operation.reply, operation.reply_type)
                else:
                    error = read_error(frame)
                    if error.kind is errors.DEADLINE_EXCEEDED and not may_repeat:
                        raise error
                    await asyncio.sleep(wait_s(error))

    def ask(self, query: str) -> "Answer":
        """A question in the user's standing conversation."""
        return self.stream(chat.CHAT, chat.SendChat(type="chat", query=query))

    def stream(
        self, operation: StreamingOperation[StreamingRequestT, ChatAccepted, Any], request: StreamingRequestT
    ) -> "Answer":
        """A question, asked once its answer is iterated over. The same `id` within 24 hours is the same answer."""
        asked = request.model_copy(update={"id": request.id or new_id(), "stream": True})
        return Answer(self, asked, operation.accepted_type)

    def follow(self, request_id: str, *, after_seq: int = 0) -> "Answer":
        """An answer to what the user asked before, here or elsewhere."""
        return Answer(self, None, chat.RESUME.accepted_type, request_id, after_seq)

    @contextlib.asynccontextmanager
    async def exchange(self, message: Request, *names: str) -> AsyncIterator[Inbox]:
        """Say something as soon as there is a connection; what comes for its id or `names` comes into the inbox."""
        while self._socket is None:
            if self._over is not None:
                raise self._over
            self._changed.clear()
            await self._changed.wait()
        inbox, names = Inbox(ROOM + 1), (str(message.id), *names)
        if not self._inboxes.keys().isdisjoint(names):
            raise ValueError(f"one of {names} is waited for already")
        self._inboxes.update(dict.fromkeys(names, inbox))
        try:
            with contextlib.suppress(ConnectionClosed):  # then its inbox ends, as all do
                await self._send(self._socket, message)
            yield inbox
        finally:
            for name in names:
                del self._inboxes[name]

    async def _send(self, socket: ClientConnection, message: Request) -> None:
        """Send when its turn has come: half a burst at once, then as many a second as a connection may."""
        text = message.model_dump_json(exclude_none=True)
        if len(text.encode()) > self._max_bytes:
            raise OperationError(errors.TOO_LARGE)
        async with self._turn:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, self._sent_up_to - now - LIMITS.burst / 2 / LIMITS.messages_per_s))
            self._sent_up_to = max(self._sent_up_to, now) + 1 / LIMITS.messages_per_s
            await socket.send(text)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._over = ClosedError(errors.NORMAL) if task.cancelled() else task.exception()
        self._lose()

    def _lose(self) -> None:
        self._socket = None
        self._changed.set()
        for inbox in self._inboxes.values():
            put(inbox, None)

    async def _stay(self) -> None:
        """Connect again and again. Raises what no further attempt can change."""
        failures = 0
        for url in itertools.cycle(self._urls):
            try:
                # Its own pings say nothing of the server behind a proxy; whole answers and exports may be long.
                async with connect(
                    url, open_timeout=CONNECT_S, close_timeout=1, ping_interval=None, max_size=None
                ) as socket:
                    async with asyncio.timeout(LOGIN_S):
                        await self._log_in(socket)
                    failures = 0
                    await self._listen(socket)
            except InvalidStatus as refused:
                if refused.response.status_code in (401, 403, 404):
                    raise
            except ConnectionClosed as closed:
                self._heed(closed)
            except (OSError, InvalidHandshake, EOFError):
                pass  # nobody there, too slow, or silent: TimeoutError is an OSError
            await asyncio.sleep(self._pause_s(failures))
            failures += 1

    def _pause_s(self, failures: int) -> float:
        back_off_s: float = min(LONGEST_WAIT_S, self._first_wait_s * 2**failures) * random.uniform(0.5, 1.0)  # noqa: S311
        return max(back_off_s, self._not_before - asyncio.get_running_loop().time())

    def _heed(self, closed: ConnectionClosed) -> None:
        """Do what a close code asks for. Raises ClosedError when that is not to come back."""
        close = CLOSE_CODES.get(closed.rcvd.code) if closed.rcvd else None
        if close is errors.REVOKED:
            self.token = None
            if self._get_code is None:
                raise ClosedError(close)
        if close is not None and (close.code in FINAL or self._is_leaving):
            raise ClosedError(close)
        if close is errors.FAST_SENDER:
            self._come_back_after(LONGEST_WAIT_S)

    def _come_back_after(self, pause_s: float) -> None:
        self._not_before = asyncio.get_running_loop().time() + pause_s

    async def _log_in(self, socket: ClientConnection) -> None:
        """By the token while it is good, else by a code. Raises an OperationError that trying again does not change."""
        self._refresh_at, self._sent_up_to = math.inf, 0.0
        server = read_whole(await self._hear(socket), Connected).server
        self._heartbeat_s = self._heartbeat_s or server.ping_interval_s
        self._max_bytes = server.max_message_bytes
        refusal = OperationError(errors.LOGIN_REQUIRED)
        if self.token is not None:
            await self._send(socket, accounts.Authenticate(type="auth", token=self.token))
            reply = await self._hear(socket)
            if reply["code"] == 0:
                self._take_token(reply, accounts.AUTH.reply_type)
                return
            refusal, self.token = self._refused(reply), None
        if self._get_code is None:
            raise refusal
        # A code whose reply was lost leads to the same session when it comes again.
        self._code = self._code or await self._get_code()
        await self._send(socket, accounts.LogIn(type="login", code=self._code))
        reply = await self._hear(socket)
        self._code = None
        if reply["code"] != 0:
            raise self._refused(reply)
        self._take_token(reply, accounts.LOGIN.reply_type)

    def _take_token(self, reply: Frame, type_: str) -> None:
        session = read_reply(reply, accounts.Authenticated, type_)
        if session.openid is not None and self.openid not in (None, session.openid):
            raise OperationError(errors.SESSION_REVOKED, "somebody else logged in: what was asked before is not theirs")
        self.openid, self.token = session.openid or self.openid, session.token
        self._refresh_at = asyncio.get_running_loop().time() + session.expires_in / 2

    def _refused(self, frame: Frame) -> OperationError:
        """What was refused for good. Raises ConnectionAbortedError for what another connection may try again."""
        error = read_error(frame)
        if error.kind.retryable:
            self._come_back_after((error.retry_after_ms or 0) / 1000)
            raise ConnectionAbortedError(error.kind.reason)
        return error

    async def _hear(self, socket: ClientConnection) -> Frame:
        """The next frame that is for somebody. When nothing comes it pings, and gives up when that is not answered."""
        pinged = False
        while True:
            if self.token is not None and asyncio.get_running_loop().time() > self._refresh_at:
                self._refresh_at = math.inf
                await self._send(socket, accounts.Authenticate(type="auth", token=self.token))
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    frame = json.loads(await socket.recv())
            except ValueError:
                raise WrongReplyError("no JSON") from None
            except TimeoutError:
                if pinged:
                    socket.transport.abort()
                    raise
                pinged = True
                async with asyncio.timeout(self._heartbeat_s):
                    await self._send(socket, accounts.Ping(type="ping"))
                continue
            pinged = False
            match frame:
                case {"type": "goodbye"}:
                    self._come_back_after(read_whole(frame, Goodbye).retry_after_ms / 1000)
                case {"type": "error"} if frame.keys().isdisjoint(("id", "request_id")):
                    raise self._refused(frame)
                case {"type": "pong"}:
                    pass
                case {"type": str(), "code": int()} | {"type": str(), "seq": int()}:
                    return dict(frame)
                case _:
                    raise WrongReplyError(str(frame)[:200])

    async def _listen(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._changed.set()
        try:
            while True:
                self._pass_on(await self._hear(socket))
        finally:
            self._lose()

    def _pass_on(self, frame: Frame) -> None:
        # An answer's frames have the id of the question, also for who follows it under another.
        followed = self._inboxes.get(frame.get("request_id", "")) if "seq" in frame else None
        inbox = followed or self._inboxes.get(frame.get("id", ""))
        if inbox is not None:
            put(inbox, frame)
        elif frame["type"] == "conversation_updated" and self._on_change is not None:
            with contextlib.suppress(WrongReplyError):  # a change that came into the world later
                self._on_change(read_whole(frame, ConversationUpdated).data)
        elif frame["type"] == accounts.AUTH.reply_type and frame["code"] == 0:
            self._take_token(frame, accounts.AUTH.reply_type)


@dataclass(slots=True, eq=False, repr=False)
class Answer:
    """An answer: iterate over it for its frames, of which a Complete is the last. `text` is what to show of it by now.

    Raises the OperationError that the run ended with, else as `Client.call`; it has no timeout but its caller's.
    """

    client: Client
    asked: StreamingRequest | None
    accepted_type: str
    request_id: str | None = None
    seq: int = 0
    accepted: ChatAccepted | None = None
    text: str = ""

    async def whole(self) -> Complete:
        """Its end, for who does not watch it being made."""
        frames = [frame async for frame in self if isinstance(frame, Complete)]
        return frames[0]

    async def __aiter__(self) -> AsyncGenerator[ChatFrame, None]:
        while True:
            again_after_s = 0.0
            message, names = self._message()
            async with self.client.exchange(message, *names) as inbox:
                # Before the reply come the frames of having followed it before, which come again after it.
                while (frame := await inbox.get()) is not None and "seq" in frame:
                    pass
                if frame is not None and frame["code"] != 0:
                    again_after_s = wait_s(read_error(frame))
                elif frame is not None:
                    self._begin(frame, inbox)
                    begun_at = self.seq
                    while (frame := await inbox.get()) is not None:
                        if frame["seq"] <= self.seq:
                            continue
                        # What is missing is asked for, but not again of who was just asked for it.
                        if self._misses(frame) and (message is self.asked or self.seq > begun_at):
                            break
                        typed = self._take(frame)
                        if typed is not None:
                            yield typed
                        if isinstance(typed, Complete):
                            return
            await asyncio.sleep(again_after_s)

    def _message(self) -> tuple[Request, Sequence[str]]:
        """The question until it was accepted, then a wish for the rest of its answer."""
        if self.request_id is None and self.asked is not None:
            return self.asked, ()
        request_id = str(self.request_id)
        resume = chat.ResumeRun(type="resume", id=new_id(), request_id=request_id, after_seq=self.seq)
        return resume, (request_id,)

    def _begin(self, reply: Frame, inbox: Inbox) -> None:
        """Take the reply. When the frames are gone, what was stored comes as they would."""
        if self.request_id is None:
            self.accepted = read_reply(reply, ChatAccepted, self.accepted_type)
            self.request_id = self.accepted.request_id
            return
        resumed = read_reply(reply, chat.Resumed, chat.RESUME.accepted_type)
        if resumed.recovered:
            if not resumed.running and self.seq >= resumed.last_seq:
                # All of it was had: its end comes once more.
                self.seq = resumed.last_seq - 1
                put(inbox, None)
            return
        if resumed.message is None:
            raise OperationError(errors.RUN_LOST)
        stored = resumed.message
        end = Complete(stored.content, stored.id, stored.finish_reason or "stop", stored.usage)
        parts: tuple[ChatFrame, ...] = (Restart("log_lost"), Chunk(stored.content), end)
        for seq, part in enumerate(parts, self.seq + 1):
            put(inbox, {"type": part.TYPE, "seq": seq, **part.wire()})

    def _misses(self, frame: Frame) -> bool:
        return bool(frame["seq"] > self.seq + 1) and frame["type"] != Restart.TYPE

    def _take(self, frame: Frame) -> ChatFrame | None:
        if self._misses(frame):
            raise WrongReplyError(f"{frame['type']} {frame['seq']} after {self.seq}")
        self.seq = frame["seq"]
        if frame["type"] == "error":
            raise read_error(frame)
        typed = read_frame(frame)
        match typed:
            case Chunk(text):
                self.text += text
            case Restart() | Retract():
                self.text = ""
            case Complete(answer):
                self.text = answer
        return typed


def put(inbox: Inbox, frame: Frame | None) -> None:
    """The last place is for None: after it nothing is read."""
    with contextlib.suppress(asyncio.QueueFull):
        inbox.put_nowait(frame if inbox.qsize() < ROOM else None)


def wait_s(error: OperationError) -> float:
    """When to try again. Raises the error when that is not for the client to decide."""
    if not error.kind.retryable or error.retry_after_ms is None or error.kind is errors.CONVERSATION_BUSY:
        raise error
    return error.retry_after_ms / 1000


def new_id() -> str:
    return secrets.token_hex(8)


async def show_answer(client: Client, query: str) -> None:
    films: list[int] = []
    async for frame in client.ask(query):
        match frame:
            case Chunk(text):
                print(text, end="", flush=True)
            case Recommendations(tmdb_ids):
                films = tmdb_ids
            case Restart():
                print("\n（重新回答）")
            case Retract():
                print("\n（以上内容已撤回）")
    print("\n（本回答由 AI 生成）")
    if films:
        found = await client.call(movies.MOVIES_BULK, movies.FindMovies(type="movies_bulk", ids=films))
        for card in found.items:
            print(f"- {card.title} ({card.year}) {'、'.join(card.directors)}")


async def show_film(client: Client, tmdb_id: int) -> None:
    movie = (await client.call(movies.MOVIE_DETAIL, movies.GetMovie(type="movie_detail", tmdb_id=tmdb_id))).movie
    print(f"{movie.title} ({movie.year}) {movie.runtime} min\n{movie.overview}")
    for member in movie.cast:
        print(f"- {member.name}: {member.character}")


async def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Ask, or look a film up.")
    parser.add_argument("url", help="ws://host:port/wechat/ws")
    parser.add_argument("query", nargs="?", help="a question")
    parser.add_argument("--film", type=int, metavar="TMDB_ID", help="show a film instead")
    parser.add_argument("--code", default="example", help="what wx.login gave; the local login takes anything")
    given = parser.parse_args(arguments)
    if (given.query is None) == (given.film is None):
        parser.error("either a question or --film")

    async def get_code() -> str:
        return str(given.code)

    async with Client([given.url], get_code=get_code).open() as client:
        try:
            await (show_film(client, given.film) if given.query is None else show_answer(client, given.query))
        except (OperationError, ClosedError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
