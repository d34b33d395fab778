"""Bare Starlette on uvicorn: what every ratio is to. orjson, uvloop, websockets' sans-IO protocol, no deflate."""

import sys

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.bench.peers.answers import reply, stream
from tests.bench.scripted_model import ScriptedModel

model = ScriptedModel()


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            message = orjson.loads(await websocket.receive_text())
            if message["type"] == "chat":
                async for frame in stream(model, message):
                    await websocket.send_text(orjson.dumps(frame).decode())
            else:
                await websocket.send_text(orjson.dumps(reply(message)).decode())
    except WebSocketDisconnect:
        pass


app = Starlette(routes=[WebSocketRoute("/ws", talk)])

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
