"""Whole units: which go only together, what they are worth, what they cost."""

from __future__ import annotations

import bisect
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from snip_tf.graph.graph import Graph, tensors, trace
from snip_tf.graph.rules.rule import Use, feature_count
from snip_tf.masking.copying import copy_unmasked
from snip_tf.structured.plan import Plan
from snip_tf.weights import weights_by_path

# Processors multiply eight numbers and more at once: at half of its multiply-adds, a
# training step of ResNet-20 with 11, 23 and 45 filters is 1.1 to 1.2 times as fast as
# with 16, 32 and 64, and with 8, 24 and 56 it is 1.2 to 1.4.
_AT_ONCE = 8
# Blocks are tried until so much of a budget is used.
_CLOSE = 0.99
BUDGETS = ("units", "parameters", "multiply_adds")


def unit_masks(
    model: keras.Model,
    paths: Iterable[str],
    gradients: Mapping[str, Any],
    sparsity: float,
    budget: str,
) -> dict[str, np.ndarray]:
    """The masks that remove whole units.

    Args:
        model: a Sequential or Functional model.
        paths: those of the weights that may be pruned.
        gradients: `{weight path: dL/dw}` of these.
        sparsity: the fraction removed of what `budget`, one of `BUDGETS`, names.
    """
    copy = copy_unmasked(model)
    weights = weights_by_path(copy)
    units = Units(trace(copy), {path: weights[path] for path in paths})
    if not units.count:
        raise ValueError(
            f"Expected a model with a unit that can be removed. Received: "
            f"model={model.name!r}, whose features are all tied to its inputs, its "
            f"outputs or a layer that cannot be analysed"
        )
    scores = units.scores(gradients)
    keep = units.kept(scores, sparsity, budget)
    _warn_of_zeros(scores == 0, keep)
    return units.masks(keep)


def _warn_of_zeros(zero: np.ndarray, keep: np.ndarray) -> None:
    """Warns of units that are kept by their position alone."""
    if (zero & keep).any() and (zero & ~keep).any():
        warnings.warn(
            f"{(zero & keep).sum()} of the kept units have a score of zero, as others "
            f"that are removed, and were chosen by their position alone. Most often "
            f"this is because a layer after them is initialized with zeros: initialize "
            f"it with small random numbers, or score after a few steps of training.",
            stacklevel=4,
        )


