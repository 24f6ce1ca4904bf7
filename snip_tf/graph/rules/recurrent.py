"""Recurrent layers."""

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
    feature_count,
    is_elementwise,
)

layers = keras.layers


class Recurrent(Kind):
    """A recurrent layer, or two in a `Bidirectional` whose units are taken as pairs.

    Its state makes a unit constant only if that stays at zero, where it starts: nothing
    but zeros enters what it remembers next.
    """

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        layer = self.operation
        self._layers = (
            [layer.forward_layer, layer.backward_layer]
            if isinstance(layer, layers.Bidirectional)
            else [layer]
        )
        self._beside = (
            len(self._layers)
            if len(self._layers) > 1 and layer.merge_mode == "concat"
            else 1
        )
        self._cells = [_Cell(layer.cell, tolerance) for layer in self._layers]
        self._by_unit = all(cell.by_unit for cell in self._cells)
        self._units = self._cells[0].units

    def _at_zero(self, inputs: Arrays) -> np.ndarray:
        """The units that stay at zero, of each cell."""
        return np.array([cell.at_zero(inputs[0]) for cell in self._cells])

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        zero = self._at_zero(inputs)
        self._zero = zero
        merged = zero.ravel() if self._beside > 1 else zero.all(axis=0)
        return [np.where(merged, 0, np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        if not self._by_unit:
            return super().kept(needed)
        units = needed[0].reshape(self._beside, -1).any(axis=0)
        while True:
            read = np.array(
                [
                    cell.recurrent[:, units & ~zero].any(axis=1) & ~zero
                    for cell, zero in zip(self._cells, self._zero, strict=True)
                ]
            ).any(axis=0)
            if not (read & ~units).any():
                return [np.tile(units, self._beside)]
            units = units | read

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        units = kept[0][: self._units]
        read = self._read(units)
        folded = self._folded(read, constants[0])
        read = read & (np.isnan(constants[0]) | ((constants[0] != 0) & ~folded))
        if units.any() and not read.any():
            read[0] = True  # there is no layer without an input
        return [read, *(np.full(c.shape, units.any()) for c in constants[1:])]

    def _read(self, units: np.ndarray) -> np.ndarray:
        """The inputs that some of these units read."""
        return np.array(
            [
                cell.inputs[:, units & ~zero].any(axis=1)
                for cell, zero in zip(self._cells, self._zero, strict=True)
            ]
        ).any(axis=0)

    def _folded(self, read: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The constants, zeros aside, that the bias stands for.

        A layer without a bias gets one for them, which in a GRU of Keras' default kind
        has two rows, and should not be larger than what it saves.
        """
        folded = read & ~np.isnan(known) & (known != 0)
        cell = self._layers[0].cell
        rows = 2 if getattr(cell, "reset_after", False) else 1
        return folded & bool(cell.use_bias or folded.sum() >= rows)

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        masks = [np.zeros(feature_count(tensor), int) for tensor in self.inputs[1:]]
        units = np.arange(self._units) if self._by_unit else np.zeros(self._units, int)
        return [None, *masks], [np.tile(units, self._beside)]

    def uses(self) -> list[Use]:  # noqa: D102
        steps = self.inputs[0].shape[1] or 1
        units = np.arange(self._units)
        uses = []
        for layer in self._layers:
            cell = layer.cell
            into = ("output", np.tile(units, cell.kernel.shape[-1] // self._units))
            inputs = ("input", np.arange(cell.kernel.shape[0]))
            uses += [
                Use(cell.kernel, steps, {0: inputs, 1: into}, read=0),
                Use(cell.recurrent_kernel, steps, {0: ("output", units), 1: into}, 0),
            ]
        return uses

    def _rows(self, change: Change) -> np.ndarray:
        [needed, *_] = self.needed(change.outputs, change.constants)
        given = change.inputs[0]
        return needed if self.worth_a_gather(given, needed) else given

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        rows = self._rows(change)
        if change.all_kept() and rows.all():
            return change.copy(self.operation)
        kept = change.outputs[0][: self._units]
        folded = ~rows & self._folded(self._read(kept), change.constants[0])

        bias = self._layers[0].use_bias or bool(folded.any())
        changes = {"units": int(kept.sum()), "use_bias": bias}
        if len(self._layers) == 1:
            return change.like(self.operation, **changes)
        config = self.operation.get_config()
        both = {
            # Without the shapes that Keras would build it for.
            name: {
                **config[name],
                "config": {**config[name]["config"], **changes},
                "build_config": None,
            }
            for name in ("layer", "backward_layer")
        }
        return change.like(self.operation, **both)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        rows = self._rows(change)
        inputs = [change.gathered(inputs[0], change.inputs[0], rows), *inputs[1:]]
        return super().call(operation, inputs, change)

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        units, rows = change.outputs[0][: self._units], self._rows(change)
        new = (
            [operation.forward_layer, operation.backward_layer]
            if len(self._layers) > 1
            else [operation]
        )
        for layer, cell in zip(new, self._cells, strict=True):
            cell.fill(layer.cell, rows, units, np.where(rows, 0, change.constants[0]))


class _Cell:
    """The weights of a recurrent cell, unit by unit.

    Attributes:
        inputs, recurrent: whether an input, or a unit, is read by a unit.
        by_unit: whether its activations take each unit by itself, as a softmax does
            not.
    """

    def __init__(self, cell: Any, tolerance: float):
        self._cell = cell
        self._tolerance = tolerance
        self.units = cell.units
        functions = [cell.activation, getattr(cell, "recurrent_activation", None)]
        self.by_unit = all(is_elementwise(f) for f in functions if f is not None)
        self.inputs = self._gates(cell.kernel, tolerance).any(axis=1)
        self.recurrent = self._gates(cell.recurrent_kernel, tolerance).any(axis=1)

    def _gates(self, kernel: Any, tolerance: float) -> np.ndarray:
        kernel = np.abs(keras.ops.convert_to_numpy(kernel)) > tolerance
        return kernel.reshape(kernel.shape[0], -1, self.units)

    def at_zero(self, constants: np.ndarray) -> np.ndarray:
        """The units whose state stays at zero, whatever the gates are."""
        # The activation of what is remembered is the third of GRU's and LSTM's parts.
        cell = self._cell
        part = 0 if isinstance(cell, layers.SimpleRNNCell) else 2
        zero = keras.ops.zeros((1,))
        if not self.by_unit or float(cell.activation(zero)[0]) != 0:
            return np.zeros(self.units, bool)
        kernel = keras.ops.convert_to_numpy(cell.kernel)
        kernel = kernel.reshape(len(kernel), -1, self.units)[:, part]
        read = np.abs(kernel) > self._tolerance
        known = np.where(np.isnan(constants), 0, constants)
        zero = ~read[np.isnan(constants)].any(axis=0) & (known @ kernel == 0)
        if cell.use_bias:
            bias = keras.ops.convert_to_numpy(cell.bias)
            bias = bias.reshape(-1, bias.shape[-1] // self.units, self.units)[:, part]
            zero &= (bias == 0).all(axis=0)
        recurrent = self._gates(cell.recurrent_kernel, self._tolerance)[:, part]
        while True:
            still = zero & ~recurrent[~zero].any(axis=0)
            if (still == zero).all():
                return zero
            zero = still

    def fill(
        self, new: Any, rows: np.ndarray, units: np.ndarray, folded: np.ndarray
    ) -> None:
        """Gives a smaller cell the weights of what is kept.

        Args:
            new: the cell.
            rows, units: the inputs and units that it has.
            folded: constants of inputs that its bias has to stand for.
        """

        def of_units(array: np.ndarray) -> np.ndarray:
            gates = array.reshape(*array.shape[:-1], -1, self.units)[..., units]
            return gates.reshape(*array.shape[:-1], -1)

        cell = self._cell
        kernel = keras.ops.convert_to_numpy(cell.kernel)
        new.kernel.assign(of_units(kernel[rows]))
        recurrent = keras.ops.convert_to_numpy(cell.recurrent_kernel)
        new.recurrent_kernel.assign(of_units(recurrent[units]))
        if not new.use_bias:
            return
        bias = keras.ops.convert_to_numpy(cell.bias) if cell.use_bias else None
        more = np.nan_to_num(folded) @ kernel.astype(np.float64)
        if len(new.bias.shape) == 2:  # a GRU's, for inputs and for units
            more = np.stack([more, np.zeros_like(more)])
        new.bias.assign(of_units(more if bias is None else bias + more))
