"""What can be removed from a network, worked out over the whole of its graph."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from snip_tf.graph.graph import Graph, Names, Node, hides_masks, remade, tensors
from snip_tf.graph.rules import kind_of
from snip_tf.graph.rules.rule import Change, Kind, feature_count, unknown


class Plan:
    """Which features of each tensor of a graph are kept.

    One walk forward finds what is constant, one back what is needed by the outputs, and
    one more forward what is left. As the graph has no cycle (the cycles of recurrent
    layers are looked at inside these), nothing more could be found by another.

    Args:
        graph: the network.
        tolerance: the largest magnitude of a weight that counts as zero.

    Attributes:
        kinds: for each call of the graph, how it passes features on.
        made: for each of them the call that `carry_out` made in its place, or None.
    """

    def __init__(self, graph: Graph, tolerance: float):
        self._graph = graph
        self.made: list[Node | None] = []
        shared = _shared_layers(graph)
        self.kinds = [kind_of(node, tolerance, shared) for node in graph.nodes]
        if hides_masks(graph):
            for kind in self.kinds:
                kind.has_masks = True
        self._constants = {id(t): unknown(t) for t in tensors(graph.inputs)}
        for kind in self.kinds:
            outputs = kind.constants(self._of(self._constants, kind.inputs))
            self._constants.update(_by_id(kind.outputs, outputs))
        self._kept = self._needed()
        for kind in self.kinds:
            kept = self._of(self._kept, kind.outputs)
            if any(keep.any() for keep in kept):
                kept = kind.settled(self._of(self._kept, kind.inputs), kept)
                self._kept.update(_by_id(kind.outputs, kept))

    def _needed(self) -> dict[int, np.ndarray]:
        needed = {
            id(tensor): np.zeros(feature_count(tensor), bool)
            for kind in self.kinds
            for tensor in kind.outputs
        }
        for tensor in (*tensors(self._graph.inputs), *tensors(self._graph.outputs)):
            needed[id(tensor)] = np.ones(feature_count(tensor), bool)
        for kind in reversed(self.kinds):
            kept = kind.kept(self._of(needed, kind.outputs))
            needed.update(_by_id(kind.outputs, kept))
            constants = self._of(self._constants, kind.inputs)
            of_inputs = kind.needed(kept, constants)
            for tensor, need in zip(kind.inputs, of_inputs, strict=True):
                needed[id(tensor)] = needed[id(tensor)] | need
        return needed

    def _of(
        self, known: dict[int, np.ndarray], of: list[keras.KerasTensor]
    ) -> list[np.ndarray]:
        return [known[id(tensor)] for tensor in of]

    def change(self, kind: Kind, copy: Callable, names: Names) -> Change | None:
        """What becomes of a call; None if nothing depends on it."""
        outputs = self._of(self._kept, kind.outputs)
        if not any(keep.any() for keep in outputs):
            return None
        inputs = self._of(self._kept, kind.inputs)
        constants = self._of(self._constants, kind.inputs)
        return Change(inputs, outputs, constants, copy, names)

    def constants(self, kind: Kind) -> list[np.ndarray]:
        """The values of the features of a call's inputs, NaN where they vary."""
        return self._of(self._constants, kind.inputs)

    def blockers(self) -> list[Kind]:
        """The calls that cannot be analysed, but for those that make the outputs."""
        ends = {id(tensor) for tensor in tensors(self._graph.outputs)}
        return [
            kind
            for kind in self.kinds
            if not kind.analysed and not ends.issuperset(map(id, kind.outputs))
        ]

    def carry_out(self, copy: Callable[[keras.Operation], Any]) -> keras.Model:
        """The network of what is kept."""
        kinds, names = iter(self.kinds), Names(self._graph)
        known: set[keras.Operation] = set()

        def call(node: Node, given: list[Any]) -> Any:
            kind = next(kinds)
            change = self.change(kind, copy, names)
            if change is None:
                self.made.append(None)
                return None
            operation = kind.smaller(change)
            if operation not in known:
                operation.name = names.of(node)
                known.add(operation)
            outputs = kind.call(operation, given, change)
            if isinstance(operation, keras.Layer) and operation.weights:
                kind.fill(operation, change)
            self.made.append(Node(operation, operation.name, (), {}, outputs))
            return outputs

        return remade(self._graph, call)


def _by_id(of: list[keras.KerasTensor], values: list[Any]) -> Any:
    return zip(map(id, of), values, strict=True)


def _shared_layers(graph: Graph) -> set[int]:
    """Layers with weights that are used more than once."""
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
