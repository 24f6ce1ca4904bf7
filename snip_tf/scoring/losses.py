"""Recognizes Keras' losses in every form that `Model.compile` takes."""

from __future__ import annotations

import functools
import re
import types
from typing import Any

import keras
import numpy as np

from snip_tf._keras import loss_settings


def built_in(loss: Any) -> tuple[types.FunctionType, dict[str, Any]] | None:
    """Returns the Keras function that computes a loss, and its settings, or None.

    A loss is recognized by the function itself, since anyone may reuse its name.
    """
    if isinstance(loss, (str, type)) and not names_by_shapes(loss):
        loss = keras.losses.get(loss)
    settings: dict[str, Any] = {}
    if isinstance(loss, functools.partial):
        loss, settings = loss.func, loss.keywords
    elif isinstance(loss, keras.losses.Loss):
        # A subclass may only set other defaults, but one with a `call` is another loss.
        wrapper = keras.losses.MeanSquaredError
        if (type(loss).call, type(loss).__call__) != (wrapper.call, wrapper.__call__):
            return None
        loss, settings = loss.fn, loss_settings(loss)
    known = any(loss is function for function in functions_of_keras())
    return (loss, settings) if known else None


def names_by_shapes(loss: Any) -> bool:
    """Returns whether a loss is a name that Keras resolves by the outputs' shapes."""
    return isinstance(loss, str) and loss.lower() in ("crossentropy", "ce")


def chosen_by_shapes(loss: Any, y: Any, y_pred: Any) -> Any:
    """Returns the function that Keras uses for such a name; other losses unchanged."""
    if not names_by_shapes(loss):
        return loss
    if y_pred.shape[-1] == 1:
        return keras.losses.binary_crossentropy
    if len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1:
        return keras.losses.sparse_categorical_crossentropy
    return keras.losses.categorical_crossentropy


@functools.cache
def functions_of_keras() -> tuple[types.FunctionType, ...]:
    """Returns all functions of `keras.losses`."""
    functions = vars(keras.losses).values()
    return tuple(f for f in functions if isinstance(f, types.FunctionType))


def mixes_examples(function: types.FunctionType, settings: dict[str, Any]) -> bool:
    """Returns whether the loss of an example depends on the others."""
    if function is keras.losses.circle:
        return True
    axis = settings.get("axis")
    return function in (keras.losses.dice, keras.losses.tversky) and (
        axis is None or 0 in np.atleast_1d(axis)
    )


def name_of(loss: Any) -> str:
    """Returns the name of a loss as Keras writes it, in snake case."""
    if isinstance(loss, str):
        return loss
    if isinstance(loss, functools.partial):
        return name_of(loss.func)
    name = getattr(loss, "__name__", None) or type(loss).__name__
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
