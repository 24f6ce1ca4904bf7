"""Convolutions and their transposes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from snip_tf.graph.graph import Node
from snip_tf.graph.rules.dense import Dense
from snip_tf.graph.rules.rule import Axes, Use, positions


class Convolution(Dense):
    """Sums of products at each position."""

    size_setting = "filters"

    @classmethod
    def accepts(cls, node: Node) -> bool:
        # (Transposed and separable ones have no groups.)
        groups = getattr(node.operation, "groups", 1)
        return super().accepts(node) and groups == 1

    def passes_constants(self) -> bool:
        layer = self.operation
        return layer.padding == "valid" or {*layer.kernel_size} == {1}


class TransposedConvolution(Convolution):
    """A convolution whose kernel has the outputs before the inputs."""

    def weight(self) -> np.ndarray:
        return super().weight().swapaxes(-1, -2)

    def passes_constants(self) -> bool:
        return False  # positions have different numbers of summands

    def uses(self) -> list[Use]:
        inputs, outputs = map(np.arange, self.connections.shape)
        axes: Axes = {-1: ("input", inputs), -2: ("output", outputs)}
        return [Use(self.operation.kernel, positions(self.inputs[0]), axes, read=-1)]

    def assign(self, operation: Any, rows: np.ndarray, columns: np.ndarray) -> None:
        kernel = keras.ops.convert_to_numpy(self.operation.kernel)
        operation.kernel.assign(kernel[..., columns, :][..., rows])
