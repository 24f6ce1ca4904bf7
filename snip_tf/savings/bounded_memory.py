"""Limits variables: an untrusted configuration may ask for any amount of memory."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator
from typing import Any

import keras

from snip_tf import _backend
from snip_tf.files import DAMAGE

# Any variable may have this many numbers: metrics and seeds have variables, too.
_ANY_SIZE = 1 << 20
# What Keras and its backend raise on an impossible configuration.
DAMAGED_MODEL: tuple[type[Exception], ...] = (*DAMAGE, *_backend.OPERATION_ERRORS)

# The limit in this thread.
_most: contextvars.ContextVar[float] = contextvars.ContextVar("_most", default=math.inf)


@contextlib.contextmanager
def bounded_variables(most: int) -> Iterator[None]:
    """Refuses to create larger variables, before they take memory.

    Args:
        most: the largest size of a variable; at least a million is always allowed.

    Raises:
        MemoryError: if memory lacks for what is created in the body.
        ValueError: if a variable would have more numbers.
    """
    _let_variables_be_bounded()
    token = _most.set(max(most, _ANY_SIZE))
    try:
        yield
    except MemoryError:
        raise
    except _backend.OUT_OF_MEMORY as error:
        raise MemoryError(str(error)) from error
    finally:
        _most.reset(token)


@functools.cache
def _let_variables_be_bounded() -> None:
    """Has Keras ask for the limit, permanently, as other threads may be creating."""
    theirs = keras.Variable.__init__

    @functools.wraps(theirs)
    def within_limit(self, initializer, shape=None, *args, **kwargs):
        count = _count(shape) if callable(initializer) else 0
        if count > _most.get():
            raise ValueError(
                f"it creates a variable of {count:,} numbers that the file does not "
                "have"
            )
        theirs(self, initializer, shape, *args, **kwargs)

    keras.Variable.__init__ = within_limit


def _count(shape: Any) -> int:
    """Returns the size of a shape; 0 if it is none, which Keras then says."""
    try:
        return math.prod(shape)
    except TypeError:
        return 0
