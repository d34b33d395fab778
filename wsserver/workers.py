"""Several processes that serve one port: starts them, keeps up their number, stops them.

Answers: who gets which connection, what a worker is told, what happens when one ends. Does not answer: how a worker
serves, which is what a single process does too; see app.py.

* The port is shared by `SO_REUSEPORT`: every worker listens on a socket of its own and the kernel deals new connections
  out by their addresses' hash. With one listening socket for all, whoever wakes first takes what has gathered. The
  parent only holds the port: its socket is bound and does not listen, so nothing is dealt to it.
* A worker is a fresh interpreter in a session of its own: a Ctrl-C reaches the parent alone, which passes it on. The
  kernel kills the workers when the parent dies, even by `kill -9` (Linux only, as with embedded.py).
* The first worker starts alone. It migrates and loads, and what is wrong is said once.
* Metrics are added up over the workers: each writes its own into files of one folder, and whoever is asked reads all.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog
from prometheus_client.multiprocess import mark_process_dead

log = structlog.get_logger(__name__)

ASSIGNMENT = "CINEWIRE_WORKER"
"""The variable that makes a process a worker."""

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus_client when it is imported."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Before a worker that ended is started again; doubled each time, so that one that always crashes does no harm."""

HEALTHY_S = 60.0
"""A worker that lived so long did not die of its start: the next pause is the first again."""

STOP_MARGIN_S = 30.0
"""What a worker may take beyond its drain, or after a second signal, before it is killed: its own deadlines add up to
half of that."""


class NoWorkerError(Exception):
    """No worker serves, and none can be started; in words for who typed the command."""


# ---- what parent and worker agree on ----


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is told by its parent."""

    parent: int
    port: int
    ready: int  # the descriptor to say it on
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)

    def say_ready(self) -> None:
        """Tell the parent that this worker serves."""
        with socket.socket(fileno=self.ready) as parent:
            parent.send(b"1")


def take_assignment() -> Assignment | None:
    """What this process is to serve as a worker, None when it is none. From here on it dies with its parent."""
    text = os.environ.pop(ASSIGNMENT, None)
    if text is None:
        return None
    assignment = Assignment(**json.loads(text))
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != assignment.parent:
        os._exit(1)  # it died before: no signal would ever come
    return assignment


def shared_socket(host: str, port: int) -> socket.socket:
    """A socket on a port that others of this user may share; it takes no connections before it listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shared = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        shared.bind((host, port))
    except OSError:
        shared.close()
        raise
    shared.setblocking(False)
    return shared


@contextlib.contextmanager
def metrics_folder(data_dir: Path) -> Iterator[Path]:
    """A folder for the metrics of one parent's workers; those of parents that were killed are removed.

    Raises NoWorkerError.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="metrics-", dir=data_dir)).resolve()
    except OSError as error:
        raise NoWorkerError(f"DATA_DIR: {data_dir} cannot keep the workers' metrics: {error.strerror}") from error
    for left in data_dir.glob("metrics-*"):
        with _held(left) as is_ours:
            if is_ours and not left.samefile(folder):
                shutil.rmtree(left, ignore_errors=True)
    with _held(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, which the kernel frees when we die; whether nobody else did."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_ours = False
    else:
        is_ours = True
    try:
        yield is_ours
    finally:
        os.close(descriptor)


# ---- the parent ----


@dataclass(frozen=True, slots=True)
class Plan:
    """What the workers are to serve, and how many they are."""

    workers: int
    port: int
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    metrics: Path
    stop_timeout_s: float


def supervise(plan: Plan, say_ready: Callable[[], None]) -> None:
    """Keep the workers serving until a signal. Raises NoWorkerError. Call it on the thread that lives longest: main."""
    asyncio.run(_Crew(plan, say_ready).work())


class _Crew:
    """The workers' processes, by their number."""

    def __init__(self, plan: Plan, say_ready: Callable[[], None]) -> None:
        self._plan = plan
        self._say_ready: Callable[[], None] | None = say_ready
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._serving: set[int] = set()
        self._one_serves = asyncio.Event()
        self._stopping = asyncio.Event()

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        failed: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as keepers:
                keepers.create_task(self._keep(0), name="worker 0")
                await self._one_serves.wait()
                for index in range(1, self._plan.workers):
                    keepers.create_task(self._keep(index), name=f"worker {index}")
        except* NoWorkerError as several:
            failed += several.exceptions
        if failed:
            raise failed[0]

    def _on_signal(self) -> None:
        """The first lets them finish, the second stops them at once."""
        is_first = not self._stopping.is_set()
        self._stopping.set()
        self._one_serves.set()
        for process in self._processes.values():
            _signal(process, signal.SIGTERM)
        patience_s = STOP_MARGIN_S + (self._plan.stop_timeout_s if is_first else 0.0)
        asyncio.get_running_loop().call_later(patience_s, self._kill)

    def _kill(self) -> None:
        for index, process in self._processes.items():
            log.warning("worker does not stop: killed", worker=index, pid=process.pid)
            _signal(process, signal.SIGKILL)

    async def _keep(self, index: int) -> None:
        """Have worker `index` serve, again and again."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            has_served, exit_code = await self._run(index)
            if self._stopping.is_set():
                return
            if not has_served and not self._serving:
                raise NoWorkerError("No worker could be started; what it said is above.")
            if time.monotonic() - began > HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            log.error("worker ended, starting another", worker=index, exit_code=exit_code, pause_s=pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run(self, index: int) -> tuple[bool, int]:
        """Run one process to its end: whether it came to serve, and its exit code."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            with theirs:
                process = await self._spawn(theirs)
            self._processes[index] = process
            try:
                if self._stopping.is_set():  # the signal came while it was made
                    _signal(process, signal.SIGTERM)
                has_served = bool(await asyncio.get_running_loop().sock_recv(ours, 1))
                if has_served:
                    self._note_serving(index)
                exit_code = await process.wait()
            finally:
                _signal(process, signal.SIGKILL)
                await process.wait()
                self._serving.discard(index)
                del self._processes[index]
                mark_process_dead(process.pid, str(self._plan.metrics))  # type: ignore[no-untyped-call]
        return has_served, exit_code

    async def _spawn(self, ready: socket.socket) -> asyncio.subprocess.Process:
        plan = self._plan
        assignment = Assignment(os.getpid(), plan.port, ready.fileno(), plan.database_url, plan.redis_url)
        told: Mapping[str, str] = {ASSIGNMENT: json.dumps(asdict(assignment)), METRICS_FOLDER: str(plan.metrics)}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wsserver.app"),
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **told},
            pass_fds=(ready.fileno(),),
            start_new_session=True,
        )

    def _note_serving(self, index: int) -> None:
        self._serving.add(index)
        self._one_serves.set()
        if len(self._serving) == self._plan.workers and self._say_ready is not None:
            self._say_ready()
            self._say_ready = None


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
