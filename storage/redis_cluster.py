"""The client of a Redis Cluster: redis-py's, where its manners differ from those of the client of one server.

* Callers wait for a free connection. redis-py's fails the caller that finds none.
* A cluster that cannot be found is a ConnectionError. redis-py's error for it is no RedisError at all.
* One caller's failure does not cut the others off. redis-py closes all connections before it looks for the cluster
  anew, also those in use, and what a caller then gets is the event loop's own error.
* There is no MULTI: redis-py runs a thread with a loop of its own for each command of a transaction. What must happen
  as a whole is a Lua script, which works the same on one server.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.cluster import ClusterNode, ClusterPipeline, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError, RedisClusterException  # noqa: A004

from storage.pool import PoolUse
from storage.redis_connection import ours


class ClusterClient(RedisCluster):
    """At most `max_callers` commands and as many pipelines at once; others wait, at most `patience_s`."""

    def __init__(
        self, hosts: Sequence[tuple[str, int]], *, max_callers: int, patience_s: float, **options: Any
    ) -> None:
        # Pipelines and commands have gates of their own: a pipeline that is redirected sends commands.
        super().__init__(
            startup_nodes=[ClusterNode(host, port) for host, port in hosts], max_connections=2 * max_callers, **options
        )
        connection_class: Any = ours(SSLConnection if options.get("ssl") else Connection)
        self.connection_kwargs["connection_class"] = connection_class
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = connection_class
        self._patience_s = patience_s
        self._asking = self._having = 0
        self._commands = asyncio.Semaphore(max_callers)
        self._pipelines = asyncio.Semaphore(max_callers)

    async def initialize(self, *arguments: Any, **options: Any) -> "ClusterClient":
        try:
            await super().initialize(*arguments, **options)
        except RedisClusterException as error:
            raise ConnectionError(str(error)) from error
        return self

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        async with self._turn(self._commands):
            return await super().execute_command(*arguments, **options)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        if transaction:
            raise NotImplementedError("a cluster's pipeline is no transaction: use a script")
        return _Pipeline(self)  # type: ignore[abstract]  # redis-py declares an attribute that only mypy misses

    async def together(self, fill: Callable[[Any], object]) -> list[Any]:
        """The answers to the commands that `fill` puts into a pipeline: its own, or one shard's outage were all's."""
        pipeline = self.pipeline()
        fill(pipeline)
        return await pipeline.execute()

    async def run_pipeline(self, pipeline: "_Pipeline", *arguments: Any, **options: Any) -> list[Any]:
        async with self._turn(self._pipelines):
            return await ClusterPipeline.execute(pipeline, *arguments, **options)

    def use(self) -> PoolUse:
        """How its connections are doing now, those to all nodes together."""
        nodes = self.nodes_manager.nodes_cache.values()
        return PoolUse(self._having, sum(len(node._free) for node in nodes), self._asking)

    async def aclose(self) -> None:
        """Have the cluster found anew before the next command: that is what redis-py calls this for."""
        self._initialize = True

    async def disconnect(self) -> None:
        """Close every connection, for good."""
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")

    @asynccontextmanager
    async def _turn(self, gate: asyncio.Semaphore) -> AsyncIterator[None]:
        self._asking += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await gate.acquire()
        except TimeoutError as error:
            raise ConnectionError("No connection available.") from error
        finally:
            self._asking -= 1
        self._having += 1
        try:
            yield
        finally:
            self._having -= 1
            gate.release()


class _Pipeline(ClusterPipeline):
    async def execute(self, *arguments: Any, **options: Any) -> list[Any]:
        client = self.cluster_client
        assert isinstance(client, ClusterClient)  # noqa: S101 (nobody else makes one)
        return await client.run_pipeline(self, *arguments, **options)
