"""Depthwise convolutions, alone or followed by a pointwise one."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.rules.convolution import Convolution
from snip_tf.graph.rules.rule import (
    Axes,
    Groups,
    Rule,
    Use,
    as_tensor,
    is_elementwise,
    positions,
)


class DepthwiseConvolution(Rule):
    """A separate convolution of each input, whose outputs stay together."""

    def uses(self) -> list[Use]:
        axes: Axes = {-2: ("input", np.arange(self._kernel().shape[-2]))}
        return [Use(self.operation.kernel, positions(self.outputs[0]), axes)]

    def _kernel(self) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.operation.kernel)

    @property
    def _multiplier(self) -> int:
        return self.operation.depth_multiplier

    @functools.cached_property
    def _by_unit(self) -> bool:
        return is_elementwise(self.operation.activation)

    def constants(self, inputs: Arrays) -> Arrays:
        if not self._by_unit:
            return super().constants(inputs)
        layer, kernel = self.operation, self._kernel()
        kernel = kernel.reshape(*kernel.shape[:-2], -1)
        known = np.repeat(inputs[0], self._multiplier)
        places = tuple(range(kernel.ndim - 1))
        cut = ~(np.abs(kernel) > self.tolerance).any(axis=places)
        # Padding adds zeros at a border.
        same_everywhere = layer.padding == "valid" or {*layer.kernel_size} == {1}
        constant = cut | (~np.isnan(known) if same_everywhere else known == 0)
        sums = kernel.sum(axis=places, dtype=np.float64)
        value = np.where(cut | np.isnan(known), 0, known * sums)
        if layer.bias is not None:
            value = value + keras.ops.convert_to_numpy(layer.bias)
        activated = layer.activation(as_tensor(value, layer.variable_dtype))
        return [np.where(constant, keras.ops.convert_to_numpy(activated), np.nan)]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        if not self._by_unit:
            return super().kept(needed, constants)
        return [np.repeat(self._inputs_of(needed[0]), self._multiplier)]

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        return [self._inputs_of(kept[0])]

    def raise_to_minimum(
        self, given: Arrays, kept: Arrays, constants: Arrays
    ) -> Arrays:
        if self.worth_a_gather(given[0], self._inputs_of(kept[0])):
            return kept
        return [np.repeat(given[0], self._multiplier)]

    def coupled(self) -> tuple[Groups, Groups]:
        if not self._by_unit:
            return super().coupled()
        inputs = np.arange(self._kernel().shape[-2])
        return [inputs], [np.repeat(inputs, self._multiplier)]

    def reads(self, edit: Edit) -> Arrays:
        return [self._inputs_of(edit.outputs[0])]

    def smaller(self, edit: Edit) -> keras.Operation:
        make = edit.copy if edit.keeps_all() else edit.like
        return make(self.operation)

    def fill(self, operation: Any, edit: Edit) -> None:
        [rows] = self.reads(edit)
        operation.kernel.assign(self._kernel()[..., rows, :])
        if operation.bias is not None:
            bias = keras.ops.convert_to_numpy(self.operation.bias)
            operation.bias.assign(bias[edit.outputs[0]])

    def _inputs_of(self, outputs: np.ndarray) -> np.ndarray:
        return np.any(outputs.reshape(-1, self._multiplier), axis=1)


class SeparableConvolution(Convolution):
    """A depthwise convolution, then a pointwise one, treated as one convolution."""

    def weight(self) -> np.ndarray:
        depthwise, pointwise = self._kernels()
        inputs, multiplier = depthwise.shape[-2:]
        pointwise = pointwise.reshape(inputs, multiplier, -1)
        return np.einsum("...im,imo->...io", depthwise, pointwise)

    def _kernels(self) -> tuple[np.ndarray, np.ndarray]:
        layer = self.operation
        return (
            keras.ops.convert_to_numpy(layer.depthwise_kernel),
            keras.ops.convert_to_numpy(layer.pointwise_kernel),
        )

    def uses(self) -> list[Use]:
        layer, places = self.operation, positions(self.outputs[0])
        inputs, outputs = map(np.arange, self.connections.shape)
        by_input: Axes = {-2: ("input", inputs)}
        by_both: Axes = {
            -2: ("input", np.repeat(inputs, layer.depth_multiplier)),
            -1: ("output", outputs),
        }
        return [
            Use(layer.depthwise_kernel, places, by_input, read=-2),
            Use(layer.pointwise_kernel, places, by_both),
        ]

    def assign(self, operation: Any, rows: np.ndarray, columns: np.ndarray) -> None:
        depthwise, pointwise = self._kernels()
        operation.depthwise_kernel.assign(depthwise[..., rows, :])
        of_rows = np.repeat(rows, depthwise.shape[-1])
        operation.pointwise_kernel.assign(pointwise[..., of_rows, :][..., columns])
