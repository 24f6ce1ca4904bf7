"""A limit on variables: a stranger's configuration may ask for any amount of memory."""

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
# What Keras and TensorFlow raise on a configuration that no model can have.
DAMAGED_MODEL = (*DAMAGE, tf.errors.OpError)


@contextlib.contextmanager
def bounded_variables(most: int) -> Iterator[None]:
    """Refuses to make larger variables, before they take memory.

    Args:
        most: the most numbers of a variable, if that is more than a million.

    Raises:
        MemoryError: if TensorFlow has too little for what is made in the body.
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
            f"it makes a variable of {count:,} numbers, of which the file has none"
        )
    return create(**options)


def _count(initial: Callable[[], Any]) -> int:
    """Returns how many numbers an initial value has, without making them."""
    try:
        with tf.Graph().as_default():
            return tf.convert_to_tensor(initial()).shape.num_elements() or 0
    except DAMAGED_MODEL:
        return 0  # a caller's own initializer, which does not run in a graph
