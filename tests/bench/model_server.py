"""A stand-in for a model's server on which many answers cost little: an OpenAI-compatible wire, scripted.

`python -m tests.bench.model_server 8001`. The last message says how many seconds the answer takes. What it does beside
that is nothing: for models that fail, stall or break off there is `tests/standins/llm.py`.
"""

import asyncio
import json
import sys
from typing import cast

import uvloop

from tests.bench.machine import raise_file_limit
from tests.bench.scripted_model import ScriptedModel

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
EVENT = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763625600,"model":"scripted",'
    '"system_fingerprint":null,"choices":[{"index":0,"delta":%s,"finish_reason":%s,"logprobs":null}],"usage":null}\n\n'
)
LENGTH = b"content-length:"


def event(content: str | None, finish: str = "null") -> bytes:
    """One chunk of the body that is one event."""
    delta = "{}" if content is None else f'{{"content":"{content}"}}'
    return chunk((EVENT % (delta, finish)).encode())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Asked(asyncio.Protocol):
    """One connection, asked one thing after the other."""

    def __init__(self, model: ScriptedModel) -> None:
        self._model = model
        self._read = b""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, separator, body = self._read.partition(b"\r\n\r\n")
        if not separator:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line.removeprefix(LENGTH)) for line in lines if line.startswith(LENGTH)), 0)
        if len(body) >= length:
            self._read = body[length:]
            question = json.loads(body[:length])["messages"][-1]["content"]
            self._answering = asyncio.get_running_loop().create_task(self._answer(float(question)))

    async def _answer(self, seconds: float) -> None:
        write = self._transport.write
        write(HEAD)
        async for texts in self._model.answer(seconds):
            for text in texts:
                write(event(text))
        write(event(None, '"stop"') + chunk(b"data: [DONE]\n\n") + END)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()


async def serve(port: int) -> None:
    model = ScriptedModel()
    server = await asyncio.get_running_loop().create_server(lambda: Asked(model), "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    raise_file_limit()
    uvloop.run(serve(int(sys.argv[1])))
