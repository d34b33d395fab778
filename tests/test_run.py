"""The entry: its commands, when it installs, and what it says when it cannot.

A stand-in for uv takes the place of the real one, so that nothing is fetched.
"""

import ast
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = "{}.{}".format(*sys.version_info[:2])

# Says what it was asked; makes a real .venv, and "installs" by a file in it. Hangs while a file `hang` is there.
UV = f"""#!/bin/sh
echo "$1" >> uv-calls
if [ "$1" = venv ]; then exec '{sys.executable}' -m venv --without-pip .venv; fi
if [ -e hang ]; then echo $$ > hangs; exec sleep 60; fi
echo "$* from $UV_DEFAULT_INDEX" >> .venv/filled
"""
APP = """
import os, sys
def say(name, arguments):
    print(name, *arguments, os.getcwd(), sys.prefix)
    return 7
def main(arguments=()): return say("serving", arguments)
"""
COMMANDS = """
from wsserver.app import say
def migrate_main(arguments=()): return say("migrating", arguments)
"""
EXPORT = """
from wsserver.app import say
def main(arguments=()): return say("exporting", arguments)
"""
TOOL = """
import os, signal, sys
print(os.path.basename(__file__), *sys.argv[1:], flush=True)
if os.environ.get("KILLED") in sys.argv: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(5 if os.environ.get("FAILING") == os.path.basename(__file__) else 0)
"""


class Project:
    """A copy of run.py with the least around it: locks, an application, tools."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(ROOT / "run.py", root)
        self.write("requirements.lock", "runtime 1")
        self.write("requirements-dev.lock", "development 1")
        self.write("requirements-bench.lock", "bench 1")
        self.write("wsserver/app.py", APP)
        self.write("wsserver/commands.py", COMMANDS)
        self.write("wsserver/graph/command.py", EXPORT)
        for tool in ("ruff", "mypy", "pytest"):
            self.write(f"{tool}.py", TOOL)
        self.write("tools/uv", UV)
        (root / "tools/uv").chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{root}/tools:/usr/bin:/bin", "PIP_INDEX_URL": "https://mirror.test"}

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, *arguments: str, code: str = "", cwd: Path | None = None) -> subprocess.Popen[str]:
        program = ["-c", code] if code else [str(self.root / "run.py")]
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=cwd or self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
        process = self.start(*arguments, code=code, cwd=cwd)
        out, error = process.communicate(timeout=30)
        return process.returncode, out, error

    def calls_of_uv(self) -> list[str]:
        calls = self.root / "uv-calls"
        return calls.read_text().split() if calls.exists() else []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "with space 项目"
    root.mkdir()
    return Project(root)


def eventually(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def test_help_lists_the_commands_and_installs_nothing(project: Project) -> None:
    for option in ("-h", "--help"):
        code, out, _ = project.run(option)
        assert code == 0
        assert all(command in out for command in ("serve", "test", "bench", "migrate", "seed-movies", "export-graph"))
    assert not (project.root / ".venv").exists()


def test_an_unknown_command_is_named_and_ends_with_2(project: Project) -> None:
    code, out, error = project.run("sreve")
    assert (code, out) == (2, "")
    assert "'sreve'" in error
    assert "migrate" in error
    assert not (project.root / ".venv").exists()


def test_old_pythons_can_read_the_file_and_are_sent_away_in_one_sentence(project: Project) -> None:
    source = (ROOT / "run.py").read_text()
    ast.parse(source, feature_version=(3, 7))
    old = f"import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0); runpy.run_path({str(ROOT / 'run.py')!r})"
    code, _, error = project.run(code=old)
    assert code == 1
    assert error.startswith("CineWire needs Python 3.11 or newer; this is Python 3.9.")
    assert error.count("\n") == 1


def test_the_first_run_installs_and_later_ones_are_quiet_from_any_folder(project: Project, tmp_path: Path) -> None:
    code, out, error = project.run()
    assert code == 7, "the exit code is the command's"
    assert out.split() == ["serving", *str(project.root).split(), *str(project.root / ".venv").split()]
    assert "first run: installing into .venv" in error
    filled = (project.root / ".venv/filled").read_text()
    assert "--require-hashes" in filled
    assert "--only-binary :all:" in filled
    assert "from https://mirror.test" in filled, "uv is told what pip is configured to use"
    code, out, error = project.run("migrate", "--to", "head", cwd=tmp_path)
    assert (code, error) == (7, "")
    assert out.startswith(f"migrating --to head {project.root}")
    code, out, error = project.run("export-graph", "--follow", cwd=tmp_path)
    assert code == 7, error
    assert out.startswith(f"exporting --follow {project.root}")
    assert project.calls_of_uv() == ["venv", "pip"]


def test_what_tests_need_satisfies_serve_and_a_changed_lock_is_installed(project: Project) -> None:
    project.run()
    project.run("test")
    assert project.calls_of_uv() == ["venv", "pip"] * 2, "the runtime's packages are not enough for tests"
    project.run("serve")
    assert project.calls_of_uv() == ["venv", "pip"] * 2
    project.write("requirements.lock", "runtime 2")
    project.run("serve")
    assert project.calls_of_uv() == ["venv", "pip"] * 3


def test_two_first_runs_at_once_install_once(project: Project) -> None:
    runs = [project.start() for _ in range(2)]
    outcomes = [run.communicate(timeout=30) for run in runs]
    assert [run.returncode for run in runs] == [7, 7], outcomes
    assert project.calls_of_uv() == ["venv", "pip"]


def test_an_installation_that_was_killed_is_begun_anew_when_its_children_are_gone(project: Project) -> None:
    project.write("hang", "")
    killed = project.start()
    hangs = project.root / "hangs"
    eventually(lambda: hangs.exists() and hangs.read_text().endswith("\n"))
    killed.kill()
    killed.wait(timeout=10)
    (project.root / "hang").unlink()
    project.write(".venv/half-written", "")
    following = project.start()
    assert following.stderr is not None
    assert "waiting" in following.stderr.readline()
    os.kill(int(hangs.read_text()), signal.SIGKILL)
    _, error = following.communicate(timeout=30)
    killed.communicate(timeout=10)
    assert following.returncode == 7, error
    assert not (project.root / ".venv/half-written").exists()


@pytest.fixture
def loaded(project: Project) -> ModuleType:
    """run.py of the project as a module, with a .venv that is complete for tests."""
    project.run("test")
    spec = importlib.util.spec_from_file_location("entry", project.root / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.is_installed(module.RUNTIME)
    assert module.is_installed(module.DEVELOPMENT)
    return module


def test_a_venv_whose_python_vanished_is_not_used(project: Project, loaded: ModuleType) -> None:
    (project.root / ".venv/bin/python").unlink()
    (project.root / ".venv/bin/python").symlink_to("/nowhere/python")
    assert not loaded.is_installed(loaded.RUNTIME)


def test_a_venv_of_another_minor_version_is_made_anew(project: Project, loaded: ModuleType) -> None:
    (project.root / f".venv/lib/python{VERSION}").rename(project.root / ".venv/lib/python3.9")
    assert not loaded.is_installed(loaded.RUNTIME)
    assert project.run()[0] == 7
    assert not (project.root / ".venv/lib/python3.9").exists()


def test_a_python_without_venv_says_what_to_type(project: Project) -> None:
    (project.root / "tools/uv").unlink()
    project.write("tools/broken-python", "#!/bin/sh\nexit 1\n")
    (project.root / "tools/broken-python").chmod(0o755)
    broken = f"""
