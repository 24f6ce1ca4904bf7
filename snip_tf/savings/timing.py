"""Measures which of several calls is the fastest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

# Each candidate runs this many times, or fewer once it has taken this many seconds.
_ROUNDS = range(3, 51)
_SECONDS = 3.0
# A candidate that takes this many times as long as the best is dropped.
_FAR = 1.4


def median_seconds(
    calls: Mapping[str, Callable[..., Any]], *arguments: Any
) -> dict[str, float]:
    """Returns the median time of each call, run in turn until one is clearly best."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(*arguments)  # compiles
    left, end = dict(calls), time.perf_counter() + _SECONDS
    for done in range(_ROUNDS.stop):
        if done >= _ROUNDS.start:
            if time.perf_counter() > end:
                break
            # Slow candidates would take up the time that the others need.
            best = min(statistics.median(seconds[name]) for name in left)
            left = {n: c for n, c in left.items() if min(seconds[n]) < _FAR * best}
        for name, call in left.items():
            call(*arguments)  # threads of the previous call may still be running
            start = time.perf_counter()
            call(*arguments)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def fastest(seconds: Mapping[str, float]) -> str:
    """Returns the name of the call that takes the least time."""
    return min(seconds, key=lambda name: seconds[name])
