"""Dense layers, and the base of all layers that multiply by a kernel."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.rules.rule import (
    Axes,
    Groups,
    Rule,
    Use,
    as_tensor,
    feature_count,
    is_elementwise,
    positions,
)


class Dense(Rule):
    """Outputs that are sums of products of the inputs.

    A convolution does the same at each position; `weight`, `passes_constants`, `uses`
    and `assign` define where the layers differ.
    """

    # The setting of the layer that says how many outputs it has.
    size_setting: ClassVar[str] = "units"

    def weight(self) -> np.ndarray:
        """Returns the kernel, with inputs and outputs as its last axes."""
        return keras.ops.convert_to_numpy(self.operation.kernel)

    def passes_constants(self) -> bool:
        """Returns whether a constant input makes a constant output, also at borders."""
        return True

    def uses(self) -> list[Use]:
        inputs, outputs = map(np.arange, self.connections.shape)
        axes: Axes = {-2: ("input", inputs), -1: ("output", outputs)}
        return [Use(self.operation.kernel, positions(self.outputs[0]), axes, read=-2)]

    @functools.cached_property
    def connections(self) -> np.ndarray:
        """Which inputs and outputs are connected, at any position of the kernel."""
        weight = np.abs(self.weight()) > self.tolerance
        return weight.any(axis=tuple(range(weight.ndim - 2)))

    @functools.cached_property
    def _by_unit(self) -> bool:
        """Whether the activation is applied to each output separately."""
        return is_elementwise(self.operation.activation)

    def constants(self, inputs: Arrays) -> Arrays:
        foldable = self._foldable(inputs)
        constant = ~self.connections[~foldable].any(axis=0)
        if not (self._by_unit and constant.any()):
            return [np.full(constant.shape, np.nan)]
        layer = self.operation
        sums = as_tensor(self._bias(foldable, inputs), layer.variable_dtype)
        values = keras.ops.convert_to_numpy(layer.activation(sums))
        return [np.where(constant, values, np.nan)]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        return needed if self._by_unit else super().kept(needed, constants)

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        read = self.connections[:, kept[0]].any(axis=1) & ~self._foldable(constants)
        if kept[0].any() and not read.any():
            read[0] = True  # a layer needs an input
        return [read]

    def coupled(self) -> tuple[Groups, Groups]:
        if self._by_unit:
            return [None], [None]
        return [None], [np.zeros(feature_count(self.outputs[0]), int)]

    def reads(self, edit: Edit) -> Arrays:
        needed = self.needed(edit.outputs, edit.constants)
        worth_it = self.worth_a_gather(edit.inputs[0], needed[0])
        return needed if worth_it else edit.inputs

    def smaller(self, edit: Edit) -> keras.Operation:
        layer, [read] = self.operation, self.reads(edit)
        if edit.keeps_all() and read.all():
            return edit.copy(layer)
        bias = layer.use_bias or self._folds(edit)
        settings = {self.size_setting: int(edit.outputs[0].sum()), "use_bias": bias}
        return edit.like(layer, **settings)

    def fill(self, operation: Any, edit: Edit) -> None:
        [rows], [columns] = self.reads(edit), edit.outputs
        self.assign(operation, rows, columns)
        if operation.use_bias:
            folded = ~rows & self._foldable(edit.constants)
            operation.bias.assign(self._bias(folded, edit.constants)[columns])

    def assign(self, operation: Any, rows: np.ndarray, columns: np.ndarray) -> None:
        """Assigns to a smaller layer the kernel of these inputs and outputs."""
        operation.kernel.assign(self.weight()[..., rows, :][..., columns])

    def _foldable(self, constants: Arrays) -> np.ndarray:
        """Returns which inputs are constants that can be folded into the bias."""
        [known] = constants
        return ~np.isnan(known) if self.passes_constants() else known == 0

    def _folds(self, edit: Edit) -> bool:
        """Returns whether a nonzero constant is folded into the bias."""
        [read], [known] = self.reads(edit), edit.constants
        connected = self.connections[:, edit.outputs[0]].any(axis=1)
        return bool((connected & ~read & (known != 0) & self._foldable([known])).any())

    def _bias(self, folded: np.ndarray, constants: Arrays) -> np.ndarray:
        """Returns the bias with these inputs folded in, in double precision."""
        weight = self.weight().astype(np.float64)
        sums = weight.sum(axis=tuple(range(weight.ndim - 2)))
        bias = getattr(self.operation, "bias", None)
        own = 0.0 if bias is None else keras.ops.convert_to_numpy(bias)
        return own + np.where(folded, constants[0], 0) @ sums
