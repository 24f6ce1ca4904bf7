"""Recurrent layers."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.graph import Node, tensors
from snip_tf.graph.rules.rule import (
    Axes,
    Groups,
    Rule,
    Use,
    feature_count,
    is_elementwise,
)

layers = keras.layers

_PLAIN = (layers.SimpleRNN, layers.GRU, layers.LSTM)


class Recurrent(Rule):
    """A recurrent layer, or the two of a `Bidirectional`, whose units are paired.

    Because of its state a unit is constant only if it stays at its initial zero: only
    zeros contribute to its next state.
    """

    @classmethod
    def accepts(cls, node: Node) -> bool:
        """Returns whether the call takes a sequence, possibly a mask, and no state."""
        masks = tensors(node.kwargs.get("mask"))
        return len(node.inputs()) == 1 + len(masks) and not any(
            type(part) not in _PLAIN or part.stateful or part.return_state
            for part in _parts(node.operation)
        )

    @functools.cached_property
    def _cells(self) -> list[_Cell]:
        parts = _parts(self.operation)
        return [_Cell(part.cell, self.tolerance) for part in parts]

    @property
    def _units(self) -> int:
        return self._cells[0].units

    @property
    def _copies(self) -> int:
        """How many times each unit appears in the output."""
        concatenates = getattr(self.operation, "merge_mode", None) == "concat"
        return len(self._cells) if concatenates else 1

    @functools.cached_property
    def _by_unit(self) -> bool:
        return all(cell.by_unit for cell in self._cells)

    def constants(self, inputs: Arrays) -> Arrays:
        zero = self._at_zero(inputs)
        merged = zero.ravel() if self._copies > 1 else zero.all(axis=0)
        return [np.where(merged, 0.0, np.nan)]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        if not self._by_unit:
            return super().kept(needed, constants)
        units = np.any(needed[0].reshape(self._copies, -1), axis=0)
        zero = self._at_zero(constants)
        while True:
            more = units | self._read_units(units, zero)
            if (more == units).all():
                return [np.tile(units, self._copies)]
            units = more

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        units = kept[0][: self._units]
        known, *_ = constants
        read = self._read_inputs(units, constants)
        folded = self._folded(read, known)
        read = read & (np.isnan(known) | ((known != 0) & ~folded))
        if units.any() and not read.any():
            read[0] = True  # a layer needs an input
        return [read, *(np.full(mask.shape, units.any()) for mask in constants[1:])]

    def _at_zero(self, constants: Arrays) -> np.ndarray:
        """Returns the units that stay at zero, for each cell."""
        return np.array([cell.at_zero(constants[0]) for cell in self._cells])

    def _read_units(self, units: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """Returns the units that any of these units read; those at zero read none."""
        read = [
            cell.recurrent[:, units & ~at_zero].any(axis=1) & ~at_zero
            for cell, at_zero in zip(self._cells, zero, strict=True)
        ]
        return np.any(read, axis=0)

    def _read_inputs(self, units: np.ndarray, constants: Arrays) -> np.ndarray:
        """Returns the inputs that any of these units read."""
        read = [
            cell.inputs[:, units & ~at_zero].any(axis=1)
            for cell, at_zero in zip(self._cells, self._at_zero(constants), strict=True)
        ]
        return np.any(read, axis=0)

    def _folded(self, read: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Returns the nonzero constants that are folded into the bias.

        A layer without a bias gets one for them, unless it would be larger than what it
        saves; in a GRU of Keras' default kind it has two rows.
        """
        folded = read & ~np.isnan(known) & (known != 0)
        cell = self._cells[0].cell
        rows = 2 if getattr(cell, "reset_after", False) else 1
        return folded & bool(cell.use_bias or folded.sum() >= rows)

    def coupled(self) -> tuple[Groups, Groups]:
        masks = [np.zeros(feature_count(tensor), int) for tensor in self.inputs[1:]]
        units = np.arange(self._units) if self._by_unit else np.zeros(self._units, int)
        return [None, *masks], [np.tile(units, self._copies)]

    def uses(self) -> list[Use]:
        steps = self.inputs[0].shape[1] or 1
        return [use for cell in self._cells for use in cell.uses(steps)]

    def reads(self, edit: Edit) -> Arrays:
        needed = self.needed(edit.outputs, edit.constants)[0]
        given, *masks = edit.inputs
        return [needed if self.worth_a_gather(given, needed) else given, *masks]

    def smaller(self, edit: Edit) -> keras.Operation:
        layer, rows = self.operation, self.reads(edit)[0]
        if edit.keeps_all() and rows.all():
            return edit.copy(layer)
        units = edit.outputs[0][: self._units]
        read = self._read_inputs(units, edit.constants)
        folds = bool((~rows & self._folded(read, edit.constants[0])).any())
        bias = self._cells[0].cell.use_bias or folds
        settings = {"units": int(units.sum()), "use_bias": bias}
        if isinstance(layer, layers.Bidirectional):
            settings = _of_both(layer, settings)
        return edit.like(layer, **settings)

    def fill(self, operation: Any, edit: Edit) -> None:
        units, rows = edit.outputs[0][: self._units], self.reads(edit)[0]
        folded = np.where(rows, 0, edit.constants[0])
        for new, cell in zip(_parts(operation), self._cells, strict=True):
            cell.fill(new.cell, rows, units, folded)


