"""Garbage: what the start made is left alone, and what is thrown away later is still found."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import gc, weakref
from wsserver.collector import spare_what_lives

class Node:
    pass

def cycle():
    one = Node()
    one.itself = one
    return weakref.ref(one)

made_before = [Node() for _ in range(1000)]
spare_what_lives()
assert gc.get_freeze_count() > 1000
assert not any(one is made_before for one in gc.get_objects())
thrown_away = cycle()
kept = [[] for _ in range(100_000)]
assert thrown_away() is None, "young garbage"
old = Node()
old.itself, thrown_away = old, weakref.ref(old)
gc.collect(1)
del old
kept = [[] for _ in range(2_500_000)]
assert thrown_away() is None, "old garbage"
"""


def test_what_the_start_made_is_looked_at_no_more_and_garbage_is_found_all_the_same() -> None:
    # A process of its own: collecting is the business of all of a process.
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
