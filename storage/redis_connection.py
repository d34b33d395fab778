"""Connections to Redis that never lose a cancellation, for each way to reach a server.

A pool of them says how many are used and waited for, and a client of one server has its callers share round trips.

redis-py sends with `asyncio.wait_for`. Before Python 3.12 that takes a cancellation for nothing when it arrives as the
sending ends, and a task that was to stop goes on; and it makes a task of every command.
"""

import asyncio
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storage.gathering import Gathering
from storage.pool import PoolUse


class Sending(AbstractConnection):
    """Sends as redis-py does, within `socket_timeout`. What cannot be sent whole closes the connection."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()  # type: ignore[no-untyped-call]
        if isinstance(command, str):
            command = command.encode()
        writer = self._writer
        if writer is None:
            raise RedisConnectionError("closed by another caller")
        try:
            writer.writelines([command] if isinstance(command, bytes) else command)
            async with asyncio.timeout(self.socket_timeout):
                await writer.drain()
        except BaseException as error:
            await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("timeout writing to Redis") from None
            if isinstance(error, OSError):
                raise RedisConnectionError(f"error while writing to Redis: {error}") from error
            if isinstance(error, RuntimeError | TypeError | AttributeError):
                # Another caller closed it meanwhile: uvloop says so, asyncio from 3.12 on, and a writer that is gone.
                raise RedisConnectionError("closed by another caller") from error
            raise


class _Plain(Sending, Connection):
    pass


class _TLS(Sending, SSLConnection):
    pass


class _Unix(Sending, UnixDomainSocketConnection):
    pass


class _SentinelPlain(Sending, SentinelManagedConnection):
    pass


class _SentinelTLS(Sending, SentinelManagedSSLConnection):
    pass


_OURS: dict[type[AbstractConnection], type[Sending]] = {
    Connection: _Plain,
    SSLConnection: _TLS,
    UnixDomainSocketConnection: _Unix,
    SentinelManagedConnection: _SentinelPlain,
    SentinelManagedSSLConnection: _SentinelTLS,
}


def ours(theirs: Any) -> type[Sending]:
    """Our kind of one of redis-py's connections."""
    return _OURS[theirs]


class Pool(BlockingConnectionPool):
    """Connections for which callers wait."""

    _asking = 0
    """Callers that have not got their connection yet."""

    async def get_connection(self, *arguments: Any, **options: Any) -> AbstractConnection:
        self._asking += 1
        try:
            connection: AbstractConnection = await super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]
        finally:
            self._asking -= 1
        return connection

    def use(self) -> PoolUse:
        """How the pool is doing now."""
        return PoolUse(len(self._in_use_connections), len(self._available_connections), self._asking)


_Command: TypeAlias = tuple[tuple[Any, ...], Mapping[str, Any]]
"""As a pipeline of redis-py keeps it: the command with its arguments, and what is known about its answer."""


class Client(redis.asyncio.Redis):
    """The client of one server, or of the present master."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gathering = Gathering(self._ask)

    async def together(self, fill: Callable[[Any], object]) -> list[Any]:
        """The answers to the commands that `fill` puts into a pipeline, which goes with those of other callers.

        They are carried out in their order, and others may come between them.
        """
        return await self.gathering.ask(fill)

    async def _ask(self, questions: Sequence[Callable[[Any], object]]) -> list[list[Any] | BaseException]:
        pipeline: Pipeline = self.pipeline(transaction=False)
        ends = []
        for fill in questions:
            fill(pipeline)
            ends.append(len(pipeline))
        results = await self._carry_out(pipeline.command_stack)
        answers = (results[start:end] for start, end in zip((0, *ends), ends, strict=False))
        return [_or_error(answer) for answer in answers]

    async def _carry_out(self, commands: Sequence[_Command]) -> list[Any]:
        """The commands' results, some of which may be errors. A script's text is sent only where it is not known."""
        results = await self._send([_by_hash(command) for command in commands])
        unknown = [at for at, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            # A server that was started anew, or another one: it has done nothing of these yet.
            for at, result in zip(unknown, await self._send([commands[at] for at in unknown]), strict=True):
                results[at] = result
        return results

    async def _send(self, commands: Sequence[_Command]) -> list[Any]:
        pipeline: Pipeline = self.pipeline(transaction=False)
        pipeline.command_stack = list(commands)
        results: list[Any] = await pipeline.execute(raise_on_error=False)
        return results


def _by_hash(command: _Command) -> _Command:
    (name, *arguments), options = command
    if name != "EVAL":
        return command
    return ("EVALSHA", _hash(arguments[0]), *arguments[1:]), options


@functools.cache
def _hash(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _or_error(answer: list[Any]) -> list[Any] | BaseException:
    return next((one for one in answer if isinstance(one, Exception)), answer)
