#!/usr/bin/env python3
"""The one entry: makes .venv and installs on the first run, then serves, tests, measures, migrates or seeds.

Answers: with which Python and which packages a command runs. Does not answer: what the commands do.
Only the standard library, and as little of it as possible: every start pays for what is imported here.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the Pythons that it sends away must be able to read this file
    sys.exit(
        "CineWire needs Python 3.11 or newer; this is Python {}.{}. Install a newer one and start with it, for example:"
        " python3.11 run.py".format(*sys.version_info[:2])
    )

import hashlib
import os
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "cinewire-installed"  # a line for each lock file whose packages are there
UNFINISHED = VENV / "cinewire-unfinished"  # there while we install: what an interruption leaves is thrown away
EXECED = "CINEWIRE_EXECED"  # guards against starting ourselves for ever

HELP = """\
usage: python3 run.py [command] [arguments]

  serve      start the server (the default); its settings are environment variables, see README.md
  test       check format, lint and types, then run the tests, in two processes where that harms none;
             arguments go to pytest, --fast leaves out the types and the slow tests
  bench      measure beside other servers, twenty minutes long, or three with --quick; with names only those
             parts or benches; arguments go to tests.bench
  migrate    bring the database to the current revision; arguments go to the migration
  seed-movies
             fill the catalogue with the films of TMDB's lists; --help says how
  export-graph
             tell a Neo4j what changed in the catalogue, or write it to a file; --help says how
  doctor     check settings, services, vendors and this host, and say what to do; --json
  contract   write the documents of the API (OpenAPI, AsyncAPI, Postman) into a folder; see --help

The first run makes .venv beside this file and installs into it, with uv if that is on PATH, else with pip.
"""


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("serve", [])
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if command not in COMMANDS:
        print(f"run.py: there is no command {command!r}\n\n{HELP}", end="", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    lock, run = COMMANDS[command]
    was_execed = os.environ.pop(EXECED, None)
    try:
        if is_installed(lock) and Path(sys.prefix).resolve() == VENV.resolve():
            return run(rest)
        if was_execed:
            sys.exit(f"{PYTHON} does not run with its own packages. Is PYTHONHOME set? Unset it, or remove {VENV}.")
        if not is_installed(lock):
            install(lock)
        os.environ[EXECED] = "1"
        os.execv(PYTHON, [str(PYTHON), str(ROOT / "run.py"), *arguments])  # the same process: it gets all signals
    except KeyboardInterrupt:
        return 130  # what shells answer for SIGINT


# ---- the commands, inside .venv ----


def serve(arguments: list[str]) -> int:
    import gc  # noqa: PLC0415 - not every start needs it

    # Modules make no garbage, and looking for it among them is a seventh of the time that importing them takes.
    gc.disable()
    from wsserver.app import main as serve_main  # noqa: PLC0415 - exists only inside .venv

    gc.enable()
    return serve_main(arguments)


def migrate(arguments: list[str]) -> int:
    from wsserver.commands import migrate_main  # noqa: PLC0415 - exists only inside .venv

    return migrate_main(arguments)


def seed_movies(arguments: list[str]) -> int:
    from wsserver.commands import seed_main  # noqa: PLC0415 - exists only inside .venv

    return seed_main(arguments)


def export_graph(arguments: list[str]) -> int:
    from wsserver.graph.command import main as export_graph_main  # noqa: PLC0415 - exists only inside .venv

    return export_graph_main(arguments)


def doctor(arguments: list[str]) -> int:
    from wsserver.doctor.command import main as doctor_main  # noqa: PLC0415 - exists only inside .venv

    return doctor_main(arguments)


def contract(arguments: list[str]) -> int:
    from wsserver.contract.command import main as contract_main  # noqa: PLC0415 - exists only inside .venv

    return contract_main(arguments)


def bench(arguments: list[str]) -> int:
    return run_module("tests.bench", arguments)


def test(arguments: list[str]) -> int:
    """Check and test, stopping at what fails first."""
    import subprocess  # noqa: PLC0415 - not every start needs it

    fast = "--fast" in arguments
    arguments = [argument for argument in arguments if argument != "--fast"]
    checks = [["ruff", "format", "--check", "."], ["ruff", "check", "."], *([] if fast else [["mypy"]])]
    for check in checks:
        print("run.py:", *check, flush=True)
        exit_code = subprocess.run([sys.executable, "-m", *check], check=False).returncode
        if exit_code != 0:
            return exit_code
    if fast or arguments:
        arguments = [*(["-m", "not slow"] if fast else []), *arguments]
        print("run.py: pytest", *arguments, flush=True)
        return run_module("pytest", arguments)
    # Most tests wait most of the time: two processes share them. Those of faults have all of the machine to themselves;
    # they come first, because the last lines of the others say which parts ran that need more than Python.
    exit_codes = []
    for part in (["tests/faults"], ["-n", "2", "--dist", "loadfile", "--ignore", "tests/faults"]):
        print("run.py: pytest", *part, flush=True)
        exit_codes.append(subprocess.run([sys.executable, "-m", "pytest", *part], check=False).returncode)
    # What a signal ended has a negative one.
    return next((exit_code for exit_code in exit_codes if exit_code != 0), 0)


def run_module(module: str, arguments: list[str]) -> int:
    """Become `python -m module`; with -m the current folder, the project's, is where packages are found."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


