"""A client as a good mini program is one, and as strict as a test: it comes back, resumes, and checks every frame."""

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidState

from tests.faults.answer import STREAMED, Answer, Broken, BrokenPromiseError, Frame
from tests.faults.model import text_for

CONNECT_S = 5.0
"""A node that does not greet within this time is left for another one."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
"""Back-off between attempts to connect: a twentieth of what a mini program does, because tests are in a hurry."""

HURRY = 0.1
"""What the server says in `retry_after_ms` is waited for this share of its time, for the same reason."""

FATAL_CLOSES = {1009: "too big", 4002: "not the protocol", 4008: "replaced"}
"""A client that does as it is told is never told these."""


@dataclass(slots=True)
class Counts:
    """What clients did and what happened to them, added up."""

    clients: int = 0
    connects: int = 0
    unreachable: int = 0
    """Attempts to connect that found nobody."""
    drops: int = 0
    """Connections that ended without a word."""
    closes: Counter[str] = field(default_factory=Counter)
    """Connections that the server closed, by code."""
    silences: int = 0
    """Connections left because nothing came for too long."""
    goodbyes: int = 0
    logins: int = 0
    auths: int = 0
    chats: int = 0
    resends: int = 0
    resumes: int = 0
    frames: int = 0
    restarts: int = 0
    answers: int = 0
    stored: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Ends of runs that were errors, by reason."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Requests that were refused and made again, by reason."""
    broken: Broken = field(default_factory=Broken)

    def add(self, other: "Counts") -> None:
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, Broken):
                for each in fields(mine):
                    setattr(mine, each.name, getattr(mine, each.name) + getattr(theirs, each.name))
            else:
                setattr(self, one.name, mine + theirs)

    def figures(self) -> dict[str, Any]:
        """For the table: what was counted at all, and always what was broken."""
        said: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Counter):
                value = " ".join(f"{key}×{count}" for key, count in sorted(value.items()))
            if value and not isinstance(value, Broken):
                said[one.name] = value
        return {**said, **asdict(self.broken)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Counts":
        data = dict(data)
        for name in ("closes", "errors", "refusals"):
            data[name] = Counter(data[name])
        return cls(**data | {"broken": Broken(**data["broken"])})


class Client:
    """Somebody with a phone. Keeps one socket, to any of `urls`, for as long as the block lasts.

    `silence_s` is how long nothing may come, pings unanswered, before the socket is left; None waits for ever. With a
    `gate` it waits for its turn to connect and log in.
    `receive_buffer_bytes` bounds what the kernel takes in while the client does not read.
    """

    def __init__(
        self,
        urls: Sequence[str],
        counts: Counts,
        *,
        code: str | None = None,
        seed: int | None = None,
        silence_s: float | None = 6.0,
        receive_buffer_bytes: int | None = None,
        gate: asyncio.Semaphore | None = None,
    ) -> None:
        self.urls = urls
        self.counts = counts
        self.code = code or f"code-{secrets.token_hex(8)}"
        self.token: str | None = None
        self.answers: dict[str, Answer] = {}
        self.reading = asyncio.Event()
        """Cleared, it stops reading, as an app does that hangs."""
        self.reading.set()
        self.socket: ClientConnection | None = None
        self._random = random.Random(seed)
        self._silence_s = silence_s
        self._receive_buffer_bytes = receive_buffer_bytes
        self._gate = gate
        self._logged_in = False
        self.waits_s: list[float] = []
        """How long it waited before each connection but the first."""
        self._retry_after_s = 0.0
        self._last_url = ""
        self._heard_at = 0.0
        self._asked: dict[str, Answer] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._again: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._numbers = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Client"]:
        """Be there until the block ends. Raises BrokenPromiseError."""
        self.counts.clients += 1
        self._task = asyncio.create_task(self._stay(), name=f"client {self.code}")
        try:
            yield self
            # What was broken after the last answer.
            await asyncio.sleep(0)
            if self._task.done():
                self._task.result()
        finally:
            tasks = [self._task, *self._again]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, query: str, *, id: str | None = None, expected: str | None = None, **more: object) -> Answer:  # noqa: A002
        """Ask, and wait for the end of the answer, however often the connection is lost."""
        answer = self.begin(query, id=id, expected=expected, **more)
        await self.over(answer)
        return answer

    def begin(self, query: str, *, id: str | None = None, expected: str | None = None, **more: object) -> Answer:  # noqa: A002
        """Ask."""
        said = text_for(query) if expected is None else expected
        answer = Answer(query, id or secrets.token_hex(8), said, self.counts.broken)
        answer.message = {"type": "chat", "id": answer.id, "query": query, "stream": True, **more}
        self.answers[answer.id] = answer
        self._waiting[answer.id] = asyncio.get_running_loop().create_future()
        if self._logged_in:
            self._go_on(answer)
        return answer

    async def over(self, answer: Answer) -> None:
        """Wait for the end of an answer. Raises BrokenPromiseError when the server broke one."""
        waiting = self._waiting[answer.id]
        assert self._task is not None
        await asyncio.wait((waiting, self._task), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            self._task.result()
        del self.answers[answer.id]
        del self._waiting[answer.id]

    async def _stay(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            came_in = await self._connect_and_talk()
            wait_s = FIRST_WAIT_S if came_in else min(2 * wait_s, LONGEST_WAIT_S)
            pause_s, self._retry_after_s = max(wait_s * self._random.uniform(0.5, 1.0), self._retry_after_s), 0.0
            self.waits_s.append(pause_s)
            await asyncio.sleep(pause_s)

    async def _connect_and_talk(self) -> bool:
        """One connection, from its beginning to its end. Whether it came as far as a login."""
        async with contextlib.AsyncExitStack() as turn:
            if self._gate is not None:
                await turn.enter_async_context(self._gate)
            return await self._connect_in_turn(turn)

    async def _connect_in_turn(self, turn: contextlib.AsyncExitStack) -> bool:
        others = [url for url in self.urls if url != self._last_url]
        # Whom it just lost it tries again too: there may be no other.
        self._last_url = url = self._random.choice(others if others and self._random.random() < 0.8 else self.urls)
        address = url.replace("http://", "ws://") + "/wechat/ws"
        try:
            socket = await connect(
                address, compression=None, proxy=None, ping_interval=None, open_timeout=CONNECT_S, max_size=None
            )
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, EOFError):
            self.counts.unreachable += 1
            return False
        self.counts.connects += 1
        self.socket = socket
        if self._receive_buffer_bytes is not None:
            tcp = socket.transport.get_extra_info("socket")
            tcp.setsockopt(SOL_SOCKET, SO_RCVBUF, self._receive_buffer_bytes)
        watch = asyncio.create_task(self._watch(socket))
        try:
            await self._log_in(socket)
            await turn.aclose()
            await self._talk(socket)
        except ConnectionClosed as closed:
            self._count_close(closed)
        finally:
            watch.cancel()
            was_logged_in, self._logged_in = self._logged_in, False
            self.socket = None
            self._asked.clear()
            socket.transport.abort()
        return was_logged_in

    def _count_close(self, closed: ConnectionClosed) -> None:
        if closed.rcvd is None:
            self.counts.drops += 1
            return
        code = closed.rcvd.code
        self.counts.closes[str(code)] += 1
        if code in FATAL_CLOSES:
            raise BrokenPromiseError(f"closed with {code}, {FATAL_CLOSES[code]}")
        if code == 4003:
            self.token = None

    async def _watch(self, socket: ClientConnection) -> None:
        """Say something when nothing is heard, and leave when that is not answered."""
        if self._silence_s is None:
            return
        self._heard_at = time.monotonic()
        while True:
            await asyncio.sleep(self._silence_s / 4)
            silent_s = time.monotonic() - self._heard_at
            if silent_s > self._silence_s and self.reading.is_set():
                self.counts.silences += 1
                socket.transport.abort()
                return
            if silent_s > self._silence_s / 3:
                self._send({"type": "ping"})

    async def _log_in(self, socket: ClientConnection) -> None:
        await self._receive(socket, "connected")
        if self.token is None:
            self.counts.logins += 1
            self._send({"type": "login", "code": self.code})
            reply = await self._receive(socket, "login_response")
        else:
            self.counts.auths += 1
            self._send({"type": "auth", "token": self.token})
            reply = await self._receive(socket, "auth_response")
        if reply["code"] != 0:
            self._refused(reply)
            return
        self.token = reply["data"]["token"]
        self._logged_in = True

    async def _talk(self, socket: ClientConnection) -> None:
        if not self._logged_in:
            return
        for answer in tuple(self.answers.values()):
            if not answer.is_over:
                self._go_on(answer)
        while True:
            self._handle(await self._receive(socket))

    async def _receive(self, socket: ClientConnection, type_: str | None = None) -> Frame:
        while True:
            await self.reading.wait()
            frame: Frame = orjson.loads(await socket.recv(decode=False))
            self._heard_at = time.monotonic()
            if frame["type"] == "goodbye":
                self.counts.goodbyes += 1
                self._retry_after_s = HURRY * frame["retry_after_ms"] / 1000
            elif type_ is None or frame["type"] == type_:
                return frame
            elif frame["type"] != "pong":
                raise BrokenPromiseError(f"{frame['type']} where {type_} was waited for")

    def _send(self, message: Frame) -> None:
        """Send what is small enough to need no waiting; on a socket that is gone it does nothing."""
        socket = self.socket
        if socket is not None and not socket.transport.is_closing():
            # The closing handshake may have begun: then nothing can be said any more.
            with contextlib.suppress(InvalidState):
                socket.protocol.send_text(orjson.dumps(message))
                socket.send_data()

    def _go_on(self, answer: Answer) -> None:
        """Ask the question, or ask for the rest of its answer."""
        if not self._logged_in or answer.is_over:
            return
        if answer.request_id is None:
            if answer.was_sent:
                self.counts.resends += 1
            else:
                self.counts.chats += 1
            answer.was_sent = True
            self._asked[answer.id] = answer
            self._send(answer.message)
            return
        self.counts.resumes += 1
        self._numbers += 1
        name = f"resume-{self._numbers}"
        self._asked[name] = answer
        self._send({"type": "resume", "id": name, "request_id": answer.request_id, "after_seq": answer.seq})

    def _handle(self, frame: Frame) -> None:
        type_ = frame["type"]
        if type_ in STREAMED and "seq" in frame:
            self._take(frame)
        elif type_ == "chat_processing":
            self._asked[frame["id"]].accept(frame)
        elif type_ == "resume_response":
            answer = self._asked.pop(frame["id"])
            if not frame["data"]["recovered"]:
                answer.gone(frame["data"])
                self.counts.stored += 1
                self._is_over(answer)
        elif type_ == "error":
            self._refused(frame)
        elif type_ not in ("pong", "conversation_updated"):
            self._unknown(frame)

    def _unknown(self, frame: Frame) -> None:
        """Other clients ignore what they do not know; here it is a fault of the server."""
        raise BrokenPromiseError(f"nobody asked for {frame}")

    def _take(self, frame: Frame) -> None:
        self.counts.frames += 1
        answer = next((one for one in self.answers.values() if one.request_id == frame["request_id"]), None)
        if answer is None:
            raise BrokenPromiseError(f"a frame of a run that is over or that nobody asked for: {str(frame)[:200]}")
        answer.take(frame)
        if frame["type"] == "restart":
            self.counts.restarts += 1
        if answer.end is not None:
            if frame["type"] == "error":
                self.counts.errors[frame["reason"]] += 1
            else:
                self.counts.answers += 1
            self._is_over(answer)

    def _is_over(self, answer: Answer) -> None:
        waiting = self._waiting[answer.id]
        if not waiting.done():
            waiting.set_result(None)

    def _refused(self, frame: Frame) -> None:
        """Try again what may be tried again."""
        if not frame.get("retryable"):
            self._refused_for_good(frame)
            return
        self.counts.refusals[frame["reason"]] += 1
        wait_s = HURRY * (frame["retry_after_ms"] or 1000) / 1000
        answer = self._asked.pop(frame.get("id", ""), None)
        if answer is None:
            # The login: the next connection tries it again.
            self._retry_after_s = wait_s
            return
        again = asyncio.create_task(self._later(wait_s, answer, self.socket))
        self._again.add(again)
        again.add_done_callback(self._again.discard)

    def _refused_for_good(self, frame: Frame) -> None:
        """It is not what a server says to a client that does right."""
        raise BrokenPromiseError(f"refused for good: {frame}")

    async def _later(self, wait_s: float, answer: Answer, socket: ClientConnection | None) -> None:
        await asyncio.sleep(wait_s)
        if self.socket is socket:
            self._go_on(answer)
