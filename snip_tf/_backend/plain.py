"""What JAX and PyTorch do alike, mostly since they lack what TensorFlow has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

FUNCTIONS: tuple[type, ...] = ()
RAGGED: tuple[type, ...] = ()
SPARSE: tuple[type, ...] = ()
DISTRIBUTED: tuple[type, ...] = ()
EXPORTS: tuple[str, ...] = ()


def dense_constant(array: Any, dtype: str | None = None) -> Any:
    """Returns an array as a tensor; text, which no tensor holds, as it is."""
    if array.dtype.kind in "OSU":
        return array
    return keras.ops.convert_to_tensor(array, dtype)


def name_scope(path: str) -> contextlib.AbstractContextManager:
    """Does nothing: tensors have no names of their own."""
    del path
    return contextlib.nullcontext()


def runs_eagerly() -> bool:
    """Returns True: where a value is traced, it can be seen in the value."""
    return True


def replica_count() -> int:
    """Returns 1: a step is of the whole batch, on whatever devices."""
    return 1


@contextlib.contextmanager
def variables_read() -> Iterator[Callable[[], set[int]]]:
    """Yields a function that returns nothing: Keras' scopes see all that is read."""
    yield set


def can_run(engine: str, call: Callable[[Any], Any], x: Any) -> bool:
    """Returns True: what compiles a model also runs it."""
    del engine, call, x
    return True


def product_by_rows(weight: Any, mask: Any) -> Any:
    """Returns `weight * mask`; gradients are never of some rows only."""
    return keras.ops.multiply(keras.ops.convert_to_tensor(weight), mask)
