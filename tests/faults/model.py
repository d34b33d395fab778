"""A language model in a process of its own: what it says follows from the question, so every byte can be checked.

`python -m tests.faults.model` prints its address, serves until it is killed, counts how often it was asked each
question (`GET /calls`), and knows when it said each piece (`GET /times`, on the clock of `time.monotonic()`).
"""

import asyncio
import contextlib
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
import uvloop

from tests.faults.processes import python_process

MODEL = "scripted"
_PACE = re.compile(r" 共(\d+)段 每秒([\d.]+) 长(\d+)$")


def question(name: str, *, deltas: int, per_s: float, length: int = 0) -> str:
    """A question that is answered in so many pieces, at this pace, each with so many characters more than it needs."""
    return f"{name} 共{deltas}段 每秒{per_s:g} 长{length}"


def answer_to(asked: str) -> Sequence[str]:
    """The pieces of the answer. No two pieces of any answers are alike: each names its question and its number."""
    found = _PACE.search(asked)
    assert found, asked
    name, padding = asked[: found.start()], "影" * int(found[3])
    return [f"{name}的第{number}段🎬{padding}；" for number in range(1, int(found[1]) + 1)]


def text_for(asked: str) -> str:
    """The whole answer."""
    return "".join(answer_to(asked))


@dataclass(frozen=True, slots=True)
class ScriptedModel:
    """The running model, as a test sees it."""

    url: str

    async def calls(self) -> Counter[str]:
        """How often each question was asked."""
        async with httpx.AsyncClient(trust_env=False, timeout=15) as http:
            return Counter((await http.get(f"{self.url}/calls")).json())

    async def times(self) -> dict[str, list[float]]:
        """When each piece of the answer to a question was said, on the clock of `time.monotonic()`."""
        async with httpx.AsyncClient(trust_env=False, timeout=15) as http:
            said: dict[str, list[float]] = (await http.get(f"{self.url}/times")).json()
        return said


@contextlib.asynccontextmanager
async def scripted_model() -> AsyncIterator[ScriptedModel]:
    """Serve until the block ends."""
    async with python_process("-m", "tests.faults.model") as process:
        yield ScriptedModel(await process.line())


@dataclass(slots=True)
class Said:
    """What the model was asked, and when it said what."""

    calls: Counter[str] = field(default_factory=Counter)
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


async def _serve() -> None:
    said = Said()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A node that is killed takes its connections with it: that ends an answer and nothing else.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await _answer(reader, writer, said)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if head.startswith("get"):
        body = json.dumps(said.times if head.startswith("get /times") else said.calls).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
        return
    length = re.search(r"content-length: (\d+)", head)
    assert length, head
    asked = json.loads(await reader.readexactly(int(length[1])))["messages"][-1]["content"]
    said.calls[asked] += 1
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    await _stream(asked, writer, said.times[asked])
    for event in (_event({}, finish="stop"), b"data: [DONE]\n\n"):
        writer.write(_chunked(event))
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _stream(asked: str, writer: asyncio.StreamWriter, times: list[float]) -> None:
    pace = _PACE.search(asked)
    assert pace, asked
    every_s = 1 / float(pace[2])
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number, delta in enumerate(answer_to(asked)):
        ahead_s = started + number * every_s - loop.time()
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
        if writer.is_closing():
            raise ConnectionResetError
        times.append(time.monotonic())
        writer.write(_chunked(_event({"content": delta})))
        await writer.drain()


def _event(delta: dict[str, str], *, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


if __name__ == "__main__":
    uvloop.run(_serve())
