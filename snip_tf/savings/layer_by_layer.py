"""Runs a model layer by layer on NumPy arrays, each layer in its fastest way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from snip_tf.graph.graph import (
    Graph,
    Node,
    carry_masks,
    hides_masks,
    is_tensor,
    tensors,
)
from snip_tf.savings.sparse_steps import Step, Way, ways_of
from snip_tf.savings.timing import fastest, median_seconds

# A dense kernel is in the cache while it is timed, but often not in real use.
_OUT_OF_CACHE = 1.2


def passes_no_masks(graph: Graph) -> bool:
    """Returns whether no layer receives a mask with its arrays."""
    return not hides_masks(graph) and not any(map(_reads_a_mask, graph.nodes))


def _reads_a_mask(node: Node) -> bool:
    """Returns whether a layer may read a mask on its inputs, which arrays do not carry.

    Most layers take masks as arguments, which are in the graph; built-in layers without
    such an argument read none.
    """
    layer = node.operation
    if not isinstance(layer, keras.Layer) or not carry_masks(tensors(node.args)):
        return False
    if tensors(node.kwargs.get("mask")):
        return False
    return not type(layer).__module__.startswith("keras.") or any(
        name.endswith("mask") for name in inspect.signature(layer.call).parameters
    )


class LayerByLayer:
    """The ways of running each call of a graph, and the choice among them."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._ways = [ways_of(node) for node in graph.nodes]

    def measured(self, x: Any) -> tuple[Program, dict[str, str]]:
        """Returns a program that runs each layer in its fastest way, and these ways.

        Args:
            x: a batch, on which the layers are timed in the model's order.
        """
        inputs = map(id, tensors(self._graph.inputs))
        arrays = map(np.asarray, keras.tree.flatten(x))
        values = dict(zip(inputs, arrays, strict=True))
        steps: list[Step] = []
        chosen: dict[str, str] = {}
        for node, ways in zip(self._graph.nodes, self._ways, strict=True):
            given = [values[id(tensor)] for tensor in node.inputs()]
            way = _fastest_way(ways, given)
            if len(ways) > 1:
                chosen[node.name] = way
            steps.append(ways[way])
            outputs = tensors(node.outputs)
            made = _as_list(ways[way](*given), len(outputs))
            values.update(zip(map(id, outputs), made, strict=True))
        return Program(self._graph, steps), chosen


def _fastest_way(ways: dict[Way, Step], given: list[Any]) -> Way:
    if "sparse" not in ways:
        return "dense"
    seconds = median_seconds({str(way): step for way, step in ways.items()}, *given)
    seconds["dense"] *= _OUT_OF_CACHE
    return "sparse" if fastest(seconds) == "sparse" else "dense"


def _as_list(made: Any, count: int) -> Iterable[Any]:
    return [made] if count == 1 else keras.tree.flatten(made)


class Program:
    """The calls of a graph on NumPy arrays, one after another."""

    def __init__(self, graph: Graph, steps: list[Step]):
        self._outputs = graph.outputs
        self._nested = not is_tensor(graph.inputs)
        inputs = tensors(graph.inputs)
        # The model casts its inputs.
        self._dtypes = [np.float32 if t.dtype == "float32" else None for t in inputs]
        places = _Places()
        for tensor in inputs:
            places.of(tensor)
        self._calls: list[tuple[Callable[..., Any], list[int], list[int]]] = []
        for node, step in zip(graph.nodes, steps, strict=True):
            given = [places.of(tensor) for tensor in node.inputs()]
            made = [places.of(tensor) for tensor in tensors(node.outputs)]
            self._calls.append((step, given, made))
        self._empty = [None] * (len(places) - len(inputs))
        self._returned = [places.of(tensor) for tensor in tensors(graph.outputs)]

    def __call__(self, x: Any) -> Any:
        """Returns the outputs for one batch."""
        given = keras.tree.flatten(x) if self._nested else [x]
        values: list[Any] = [*map(np.asarray, given, self._dtypes), *self._empty]
        for step, taken, made in self._calls:
            outputs = step(*(values[i] for i in taken))
            if len(made) == 1:
                values[made[0]] = outputs
            else:
                for i, output in zip(made, keras.tree.flatten(outputs), strict=True):
                    values[i] = output
        returned = [values[i] for i in self._returned]
        if is_tensor(self._outputs):
            return returned[0]
        return keras.tree.pack_sequence_as(self._outputs, returned)


class _Places:
    """Numbers the tensors of a graph, in order of first use."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, tensor: keras.KerasTensor) -> int:
        return self._numbers.setdefault(id(tensor), len(self._numbers))
