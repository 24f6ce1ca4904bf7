"""Private names of TensorFlow's functions and values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras


def inline_functions_where(asks: Callable[[], bool]) -> None:
    """Has every `tf.function` run eagerly where `asks()` is true, from now on.

    `tf.config.run_functions_eagerly` does it for all threads; what the functions
    themselves look up has no public name. TensorFlow's own functions, as in
    `tf.vectorized_map`, which do not work eagerly, are unchanged, and so are functions
    loaded from a file, which have no Python code.
    """
    import tensorflow as tf

    cls = type(tf.function(lambda: None))
    theirs = cls._run_functions_eagerly

    def run_eagerly(function: Any) -> bool:
        if not asks():
            return theirs.fget(function)
        module = getattr(function.python_function, "__module__", None) or ""
        return not module.startswith("tensorflow.")

    cls._run_functions_eagerly = property(run_eagerly)


def keep_float64_where(asks: Callable[[], bool]) -> None:
    """Has operations on float64 give that where `asks()` is true, from now on.

    On JAX and PyTorch, Keras takes float32 for it, by a table that is not public.
    """
    from keras.src import backend
    from keras.src.backend.common import dtypes

    if keras.backend.backend() == "tensorflow":
        return
    theirs = dtypes.result_type

    @functools.wraps(theirs)
    def result_type(*types: Any) -> str:
        if asks() and any("float64" in str(each) for each in types):
            return "float64"
        return theirs(*types)

    # Operations find it in the one, layers in the other.
    backend.result_type = dtypes.result_type = result_type


def function_like(function: Any, python_function: Callable) -> Any:
    """Returns a `tf.function` of other Python code, with the options of a given one."""
    return function._clone(python_function)


def is_reference(value: Any) -> bool:
    """Returns whether this is a result of TensorFlow's `ref()`, of a private class."""
    return type(value).__name__ == "Reference" and hasattr(value, "deref")


def unwrapped(value: Any) -> Any:
    """Returns the tuple that TensorFlow wraps if it is an attribute of a layer."""
    return getattr(value, "__wrapped__", value)


def is_traced_for_one_call() -> bool:
    """Returns whether the function being traced exists for one call only.

    Keras makes one for grouped convolutions, whose gradients exist only under XLA where
    TensorFlow is built without oneDNN, as on Apple's processors.
    """
    import tensorflow as tf

    return getattr(tf.compat.v1.get_default_graph(), "name", None) == "_conv_xla"
