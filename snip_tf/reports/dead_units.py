"""Dead units and inputs of each weight: those without a kept connection."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from snip_tf.reports.sparsity import WeightRow

# The lines on dead units that a terminal gets.
MOST_LINES = 8


@dataclasses.dataclass(frozen=True)
class DeadUnits:
    """What is dead in one weight, and not counted at the weight before it.

    Attributes:
        path: of the weight.
        inputs: how many it has.
        dead_inputs: those that no kept connection reads, without the units that no kept
            connection enters: these are counted where they are units.
        units: how many it has.
        dead_units: those that no kept connection enters.
    """

    path: str
    inputs: int
    dead_inputs: int
    units: int
    dead_units: int

    def __str__(self) -> str:
        inputs = f"{self.dead_inputs:,} of {self.inputs:,} inputs that nothing reads"
        units = f"{self.dead_units:,} of {self.units:,} units that nothing enters"
        counts = ((inputs, self.dead_inputs), (units, self.dead_units))
        return f"Dead in {self.path}: {', '.join(text for text, n in counts if n)}"


def dead_units(
    rows: Sequence[WeightRow],
    masks: Mapping[str, np.ndarray],
    constant: Mapping[str, np.ndarray],
) -> list[DeadUnits]:
    """Returns what is dead in each weight in which something is.

    Args:
        rows: of the weights.
        masks: of the same.
        constant: of some weights, which of their inputs are constant: those from units
            that nothing enters.
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
    """Returns a line for each, or for the largest, and one for all the others.

    Args:
        dead: what is dead.
        most: the largest number of lines; default, all.
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
            f"Dead in {len(rest):,} more weights: {inputs:,} inputs that nothing "
            f"reads, {units:,} units that nothing enters"
        )
    return lines


def _count(dead: DeadUnits) -> int:
    return dead.dead_inputs + dead.dead_units
