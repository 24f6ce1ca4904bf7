"""The operations of Keras that multiply by a weight, which a pass may watch."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras

# Called with the operation's name, the operation itself and its arguments.
See = Callable[[str, Callable, tuple, dict], None]
# Called with a tensor and what it is a part of, and the index of the part.
SeePart = Callable[[Any, Any, Any], None]

_seeing: contextvars.ContextVar[tuple[See, SeePart] | None] = contextvars.ContextVar(
    "seeing", default=None
)
PRODUCTS = ("matmul", "dot", "tensordot", "einsum")
CONVOLUTIONS = ("conv", "conv_transpose", "depthwise_conv")


@contextlib.contextmanager
def watching(see: See, see_part: SeePart) -> Iterator[None]:
    """Has the operations of the current thread seen for a while, before they run.

    Whatever multiplies by a weight arrives at the backend's functions, which layers and
    `keras.ops` call and which are not public, or at the operator `@`.
    """
    _watch()
    token = _seeing.set((see, see_part))
    try:
        yield
    finally:
        _seeing.reset(token)


@functools.cache
def _watch() -> None:
    """Wraps the operations, which are unchanged where nobody watches."""
    numpy, nn = keras.src.backend.numpy, keras.src.backend.nn
    for module, names in ((numpy, PRODUCTS), (nn, CONVOLUTIONS)):
        for name in names:
            setattr(module, name, _watched(name, getattr(module, name)))
    tensor = type(keras.ops.zeros(()))
    tensor.__matmul__ = _watched("matmul", tensor.__matmul__)
    nn.separable_conv = _in_two(nn, nn.separable_conv)
    numpy.split = _into_parts(numpy.split)
    keras.Variable.__getitem__ = _as_part(keras.Variable.__getitem__)


def _watched(name: str, operation: Callable) -> Callable:
    @functools.wraps(operation)
    def watched(*args, **kwargs):
        if watcher := _seeing.get():
            token = _seeing.set(None)  # what it calls itself is not seen
            try:
                watcher[0](name, operation, args, kwargs)
                return operation(*args, **kwargs)
            finally:
                _seeing.reset(token)
        return operation(*args, **kwargs)

    return watched


def _in_two(nn: Any, operation: Callable) -> Callable:
    """Wraps `separable_conv` to be two convolutions where it is watched."""

    @functools.wraps(operation)
    def separable_conv(
        inputs,
        depthwise_kernel,
        pointwise_kernel,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
    ):
        first = strides, padding, data_format, dilation_rate
        if not _seeing.get():
            return operation(inputs, depthwise_kernel, pointwise_kernel, *first)
        between = nn.depthwise_conv(inputs, depthwise_kernel, *first)
        return nn.conv(between, pointwise_kernel, 1, padding, data_format, 1)

    return separable_conv


def _into_parts(operation: Callable) -> Callable:
    @functools.wraps(operation)
    def split(x, indices_or_sections, axis=0):
        parts = operation(x, indices_or_sections, axis)
        if watcher := _seeing.get():
            start = 0
            for part in parts:
                stop = start + part.shape[axis]
                index = [slice(None)] * len(part.shape)
                index[axis] = slice(start, stop)
                watcher[1](part, x, tuple(index))
                start = stop
        return parts

    return split


def _as_part(operation: Callable) -> Callable:
    @functools.wraps(operation)
    def getitem(self, index):
        part = operation(self, index)
        if watcher := _seeing.get():
            watcher[1](part, self, index)
        return part

    return getitem
