"""When Python looks for garbage that reference counts do not find: seldom among what lives long.

A full collection visits every object of every connection in one piece, with the loop standing still: measured 0.35 s
after the start, 0.5 s more for each 3,000 logged-in connections, and one for each quarter that their number grew.
"""

import gc

YOUNG = 2_000
"""New objects between two looks at them. Python's own 700 cost a login three times as much as need be."""

MIDDLE = 10
"""Looks at new objects between two at those that survived one: 20,000 objects, about 10 ms."""

OLD = 100
"""Those between two full collections, which are also put off until a quarter is new. 2,000,000 objects, about 200 MiB,
are the most that garbage can come to, if all of it were cycles that lived for long; connections leave none."""


def spare_what_lives() -> None:
    """Never look again at what was made for the start, and seldom at what comes to stay. For when all is started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
