"""Whole units: what they are worth, what they cost, and which are kept."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.graph.graph import trace
from snip_tf.masking.copying import copy_unmasked
from snip_tf.masking.masks import PackedMask
from snip_tf.network import Network
from snip_tf.selecting.allocation import Budget, Kernels, Minimums, Part, Scope, Shares
from snip_tf.selecting.scores import Scores, check_finite
from snip_tf.selecting.structures.base import Division, Masks, Structure
from snip_tf.selecting.structures.units import Units
from snip_tf.selecting.threshold import Zeros
from snip_tf.structured.coupling import Coupling

# Blocks are tried until this fraction of a budget is used.
_CLOSE = 0.99
_ALL = "units"  # the one name for all ranked units, since they lie across weights


class NetworkUnits(Structure):
    """The units of one network, which are kept or removed as a whole.

    They are ranked by gradients: the `scores` of a selection are `{weight path:
    dL/dw}`.

    Args:
        setting: the cost and the size of blocks.
        model: a Sequential or Functional model.
        paths: those of the weights that may be pruned.

    Raises:
        ValueError: if the model has no unit that can be removed, or no graph.
    """

    why: ClassVar[str] = Units.why
    least: ClassVar[int] = Units.least

    def __init__(self, setting: Units, model: keras.Model, paths: Iterable[str]):
        copy = copy_unmasked(model)
        weights = Network(copy).weights
        self._setting = setting
        self._coupling = Coupling(trace(copy), {path: weights[path] for path in paths})
        if not self._coupling.count:
            raise ValueError(
                f"Expected a model with a unit that can be removed. Received: "
                f"model={model.name!r}, whose features are all coupled to its inputs, "
                f"its outputs or a layer that cannot be analysed"
            )

    def __str__(self) -> str:
        return str(self._setting)

    @property
    def divisions(self) -> frozenset[Division]:
        """No divisions, since a unit lies across weights."""
        return Units.divisions

    def sizes(self, kernels: Kernels, left: Masks) -> dict[str, int]:
        """Returns the cost of all units, and of everything else."""
        del kernels, left
        return {_ALL: self._cost(np.ones(self._coupling.count, bool))}

    def allocate(
        self, kernels: Kernels, shares: Shares, scope: Scope, minimums: Minimums
    ) -> list[Part]:
        """Returns a single part, which keeps the cost that the kept units may have."""
        del scope, minimums
        [(_, sparsity)] = shares
        allowed = round((1 - sparsity) * self.sizes(kernels, {})[_ALL])
        return [Part((_ALL,), allowed, sparsity)]

    def scores(
        self, kernels: Kernels, scores: Mapping[str, Any], left: Masks
    ) -> dict[str, np.ndarray]:
        """Returns the sensitivity of each unit.

        With a gate c that multiplies all outputs of the unit, removing the unit changes
        the loss, to first order, by

            dL/dc  at c = 1  =  sum of w * dL/dw over the weights w that read the unit.

        Args:
            kernels: unused.
            scores: `{weight path: dL/dw}`.
            left: unused.

        Returns:
            The magnitude of that, for each unit.
        """
        del kernels, left
        total = np.zeros(self._coupling.count)
        for rule, use in self._coupling.uses:
            if use.read is None or id(use.weight) not in self._coupling.paths:
                continue
            path = self._coupling.paths[id(use.weight)]
            weight = keras.ops.convert_to_numpy(use.weight)
            gradient = _backend.on_host(scores[path])
            check_finite(path, gradient)
            others = tuple(
                axis for axis in range(weight.ndim) if axis != use.read % weight.ndim
            )
            read = np.asarray((weight * gradient).sum(axis=others, dtype=np.float64))
            units = self._coupling.units(rule, use, use.read)
            np.add.at(total, units[units >= 0], read[units >= 0])
        return {_ALL: np.abs(total)}

    def choose(
        self, scores: Mapping[str, Scores], budget: Budget, share: float, zeros: Zeros
    ) -> dict[str, PackedMask]:
        """Returns which units are kept: the best that the budget allows.

        Where costs differ, units are ranked by score per cost. The best unit of each
        layer always stays. A budget of units is met exactly; one of parameters or
        multiply-adds is filled with blocks of units.
        """
        del share  # units are removed in one step
        [part] = budget.parts
        of_units = np.asarray(scores[_ALL])
        worth = of_units / self._own_costs()
        blocks, least = self._ranked_blocks(worth)
        self._check_allowed(blocks[:least], part)
        keep = self._union(self._filled(blocks, least, part.kept))
        zero = of_units == 0
        if zero.any():
            zeros[_ALL] = int((zero & keep).sum()), int(zero.sum())
        return {_ALL: PackedMask(np.packbits(keep), keep.shape)}

    def _ranked_blocks(self, worth: np.ndarray) -> tuple[list[np.ndarray], int]:
        """Returns blocks of units, the best first, and how many always stay."""
        best = [
            int(units[np.argmax(worth[units])]) for units in self._coupling.by_layer
        ]
        blocks = self._blocks(worth)
        optional = [not np.isin(best, block).any() for block in blocks]
        means = [worth[block].mean() for block in blocks]
        order = np.lexsort((np.negative(means), np.array(optional)))
        return [blocks[number] for number in order], optional.count(False)

    @property
    def _block(self) -> int:
        """How many units of a layer go together."""
        return 1 if self._setting.cost == "units" else self._setting.block

    def _blocks(self, worth: np.ndarray) -> list[np.ndarray]:
        """Returns units of the same layers in blocks, the best first.

        A smaller last block is merged into the one before it.
        """
        size, blocks = self._block, []
        for units in self._coupling.by_place:
            units = units[np.argsort(-worth[units], kind="stable")]
            ends = range(size, len(units) - size + 1, size)
            blocks += np.split(units, ends)
        return blocks

    def _check_allowed(self, blocks: list[np.ndarray], part: Part) -> None:
        """Raises a ValueError if what always stays costs too much."""
        cost = self._cost(self._union(blocks))
        if cost > part.kept:
            everything = self._cost(np.ones(self._coupling.count, bool))
            block = "" if self._block == 1 else f", block={self._block}"
            advice = ". A smaller block removes more" if block else ""
            raise ValueError(
                f"Expected a sparsity that leaves each layer a few units: no more than "
                f"{1 - cost / everything:.3f} of the "
                f"{self._setting.cost.replace('_', '-')} of this model can be removed. "
                f"Received: sparsity={part.sparsity}{block}{advice}"
            )

    def _filled(
        self, blocks: list[np.ndarray], least: int, allowed: int
    ) -> list[np.ndarray]:
        """Returns the best blocks, as many as are allowed, and any that still fit."""
        counts = range(least, len(blocks) + 1)
        longest = bisect.bisect_right(
            counts, allowed, key=lambda n: self._cost(self._union(blocks[:n]))
        )
        run = counts[longest - 1]
        chosen, cost = blocks[:run], self._cost(self._union(blocks[:run]))
        for block in blocks[run:]:
            if cost >= _CLOSE * allowed:
                break
            more = self._cost(self._union([*chosen, block]))
            if more <= allowed:
                chosen, cost = [*chosen, block], more
        return chosen

    def _union(self, blocks: list[np.ndarray]) -> np.ndarray:
        """Returns which units are in any of some blocks."""
        keep = np.zeros(self._coupling.count, bool)
        keep[np.concatenate([*blocks, np.arange(0)])] = True
        return keep

    def _cost(self, keep: np.ndarray) -> int:
        """Returns the cost of the kept units and of all that is not a unit."""
        if self._setting.cost == "units":
            return int(keep.sum())
        total = 0
        for rule, use in self._coupling.uses:
            lengths = dict(enumerate(use.weight.shape))
            for axis in use.axes:
                units = self._coupling.units(rule, use, axis)
                lengths[axis % len(lengths)] = int(np.append(keep, True)[units].sum())
            total += math.prod(lengths.values()) * self._times(use.positions)
        return total

    def _own_costs(self) -> np.ndarray:
        """Returns the cost of each unit while all others are kept."""
        costs = np.zeros(self._coupling.count + 1)  # the last: not a unit
        if self._setting.cost == "units":
            return costs[:-1] + 1
        for rule, use in self._coupling.uses:
            size = math.prod(use.weight.shape) * self._times(use.positions)
            for axis in use.axes:
                units = self._coupling.units(rule, use, axis)
                np.add.at(costs, units, size / use.weight.shape[axis])
        return costs[:-1]

    def _times(self, positions: int) -> int:
        return positions if self._setting.cost == "multiply_adds" else 1

    def masks(
        self, kernels: Kernels, chosen: Mapping[str, PackedMask]
    ) -> dict[str, PackedMask]:
        """Returns the masks of all weights, without the removed units."""
        del kernels
        keep = np.append(chosen[_ALL].unpack(), True)
        masks = {}
        for rule, use in self._coupling.uses:
            if id(use.weight) not in self._coupling.paths:
                continue
            mask = np.ones(use.weight.shape, bool)
            for axis in use.axes:
                along = [1] * mask.ndim
                along[axis] = -1
                mask &= keep[self._coupling.units(rule, use, axis)].reshape(along)
            path = self._coupling.paths[id(use.weight)]
            masks[path] = PackedMask(np.packbits(mask), mask.shape)
        return masks

    def describe_zeros(self, zeros: Mapping[str, int]) -> str:
        """Returns the warning about units kept only because of their position."""
        return (
            f"{zeros[_ALL]} of the kept units have a score of zero, like others that "
            "were removed, and were chosen by position alone. Most often this is "
            "because a layer after them is initialized with zeros: initialize it with "
            "small random numbers, or score after a few steps of training."
        )
