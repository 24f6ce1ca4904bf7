"""Limits variables: an untrusted configuration may ask for any amount of memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from snip_tf.files import DAMAGE

# Any variable may have this many numbers: metrics and seeds have variables, too.
_ANY_SIZE = 1 << 20
OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)
# What Keras and TensorFlow raise on an impossible configuration.
DAMAGED_MODEL = (*DAMAGE, tf.errors.OpError)


@contextlib.contextmanager
def bounded_variables(most: int) -> Iterator[None]:
    """Refuses to create larger variables, before they take memory.

    Args:
        most: the largest size of a variable; at least a million is always allowed.

    Raises:
        MemoryError: if TensorFlow lacks memory for what is created in the body.
        ValueError: if a variable would have more numbers.
    """
    create = functools.partial(_bounded, max(most, _ANY_SIZE))
    try:
        with tf.variable_creator_scope(create):
            yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(error.message) from error


def _bounded(most: int, create: Callable[..., Any], **options: Any) -> Any:
    initial = options["initial_value"]
    if callable(initial) and (count := _count(initial)) > most:
        raise ValueError(
            f"it creates a variable of {count:,} numbers that the file does not have"
        )
    return create(**options)


def _count(initial: Callable[[], Any]) -> int:
    """Returns the size of an initial value, without creating it."""
    try:
        with tf.Graph().as_default():
            return tf.convert_to_tensor(initial()).shape.num_elements() or 0
    except DAMAGED_MODEL:
        return 0  # a custom initializer that does not run in a graph
