"""The shortest client: connect, log in, ask, read the answer. Needs only `pip install websockets`.

Start the server with `python3 run.py`, then run `.venv/bin/python examples/first_chat.py [ws://host:port/wechat/ws]`.
"""

import asyncio
import json
import sys

import websockets


async def first_chat(uri: str) -> None:
    async with websockets.connect(uri) as websocket:
        print("connected:", await websocket.recv())

        # In a mini program the code comes from wx.login(); the local login of development accepts any.
        await websocket.send(json.dumps({"type": "login", "code": "test_code"}))
        print("login:", await websocket.recv())

        await websocket.send(json.dumps({"type": "chat", "query": "你好", "use_auto_rag": False}))
        print("processing:", await websocket.recv())
        print("answer:", await websocket.recv())


asyncio.run(first_chat(sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8000/wechat/ws"))
