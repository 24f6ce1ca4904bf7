"""Activations computed by NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


def numpy_function(activation: Any) -> Function | None:
    """Returns a NumPy function that computes an activation, or None."""
    # (An activation may be an unhashable object.)
    return _FUNCTIONS.get(activation) if inspect.isfunction(activation) else None


def on_arrays(activation: Callable[..., Any]) -> Function:
    """Returns an activation as a function of arrays, by Keras where NumPy has none."""
    return numpy_function(activation) or (
        lambda x: keras.ops.convert_to_numpy(activation(keras.ops.array(x)))
    )


def linear(x: np.ndarray) -> np.ndarray:
    """Returns its argument."""
    return x


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5


_FUNCTIONS: dict[Any, Function] = {
    linear: linear,
    keras.activations.linear: linear,
    keras.activations.relu: lambda x: np.maximum(x, 0),
    keras.activations.tanh: np.tanh,
    keras.activations.sigmoid: _sigmoid,
}
