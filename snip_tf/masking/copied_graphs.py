"""Copies of the graphs of Sequential and Functional models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from snip_tf import _keras
from snip_tf.masking.copied_values import Copier
from snip_tf.masking.symbolic import symbolic_attributes


def initialize_sequence(new: Any, model: keras.Sequential, copies: Copier) -> None:
    """Makes a new Sequential model of copies of a model's layers."""
    layers = [copies.of(layer) for layer in model.layers]
    graph = _keras.graph_inside(model)
    if graph is not None:
        _keras.initialize_sequence_like(new, model)
        _keras.put_graph_inside(new, layers, copies.of(graph))
        return
    inputs = getattr(model, "inputs", None)  # none before it is built
    if inputs:
        layers = [input_like(inputs[0]), *layers]
    keras.Sequential.__init__(new, layers, name=model.name)


def copied_ends(
    model: keras.Model, attributes: Mapping[str, Any], copies: Copier
) -> tuple[Any, Any]:
    """Returns the inputs and outputs of a copy of a Functional model's graph.

    Args:
        model: the model.
        attributes: its own attributes. Symbolic tensors of the graph among them are
            treated as outputs, so that they stay in it.
        copies: copies layers, and learns the copies of these tensors.
    """
    tensors = symbolic_attributes(attributes)
    if not tensors:
        return _ends(model, copies)
    # Named, so that Keras does not count it among the user's layers.
    graph = keras.Model(model.input, [model.output, tensors], name=model.name)
    inputs, (outputs, copied_tensors) = _ends(graph, copies)
    for name, tensor in tensors.items():
        copies.remember(tensor, copied_tensors[name])
    return inputs, outputs


def _ends(graph: keras.Model, copies: Copier) -> tuple[Any, Any]:
    calls = _keras.calls_in(graph)
    tensors = [tensor for call in calls for tensor in call.outputs]
    if any(_keras.mask_on(tensor) is not None for tensor in tensors):
        # The masks of timesteps, of a graph of their own, are computed anew.
        inputs = keras.tree.map_structure(input_like, graph.input)
        clone = keras.models.clone_model(
            graph, clone_function=copies.of, input_tensors=inputs
        )
        return inputs, clone.output
    # Not called again, which would take as long as all else.
    copied: dict[int, keras.KerasTensor] = {}
    for call in calls:
        _keras.copy_call(call, copies.of(call.operation), copied)
    ends = graph.input, graph.output
    return keras.tree.map_structure(lambda old: copied[id(old)], ends)


def input_like(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Returns a new input like one that a graph has."""
    # Its layer alone knows whether an input is optional.
    layer = _keras.operation_of(tensor)
    return type(layer).from_config(layer.get_config()).output
