"""Dead units and unused inputs of each weight: those without a kept connection."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from snip_tf.reports.sparsity import WeightRow

# The number of lines on dead units in a terminal.
MOST_LINES = 8


@dataclasses.dataclass(frozen=True)
class DeadUnits:
    """What is dead in one weight, and not counted at the weight before it.

    Attributes:
        path: the path of the weight.
        inputs: the number of inputs.
        dead_inputs: the number of unused inputs, without a kept connection; those that
            come from units without inputs are counted there instead.
        units: the number of units.
        dead_units: the number of units without inputs, to which no connection is kept.
    """

    path: str
    inputs: int
    dead_inputs: int
    units: int
    dead_units: int

    def __str__(self) -> str:
        inputs = f"{self.dead_inputs:,} of {self.inputs:,} inputs unused"
        units = f"{self.dead_units:,} of {self.units:,} units without inputs"
        counts = ((inputs, self.dead_inputs), (units, self.dead_units))
        return f"Dead in {self.path}: {', '.join(text for text, n in counts if n)}"


def dead_units(
    rows: Sequence[WeightRow],
    masks: Mapping[str, np.ndarray],
    constant: Mapping[str, np.ndarray],
) -> list[DeadUnits]:
    """Returns the dead units and inputs of each weight that has any.

    Args:
        rows: the rows of the weights.
        masks: the masks of the weights.
        constant: for some weights, which of their inputs are constant, since they come
            from units without inputs.
    """
    dead = []
    for row in rows:
        unread = row.dead_inputs
        if unread and len(constant.get(row.path, ())) == row.inputs:
            mask = masks[row.path]
            read = mask.any(axis=(*range(mask.ndim - 2), mask.ndim - 1))
            unread = int((~read & ~constant[row.path]).sum())
        if unread or row.dead_units:
            found = DeadUnits(row.path, row.inputs, unread, row.units, row.dead_units)
            dead.append(found)
    return dead


def dead_lines(dead: Sequence[DeadUnits], most: int | None = None) -> list[str]:
    """Returns a line for each weight, or for the largest, and one for all others.

    Args:
        dead: the dead units and inputs.
        most: the largest number of lines; default: all.
    """
    named = list(dead)
    if most is not None and len(dead) > most:
        largest = sorted(dead, key=_count, reverse=True)[: most - 1]
        named = [each for each in dead if each in largest]
    lines = [str(each) for each in named] or ["Dead units: none"]
    if rest := [each for each in dead if each not in named]:
        inputs = sum(each.dead_inputs for each in rest)
        units = sum(each.dead_units for each in rest)
        lines.append(
            f"Dead in {len(rest):,} more weights: {inputs:,} unused inputs, {units:,} "
            "units without inputs"
        )
    return lines


def _count(dead: DeadUnits) -> int:
    return dead.dead_inputs + dead.dead_units
