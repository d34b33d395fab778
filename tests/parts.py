"""Parts of the tests that need more than Python brings: which of them ran, and why the others did not.

Does not answer whether they passed. Whoever adds a part begins with `node_with` or `program`; the end of every run says
what became of all of them.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

PARTS: dict[str, str] = {}
"""A part's name to `RAN`, or to the reason why it did not run."""

RAN = "ran"

REQUIRE_ALL = "CINEWIRE_REQUIRE_ALL"
"""With this set to 1 in the environment, a part that cannot run fails instead of being skipped."""

OLDEST_NODE = 20

INSTALL_S = 90
"""How long npm may take for the packages of one folder: a few seconds is usual, also for the parser's 170."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def left_out(part: str, why: str) -> NoReturn:
    """Skip the test, or fail it where everything is required."""
    PARTS[part] = f"not run: {why}"
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{part}: {why}")
    pytest.skip(f"{part}: {why}")


def program(part: str, *names: str, hint: str) -> str:
    """The first of these programs that is installed. Leaves the part out when none is."""
    # /usr/sbin is not on everybody's PATH.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    return found or left_out(part, hint)


def chromium(part: str) -> str:
    """The browser, or what CHROMIUM says is one."""
    return os.environ.get("CHROMIUM") or program(
        part, *BROWSERS, hint="no Chromium is installed; CHROMIUM may name one"
    )


def node_with(part: str, folder: Path) -> str:
    """The node that has the packages of the folder's lock file; npm installs them where they are missing."""
    node = program(part, "node", hint="node is not installed")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True, timeout=INSTALL_S).stdout
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        left_out(part, f"node {version.strip()} is older than {OLDEST_NODE}")
    if not _is_installed(folder):
        npm = program(part, "npm", hint=f"npm is not installed, and the packages of {folder.name}/ are not there")
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.TimeoutExpired:
            left_out(part, f"npm did not have the packages of {folder.name}/ after {INSTALL_S} s")
        except subprocess.CalledProcessError as error:
            left_out(part, f"npm cannot have the packages of {folder.name}/: {error.stderr.strip()[-300:]}")
    return node


def _is_installed(folder: Path) -> bool:
    """Whether what the lock file says was installed by an npm that came to its end."""
    installed = folder / "node_modules" / ".package-lock.json"
    if not installed.exists():
        return False
    wanted, there = _packages(folder / "package-lock.json"), _packages(installed)
    return all(
        there.get(name, {}).get("integrity") == one.get("integrity")
        for name, one in wanted.items()
        if name and not one.get("optional")
    )


def _packages(lock: Path) -> Mapping[str, Mapping[str, Any]]:
    packages: Mapping[str, Mapping[str, Any]] = json.loads(lock.read_text())["packages"]
    return packages
