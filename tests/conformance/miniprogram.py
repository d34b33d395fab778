"""The adapter of the mini program's library, which runs in a process of Node; `miniprogram.js` is the other half."""

import asyncio
import contextlib
import itertools
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.conformance.adapter import Shown

PROGRAM = Path(__file__).with_suffix(".js")

ANSWER_S = 10.0
"""How long the process may take to answer, its start included; a tenth of a second is usual."""


class NodeDevice:
    """The library as a test sees it: what is asked of it goes through a pipe."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._turn = asyncio.Lock()

    async def ask(self, question: str) -> None:
        await self._said("ask", question=question)

    async def shown(self, question: str) -> Shown:
        return Shown(**await self._said("shown", question=question))

    async def stopped(self) -> bool:
        return bool(await self._said("stopped"))

    async def waits_ms(self) -> list[int]:
        return list(await self._said("waits_ms"))

    async def _said(self, what: str, **given: str) -> Any:
        """The answer, and not one to somebody who did not wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        number = next(self._numbers)
        self._process.stdin.write(json.dumps({"n": number, "what": what, **given}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_S), self._turn:
            while True:
                line = await self._process.stdout.readline()
                assert line, "the process ended; what it complained of is on its error output"
                said = json.loads(line)
                assert said["errors"] == []
                if said["n"] == number:
                    return said["value"]


class MiniProgramAdapter:
    """It opens phones on which only the library runs."""

    def __init__(self, node: str) -> None:
        self._node = node

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[NodeDevice]:
        server = url.replace("ws://", "http://")
        process = await asyncio.create_subprocess_exec(self._node, PROGRAM, server, stdin=PIPE, stdout=PIPE)
        try:
            yield NodeDevice(process)
        finally:
            # It ends by itself when its input does, also when nobody comes this far.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            async with asyncio.timeout(ANSWER_S):
                await process.communicate()
