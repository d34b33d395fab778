"""Clients for the tests: one over the socket, one over HTTP, with the same methods where the behaviour is the same."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, Protocol

import httpx
from websockets.asyncio.client import ClientConnection, connect

Frame = dict[str, Any]

PATIENCE_S = 15.0
"""How long a test waits for anything: a wait that ends here has failed."""


UNKNOWN_ID = "0b1f4a86-53a1-4c0e-9d0b-6a2f6b0c7a11"
"""An id that nothing has."""


class Transport(Protocol):
    """What a test of behaviour needs of either transport."""

    name: str

    async def call(self, message: Frame) -> Frame: ...
    async def stream(self, message: Frame) -> list[Frame]: ...


def new_code() -> str:
    """A wx.login code that nobody used before."""
    return f"code-{secrets.token_hex(8)}"


class SocketClient:
    """A socket, logged out at first. `call` sends one message and gives the next reply."""

    name = "socket"

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.openid = ""
        self.token = ""
        self.session_id = ""
        self.news: list[Frame] = []

    async def send(self, message: Frame | str | bytes) -> None:
        await self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def receive(self) -> Frame:
        """The next frame; what nobody asked for is put into `news`."""
        async with asyncio.timeout(PATIENCE_S):
            while (frame := await self._frame())["type"] == "conversation_updated":
                self.news.append(frame)
        return frame

    async def hear(self) -> Frame:
        """The next that nobody asked for."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.news:
                frame = await self._frame()
                assert frame["type"] == "conversation_updated", frame
                self.news.append(frame)
        return self.news.pop(0)

    async def _frame(self) -> Frame:
        frame: Frame = json.loads(await self.socket.recv())
        return frame

    async def receive_until(self, *types: str) -> list[Frame]:
        """Frames up to and with the first of one of these types."""
        frames = [await self.receive()]
        while frames[-1]["type"] not in types:
            frames.append(await self.receive())
        return frames

    async def call(self, message: Frame) -> Frame:
        """The reply to a message; of a chat the last one."""
        return await self.call_text(json.dumps(message))

    async def call_text(self, message: str) -> Frame:
        """The same for what may be no message."""
        await self.send(message)
        reply = await self.receive()
        return await self.receive() if reply["type"].endswith("_processing") else reply

    async def stream(self, message: Frame) -> list[Frame]:
        """The frames of a chat, its acceptance first."""
        await self.send(message | {"stream": True})
        return await self.receive_until("complete", "error")

    async def login(self, code: str | None = None) -> Frame:
        reply = await self.call({"type": "login", "code": code or new_code()})
        assert reply["code"] == 0, reply
        self.openid, self.token = reply["data"]["openid"], reply["data"]["token"]
        self.session_id = reply["data"]["session_id"]
        return reply

    async def closed(self) -> int:
        """Wait for the server to close the socket, and give its code."""
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code


@contextlib.asynccontextmanager
async def socket_client(base_url: str, path: str = "/wechat/ws", **options: Any) -> AsyncIterator[SocketClient]:
    """A socket that has had its `connected` frame."""
    url = base_url.replace("http://", "ws://") + path
    async with connect(url, compression=None, proxy=None, **options) as socket:
        client = SocketClient(socket)
        connected = await client.receive()
        assert connected["type"] == "connected", connected
        yield client


class HttpClient:
    """The same over `POST /api/v1/messages`."""

    name = "http"

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self.http = http
        self.token = token

    async def call(self, message: Frame) -> Frame:
        response = await self.http.post("/api/v1/messages", json=message, headers=self._headers())
        frame: Frame = response.json()
        assert response.status_code == (frame["code"] or 200), frame
        return frame

    async def stream(self, message: Frame) -> list[Frame]:
        headers = self._headers() | {"Accept": "text/event-stream"}
        async with self.http.stream("POST", "/api/v1/messages", json=message, headers=headers) as response:
            if response.headers["content-type"].startswith("application/json"):
                return [json.loads(await response.aread())]
            return [frame async for frame in events(response)]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


async def events(response: httpx.Response) -> AsyncIterator[Frame]:
    """The JSON of server-sent events; comments are left out, and what is not ASCII fails."""
    async for line in response.aiter_lines():
        assert line.isascii(), line
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def text_of(frames: list[Frame]) -> str:
    """What a follower would show: the chunks, put together."""
    return "".join(frame["content"] for frame in frames if frame["type"] == "chunk")
