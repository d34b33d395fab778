"""A process that loads servers: `python -m tests.bench.load`. Commands come as lines of JSON, and so do their answers.

`open` makes sockets under a name, which are kept until `close`; `ping`, `chats` and `knock` load a server for a while
and answer what they saw. The window that counts is given by the machine's clock, so that several of these processes
share one. What processes used meanwhile is read here, at the very moments at which it begins and ends.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from tests.bench.knocks import Knocks
from tests.bench.load_doing import Chats, Pings
from tests.bench.load_follow import Follows
from tests.bench.load_sockets import Opening, Socket
from tests.bench.machine import cpu_s, raise_file_limit

CLOSE_S = 30.0
LINE_BYTES = 16 * 2**20

Command = dict[str, Any]
Answer = dict[str, Any]


class Load:
    """The sockets of this process, by the names that they were opened under."""

    def __init__(self) -> None:
        self._groups: dict[str, list[Socket]] = {}
        self.commands: dict[str, Callable[[Command], Awaitable[Answer]]] = {
            "open": self._open,
            "close": self._close,
            "ping": self._ping,
            "chats": self._chats,
            "follow": self._follow,
            "knock": self._knock,
        }

    async def _open(self, command: Command) -> Answer:
        group = self._groups.setdefault(command["group"], [])
        began = time.monotonic()
        opening = Opening(command["url"], command["speech"], command.get("login"), command.get("sources", []))
        group += await opening.open(
            command["count"], first=command.get("first", len(group)), at_once=command.get("at_once", 64)
        )
        return {"open": len(group), "seconds": time.monotonic() - began}

    async def _close(self, command: Command) -> Answer:
        sockets = self._groups.pop(command["group"], [])
        gone = sum(socket.closed for socket in sockets)
        for socket in sockets:
            socket.leave()
        give_up_at = time.monotonic() + CLOSE_S
        while any(not socket.closed for socket in sockets) and time.monotonic() < give_up_at:
            await asyncio.sleep(0.02)
        return {"closed": len(sockets), "gone_before": gone}

    async def _ping(self, command: Command) -> Answer:
        return await measured(Pings(self._groups[command["group"]]), command)

    async def _chats(self, command: Command) -> Answer:
        sockets = self._groups[command["group"]][: command.get("count")]
        chats = Chats(sockets, command["answer_s"], command["spread_s"], cancels=command["cancels"])
        return await measured(chats, command)

    async def _follow(self, command: Command) -> Answer:
        pairs = [
            (self._groups[leaders], [self._groups[name] for name in following])
            for leaders, following in command["groups"]
        ]
        return await measured(Follows(pairs, command["answer_s"]), command)

    async def _knock(self, command: Command) -> Answer:
        return await measured(Knocks(command), command)


async def measured(doing: Any, command: Command) -> Answer:
    """Let it work, and give what it did from `begin_at` on, for `seconds`: its own figures and who used which CPU."""
    pids: list[int] = command.get("pids", [])
    # A collection would stop all sockets at once and look like the server's.
    gc.collect()
    gc.freeze()
    doing.start()
    await asyncio.sleep(max(0.0, command["begin_at"] - time.monotonic()))
    first, used, own, began = doing.mark(), cpu_s(pids), time.process_time(), time.monotonic()
    await asyncio.sleep(command["seconds"])
    last, used_later, own_later, ended = doing.mark(), cpu_s(pids), time.process_time(), time.monotonic()
    await doing.finish()
    return {
        **doing.since(first, last),
        "seconds": ended - began,
        "server_cpu_s": used_later - used,
        "load_cpu_s": own_later - own,
    }


async def work() -> None:
    """Do what the lines say until there are no more."""
    load, loop = Load(), asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command: Command = json.loads(line)
        try:
            answer = await load.commands[command["do"]](command)
        except* (OSError, RuntimeError, TimeoutError, ValueError, asyncio.CancelledError) as failed:
            answer = {"failed": "; ".join(f"{type(one).__name__}: {one}" for one in failed.exceptions)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    raise_file_limit()
    uvloop.run(work())
