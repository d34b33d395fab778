"""FastAPI on uvicorn, with its own `receive_json` and `send_json` (the standard library's JSON)."""

import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from tests.bench.peers.answers import reply, stream
from tests.bench.scripted_model import ScriptedModel

app = FastAPI()
model = ScriptedModel()


@app.websocket("/ws")  # type: ignore[untyped-decorator]  # FastAPI is not installed where types are checked
async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive_json()
            if message["type"] == "chat":
                async for frame in stream(model, message):
                    await websocket.send_json(frame)
            else:
                await websocket.send_json(reply(message))
    except WebSocketDisconnect:
        pass


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
