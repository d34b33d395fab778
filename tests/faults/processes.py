"""Processes of the fault tests: Python programs that end with the test, whatever becomes of it."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

START_S = 60.0
"""How long a process may take to say that it runs; one second is usual."""

LINE_BYTES = 16 * 2**20
"""The longest line that a process says: the figures of a thousand clients."""

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In the child: be killed when the process that started it is gone, stopped or not (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def stop_with_parent() -> None:
    """The same for a program that has processes of its own, and ends them when it is told to end."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class PythonProcess:
    """A running program that says lines on its standard output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    async def line(self, timeout_s: float = START_S) -> str:
        """The next line. Fails when there is none."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            line = await self.process.stdout.readline()
        assert line, f"process {self.pid} said nothing and ended with {self.process.returncode}"
        return line.decode().strip()

    async def ended(self, timeout_s: float) -> int:
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it is gone."""
        # Not by the process object: that one looks first whether the process has ended, and the loop is then told
        # nothing of how.
        if self.process.returncode is None:
            os.kill(self.pid, number)

    async def end(self) -> None:
        """Kill it, unless it is gone, and wait for that."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        await self.process.wait()


async def start_python(
    *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path = ROOT, log: Path | None = None
) -> PythonProcess:
    """Start `python arguments` with this environment and no other; what it says on standard error goes to `log`."""
    with contextlib.ExitStack() as stack:
        errors = None if log is None else stack.enter_context(log.open("ab"))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LINE_BYTES,
            cwd=cwd,
            env={"PATH": os.environ["PATH"], **(environment or {})},
            preexec_fn=die_with_parent,
        )
    return PythonProcess(process)


@contextlib.asynccontextmanager
async def python_process(*arguments: str) -> AsyncIterator[PythonProcess]:
    """A program of this project, killed when the block ends."""
    process = await start_python(*arguments)
    try:
        yield process
    finally:
        await process.end()
