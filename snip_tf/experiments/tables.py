"""Tables of results in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(names: Sequence[str], lines: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the lines of a table of numbers.

    Args:
        names: the titles of the columns.
        lines: `{first cell: the other cells}`.
    """
    head = [f"| {' | '.join(names)} |", "|---|" + "---:|" * (len(names) - 1)]
    return head + [f"| {first} | {' | '.join(rest)} |" for first, rest in lines.items()]


def mean_and_deviation(
    values: Sequence[float], digits: int = 2, diverged: int = 0
) -> str:
    """Returns the mean and the standard deviation over seeds.

    Args:
        values: the values of the runs that did not diverge.
        digits: the number of digits after the decimal point.
        diverged: the number of runs that diverged.

    Example:

    >>> mean_and_deviation([1.5, 2.5], digits=1, diverged=1)
    '2.0 ± 0.7, 1 diverged'
    """
    cells = []
    if values:
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
    if diverged:
        cells.append(f"{diverged} diverged")
    return ", ".join(cells)


def known(rows: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Returns the known values of a column: a run that diverged has no error."""
    return [row[name] for row in rows if row.get(name) is not None]
