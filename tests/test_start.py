"""What a start need not wait for: packages and tables that only some of what is done needs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import sys
import wsserver.app
from wsserver.domains.watchlist_rules import _compiled

needed_later = {"alembic", "sqlalchemy", "pypinyin", "neo4j", "wsserver.graph.worker"}
print(*sorted(needed_later & set(sys.modules)))
print(_compiled.cache_info().currsize)
"""


def test_nothing_is_imported_or_made_for_the_start_that_it_does_not_need() -> None:
    # A process of its own: this one has imported what the tests need.
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["", "0"]
