"""A node that does exactly what a test says: it greets, logs everybody in, and hands on every other message."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from protocol.envelope import encode_error, encode_reply
from protocol.errors import OperationError
from tests.clients import Frame

SERVER = {"connection_id": "scripted", "ping_interval_s": 25, "resume_window_s": 600, "max_message_bytes": 65_536}
CONNECTED: Frame = {"type": "connected", "code": 0, "message": "连接成功", "data": None, "server": SERVER}
SESSION: Frame = {"openid": "o1", "session_id": "s1", "token": "t1", "expires_in": 600}


@dataclass(slots=True)
class Guest:
    """One connection; `number` counts from 0."""

    number: int
    socket: ServerConnection

    async def say(self, *frames: Frame | bytes | str) -> None:
        for frame in frames:
            text = json.dumps(frame) if isinstance(frame, dict) else frame
            await self.socket.send(text.decode() if isinstance(text, bytes) else text)

    async def reply(self, message: Frame, data: Any, type_: str | None = None) -> None:
        type_ = type_ or f"{message['type']}_response"
        await self.say({"type": type_, "code": 0, "message": "成功", "data": data, "id": message.get("id")})

    async def refuse(self, message: Frame, error: OperationError, type_: str = "error") -> None:
        await self.say(encode_error(error, type_=type_, message_id=message.get("id")))


Handle = Callable[[Guest, Frame], Awaitable[None]]


@dataclass(slots=True)
class ScriptedNode:
    """`on` has what is done for a type of message, in place of what is done without it; `messages` came in."""

    url: str = ""
    on: dict[str, Handle] = field(default_factory=dict)
    greeting: Callable[[Guest], Awaitable[None]] | None = None
    messages: asyncio.Queue[tuple[int, Frame]] = field(default_factory=asyncio.Queue)
    connections: int = 0

    async def talk(self, socket: ServerConnection) -> None:
        guest = Guest(self.connections, socket)
        self.connections += 1
        with contextlib.suppress(ConnectionClosed):
            await (self.greeting(guest) if self.greeting else guest.say(CONNECTED))
            async for text in socket:
                message = json.loads(text)
                self.messages.put_nowait((guest.number, message))
                await self.on.get(message["type"], answer)(guest, message)


async def answer(guest: Guest, message: Frame) -> None:
    """What is done where a test says nothing else."""
    if message["type"] == "ping":
        await guest.say(encode_reply("pong", "pong", None, message.get("id")))
    elif message["type"] in ("login", "auth"):
        await guest.reply(message, SESSION)


@contextlib.asynccontextmanager
async def scripted_node() -> AsyncIterator[ScriptedNode]:
    node = ScriptedNode()
    async with serve(node.talk, "127.0.0.1", 0, close_timeout=1) as server:
        node.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield node