class Units:
    """The units of a network that can be removed.

    Features that are added up, or that a layer hands on one by one, are there together
    or not at all: they are one unit. Those of the model's inputs and outputs stay, as
    does whatever is tied to them or to a layer that cannot be analysed.

    Args:
        graph: the network.
        weights: `{weight path: variable}` that may be pruned. A unit stays if another
            weight reads it.

    Attributes:
        count: the number of units that can be removed.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, keras.Variable]):
        self._plan = Plan(graph, tolerance=0.0)
        self._path_of = {id(weight): path for path, weight in weights.items()}
        self._start: dict[int, int] = {}  # of the features of each tensor
        self._features = 0
        for tensor in self._tensors(graph):
            self._start[id(tensor)] = self._features
            self._features += feature_count(tensor)
        self._uses = [(rule, use) for rule in self._plan.rules for use in rule.uses()]
        of_feature = self._tied_features()
        fixed = np.unique(of_feature[self._fixed(graph)])
        free = np.setdiff1d(of_feature, fixed)
        self.count = len(free)
        # The unit of each feature, or -1 where it stays.
        self._unit = np.full(of_feature.max() + 1, -1)
        self._unit[free] = np.arange(self.count)
        self._unit = self._unit[of_feature]
        self._layers = self._units_by_layer()
        self._places = self._units_by_place()

    def _tensors(self, graph: Graph) -> list[keras.KerasTensor]:
        outputs = [tensor for rule in self._plan.rules for tensor in rule.outputs]
        return [*tensors(graph.inputs), *outputs]

    def _of(self, tensor: keras.KerasTensor) -> np.ndarray:
        """The features of a tensor."""
        start = self._start[id(tensor)]
        return np.arange(start, start + feature_count(tensor))

    def _tied_features(self) -> np.ndarray:
        """A number for each feature, the same for those that are tied."""
        rows, columns = [np.arange(0)], [np.arange(0)]
        for rule in self._plan.rules:
            numbers = [number for side in rule.coupled() for number in side]
            tied = [
                (number, self._of(tensor))
                for number, tensor in zip(
                    numbers, rule.inputs + rule.outputs, strict=True
                )
                if number is not None
            ]
            if tied:
                number, features = map(np.concatenate, zip(*tied, strict=True))
                _, first, which = np.unique(
                    number, return_index=True, return_inverse=True
                )
                rows.append(features)
                columns.append(features[first][which])
        rows, columns = map(np.concatenate, (rows, columns))
        edges = scipy.sparse.coo_array(
            (np.ones(len(rows), bool), (rows, columns)), (self._features,) * 2
        )
        return scipy.sparse.csgraph.connected_components(edges, directed=False)[1]

    def _fixed(self, graph: Graph) -> np.ndarray:
        """The features that stay by themselves."""
        ends = [*tensors(graph.inputs), *tensors(graph.outputs)]
        for rule in self._plan.rules:
            if not rule.analysed:
                ends += rule.inputs + rule.outputs
        fixed = [self._of(tensor) for tensor in ends]
        for rule, use in self._uses:
            if use.read is not None and id(use.weight) not in self._path_of:
                fixed.append(self._entries(rule, use, use.read))
        return np.unique(np.concatenate(fixed))

    def _entries(self, rule: Any, use: Use, axis: int) -> np.ndarray:
        """The feature of each entry along an axis of a weight."""
        side, features = use.axes[axis]
        tensor = rule.inputs[0] if side == "input" else rule.outputs[0]
        return self._start[id(tensor)] + features

    def _units_by_layer(self) -> list[np.ndarray]:
        """The units that each tensor has, where it has no other features."""
        found = []
        for start, end in zip(
            self._start.values(),
            [*list(self._start.values())[1:], self._features],
            strict=True,
        ):
            units = self._unit[start:end]
            if units.min() >= 0:
                found.append(np.unique(units))
        return found

    def _units_by_place(self) -> list[np.ndarray]:
        """The units that are in the same layers, all of them."""
        where: list[list[int]] = [[] for _ in range(self.count)]
        for number, units in enumerate(self._layers):
            for unit in units:
                where[unit].append(number)
        places: dict[tuple[int, ...], list[int]] = {}
        for unit, numbers in enumerate(where):
            places.setdefault(tuple(numbers), []).append(unit)
        return [np.array(units) for units in places.values()]

    def scores(self, gradients: Mapping[str, Any]) -> np.ndarray:
        """The sensitivity of each unit.

        With a gate c on the unit, by which all that it gives to others is multiplied,
        the loss changes when the unit is removed, to first order, by

            dL/dc  at c = 1  =  sum of w * dL/dw over the weights w that read the unit.

        Args:
            gradients: `{weight path: dL/dw}`.

        Returns:
            The magnitude of that, for each unit.
        """
        total = np.zeros(self.count)
        for rule, use in self._uses:
            if use.read is None or id(use.weight) not in self._path_of:
                continue
            weight = keras.ops.convert_to_numpy(use.weight)
            gradient = np.asarray(gradients[self._path_of[id(use.weight)]])
            others = tuple(
                axis for axis in range(weight.ndim) if axis != use.read % weight.ndim
            )
            read = np.sum(weight * gradient, axis=others, dtype=np.float64)
            units = self._unit[self._entries(rule, use, use.read)]
            np.add.at(total, units[units >= 0], read[units >= 0])
        return np.abs(total)

    def kept(self, scores: np.ndarray, sparsity: float, budget: str) -> np.ndarray:
        """Which units are kept: those with the largest scores, as the budget allows.

        Scores are for what a unit costs, where some cost more than others. The best
        unit of each layer stays in any case. A budget of units is met exactly; one of
        parameters or of multiply-adds is filled with blocks of eight units.
        """
        scores = scores / self._own_cost(budget)
        best = [int(units[np.argmax(scores[units])]) for units in self._layers]
        blocks = self._blocks(scores, 1 if budget == "units" else _AT_ONCE)
        first = [not np.isin(best, block).any() for block in blocks]
        worth = [scores[block].mean() for block in blocks]
        blocks = [blocks[i] for i in np.lexsort((np.negative(worth), first))]

        def of(chosen: list[np.ndarray]) -> np.ndarray:
            keep = np.zeros(self.count, bool)
            keep[np.concatenate([*chosen, np.arange(0)])] = True
            return keep

        least, everything = first.count(False), self.cost(of(blocks), budget)
        allowed = round((1 - sparsity) * everything)
        if self.cost(of(blocks[:least]), budget) > allowed:
            left = self.cost(of(blocks[:least]), budget) / everything
            raise ValueError(
                f"Expected a sparsity that leaves each layer a few units: no more than "
                f"{1 - left:.3f} of the {budget.replace('_', '-')} of this model can "
                f"be removed. Received: sparsity={sparsity}"
            )
        # The longest run of the best that the budget allows, then whatever still fits.
        counts = range(least, len(blocks) + 1)
        run = counts[
            bisect.bisect_right(
                counts, allowed, key=lambda n: self.cost(of(blocks[:n]), budget)
            )
            - 1
        ]
        chosen, cost = blocks[:run], self.cost(of(blocks[:run]), budget)
        for block in blocks[run:]:
            if cost >= _CLOSE * allowed:
                break
            more = self.cost(of([*chosen, block]), budget)
            if more <= allowed:
                chosen, cost = [*chosen, block], more
        return of(chosen)

    def _blocks(self, scores: np.ndarray, size: int) -> list[np.ndarray]:
        """The units that are in one place, from the best on, so many at a time.

        A last block of fewer goes with the one before it.
        """
        blocks = []
        for units in self._places:
            units = units[np.argsort(-scores[units], kind="stable")]
            ends = range(size, len(units) - size + 1, size)
            blocks += np.split(units, ends)
        return blocks

    def cost(self, keep: np.ndarray, budget: str) -> float:
        """What the kept units cost, and all that is not a unit."""
        if budget == "units":
            return int(keep.sum())
        there = np.append(keep, True)[self._unit]  # of the features
        total = 0
        for rule, use in self._uses:
            lengths = dict(enumerate(use.weight.shape))
            for axis in use.axes:
                entries = self._entries(rule, use, axis)
                lengths[axis % len(lengths)] = int(there[entries].sum())
            size = math.prod(lengths.values())
            total += size * (use.positions if budget == "multiply_adds" else 1)
        return total

    def _own_cost(self, budget: str) -> np.ndarray:
        """What each unit costs as long as all the others are there."""
        costs = np.zeros(self.count + 1)  # the last for what is not a unit
        if budget == "units":
            return costs[:-1] + 1
        for rule, use in self._uses:
            shape = use.weight.shape
            times = use.positions if budget == "multiply_adds" else 1
            for axis in use.axes:
                units = self._unit[self._entries(rule, use, axis)]
                np.add.at(costs, units, math.prod(shape) * times / shape[axis])
        return costs[:-1]

    def masks(self, keep: np.ndarray) -> dict[str, np.ndarray]:
        """The masks of all weights without the units that are not kept."""
        there = np.append(keep, True)[self._unit]
        masks = {}
        for rule, use in self._uses:
            if id(use.weight) not in self._path_of:
                continue
            mask = np.ones(use.weight.shape, bool)
            for axis in use.axes:
                along = [1] * mask.ndim
                along[axis] = -1
                mask &= there[self._entries(rule, use, axis)].reshape(along)
            masks[self._path_of[id(use.weight)]] = mask
        return masks
