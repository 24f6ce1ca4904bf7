"""The sparsity of a model, and what is kept of each pruned weight."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from snip_tf.network import Network


def sparsity(pruned: keras.Model) -> float:
    """Returns the fraction of the prunable weights that is removed.

    Args:
        pruned: a built `keras.Model`, pruned or stripped. The masks are counted if it
            has any, else the exact zeros in its prunable weights.

    Returns:
        A float from 0 to 1.

    Raises:
        TypeError: if `pruned` is not a Keras model.
        ValueError: if it is not built or has no prunable weights.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> snip_tf.sparsity(model)
    0.0
    """
    network = Network(pruned)
    kept = network.masks or {
        path: keras.ops.convert_to_numpy(weight) != 0
        for path, weight in network.prunable().items()
    }
    total = sum(mask.size for mask in kept.values())
    return 1 - sum(int(mask.sum()) for mask in kept.values()) / total


@dataclasses.dataclass(frozen=True)
class WeightRow:
    """One pruned weight: how many of its connections are kept, and what is dead.

    A dead input of a kernel is one without a kept connection to any unit; a dead unit
    (or filter, or gate of a recurrent cell) is one without a kept connection from any
    input. Both are counted for dense, convolutional and recurrent kernels; elsewhere
    they are 0.

    Attributes:
        path: the path of the weight.
        shape: the shape of the weight.
        kept: the number of kept connections.
        total: the number of all connections.
        inputs: the number of inputs.
        dead_inputs: the number of unused inputs.
        units: the number of units.
        dead_units: the number of units without inputs.
    """

    path: str
    shape: tuple[int, ...]
    kept: int
    total: int
    inputs: int = 0
    dead_inputs: int = 0
    units: int = 0
    dead_units: int = 0

    @property
    def sparsity(self) -> float:
        """The fraction of the weight's connections that is removed."""
        return 1 - self.kept / self.total


# Layers whose kernel has the inputs on its second-to-last axis and the units on its
# last. Other kinds have other layouts.
_UNITS_LAST = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.SimpleRNNCell,
    keras.layers.GRUCell,
    keras.layers.LSTMCell,
)


def weight_rows(network: Network) -> list[WeightRow]:
    """Returns a row for each pruned weight, in the model's order."""
    units_last = {
        id(weight)
        for layer in network.layers
        if isinstance(layer, _UNITS_LAST)
        for weight in layer.weights
    }
    return [
        _weight_row(path, mask, id(network.weights[path]) in units_last)
        for path, mask in network.masks.items()
    ]


def _weight_row(path: str, mask: np.ndarray, units_last: bool) -> WeightRow:
    row = WeightRow(path, mask.shape, int(mask.sum()), mask.size)
    if not units_last or mask.ndim < 2:
        return row
    # In a convolution, any position of the filter connects an input and a unit.
    connected = np.any(mask.reshape(-1, *mask.shape[-2:]), axis=0)
    inputs, units = connected.shape
    return dataclasses.replace(
        row,
        inputs=inputs,
        dead_inputs=inputs - int(connected.any(axis=1).sum()),
        units=units,
        dead_units=units - int(connected.any(axis=0).sum()),
    )
