"""Activations, normalization and arithmetic on the features of one tensor."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.graph import Node
from snip_tf.graph.rules.passing import Passing
from snip_tf.graph.rules.rule import is_elementwise, on_constants


class Elementwise(Passing):
    """A function of each number by itself, which maps constants to constants."""

    @classmethod
    def accepts(cls, node: Node) -> bool:
        return super().accepts(node) and only_numbers_beside(node)

    def constants(self, inputs: Arrays) -> Arrays:
        return [on_constants(self.node, inputs)]


class Activation(Elementwise):
    """An `Activation` layer, with any function."""

    @classmethod
    def accepts(cls, node: Node) -> bool:
        return super().accepts(node) and is_elementwise(node.operation.activation)


class Rescaling(Elementwise):
    """A `Rescaling` by single numbers, not by one per feature."""

    @classmethod
    def accepts(cls, node: Node) -> bool:
        layer = node.operation
        by_numbers = np.ndim(layer.scale) == np.ndim(layer.offset) == 0
        return super().accepts(node) and by_numbers


class BatchNormalization(Elementwise):
    """Batch normalization of the features, in inference mode."""

    @classmethod
    def accepts(cls, node: Node) -> bool:
        last = (-1, len(node.inputs()[0].shape) - 1)
        return super().accepts(node) and node.operation.axis in last

    def fill(self, operation: Any, edit: Edit) -> None:
        for new, old in zip(operation.weights, self.operation.weights, strict=True):
            new.assign(keras.ops.convert_to_numpy(old)[..., edit.outputs[0]])


def only_numbers_beside(node: Node) -> bool:
    """Returns whether a call has only tensors, numbers and names as arguments."""
    plain = (int, float, str, bool)
    return all(isinstance(argument, plain) for argument in node.other_arguments())