# Each holds all of the one before.
RUNTIME, DEVELOPMENT, BENCH = LOCKS = "requirements.lock", "requirements-dev.lock", "requirements-bench.lock"
COMMANDS = {
    "serve": (RUNTIME, serve),
    "migrate": (RUNTIME, migrate),
    "seed-movies": (RUNTIME, seed_movies),
    "export-graph": (RUNTIME, export_graph),
    "doctor": (RUNTIME, doctor),
    "contract": (RUNTIME, contract),
    "bench": (BENCH, bench),
    "test": (DEVELOPMENT, test),
}


# ---- .venv ----


def stamp_of(lock: str) -> str:
    return f"{lock} {hashlib.sha256((ROOT / lock).read_bytes()).hexdigest()}"


def has_our_python() -> bool:
    """Whether .venv's Python is there and of the minor version that runs this."""
    return os.access(PYTHON, os.X_OK) and (VENV / "lib" / "python{}.{}".format(*sys.version_info[:2])).is_dir()


def is_installed(lock: str) -> bool:
    """Whether .venv can be used as it is."""
    return (
        has_our_python()
        and not UNFINISHED.exists()
        and STAMP.exists()
        and stamp_of(lock) in STAMP.read_text().splitlines()
    )


def install(lock: str) -> None:
    """Make .venv and install `lock` into it; one process does, others wait. Ends the process when it cannot."""
    import fcntl  # noqa: PLC0415 - not every start needs it

    # The folder itself is the lock. Our children hold it too: a pip that outlives us must end before others begin.
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another process is installing, waiting for it …")
        fcntl.flock(folder, fcntl.LOCK_EX)
    if not is_installed(lock):
        fill_venv(lock, folder)
    os.close(folder)


def fill_venv(lock: str, held: int) -> None:
    import shutil  # noqa: PLC0415

    if not os.access(VENV if VENV.exists() else ROOT, os.W_OK):
        sys.exit(f"{ROOT} is not writable, and its .venv lacks packages: run as the owner, or from a copy of your own.")
    reason = "what .venv holds is not what this run needs" if VENV.exists() else "first run"
    say(f"{reason}: installing into .venv (up to a minute or two) …")
    started = time.monotonic()
    if UNFINISHED.exists() or (VENV.exists() and not has_our_python()):
        shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    uv = shutil.which("uv")
    if not (uv and install_with_uv(uv, lock, held)) and not install_with_pip(lock, held):
        sys.exit(
            "The installation failed, the reason is above; the next run tries again. Your own settings for pip (proxy,"
            " index) are used. Ready-made packages exist for Linux with glibc and for macOS, on x86-64 and arm64."
        )
    covered = LOCKS[: LOCKS.index(lock) + 1]
    STAMP.write_text("".join(stamp_of(each) + "\n" for each in covered))
    UNFINISHED.unlink()
    say(f"installed in {time.monotonic() - started:.0f} s")


def install_with_uv(uv: str, lock: str, held: int) -> bool:
    environment = {**os.environ}
    index = pip_index()
    if index:  # uv does not read pip's settings, and some networks reach only their own mirror
        environment.setdefault("UV_DEFAULT_INDEX", index)
    make = [uv, "venv", "--quiet", "--no-project", "--allow-existing", "--python", base_python(), str(VENV)]
    fill = [uv, "pip", "install", "--quiet", "--python", str(PYTHON), *only_locked_wheels(lock)]
    if succeeds(make, held, environment) and succeeds(fill, held, environment):
        return True
    say("uv could not do it, trying pip …")
    return False


def install_with_pip(lock: str, held: int) -> bool:
    # A user's own "user = true" would install outside of .venv.
    environment = {**os.environ, "PIP_USER": "0"}
    if not (VENV / "bin" / "pip").exists() and not succeeds(
        [base_python(), "-m", "venv", str(VENV)], held, environment
    ):
        version = "{}.{}".format(*sys.version_info[:2])
        sys.exit(
            f"This Python {version} cannot make virtual environments. On Debian and Ubuntu type, as root,\n"
            f"    apt install python{version}-venv\n"
            "elsewhere install your system's package for Python's venv; or install uv. Then start again."
        )
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return succeeds([*pip, *only_locked_wheels(lock)], held, environment)


def only_locked_wheels(lock: str) -> list[str]:
    return ["--require-hashes", "--only-binary", ":all:", "--requirement", lock]  # wheels: no compiler is needed


def pip_index() -> str:
    import subprocess  # noqa: PLC0415

    if "PIP_INDEX_URL" in os.environ:
        return os.environ["PIP_INDEX_URL"]
    command = [base_python(), "-m", "pip", "config", "get", "global.index-url"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def base_python() -> str:
    """The Python outside of any virtual environment; .venv itself may just have been removed."""
    return str(getattr(sys, "_base_executable", "") or sys.executable)


def succeeds(command: list[str], held: int, environment: dict[str, str]) -> bool:
    import subprocess  # noqa: PLC0415

    return subprocess.run(command, check=False, env=environment, cwd=ROOT, pass_fds=(held,)).returncode == 0


def say(text: str) -> None:
    print(f"run.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
