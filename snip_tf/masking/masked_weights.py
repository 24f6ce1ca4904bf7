"""Puts masks on weights, and keeps removed connections at zero.

A mask is a boolean variable that belongs to a weight, True where it is kept. The weight
refers to it, so that whoever has the weight has its mask, and both are freed together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from snip_tf import _backend, _keras
from snip_tf.network import mask_of


class KeepZeros(keras.constraints.Constraint):
    """A weight's own constraint, then its mask.

    Masked gradients already keep zeros under optimizers that update each connection by
    itself. Others mix connections (Muon orthogonalizes whole matrices), and a custom
    training step may do anything.
    """

    def __init__(self, constraint: Callable | None, mask: keras.Variable):
        self.constraint = constraint
        self.mask = mask

    def __call__(self, w: Any) -> Any:
        """Returns the constrained weight, with zeros where it is removed."""
        if self.constraint is not None:
            w = self.constraint(w)
        return masked_value(w, self.mask)


def masked_value(weight: Any, mask: Any) -> Any:
    """Returns `weight * mask`, a tensor in which removed weights are exactly zero."""
    # `where` rather than a product: 0 * inf would be NaN, and -1 * 0 is -0. The literal
    # takes the dtype of the weight. (It refuses variables on some backends.)
    weight, mask = map(keras.ops.convert_to_tensor, (weight, mask))
    return keras.ops.where(mask, weight, 0)


def mask_variable(path: str, mask: np.ndarray) -> keras.Variable:
    """Returns a mask for the weight of a path, as a variable."""
    # bool, by measurement (`benchmarks/mask_dtype.py`, two cores, batch 100): relative
    # to the dense model, a training step took 1.10 (LeNet-300-100), 1.08 (LeNet-5) and
    # 1.01 (an MLP of 6.3 million weights); with uint8 1.13, 0.99, 1.01; with float32
    # 1.03, 0.98, 1.13: no difference beyond the noise, of about 0.1, while float32
    # takes four times the memory, as much as the weight itself. (TensorFlow exports no
    # variable whose name begins with `_`.)
    name = path.rpartition("/")[2] + "_mask"
    values = keras.ops.convert_to_tensor(mask, "bool")
    return _backend.new_mask(values, name)


def put_mask(weight: keras.Variable, mask: keras.Variable) -> None:
    """Gives a weight, in which what is removed is zero, a mask, unless it has one."""
    if mask_of(weight) is None:
        weight._snip_mask = mask
        # `get_state_tree` allows no path twice.
        above, slash, name = weight.path.rpartition("/")
        _keras.set_path(mask, f"{above}{slash}_snip_mask_of_{name}")
        weight.constraint = KeepZeros(weight.constraint, mask)


def remove(weight: keras.Variable) -> None:
    """Sets the weight to zero where its mask is False."""
    weight.assign(masked_value(weight, mask_of(weight)))
