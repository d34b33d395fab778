"""Durations counted by their size, a hundredth apart: small to send from one process to another, and they add up."""

import math
from collections.abc import Iterable, Mapping

STEP = math.log(1.01)

Counts = dict[str, int]


def counted(durations_ns: Iterable[int]) -> Counts:
    """How many there are of each size. What was early by the clock's grain counts as a microsecond."""
    counts: Counts = {}
    for duration in durations_ns:
        bucket = str(int(math.log(max(duration, 1_000)) / STEP))
        counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def added(several: Iterable[Mapping[str, int]]) -> Counts:
    total: Counts = {}
    for counts in several:
        for bucket, count in counts.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def percentile_ms(counts: Mapping[str, int], percent: float) -> float | None:
    """The duration that this share is not longer than; None when nothing was counted."""
    left = sum(counts.values()) * percent / 100
    if not counts:
        return None
    bucket = 0
    for bucket in sorted(map(int, counts)):
        left -= counts[str(bucket)]
        if left <= 0:
            break
    return math.exp((bucket + 0.5) * STEP) / 1e6
