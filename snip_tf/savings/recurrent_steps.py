"""Runs recurrent layers on NumPy arrays, with both kernels as sparse matrices."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras
import numpy as np
import scipy.sparse

from snip_tf.savings.activations import Function, linear, numpy_function

layers = keras.layers

# The state of a cell, one array (units, examples) for each part.
State = tuple[np.ndarray, ...]


def can_be_sparse(layer: Any) -> bool:
    """Returns whether a layer is a plain loop over time that `recurrence` can run."""
    if type(layer) not in _CELLS:
        return False
    if layer.return_state or layer.stateful or layer.go_backwards:
        return False
    functions = [layer.activation, getattr(layer, "recurrent_activation", linear)]
    return None not in map(numpy_function, functions)


def recurrence(layer: Any) -> Function:
    """Returns a function that runs a recurrent layer through time."""
    units, bias = layer.units, _biases(layer.cell)
    inputs = scipy.sparse.csr_array(keras.ops.convert_to_numpy(layer.cell.kernel).T)
    cell = _CELLS[type(layer)].of(layer.cell, bias[1])

    def step(x: np.ndarray) -> np.ndarray:
        examples, steps, _ = x.shape
        # Time first, then features, then examples.
        flat = np.ascontiguousarray(x.transpose(2, 1, 0).reshape(x.shape[2], -1))
        given = (inputs @ flat + bias[0]).reshape(-1, steps, examples)
        state: State = (np.zeros((units, examples), np.float32),) * cell.parts
        every = []
        for t in range(steps):
            state = cell.advance(given[:, t], state)
            every.append(state[0])
        if layer.return_sequences:
            return np.stack(every).transpose(2, 0, 1)
        return state[0].T

    return step


def _biases(cell: Any) -> np.ndarray:
    """Returns the bias of the inputs and that of the state, if any (in a GRU)."""
    biases = np.zeros((2, cell.kernel.shape[1]), np.float32)
    if cell.use_bias:
        given = keras.ops.convert_to_numpy(cell.bias)
        biases[: given.ndim] = given
    return biases[:, :, None]


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One step through time, on arrays (features, examples).

    Attributes:
        parts: the number of arrays in its state.
        recurrent: the transposed recurrent kernel.
        bias: the bias of the state.
        reset_after: whether a GRU resets after the product.
    """

    parts: ClassVar[int] = 1
    units: int
    recurrent: scipy.sparse.csr_array
    bias: np.ndarray
    activation: Function
    gate: Function
    reset_after: bool

    @classmethod
    def of(cls, cell: Any, bias: np.ndarray) -> _Cell:
        """Returns the step of one of Keras' cells."""
        kernel = keras.ops.convert_to_numpy(cell.recurrent_kernel)
        return cls(
            cell.units,
            scipy.sparse.csr_array(kernel.T),
            bias,
            numpy_function(cell.activation) or linear,
            numpy_function(getattr(cell, "recurrent_activation", None)) or linear,
            getattr(cell, "reset_after", False),
        )

    def advance(self, x: np.ndarray, state: State) -> State:
        """Returns the next state; its first part is the output."""
        raise NotImplementedError


class _Simple(_Cell):
    def advance(self, x: np.ndarray, state: State) -> State:
        return (self.activation(x + self.recurrent @ state[0]),)


class _LSTM(_Cell):
    parts = 2

    def advance(self, x: np.ndarray, state: State) -> State:
        h, c = state
        i, f, new, o = np.split(x + self.recurrent @ h, 4)
        c = self.gate(f) * c + self.gate(i) * self.activation(new)
        return self.gate(o) * self.activation(c), c


class _GRU(_Cell):
    def advance(self, x: np.ndarray, state: State) -> State:
        [h] = state
        x_z, x_r, x_h = np.split(x, 3)
        if self.reset_after:
            r_z, r_r, r_h = np.split(self.recurrent @ h + self.bias, 3)
            new = self.activation(x_h + self.gate(x_r + r_r) * r_h)
        else:
            gates = 2 * self.units
            r_z, r_r = np.split(self.recurrent[:gates] @ h, 2)
            reset = self.gate(x_r + r_r) * h
            new = self.activation(x_h + self.recurrent[gates:] @ reset)
        z = self.gate(x_z + r_z)
        return (z * h + (1 - z) * new,)


_CELLS: dict[type, type[_Cell]] = {
    layers.SimpleRNN: _Simple,
    layers.LSTM: _LSTM,
    layers.GRU: _GRU,
}
