"""Layers that multiply by a kernel: dense, convolutional, embedding."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from snip_tf.graph.graph import Node
from snip_tf.graph.rules.rule import (
    Arrays,
    Change,
    Kind,
    Use,
    as_tensor,
    feature_count,
    is_elementwise,
    nonzero,
    positions,
)

layers = keras.layers

TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)


class Matrix(Kind):
    """Outputs that are sums of products of the inputs: dense layers, convolutions."""

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        layer = self.operation
        self._read = nonzero(self.weight(), tolerance)  # (inputs, outputs)
        self._by_unit = is_elementwise(layer.activation)

    def weight(self) -> np.ndarray:
        """The kernel, with inputs and outputs as its last axes."""
        kernel = keras.ops.convert_to_numpy(self.operation.kernel)
        if isinstance(self.operation, TRANSPOSED):
            kernel = kernel.swapaxes(-1, -2)
        return kernel

    def _passes_constants(self) -> bool:
        """Whether a constant input gives a constant output, at the border too."""
        if isinstance(self.operation, layers.Dense):
            return True
        if isinstance(self.operation, TRANSPOSED):
            return False
        return self.operation.padding == "valid" or {*self.operation.kernel_size} == {1}

    def _foldable(self, constants: Arrays) -> np.ndarray:
        """Which inputs are constants that the bias can stand for."""
        known = constants[0]
        return ~np.isnan(known) if self._passes_constants() else known == 0

    def _bias(self, folded: np.ndarray, constants: Arrays) -> np.ndarray:
        """The bias with these inputs in it, in double precision."""
        bias = getattr(self.operation, "bias", None)
        sums = self.weight().astype(np.float64)
        sums = sums.sum(axis=tuple(range(sums.ndim - 2)))
        bias = 0 if bias is None else keras.ops.convert_to_numpy(bias)
        return bias + np.where(folded, constants[0], 0) @ sums

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        foldable = self._foldable(inputs)
        constant = ~self._read[~foldable].any(axis=0)
        if not (self._by_unit and constant.any()):
            return [np.full(constant.shape, np.nan)]
        value = self._bias(foldable, inputs)
        layer = self.operation
        value = layer.activation(as_tensor(value, layer.variable_dtype))
        return [np.where(constant, keras.ops.convert_to_numpy(value), np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        return needed if self._by_unit else super().kept(needed)

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        read = self._read[:, kept[0]].any(axis=1) & ~self._foldable(constants)
        if kept[0].any() and not read.any():
            read[0] = True  # there is no layer without an input
        return [read]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        if self._by_unit:
            return [None], [None]
        return [None], [np.zeros(feature_count(self.outputs[0]), int)]

    def uses(self) -> list[Use]:  # noqa: D102
        transposed = isinstance(self.operation, TRANSPOSED)
        read, written = (-1, -2) if transposed else (-2, -1)
        inputs, outputs = map(np.arange, self._read.shape)
        where = self.inputs[0] if transposed else self.outputs[0]
        axes = {read: ("input", inputs), written: ("output", outputs)}
        return [Use(self.operation.kernel, positions(where), axes, read)]

    def _rows(self, change: Change) -> np.ndarray:
        """The inputs that the new layer multiplies."""
        [given] = change.inputs
        [needed] = self.needed(change.outputs, change.constants)
        return needed if self.worth_a_gather(given, needed) else given

    def _has_fold(self, change: Change) -> bool:
        read = self._read[:, change.outputs[0]].any(axis=1)
        folded = read & ~self._rows(change) & (change.constants[0] != 0)
        return bool((folded & self._foldable(change.constants)).any())

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept() and self._rows(change).all():
            return change.copy(self.operation)
        layer = self.operation
        bias = layer.use_bias or self._has_fold(change)
        size = "units" if isinstance(layer, layers.Dense) else "filters"
        return change.like(layer, use_bias=bias, **{size: int(change.outputs[0].sum())})

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        rows = self._rows(change)
        inputs = [change.gathered(inputs[0], change.inputs[0], rows), *inputs[1:]]
        return super().call(operation, inputs, change)

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        rows, [columns] = self._rows(change), change.outputs
        kernel = self.weight()[..., rows, :][..., columns]
        if isinstance(operation, TRANSPOSED):
            kernel = kernel.swapaxes(-1, -2)
        operation.kernel.assign(kernel)
        self._fill_bias(operation, rows, change)

    def _fill_bias(self, operation: Any, rows: np.ndarray, change: Change) -> None:
        if operation.use_bias:
            folded = ~rows & self._foldable(change.constants)
            bias = self._bias(folded, change.constants)
            operation.bias.assign(bias[change.outputs[0]])


class Separable(Matrix):
    """A depthwise convolution, then a pointwise one."""

    def weight(self) -> np.ndarray:  # noqa: D102
        depthwise = keras.ops.convert_to_numpy(self.operation.depthwise_kernel)
        pointwise = keras.ops.convert_to_numpy(self.operation.pointwise_kernel)
        inputs, multiplier = depthwise.shape[-2:]
        pointwise = pointwise.reshape(inputs, multiplier, -1)
        return np.einsum("...im,imo->...io", depthwise, pointwise)

    def uses(self) -> list[Use]:  # noqa: D102
        layer, places = self.operation, positions(self.outputs[0])
        inputs, outputs = map(np.arange, self._read.shape)
        by_input = {-2: ("input", inputs)}
        by_both = {
            -2: ("input", np.repeat(inputs, layer.depth_multiplier)),
            -1: ("output", outputs),
        }
        return [
            Use(layer.depthwise_kernel, places, by_input, read=-2),
            Use(layer.pointwise_kernel, places, by_both),
        ]

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        rows, [columns] = self._rows(change), change.outputs
        old = self.operation
        depthwise = keras.ops.convert_to_numpy(old.depthwise_kernel)[..., rows, :]
        operation.depthwise_kernel.assign(depthwise)
        pointwise = keras.ops.convert_to_numpy(old.pointwise_kernel)
        rows_of_all = np.repeat(rows, old.depth_multiplier)
        operation.pointwise_kernel.assign(pointwise[..., rows_of_all, :][..., columns])
        self._fill_bias(operation, rows, change)


class Depthwise(Kind):
    """A convolution of each input by itself; the outputs of an input stay together."""

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        self._kernel = keras.ops.convert_to_numpy(self.operation.kernel)
        self._multiplier = self._kernel.shape[-1]
        self._by_unit = is_elementwise(self.operation.activation)

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        layer = self.operation
        if not self._by_unit:
            return super().constants(inputs)
        known = np.repeat(inputs[0], self._multiplier)
        kernel = self._kernel.reshape(*self._kernel.shape[:-2], -1)
        cut = ~nonzero(kernel, self.tolerance, units=1)
        exact = layer.padding == "valid" or {*layer.kernel_size} == {1}
        constant = cut | (~np.isnan(known) if exact else known == 0)
        sums = kernel.sum(axis=tuple(range(kernel.ndim - 1)), dtype=np.float64)
        value = np.where(cut | np.isnan(known), 0, known * sums)
        if layer.bias is not None:
            value = value + keras.ops.convert_to_numpy(layer.bias)
        value = layer.activation(as_tensor(value, layer.variable_dtype))
        return [np.where(constant, keras.ops.convert_to_numpy(value), np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        if not self._by_unit:
            return super().kept(needed)
        return [np.repeat(self._inputs_of(needed[0]), self._multiplier)]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        if not self._by_unit:
            return super().ties()
        inputs = np.arange(self._kernel.shape[-2])
        return [inputs], [np.repeat(inputs, self._multiplier)]

    def uses(self) -> list[Use]:  # noqa: D102
        axes = {-2: ("input", np.arange(self._kernel.shape[-2]))}
        return [Use(self.operation.kernel, positions(self.outputs[0]), axes)]

    def _inputs_of(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.reshape(-1, self._multiplier).any(axis=1)

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        del constants
        return [self._inputs_of(kept[0])]

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:  # noqa: D102
        if self.worth_a_gather(given[0], self._inputs_of(kept[0])):
            return kept
        return [np.repeat(given[0], self._multiplier)]

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept():
            return change.copy(self.operation)
        return change.like(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        rows = self._inputs_of(change.outputs[0])
        inputs = [change.gathered(inputs[0], change.inputs[0], rows)]
        return super().call(operation, inputs, change)

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        rows = self._inputs_of(change.outputs[0])
        operation.kernel.assign(self._kernel[..., rows, :])
        if operation.bias is not None:
            bias = keras.ops.convert_to_numpy(self.operation.bias)
            operation.bias.assign(bias[change.outputs[0]])


class Lookup(Kind):
    """An embedding, whose columns are features."""

    analysed = True

    def _table(self) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.operation.embeddings)

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        table = self._table()
        table = np.where(np.abs(table) > self.tolerance, table, 0)
        return [np.where((table == table[0]).all(axis=0), table[0], np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        return needed

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        return [np.zeros(feature_count(self.inputs[0]), int)], [None]

    def uses(self) -> list[Use]:  # noqa: D102
        return []  # it looks up, and does not multiply

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept():
            return change.copy(self.operation)
        return change.like(self.operation, output_dim=int(change.outputs[0].sum()))

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        operation.embeddings.assign(self._table()[:, change.outputs[0]])
