"""The servers of a comparison: which there are, how each is started on the server's core, and how it ends."""

import contextlib
import importlib.util
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from storage.embedded import Services, embedded_services
from tests.bench.machine import cores, note, pin

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = Path(__file__).resolve().parent / "peers"

START_S = 60.0
STOP_S = 15.0
SAID_BYTES = 4_000
"""Of what a server said on stderr, shown when it does not start. Else it is nobody's: some say much about sockets."""

Speech = Literal["json", "greeted json", "socketio"]
"""What is said over a socket: messages, messages after one that nobody asked for, or those of Socket.IO."""


BARE = "bare Starlette"
OURS = "CineWire"

UNLIMITED = {
    "RATE_LIMIT_MESSAGES_PER_S": "1e9",
    "RATE_LIMIT_BURST": "1000000000",
    "RATE_LIMIT_CHATS_PER_MIN": "1000000",
    "RATE_LIMIT_LOGINS_PER_MIN": "100000000",
    "RATE_LIMIT_SOCKETS_PER_MIN": "100000000",
    "SOCKETS_PER_USER": "100000",
    "LOGIN_DEADLINE_S": "100000",
    "SILENCE_TIMEOUT_S": "100000",
}
"""Guards that a load would meet and a person does not. They are all in the way of a message still; none is met."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be started. `needs` are modules of Python; a `.mjs` program needs Node and `npm ci`."""

    name: str
    program: str
    path: str = "/ws"
    speech: Speech = "json"
    needs: tuple[str, ...] = ()


KINDS = {
    kind.name: kind
    for kind in (
        Kind(OURS, "tests.bench.cinewire_server", path="/wechat/ws", speech="greeted json"),
        Kind(BARE, "tests.bench.peers.bare_starlette"),
        Kind("FastAPI", "tests.bench.peers.fastapi_app", needs=("fastapi",)),
        Kind("aiohttp", "tests.bench.peers.aiohttp_app", needs=("aiohttp",)),
        Kind("Channels on daphne", "tests.bench.peers.channels_app", needs=("channels", "daphne")),
        Kind(
            "python-socketio",
            "tests.bench.peers.socketio_app",
            path="/socket.io/?EIO=4&transport=websocket",
            speech="socketio",
            needs=("socketio",),
        ),
        Kind("npm ws", "ws_app.mjs"),
        Kind(
            "Socket.IO",
            "socketio_app.mjs",
            path="/socket.io/?EIO=4&transport=websocket",
            speech="socketio",
        ),
    )
}


MODEL = Kind("a model's server", "tests.bench.model_server")


@dataclass(slots=True)
class Running:
    """A server that serves."""

    kind: Kind
    name: str
    port: int
    process: subprocess.Popen[bytes]
    workers: int = 1

    @property
    def pids(self) -> list[int]:
        """The processes that serve: the workers where there are several, not the parent that starts them."""
        if self.workers == 1:
            return [self.process.pid]
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{self.kind.path}"


def why_not(kind: Kind) -> str | None:
    """Why this server cannot be started here, None when it can."""
    if kind.program.endswith(".mjs"):
        return _why_no_node()
    missing = [name for name in kind.needs if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def _why_no_node() -> str | None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node and npm are not there"
    if (PEERS / "node_modules" / "ws").is_dir() and (PEERS / "node_modules" / "socket.io").is_dir():
        return None
    note("npm ci: installing the peers for Node (once)")
    command = ["npm", "ci", "--no-fund", "--no-audit", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=PEERS, check=True, stdout=sys.stderr, timeout=180)
    except (OSError, subprocess.SubprocessError) as error:
        return f"npm ci failed: {error}"
    return None


@contextlib.contextmanager
def services() -> Iterator[Services]:
    """PostgreSQL and Valkey of this bench's own, not on the server's core, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="cinewire-bench-") as folder:
        Path(folder).chmod(0o755)
        with embedded_services(Path(folder) / "services") as started:
            yield started


@contextlib.contextmanager
def serving(
    kind: Kind,
    storage: Services | None = None,
    *,
    name: str | None = None,
    on: frozenset[int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run the server on its core until the block ends."""
    port = free_port()
    where = cores().server if on is None else on
    with contextlib.ExitStack() as stack:
        command, environment = _command(kind, port), _environment()
        if kind.name == OURS:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cinewire-bench-"))
            assert storage is not None
            environment |= _settings(port, folder, storage) | dict(settings or {})
        said = stack.enter_context(tempfile.TemporaryFile())
        # Nothing here has threads yet that a fork could find in the middle of something.
        process = subprocess.Popen(
            command,
            cwd=ROOT if command[0] == sys.executable else PEERS,
            env=environment,
            stdout=subprocess.PIPE if kind.name == OURS else subprocess.DEVNULL,
            stderr=said,
            preexec_fn=pin(where),  # noqa: PLW1509 - there are no threads here
        )
        try:
            workers = int(environment.get("WORKERS", "1"))
            running = Running(kind, name or kind.name, port, process, workers)
            try:
                _wait_until_it_serves(running)
            except RuntimeError:
                said.seek(0)
                note(said.read()[-SAID_BYTES:].decode(errors="replace"))
                raise
            yield running
        finally:
            _stop(process)


@contextlib.contextmanager
def model_serving() -> Iterator[tuple[str, int]]:
    """A model's server on the load's cores: what LLM_BASE_URL shall be, and its process."""
    with serving(MODEL, on=cores().others) as running:
        yield f"http://127.0.0.1:{running.port}/v1", running.process.pid


@contextlib.contextmanager
def all_serving(names: Sequence[str], storage: Services) -> Iterator[tuple[list[Running], dict[str, str]]]:
    """Run all of these that can be; those left out, and why."""
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        started = []
        for name in names:
            if (why := why_not(KINDS[name])) is not None:
                left_out[name] = why
                note(f"{name} is left out: {why}")
                continue
            started.append(stack.enter_context(serving(KINDS[name], storage)))
        yield started, left_out


def _command(kind: Kind, port: int) -> list[str]:
    if kind.program.endswith(".mjs"):
        return ["node", kind.program, str(port)]
    return [sys.executable, "-m", kind.program, *([] if kind.name == OURS else [str(port)])]


def _environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"NODE_ENV": "production"}


def _settings(port: int, folder: str, storage: Services) -> dict[str, str]:
    assert storage.database_url is not None
    assert storage.redis_url is not None
    return {
        "PORT": str(port),
        "DATA_DIR": folder,
        "DATABASE_URL": storage.database_url,
        "REDIS_URL": storage.redis_url,
        "JWT_SECRET": "a secret of this bench, which nobody else has",
        "LOG_LEVEL": "error",
        "DRAIN_TIMEOUT_S": "0.1",
        **UNLIMITED,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_serves(running: Running) -> None:
    give_up_at = time.monotonic() + START_S
    while True:
        if running.process.poll() is not None:
            raise RuntimeError(f"{running.name} ended when it was started: exit code {running.process.returncode}")
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"{running.name} does not serve after {START_S:g} s")
        if running.process.stdout is not None:
            # Of several workers the first serves long before the last: it says so itself when all do.
            if select.select([running.process.stdout], [], [], 0.1)[0]:
                running.process.stdout.readline()
                return
            continue
        try:
            socket.create_connection(("127.0.0.1", running.port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
    if process.stdout is not None:
        process.stdout.close()