import sys, runpy
sys._base_executable = {str(project.root / "tools/broken-python")!r}
sys.argv = ["run.py"]
runpy.run_path({str(project.root / "run.py")!r}, run_name="__main__")
"""
    code, _, error = project.run(code=broken)
    assert code == 1
    assert f"apt install python{VERSION}-venv" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_checkout_of_somebody_else_is_a_clear_message(project: Project) -> None:
    project.root.chmod(0o500)
    code, _, error = project.run()
    project.root.chmod(0o700)
    assert code == 1
    assert "is not writable" in error


def test_the_test_command_runs_all_checks_in_order_and_stops_at_a_failure(project: Project) -> None:
    code, out, _ = project.run("test", "-k", "chat")
    expected = ["ruff.py format --check .", "ruff.py check .", "mypy.py", "pytest.py -k chat"]
    assert code == 0
    assert [line for line in out.splitlines() if not line.startswith("run.py:")] == expected
    assert [line for line in out.splitlines() if line.startswith("run.py:")] == [
        f"run.py: {line.replace('.py', '')}" for line in expected
    ]
    project.environment["FAILING"] = "mypy.py"
    code, out, _ = project.run("test")
    assert code == 5
    assert "pytest" not in out
    code, out, _ = project.run("test", "--fast", "-x")
    assert code == 0
    assert out.endswith("pytest.py -m not slow -x\n")
    assert "mypy" not in out


def test_a_part_of_the_tests_that_was_killed_is_a_failure(project: Project) -> None:
    for part in ("--dist", "tests/faults"):
        project.environment["KILLED"] = part
        code, out, _ = project.run("test")
        assert code != 0
        # The other part is run all the same.
        assert "\npytest.py tests/faults\n" in out
        assert "\npytest.py -n 2 --dist loadfile --ignore tests/faults\n" in out


def test_what_was_installed_to_measure_is_enough_to_test_and_to_serve(project: Project) -> None:
    project.write("tests/bench/__main__.py", "print('measuring')")
    assert project.run("test")[0] == 0
    assert project.run("bench")[1] == "measuring\n"
    assert project.run("test")[0] == 0
    assert project.run()[0] == 7
    assert project.run("bench")[1] == "measuring\n"
    locks = [line.split()[-3] for line in (project.root / ".venv/filled").read_text().splitlines()]
    assert locks == ["requirements-dev.lock", "requirements-bench.lock"]
