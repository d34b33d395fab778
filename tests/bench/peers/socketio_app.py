"""python-socketio, as an ASGI application on uvicorn, WebSocket transport only (the standard library's JSON)."""

import sys
from typing import Any

import socketio
import uvicorn

from tests.bench.peers.answers import reply, stream
from tests.bench.scripted_model import ScriptedModel

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])
app = socketio.ASGIApp(server)
model = ScriptedModel()


async def answer(sid: str, message: dict[str, Any]) -> None:
    said = reply(message)
    await server.emit(said["type"], said, to=sid)


async def chat(sid: str, message: dict[str, Any]) -> None:
    async for frame in stream(model, message):
        await server.emit(frame["type"], frame, to=sid)


server.on("ping", answer)
server.on("login", answer)
server.on("chat", chat)

if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
    )
