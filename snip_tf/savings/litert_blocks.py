"""Pads dense layers to whole blocks, in which LiteRT stores sparse kernels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from snip_tf.graph.edit import Names, like, rebuild
from snip_tf.graph.graph import Node, has_graph, trace
from snip_tf.masking.copying import Copies


def with_whole_blocks(model: keras.Model, block: int) -> keras.Model:
    """Returns the same model, with zeros added to the inputs of some dense layers.

    These are the layers whose inputs are not a multiple of the block: the converter
    would silently drop the rest (TensorFlow 2.21), and outputs would be off by tenths.

    Args:
        model: a plain model.
        block: the number of inputs that the converter stores together.
    """
    if not has_graph(model):
        return model
    graph = trace(model)
    if not any(_is_cut(node, block) for node in graph.nodes):
        return model
    return rebuild(graph, _Widening(Names(graph), block).call)


class _Widening:
    """Repeats the calls of a graph, with wider layers where blocks would be cut."""

    def __init__(self, names: Names, block: int):
        self._names, self._block = names, block
        self._known: set[keras.Operation] = set()
        self._wider: dict[keras.Layer, keras.Layer] = {}
        self._copy = Copies().of

    def call(self, node: Node, given: list[Any]) -> Any:
        layer = node.operation
        if layer not in self._known:
            layer.name = self._names.of(node)
            self._known.add(layer)
        if not _is_cut(node, self._block):
            args, kwargs = node.arguments_with(given)
            return layer(*args, **kwargs)
        [x] = given
        more = -layer.kernel.shape[0] % self._block
        padded = _Pad(more, dtype=layer.compute_dtype)(x)  # LiteRT pads no other types
        if layer not in self._wider:
            self._wider[layer] = like(layer, self._copy)
        outputs = self._wider[layer](padded)
        kernel = np.pad(np.asarray(layer.kernel), [[0, more], [0, 0]])
        rest = map(np.asarray, layer.weights[1:])
        self._wider[layer].set_weights([kernel, *rest])
        return outputs


class _Pad(keras.layers.Layer):
    """Adds zeros to the features; unlike `keras.ops.pad` it passes a mask on."""

    def __init__(self, more: int, **options: Any):
        super().__init__(**options)
        self._more, self.supports_masking = more, True

    def call(self, x: Any) -> Any:
        x = keras.ops.cast(x, self.compute_dtype)
        return keras.ops.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, self._more]])


def _is_cut(node: Node, block: int) -> bool:
    """Returns whether a call is of a dense layer whose blocks might be cut."""
    layer = node.operation
    if type(layer) is not keras.layers.Dense or layer.compute_dtype != "float32":
        return False  # the converter does not make it sparse
    if not keras.backend.is_float_dtype(layer.kernel.dtype):
        return False  # quantized, which the converter itself refuses
    if layer.kernel.shape[0] % block == 0:
        return False
    return not np.all(layer.kernel)  # else it is not made sparse
