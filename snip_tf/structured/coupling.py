"""Features that must be removed together: the units of a network."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping

import keras
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from snip_tf.graph.graph import Graph, tensors
from snip_tf.graph.rules.rule import Rule, Use, feature_count
from snip_tf.structured.plan import Plan


class Coupling:
    """The units of a network that can be removed.

    Features that are added up, or that a layer passes on separately, are removed
    together or not at all: they are one unit. The features of the model's inputs and
    outputs stay, as does whatever is coupled to them or to a layer that cannot be
    analysed.

    Args:
        graph: the network.
        weights: `{weight path: variable}` that may be pruned. A unit stays if any other
            weight reads it.

    Attributes:
        uses: each weight by which a layer multiplies, and the rule of that layer.
        paths: `{id of a variable: weight path}` of the weights that may be pruned.
        count: the number of units.
        unit_of: the unit of each feature, or -1 where it stays.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, keras.Variable]):
        rules = Plan(graph, tolerance=0.0).rules
        self.uses = [(rule, use) for rule in rules for use in rule.uses()]
        self.paths = {id(weight): path for path, weight in weights.items()}
        outputs = [tensor for rule in rules for tensor in rule.outputs]
        self._positions = _positions([*tensors(graph.inputs), *outputs])
        groups = _connected(self._coupled(rules), self._feature_count)
        stay = np.unique(groups[self._staying(graph, rules)])
        removable = np.setdiff1d(groups, stay)
        self.count = len(removable)
        unit_of_group = np.full(groups.max() + 1, -1)
        unit_of_group[removable] = np.arange(self.count)
        self.unit_of = unit_of_group[groups]

    @property
    def _feature_count(self) -> int:
        return sum(map(len, self._positions.values()))

    def features(self, rule: Rule, use: Use, axis: int) -> np.ndarray:
        """Returns the feature of each entry along an axis of a weight."""
        side, numbers = use.axes[axis]
        tensor = rule.inputs[0] if side == "input" else rule.outputs[0]
        return self._positions[id(tensor)][0] + numbers

    def units(self, rule: Rule, use: Use, axis: int) -> np.ndarray:
        """Returns the unit of each entry along an axis, or -1 where it stays."""
        return self.unit_of[self.features(rule, use, axis)]

    @functools.cached_property
    def by_layer(self) -> list[np.ndarray]:
        """The units of each tensor whose features can all be removed."""
        units = (self.unit_of[features] for features in self._positions.values())
        return [np.unique(some) for some in units if some.min() >= 0]

    @functools.cached_property
    def by_place(self) -> list[np.ndarray]:
        """Groups of all units that occur in the same layers."""
        layers: list[list[int]] = [[] for _ in range(self.count)]
        for number, units in enumerate(self.by_layer):
            for unit in units:
                layers[unit].append(number)
        places: dict[tuple[int, ...], list[int]] = {}
        for unit, numbers in enumerate(layers):
            places.setdefault(tuple(numbers), []).append(unit)
        return [np.array(units) for units in places.values()]

    def _coupled(self, rules: Iterable[Rule]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns pairs of features that must be removed together."""
        pairs = []
        for rule in rules:
            numbers = [number for side in rule.coupled() for number in side]
            of_tensors = zip(numbers, rule.inputs + rule.outputs, strict=True)
            known = [(n, tensor) for n, tensor in of_tensors if n is not None]
            if known:
                number = np.concatenate([n for n, _ in known])
                features = [self._positions[id(tensor)] for _, tensor in known]
                pairs.append(_pairs(number, np.concatenate(features)))
        return pairs

    def _staying(self, graph: Graph, rules: Iterable[Rule]) -> np.ndarray:
        """Returns the features that stay regardless of coupling."""
        ends = [*tensors(graph.inputs), *tensors(graph.outputs)]
        for rule in rules:
            if not rule.analysed:
                ends += rule.inputs + rule.outputs
        stay = [self._positions[id(tensor)] for tensor in ends]
        for rule, use in self.uses:
            if use.read is not None and id(use.weight) not in self.paths:
                stay.append(self.features(rule, use, use.read))
        return np.unique(np.concatenate(stay))


def _positions(all_tensors: Iterable[keras.KerasTensor]) -> dict[int, np.ndarray]:
    """Returns a number for each feature of all tensors, by the id of the tensor."""
    numbered: dict[int, np.ndarray] = {}
    start = 0
    for tensor in all_tensors:
        if id(tensor) not in numbered:
            numbered[id(tensor)] = start + np.arange(feature_count(tensor))
            start += feature_count(tensor)
    return numbered


def _pairs(number: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each feature, paired with the first one of the same number."""
    _, first, which = np.unique(number, return_index=True, return_inverse=True)
    return features, features[first][which]


def _connected(
    pairs: Collection[tuple[np.ndarray, np.ndarray]], count: int
) -> np.ndarray:
    """Returns a number for each feature, the same for those that pairs connect."""
    rows, columns = (
        np.concatenate([np.arange(0), *(pair[side] for pair in pairs)])
        for side in (0, 1)
    )
    edges = scipy.sparse.coo_array(
        (np.ones(len(rows), bool), (rows, columns)), (count, count)
    )
    return scipy.sparse.csgraph.connected_components(edges, directed=False)[1]
