"""When Python looks for garbage that reference counts do not find: seldom among what lives long.

A full collection visits every object of every connection in one piece, with the loop standing still: measured 0.4 s
at 3,000 logged-in connections and 1.0 s at 10,000, and there is one for each quarter that their number grew.
"""

import gc

YOUNG = 2_000
"""New objects between two looks at them. By Python's own numbers a login cost 430 µs of collecting, by these 120."""

MIDDLE = 10
"""Looks at new objects between two at those that survived one: 20,000 objects, about 10 ms."""

OLD = 100
"""Those between two full collections, which are also put off until a quarter is new. 2,000,000 objects, about 200 MiB,
are the most that garbage can come to, if all of it were cycles that lived for long."""


def spare_what_lives() -> None:
    """Never look again at what was made for the start, and seldom at what comes to stay. For when all is started."""
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
