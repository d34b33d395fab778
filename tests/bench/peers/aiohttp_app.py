"""aiohttp's own server on uvloop, with orjson for `json_loads` and `dumps`; no deflate, no access log."""

import contextlib
import sys

import orjson
import uvloop
from aiohttp import WSMsgType, web

from tests.bench.peers.answers import reply, stream
from tests.bench.scripted_model import ScriptedModel

model = ScriptedModel()


def dumps(value: object) -> str:
    return orjson.dumps(value).decode()


async def talk(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(compress=False)
    await websocket.prepare(request)
    async for received in websocket:
        if received.type != WSMsgType.TEXT:
            continue
        message = received.json(loads=orjson.loads)
        if message["type"] == "chat":
            with contextlib.suppress(ConnectionResetError):
                async for frame in stream(model, message):
                    await websocket.send_json(frame, dumps=dumps)
        else:
            await websocket.send_json(reply(message), dumps=dumps)
    return websocket


def application() -> web.Application:
    app = web.Application()
    app.router.add_get("/ws", talk)
    return app


if __name__ == "__main__":
    web.run_app(
        application(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )
