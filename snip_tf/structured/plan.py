"""Plans what can be removed from a network, over its whole graph."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Copy, Edit, Names, rebuild
from snip_tf.graph.graph import Graph, Node, hides_masks, tensors
from snip_tf.graph.rules import rule_of
from snip_tf.graph.rules.rule import Rule, feature_count, unknown

# By id of a tensor: what is known of its features.
_Known = dict[int, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Rebuilt:
    """The network of what is kept.

    Attributes:
        model: the network.
        calls: for each rule of the plan, the new call, or None if there is none.
    """

    model: keras.Model
    calls: list[Node | None]


class Plan:
    """Which features of each tensor of a graph are kept.

    One pass forward finds what is constant, one backward what the outputs need, and one
    more forward what is worth keeping besides. As the graph has no cycles (those of
    recurrent layers are inside these), another round would find nothing more.

    Args:
        graph: the network.
        tolerance: the largest magnitude of a weight that counts as zero.

    Attributes:
        rules: for each call of the graph, how it passes features on.
    """

    def __init__(self, graph: Graph, tolerance: float):
        self._graph = graph
        shared, hidden = _shared_layers(graph), hides_masks(graph)
        self.rules = [
            rule_of(node, tolerance, id(node.operation) in shared, hidden)
            for node in graph.nodes
        ]
        self._constants = self._find_constants()
        self._kept = self._raised(self._find_needed())

    def _find_constants(self) -> _Known:
        constants = {id(t): unknown(t) for t in tensors(self._graph.inputs)}
        for rule in self.rules:
            outputs = rule.constants(_look_up(rule.inputs, constants))
            constants.update(_by_id(rule.outputs, outputs))
        return constants

    def _find_needed(self) -> _Known:
        made = (tensor for rule in self.rules for tensor in rule.outputs)
        needed = {id(tensor): np.zeros(feature_count(tensor), bool) for tensor in made}
        for tensor in (*tensors(self._graph.inputs), *tensors(self._graph.outputs)):
            needed[id(tensor)] = np.ones(feature_count(tensor), bool)
        for rule in reversed(self.rules):
            constants = self.constants(rule)
            kept = rule.kept(_look_up(rule.outputs, needed), constants)
            needed.update(_by_id(rule.outputs, kept))
            for tensor, need in _by_id(rule.inputs, rule.needed(kept, constants)):
                needed[tensor] = needed[tensor] | need
        return needed

    def _raised(self, needed: _Known) -> _Known:
        kept = dict(needed)
        for rule in self.rules:
            outputs = _look_up(rule.outputs, kept)
            if any(keep.any() for keep in outputs):
                given = _look_up(rule.inputs, kept)
                raised = rule.raise_to_minimum(given, outputs, self.constants(rule))
                kept.update(_by_id(rule.outputs, raised))
        return kept

    def constants(self, rule: Rule) -> Arrays:
        """Returns the values of a call's inputs by feature, NaN where they vary."""
        return _look_up(rule.inputs, self._constants)

    def edit(self, rule: Rule, copy: Copy, names: Names) -> Edit | None:
        """Returns the edit of a call, or None if nothing depends on it."""
        outputs = _look_up(rule.outputs, self._kept)
        if not any(keep.any() for keep in outputs):
            return None
        inputs = _look_up(rule.inputs, self._kept)
        return Edit(inputs, outputs, self.constants(rule), copy, names)

    def blockers(self) -> list[Rule]:
        """Returns the calls that cannot be analysed and do not return the outputs."""
        ends = {id(tensor) for tensor in tensors(self._graph.outputs)}
        return [
            rule
            for rule in self.rules
            if not rule.analysed and not ends.issuperset(map(id, rule.outputs))
        ]

    def rebuild(self, copy: Copy) -> Rebuilt:
        """Returns the network of what is kept.

        Args:
            copy: copies an operation that stays unchanged.
        """
        caller = _Caller(self, copy, Names(self._graph))
        model = rebuild(self._graph, caller.call)
        return Rebuilt(model, caller.calls)


class _Caller:
    """Makes the calls of the smaller network, in the plan's order."""

    def __init__(self, plan: Plan, copy: Copy, names: Names):
        self._plan = plan
        self._copy = copy
        self._names = names
        self._rules = {rule.node: rule for rule in plan.rules}
        self._named: set[keras.Operation] = set()
        self.calls: list[Node | None] = []

    def call(self, node: Node, inputs: list[Any]) -> Any:
        """Makes a call on new inputs; returns its outputs, or None if it is removed."""
        rule = self._rules[node]
        edit = self._plan.edit(rule, self._copy, self._names)
        if edit is None:
            self.calls.append(None)
            return None
        operation: Any = rule.smaller(edit)
        if operation not in self._named:
            operation.name = self._names.of(node)
            self._named.add(operation)
        outputs = rule.call(operation, inputs, edit)
        if isinstance(operation, keras.Layer) and operation.weights:
            rule.fill(operation, edit)
        self.calls.append(Node(operation, operation.name, (), {}, outputs))
        return outputs


def _look_up(tensors: Iterable[keras.KerasTensor], known: _Known) -> Arrays:
    return [known[id(tensor)] for tensor in tensors]


def _by_id(
    tensors: list[keras.KerasTensor], values: Arrays
) -> Iterator[tuple[int, np.ndarray]]:
    return zip(map(id, tensors), values, strict=True)


def _shared_layers(graph: Graph) -> set[int]:
    """Returns the ids of layers with weights that are used more than once."""
    calls = collections.Counter(id(node.operation) for node in graph.nodes)
    users = collections.Counter(
        id(weight) for layer in graph.layers() for weight in layer.weights
    )
    return {
        id(layer)
        for layer in graph.layers()
        if layer.weights
        and (calls[id(layer)] > 1 or any(users[id(w)] > 1 for w in layer.weights))
    }
