"""Calls that cannot be analysed: those without a rule that accepts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from snip_tf.graph.rules.rule import Rule, Use, known_product
from snip_tf.weights import why_not_prunable

layers = keras.layers

_Shape = Sequence[int | None]


class Opaque(Rule):
    """A call that cannot be analysed: it needs all its inputs, and stays unchanged."""

    analysed = False

    def uses(self) -> list[Use]:
        kernels = [
            weight
            for weight in getattr(self.operation, "weights", [])
            if why_not_prunable(weight.path, weight) is None
        ]
        if not kernels:
            return []
        shapes = (self.inputs[0].shape, self.outputs[0].shape)
        times = _times_multiplied(self.operation, *shapes)
        return [Use(kernel, times, {}) for kernel in kernels]


def _times_multiplied(layer: Any, given: _Shape, made: _Shape) -> int:
    """Returns how many times each number of a layer's kernels is multiplied.

    This is for one example. A layer that is not built-in counts as multiplying once for
    each position of its output.

    Args:
        layer: of any class.
        given, made: the shapes of its input and of its output.
    """
    if isinstance(layer, layers.TimeDistributed):
        inner = ([shape[0], *shape[2:]] for shape in (given, made))
        return known_product(given[1:2]) * _times_multiplied(layer.layer, *inner)
    if isinstance(layer, layers.Bidirectional):
        return _times_multiplied(layer.forward_layer, given, made)
    if isinstance(layer, layers.RNN):
        return known_product(given[1:2]) * _places_of_a_step(layer, made)
    if isinstance(layer, layers.EinsumDense) and "." not in layer.equation:
        names, kernel = layer.equation.split("->")[0].split(",")
        sizes = zip(names[1:], given[1:], strict=True)
        return known_product([size for name, size in sizes if name not in kernel])
    if getattr(layer, "data_format", None) == "channels_first":
        return known_product(made[2:])
    return known_product(made[1:-1])


def _places_of_a_step(layer: Any, made: _Shape) -> int:
    """Returns the image size of a convolutional recurrent layer, or 1 for others."""
    convolutional = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
    rank = len(layer.kernel_size) if isinstance(layer, convolutional) else 0
    return known_product(made[-1 - rank : -1])