def _parts(layer: Any) -> list[Any]:
    """Returns the one or two layers that have the cells."""
    if isinstance(layer, layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


def _of_both(layer: keras.Layer, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a `Bidirectional` for these settings of its layers."""
    config = layer.get_config()
    return {
        # Without the shapes, for which Keras would build it.
        name: {
            **config[name],
            "config": {**config[name]["config"], **settings},
            "build_config": None,
        }
        for name in ("layer", "backward_layer")
    }


class _Cell:
    """The weights of a recurrent cell, unit by unit.

    Attributes:
        cell: the cell of Keras.
        units: the number of units.
        by_unit: whether its activations are applied to each unit separately, unlike a
            softmax.
        inputs, recurrent: which input, or unit, is read by which unit.
    """

    def __init__(self, cell: Any, tolerance: float):
        self.cell = cell
        self.units: int = cell.units
        functions = [cell.activation, getattr(cell, "recurrent_activation", None)]
        self.by_unit = all(is_elementwise(f) for f in functions if f is not None)
        self._tolerance = tolerance
        self.inputs = np.any(self._nonzero_gates(cell.kernel), axis=1)
        self.recurrent = np.any(self._nonzero_gates(cell.recurrent_kernel), axis=1)

    def _gates(self, weight: Any) -> np.ndarray:
        """Returns a weight reshaped to have an axis of gates before that of units."""
        array = keras.ops.convert_to_numpy(weight)
        return array.reshape(*array.shape[:-1], -1, self.units)

    def _nonzero_gates(self, weight: Any) -> np.ndarray:
        return np.abs(self._gates(weight)) > self._tolerance

    @property
    def _candidate(self) -> int:
        """The index of the candidate state among the gates."""
        return 0 if isinstance(self.cell, layers.SimpleRNNCell) else 2

    @functools.cached_property
    def _candidate_kernel(self) -> np.ndarray:
        """The kernel from the inputs to the candidate state."""
        return self._gates(self.cell.kernel)[:, self._candidate].copy()

    @functools.cached_property
    def _candidate_reads(self) -> np.ndarray:
        """Which units the candidate state of each unit reads."""
        return self._nonzero_gates(self.cell.recurrent_kernel)[
            :, self._candidate
        ].copy()

    def uses(self, steps: int) -> list[Use]:
        """Returns how it multiplies by its kernels in this many steps."""
        kernel, units = self.cell.kernel, np.arange(self.units)
        outputs = np.tile(units, kernel.shape[-1] // self.units)
        inputs = np.arange(kernel.shape[0])
        of_inputs: Axes = {0: ("input", inputs), 1: ("output", outputs)}
        of_units: Axes = {0: ("output", units), 1: ("output", outputs)}
        return [
            Use(kernel, steps, of_inputs, read=0),
            Use(self.cell.recurrent_kernel, steps, of_units, read=0),
        ]

    def at_zero(self, constants: np.ndarray) -> np.ndarray:
        """Returns the units whose state stays at zero for any values of the gates."""
        at_zero = keras.ops.convert_to_numpy(self.cell.activation(keras.ops.zeros(1)))
        if not self.by_unit or at_zero[0] != 0:
            return np.zeros(self.units, bool)
        kernel, recurrent = self._candidate_kernel, self._candidate_reads
        varies = np.isnan(constants)
        reads_what_varies = (np.abs(kernel[varies]) > self._tolerance).any(axis=0)
        zero = ~reads_what_varies & (np.where(varies, 0, constants) @ kernel == 0)
        if self.cell.use_bias:
            # (A GRU may have two rows of biases.)
            bias = self._gates(self.cell.bias)[..., self._candidate, :]
            zero &= (bias.reshape(-1, self.units) == 0).all(axis=0)
        while True:
            still = zero & ~recurrent[~zero].any(axis=0)
            if (still == zero).all():
                return zero
            zero = still

    def fill(
        self, new: Any, rows: np.ndarray, units: np.ndarray, folded: np.ndarray
    ) -> None:
        """Assigns the kept weights to a smaller cell.

        Args:
            new: the smaller cell.
            rows, units: the inputs and units that it has.
            folded: the constants of inputs that are folded into its bias.
        """
        kernel = keras.ops.convert_to_numpy(self.cell.kernel)
        recurrent = keras.ops.convert_to_numpy(self.cell.recurrent_kernel)
        new.kernel.assign(self._of_units(kernel[rows], units))
        new.recurrent_kernel.assign(self._of_units(recurrent[units], units))
        if new.use_bias:
            bias = np.nan_to_num(folded) @ kernel.astype(np.float64)
            if len(new.bias.shape) == 2:  # of a GRU: for inputs and for units
                bias = np.stack([bias, np.zeros_like(bias)])
            if self.cell.use_bias:
                bias = bias + keras.ops.convert_to_numpy(self.cell.bias)
            new.bias.assign(self._of_units(bias, units))

    def _of_units(self, weight: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Returns a weight's entries for some units, in every gate."""
        gates = self._gates(weight)[..., units]
        return gates.reshape(*gates.shape[:-2], -1)
