"""Groups many layers into few rows: blocks by name, or runs of layers."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence

from snip_tf.reports.costs import Costs, LayerRow

# More layers than this are put into groups.
MOST_ROWS = 40
# Fewer groups than this would show too little.
_FEWEST_ROWS = 5

_WORD = re.compile(r"[^\W\d_]+|\d+")


@dataclasses.dataclass(frozen=True)
class GroupRow(LayerRow):
    """The sums over consecutive layers; see `LayerRow`.

    Attributes:
        count: the number of layers.
    """

    count: int = 1


def grouped(rows: Sequence[LayerRow]) -> list[GroupRow]:
    """Returns consecutive layers in at most `MOST_ROWS` groups.

    Layers whose names begin alike form a group, such as `block_1_expand` and
    `block_1_project`, which form `block_1`; the blocks are as small as that number
    allows. Where names show no blocks, a group is a few layers that multiply, each with
    the following layers that do not.

    Example:

    >>> from snip_tf.reports.groups import grouped
    >>> from snip_tf.reports.costs import LayerRow
    >>> rows = [LayerRow(f"block_{i // 4}_{i % 4}", "Dense", 9, 3) for i in range(80)]
    >>> groups = grouped(rows)
    >>> len(groups), groups[0].layer, groups[0].count, groups[0].parameters
    (20, 'block_0', 4, 36)
    """
    blocks: list[list[LayerRow]] = []
    words = 0
    finest = [[row] for row in rows]
    for depth in range(1, 1 + max(len(_words(row)) for row in rows)):
        groups = _by_words(rows, depth)
        if len(groups) > MOST_ROWS:
            finest = groups
            break
        if len(groups) > len(blocks):
            blocks, words = groups, depth
    if len(blocks) >= _FEWEST_ROWS:
        return [group(_beginning(block, words), block) for block in blocks]
    return [group(_ends(run), run) for run in _runs(finest)]


def group(name: str, rows: Sequence[LayerRow]) -> GroupRow:
    """Returns the sums over layers, under a name."""
    costs = dataclasses.asdict(Costs.of(rows))
    return GroupRow(name, "", **costs, count=len(rows))


def _words(row: LayerRow) -> list[str]:
    return _WORD.findall(row.layer)


def _by_words(rows: Sequence[LayerRow], depth: int) -> list[list[LayerRow]]:
    """Returns consecutive layers whose names begin with the same words."""
    groups = itertools.groupby(rows, lambda row: _words(row)[:depth])
    return [list(group) for _, group in groups]


def _beginning(rows: Sequence[LayerRow], words: int) -> str:
    """Returns the first words, which the names of all layers share."""
    found = list(itertools.islice(_WORD.finditer(rows[0].layer), words))
    if len(rows) == 1 or len(found) < words:
        return _ends(rows)
    return rows[0].layer[: found[-1].end()]


def _ends(rows: Sequence[LayerRow]) -> str:
    """Names the first and the last layer, among those that multiply if any do."""
    multiply = [row for row in rows if row.multiply_adds != 0] or rows
    first, last = multiply[0].layer, multiply[-1].layer
    return first if first == last else f"{first} to {last}"


def _runs(groups: Sequence[Sequence[LayerRow]]) -> list[list[LayerRow]]:
    """Merges consecutive groups, until few are left."""
    whole: list[list[LayerRow]] = []
    for rows in groups:
        if whole and all(row.multiply_adds == 0 for row in rows):
            whole[-1] += rows
        else:
            whole.append(list(rows))
    length = math.ceil(len(whole) / MOST_ROWS)
    runs = (whole[i : i + length] for i in range(0, len(whole), length))
    return [list(itertools.chain.from_iterable(run)) for run in runs]
