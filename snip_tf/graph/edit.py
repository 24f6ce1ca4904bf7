"""Rebuilds a model from its graph, with some operations replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from snip_tf._keras import operation_of
from snip_tf.graph.graph import Graph, Node, tensors
from snip_tf.masking.copied_graphs import input_like
from snip_tf.masking.reach import attributes_of

Arrays = list[np.ndarray]
# Copies an operation, or the value of one of its settings, unchanged.
Copy = Callable[[Any], Any]


class Names:
    """Gives each operation of a rebuilt model a unique name."""

    def __init__(self, graph: Graph):
        self._taken = {tensor.name for tensor in tensors(graph.inputs)}
        self._of_graph = {node.name.rpartition("/")[2] for node in graph.nodes}

    def of(self, node: Node) -> str:
        """Returns the operation's name, with those of its models if it is taken."""
        name = node.name.rpartition("/")[2]
        if name in self._taken:
            name = node.name.replace("/", "_")
        return self._unused(name, self._taken)

    def new(self, name: str) -> str:
        """Returns a fresh name for a new operation."""
        return self._unused(name, self._taken | self._of_graph)

    def _unused(self, base: str, taken: set[str]) -> str:
        name, count = base, 1
        while name in taken:
            name = f"{base}_{count}"
            count += 1
        self._taken.add(name)
        return name


def rebuild(graph: Graph, call: Callable[[Node, list[Any]], Any]) -> keras.Model:
    """Returns a model built from a graph, in which each call may be replaced.

    Args:
        graph: the calls.
        call: makes the new call, given a `Node` and a list of new inputs (None where an
            input was left out). Returns its outputs, or None to leave the call out.
    """
    inputs = keras.tree.map_structure(input_like, graph.inputs)
    new = dict(zip(map(id, tensors(graph.inputs)), tensors(inputs), strict=True))
    for node in graph.nodes:
        outputs = call(node, [new.get(id(tensor)) for tensor in node.inputs()])
        if outputs is not None:
            new.update(
                zip(map(id, tensors(node.outputs)), tensors(outputs), strict=True)
            )
    for tensor in tensors(inputs):
        # Older versions of Keras (3.13) refuse an unused input.
        keras.layers.Identity(name="unread")(tensor)
    return keras.Model(
        inputs, keras.tree.map_structure(lambda tensor: new[id(tensor)], graph.outputs)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Edit:
    """What becomes of one call.

    Attributes:
        inputs, outputs: for each of its tensors, which features are kept.
        constants: the values of the constant features of the inputs, NaN elsewhere.
        copy: copies an operation unchanged.
        names: gives the operations of the new model their names.
    """

    inputs: Arrays
    outputs: Arrays
    constants: Arrays
    copy: Copy
    names: Names

    def like(self, operation: keras.Operation, **settings: Any) -> keras.Operation:
        """Returns a new operation with the settings of the old, except for these."""
        return like(operation, self.copy, **settings)

    def gathered(self, tensor: Any, given: np.ndarray, wanted: np.ndarray) -> Any:
        """Returns the wanted features of a tensor that has the given ones."""
        if np.array_equal(given, wanted):
            return tensor
        positions = np.flatnonzero(wanted[given]).astype(np.int32)
        picked = keras.ops.take(tensor, positions, axis=-1)
        # Named, since Keras numbers it by what was made in this process, not in this
        # model.
        operation_of(picked).name = self.names.new("take")
        return picked

    def keeps_all(self) -> bool:
        """Returns whether every feature stays."""
        return all(keep.all() for keep in self.inputs + self.outputs)


def like(operation: Any, copy: Copy, **settings: Any) -> Any:
    """Returns a new operation, not built, with the old settings, except for these.

    Regularizers, initializers, constraints and activations are passed as objects, since
    those of a user may have no configuration, or one that Keras cannot read.

    Args:
        operation: a built-in layer of Keras, or an operation of `keras.ops`.
        copy: copies what holds state, such as a layer that is an activation.
        **settings: the settings that differ.
    """
    attributes = attributes_of(operation)
    if isinstance(operation, keras.layers.RNN):
        attributes = {**attributes_of(operation.cell), **attributes}
    config = _without_objects(operation).get_config()
    objects = {
        name: value
        for name, value in attributes.items()
        if name.endswith(tuple(_NEUTRAL)) and value is not None
    }
    config |= {name: copy(value) for name, value in objects.items() if name in config}
    new = type(operation).from_config({**config, **settings})
    # Any layer takes this one, but few have it in their configuration.
    if "activity_regularizer" in objects:
        new.activity_regularizer = copy(objects["activity_regularizer"])
    return new


# Suffixes of the names of such settings, and what replaces them in a configuration.
_NEUTRAL = {
    "activation": keras.activations.linear,
    "constraint": None,
    "initializer": None,
    "regularizer": None,
}


def _without_objects(layer: Any) -> Any:
    """Returns a stand-in with the attributes of a layer, but neutral objects."""
    stand_in = object.__new__(type(layer))
    for name, value in attributes_of(layer).items():
        ends = [end for end in _NEUTRAL if name.endswith(end)]
        vars(stand_in)[name] = _NEUTRAL[ends[0]] if ends else value
    if isinstance(layer, keras.layers.RNN):
        vars(stand_in)["cell"] = _without_objects(layer.cell)
    return stand_in
