"""Titles that were mistyped: which stored ones to compare with, and how many slips of the pen lie between two keys.

A title with k slips, cut into k + 1 pieces, still has one piece without a slip (Li, Deng, Wang, Feng: Pass-Join, VLDB
2011): a few exact lookups find it among all. Here is no SQL.
"""

from collections.abc import Iterator
from itertools import pairwise

from storage.film_names import is_ideograph

ONE_SLIP, TWO_SLIPS = 4, 8
"""Letters from which on a title may have so many slips. A Chinese title may have one, from ONE_SLIP characters on."""


def slips_allowed(whole: str) -> int:
    """How many letters of a title may be wrong, missing, too many or swapped with their neighbour."""
    if len(whole) < ONE_SLIP:
        return 0
    return 1 if len(whole) < TWO_SLIPS or any(map(is_ideograph, whole)) else 2


def pieces(whole: str) -> list[str]:
    """The pieces of a title, each with its place and the title's length in front."""
    slips = slips_allowed(whole)
    if slips == 0:
        return []
    return [_piece(len(whole), at, whole[start:end]) for at, (start, end) in enumerate(_cuts(len(whole), slips))]


def probes(asked: str) -> list[str]:
    """The pieces of which a title has at least one when `asked` may be it, mistyped."""
    found: dict[str, None] = {}
    one_script = "好" if any(map(is_ideograph, asked)) else "a"
    for length in range(max(ONE_SLIP, len(asked) - 2), len(asked) + 3):
        slips, longer = slips_allowed(one_script * length), len(asked) - length
        if abs(longer) > slips:
            continue
        for at, (start, end) in enumerate(_cuts(length, slips)):
            # What is too much or missing before a piece moves it, and what follows must make up for it.
            for moved in range(-slips, slips + 1):
                if abs(moved) + abs(longer - moved) <= slips:
                    for text in _readings(asked, start + moved, end + moved):
                        found[_piece(length, at, text)] = None
    return list(found)


def slips_between(asked: str, whole: str, most: int) -> int | None:
    """How many slips make one of the other, None when more than `most`. Two neighbours swapped are one slip."""
    # Each slip brings at most one letter in and takes one out: that is soon counted, and refuses most.
    if abs(len(asked) - len(whole)) > most or len(set(asked) ^ set(whole)) > 2 * most:
        return None
    before: list[int] = []
    above = list(range(len(whole) + 1))
    for row, letter in enumerate(asked, 1):
        line = [row] + [most + 1] * len(whole)
        for column in range(max(1, row - most), min(len(whole), row + most) + 1):
            other = whole[column - 1]
            best = min(above[column - 1] + (letter != other), above[column] + 1, line[column - 1] + 1)
            if row > 1 and column > 1 and letter == whole[column - 2] and asked[row - 2] == other:
                best = min(best, before[column - 2] + 1)
            line[column] = best
        if min(line) > most:
            return None
        before, above = above, line
    return above[-1] if above[-1] <= most else None


def _cuts(length: int, slips: int) -> list[tuple[int, int]]:
    ends = [length * at // (slips + 1) for at in range(slips + 2)]
    return list(pairwise(ends))


def _piece(length: int, at: int, text: str) -> str:
    return f"{length}.{at}.{text}"


def _readings(asked: str, start: int, end: int) -> Iterator[str]:
    """The piece that stands there, and as it was when its first or last letter was swapped out of it."""
    if start < 0 or end > len(asked):
        return
    yield asked[start:end]
    if start > 0:
        yield asked[start - 1] + asked[start + 1 : end]
    if end < len(asked):
        yield asked[start : end - 1] + asked[end]
