"""Imports go one way.

run → app → {websocket, http, domains} → dispatch → {hub, auth} → {vendors, storage} → protocol
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RANKS = {
    "run": 10,
    "wsserver.app": 9,
    "wsserver.commands": 8,
    "wsserver.film_parts": 7,
    "wsserver.safety_parts": 7,
    "wsserver.contract": 7,
    "wsserver.doctor": 8,
    "wsserver.connections": 5,
    "wsserver.operator_routes": 5,
    "wsserver.serving": 8,
    "wsserver.graph": 7,
    "wsserver.websocket": 6,
    "wsserver.http": 6,
    "wsserver.http_protocol": 7,
    "wsserver.domains": 6,
    "wsserver.dispatch": 5,
    "wsserver.ownership": 5,
    "wsserver.hub": 4,
    "wsserver.heart": 4,
    "wsserver.news": 4,
    "wsserver.auth": 4,
    "wsserver.settings": 4,
    "wsserver.seed_command": 4,
    "wsserver.refresh": 4,
    "wsserver.graph.files": 6,
    "wsserver.graph.worker": 5,
    "wsserver.graph.source": 4,
    "wsserver.graph.script": 4,
    "wsserver.graph.export": 3,
    "wsserver.wire": 3,
    "wsserver.workers": 3,
    "wsserver.watch": 3,
    "wsserver.run_log": 3,
    "wsserver.samples": 3,
    "wsserver.tails": 3,
    "wsserver.tracing": 3,
    "wsserver.seeding": 3,
    "wsserver.progress": 3,
    "wsserver.request_ids": 2,
    "wsserver.housekeeping": 3,
    "wsserver.collector": 2,
    "wsserver.cron": 2,
    "wsserver.feed": 2,
    "wsserver.frames": 2,
    "wsserver.vendors": 2,
    "wsserver.telemetry": 2,
    "wsserver.outbox": 2,
    "wsserver.tasks": 2,
    "wsserver.roll_up": 2,
    "wsserver.wheel": 1,
    "storage": 1,
    "protocol": 0,
}
MAY_IMPORT_ITS_EQUALS = {
    "wsserver.contract",
    "wsserver.doctor",
    "wsserver.domains",
    "wsserver.vendors",
    "storage",
    "protocol",
}
ALLOWED_IN_PROTOCOL = {"pydantic", "pydantic_core"}


def group(module: str) -> str | None:
    return max((name for name in RANKS if module == name or module.startswith(f"{name}.")), key=len, default=None)


def modules() -> list[Path]:
    packages = (ROOT / name for name in ("protocol", "storage", "wsserver"))
    return [ROOT / "run.py", *(path for package in packages for path in package.rglob("*.py"))]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    mine = group(name)
    if mine is None:
        assert name == "wsserver", f"{name} has no place in the order of imports"
        return
    for imported in imports(path):
        theirs = group(imported)
        if theirs is None or (theirs == mine and mine in MAY_IMPORT_ITS_EQUALS):
            continue
        assert RANKS[theirs] < RANKS[mine], f"{name} imports {imported}"


def test_the_protocol_needs_pydantic_and_the_standard_library_only() -> None:

    for path in (ROOT / "protocol").rglob("*.py"):
        for imported in imports(path):
            top = imported.split(".")[0]
            assert top in sys.stdlib_module_names or top in ALLOWED_IN_PROTOCOL | {"protocol"}, f"{path}: {imported}"
