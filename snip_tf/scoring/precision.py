"""How layers compute while a model is scored: not quite as in training."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from snip_tf.masking.compiling import held
from snip_tf.masking.copying import holds_tensorflow_state, operation_of
from snip_tf.weights import layer_tree

_HALF = ("float16", "bfloat16")


def is_changed(model: keras.Model) -> bool:
    """Whether to score a model changes it, if only for a while."""
    return any(
        layer.compute_dtype in _HALF
        or getattr(layer, "_remat_mode", None) is not None
        or holds_tensorflow_state(layer)
        for layer in layer_tree(model)
    )


@contextlib.contextmanager
def computing_in(dtype: str, model: keras.Model) -> Iterator[None]:
    """Has layers that compute in lower precision compute in `dtype` for a while.

    In half precision, scores near the threshold change places: of the 5 % kept by
    their float32 scores, float16 keeps 92 to 95 %, bfloat16 79 to 98 %.
    """
    lower = _HALF if dtype == "float32" else (*_HALF, "float32")
    policies = {
        layer: layer.dtype_policy
        for layer in layer_tree(model)
        # Not those that are quantized, which have a policy of another kind.
        if type(layer.dtype_policy) is keras.DTypePolicy
        and layer.compute_dtype in lower
    }
    # A model casts what it is given to the types of its inputs, also one that is inside
    # another. Keras has no public name by which to change these.
    inputs = {
        id(part): (part, part.dtype)
        for layer in layer_tree(model)
        if isinstance(layer, keras.Model)
        for tensor in keras.tree.flatten(getattr(layer, "inputs", None))
        if isinstance(tensor, keras.KerasTensor) and tensor.dtype in lower
        for part in (tensor, operation_of(tensor))
        if isinstance(part, (keras.KerasTensor, keras.layers.InputLayer))
    }
    try:
        for layer in policies:
            layer.dtype_policy = dtype
        for part, _ in inputs.values():
            part._dtype = dtype
        yield
    finally:
        for layer, policy in policies.items():
            layer.dtype_policy = policy
        for part, own in inputs.values():
            part._dtype = own


def moments_in_full() -> contextlib.AbstractContextManager:
    """Has TensorFlow differentiate a variance by its mean, too, for a while.

    `tf.nn.moments`, with which Keras normalizes, leaves that out with a `stop_gradient`
    (https://github.com/tensorflow/tensorflow/pull/19609). The term is zero, but its
    derivative is not: second derivatives through a LayerNormalization of six features
    are off by a tenth. No public switch puts it back.
    """

    def moments(x, axes, shift=None, keepdims=False, name=None):
        del shift, name
        mean = tf.reduce_mean(x, axes, keepdims=True)
        squares = tf.math.squared_difference(x, mean)
        mean = mean if keepdims else tf.squeeze(mean, axes)
        return mean, tf.reduce_mean(squares, axes, keepdims=keepdims)

    get = functools.partial(getattr, tf.nn, "moments")
    put = functools.partial(setattr, tf.nn, "moments")
    return held("moments", get, put, moments)


@contextlib.contextmanager
def rows_as_tensors() -> Iterator[None]:
    """Has gradients of some rows only reckon as tensors do, for a while.

    Second derivatives, as TensorFlow writes them for tanh and sigmoid, multiply what
    they are given by numbers; behind a product with a sparse matrix, or a sum over
    segments, that is a `tf.IndexedSlices`, which has no operators.
    """
    with contextlib.ExitStack() as stack:
        for name in ("__add__", "__mul__", "__sub__", "__truediv__"):
            get = functools.partial(getattr, tf.IndexedSlices, name, None)
            put = functools.partial(_set_operator, name)
            value = functools.partial(_of_tensor, name)
            stack.enter_context(held(("rows", name), get, put, value))
        yield


def _set_operator(name: str, function: Callable | None) -> None:
    if function is None:
        delattr(tf.IndexedSlices, name)
    else:
        setattr(tf.IndexedSlices, name, lambda rows, other: function(rows, other))


def _of_tensor(name: str, rows: tf.IndexedSlices, other: Any) -> tf.Tensor:
    return getattr(tf.convert_to_tensor(rows), name)(other)


_thread = threading.local()


@contextlib.contextmanager
def without_penalties(model: keras.Model) -> Iterator[None]:
    """Leaves the penalties on variables out of `losses`, in this thread, for a while.

    Where somebody's own method sums `model.losses`, nothing else can tell them from the
    rest: taken off the variables they would be missing in another thread's training.
    """
    if any(variable.regularizer is not None for variable in model.variables):
        _let_penalties_be_left_out()
    before = getattr(_thread, "leaves_out", False)
    _thread.leaves_out = True
    try:
        yield
    finally:
        _thread.leaves_out = before


@functools.cache
def _let_penalties_be_left_out() -> None:
    """Has Keras ask this thread; for good, as the next thread may be in the middle.

    The method has no public name.
    """
    theirs = keras.Layer._get_regularization_losses

    @functools.wraps(theirs)
    def penalties(layer: keras.Layer) -> list:
        found = theirs(layer)
        if getattr(_thread, "leaves_out", False):
            # Zeros, as somebody may add them up with what cannot add up nothing.
            found = [keras.ops.zeros_like(penalty) for penalty in found]
        return found

    keras.Layer._get_regularization_losses = penalties
