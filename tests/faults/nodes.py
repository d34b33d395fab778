"""Nodes as processes, and what happens to them: they are stopped, killed, frozen and replaced while clients talk."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.processes import ROOT, PythonProcess, start_python
from tests.faults.proxy import Proxy

JWT_SECRET = "one secret for all nodes of a test, long enough for HS256"
"""A token of one node is good on all others."""

STOP_S = 40.0
"""How long a node may take to stop: its drain, and what uvicorn and the log of runs add to that."""


class NodeProcess:
    """`python run.py`, serving."""

    def __init__(self, process: PythonProcess, port: int, log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port
        self.log = log

    @classmethod
    async def start(
        cls, settings: Mapping[str, str], folder: Path, *, program: Sequence[str] = (str(ROOT / "run.py"),)
    ) -> "NodeProcess":
        """Start it in a folder of its own and wait until it serves."""
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "log"
        environment = {"PORT": "0", "DATA_DIR": str(folder), "LOG_FORMAT": "json", "JWT_SECRET": JWT_SECRET, **settings}
        process = await start_python(*program, environment=environment, cwd=folder, log=log)
        try:
            line = await process.line()
        except BaseException:
            await process.end()
            print(log.read_text()[-4000:])
            raise
        return cls(process, int(line.rsplit(":", 1)[1]), log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def terminate(self) -> None:
        """As a deploy does."""
        self.process.signal(signal.SIGTERM)

    def kill(self) -> None:
        """As a machine that loses its power."""
        self.process.signal(signal.SIGKILL)

    def freeze(self) -> None:
        """As a machine that stands still, its connections open."""
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.signal(signal.SIGCONT)

    async def ended(self) -> int:
        return await self.process.ended(STOP_S)

    def complaints(self) -> list[str]:
        """What it logged as an error: something that nobody expected."""
        return [line for line in self.log.read_text().splitlines() if '"level":"error"' in line or "Traceback" in line]


@dataclass(slots=True)
class Fleet:
    """Nodes that share their storage, each behind a proxy whose address stays when its node is replaced."""

    settings: Mapping[str, str]
    folder: Path
    nodes: list[NodeProcess] = field(default_factory=list)
    proxies: list[Proxy] = field(default_factory=list)
    started: int = 0
    gone: list[NodeProcess] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        return [proxy.url for proxy in self.proxies]

    @property
    def socket_urls(self) -> list[str]:
        return [url.replace("http://", "ws://") + "/wechat/ws" for url in self.urls]

    async def start_node(self) -> NodeProcess:
        self.started += 1
        return await NodeProcess.start(self.settings, self.folder / f"node{self.started}")

    async def replace(self, index: int) -> None:
        """Start a new node where one is gone."""
        self.gone.append(self.nodes[index])
        self.nodes[index] = await self.start_node()
        self.proxies[index].target = self.nodes[index].port

    async def kill(self, index: int) -> None:
        """Kill a node; who connects to it is refused from there on."""
        self.proxies[index].target = None
        self.nodes[index].kill()
        assert await self.nodes[index].ended() == -signal.SIGKILL

    async def roll(self) -> None:
        """Replace all nodes, one after the other, as a deploy does. Each one must stop as it should."""
        for index, node in enumerate(tuple(self.nodes)):
            node.terminate()
            assert await node.ended() == 0, node.log.read_text()[-4000:]
            self.proxies[index].target = None
            await self.replace(index)

    def complaints(self) -> list[str]:
        """What any node logged as an error."""
        return [line for node in (*self.gone, *self.nodes) for line in node.complaints()]


@contextlib.asynccontextmanager
async def fleet(
    size: int,
    folder: Path,
    *,
    database_url: str | None,
    redis_url: str | None,
    model_url: str,
    **settings: str,
) -> AsyncIterator[Fleet]:
    """Start nodes, and kill what is left of them when the block ends."""
    assert database_url is not None
    assert redis_url is not None
    given = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "LLM_BASE_URL": f"{model_url}/v1",
        "LLM_MODEL": "scripted",
        "LLM_TITLES": "false",
        **{name.upper(): value for name, value in settings.items()},
    }
    started = Fleet(given, folder)
    async with contextlib.AsyncExitStack() as stack:
        try:
            # The first one alone: it makes the schema.
            started.nodes = [await started.start_node()]
            started.nodes += await asyncio.gather(*(started.start_node() for _ in range(size - 1)))
            for node in started.nodes:
                started.proxies.append(await stack.enter_async_context(Proxy(node.port).open()))
            yield started
        finally:
            for node in started.nodes:
                await node.process.end()
