"""What all benchmarks need: a fresh server in a process of its own, and the figures that stand beside all others."""

import asyncio
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from tests.clients import Frame, SocketClient

ROOT = Path(__file__).resolve().parent.parent.parent

Ask = Callable[[random.Random], Frame]


@asynccontextmanager
async def server(**settings: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    """A fresh server, with these variables of its environment: its address, and the process that serves."""
    with tempfile.TemporaryDirectory(prefix="cinewire-bench-") as folder:
        Path(folder).chmod(0o755)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "run.py"),
            stdout=asyncio.subprocess.PIPE,
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PORT": "0",
                "DATA_DIR": f"{folder}/data",
                "LOG_LEVEL": "error",
                "RATE_LIMIT_CHATS_PER_MIN": "1000000",
                **settings,
            },
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+", line)
        assert found, f"the server did not start: {line}"
        try:
            yield found[0], psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


def milliseconds(seconds: Sequence[float]) -> str:
    """Median and 99th percentile."""
    ordered = sorted(seconds)
    return f"p50 {statistics.median(ordered) * 1e3:7.2f} ms   p99 {ordered[int(len(ordered) * 0.99)] * 1e3:7.2f} ms"


async def ping_s(client: SocketClient) -> float:
    started = time.perf_counter()
    await client.call({"type": "ping"})
    return time.perf_counter() - started


async def one_by_one(client: SocketClient, ask: Ask, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each call, and of a ping before it."""
    pick = random.Random(1)
    calls, pings = [], []
    for number in range(count + 20):
        ping = await ping_s(client)
        started = time.perf_counter()
        reply = await client.call(ask(pick))
        if number >= 20:  # the first ones prepare statements and fill caches
            calls.append(time.perf_counter() - started)
            pings.append(ping)
        assert reply["code"] == 0, reply
    return calls, pings
