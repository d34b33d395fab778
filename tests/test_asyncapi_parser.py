"""The official AsyncAPI parser reads the document of the sockets, finds everything in it, and finds nothing wrong.

It needs node and, unless they are there, npm and a registry to have its packages from. Without them this is skipped and
says so; with CINEWIRE_REQUIRE_ALL=1 that fails.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from protocol.operation import StreamingOperation
from protocol.operations import OPERATIONS
from protocol.unasked import UNASKED
from tests.parts import PARTS, RAN, REQUIRE_ALL
from wsserver.contract.asyncapi import asyncapi

FOLDER = Path(__file__).parent / "asyncapi"
PART = "AsyncAPI parser"

INSTALL_S = 240
"""npm fetches some 170 packages; from a slow mirror that takes minutes."""

PARSE_S = 60
"""It takes five seconds by itself."""

WARNING = 1
"""The parser's severities are 0 for errors and 1 for warnings; what is above is advice: AsyncAPI 3.1 exists."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_S + 2 * PARSE_S)]


def not_to_be_had(why: str) -> NoReturn:
    PARTS[PART] = why
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{PART}: {why}")
    pytest.skip(f"{PART}: {why}")


def is_installed() -> bool:
    """Whether what the lock file says was installed by an npm that came to its end."""
    installed = FOLDER / "node_modules" / ".package-lock.json"
    if not installed.exists():
        return False
    wanted = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    there = json.loads(installed.read_text())["packages"]
    return all(there.get(name, {}).get("integrity") == one["integrity"] for name, one in wanted.items() if name)


@pytest.fixture(scope="module")
def node_js() -> str:
    """The node that can run the parser."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        not_to_be_had("node is not installed")
    if not is_installed():
        if npm is None:
            not_to_be_had("npm is not installed, and tests/asyncapi/node_modules is not there or is another's")
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            installed = subprocess.run(
                command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            not_to_be_had(f"npm did not have its packages after {INSTALL_S} s")
        if installed.returncode != 0:
            not_to_be_had(f"npm cannot have its packages: {installed.stderr.strip()[-400:]}")
    return node


def parsed(node_js: str, document: object) -> dict[str, Any]:
    done = subprocess.run(
        [node_js, "check.js"],
        cwd=FOLDER,
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=PARSE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wrongs(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in found["diagnostics"] if one["severity"] <= WARNING]


def test_the_official_parser_finds_everything_and_nothing_wrong(node_js: str) -> None:
    PARTS[PART] = RAN
    found = parsed(node_js, asyncapi(OPERATIONS))
    assert wrongs(found) == []
    by_id = {each["id"]: each for each in found["operations"]}
    for suffix in ("", "_on_plain"):
        for name, operation in OPERATIONS.items():
            received = by_id.pop(name + suffix)
            assert (received["action"], received["messages"], received["examples"]) == ("receive", [name], 1)
            answers = {operation.reply_type, operation.error_type}
            if isinstance(operation, StreamingOperation):
                answers |= {operation.accepted_type, *(frame.TYPE for frame in operation.frames)}
            assert answers <= set(received["replies"])
    said = {name for each in by_id.values() for name in each["messages"]}
    assert said == {noun.model_dump()["type"] for noun in UNASKED} | {"error"}
    assert all(each["action"] == "send" and each["examples"] for each in by_id.values())


def test_the_official_parser_is_not_content_with_everything(node_js: str) -> None:
    document = asyncapi(OPERATIONS)
    document["operations"]["ping"]["channel"]["$ref"] = "#/channels/nowhere"
    assert wrongs(parsed(node_js, document))
