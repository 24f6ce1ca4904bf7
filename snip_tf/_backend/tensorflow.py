"""TensorFlow; the other modules of this package have the same names."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from snip_tf._backend.switch import Switch

Tensors = dict[str, Any]

# What an operation raises on values that do not fit, where memory lacks, and where
# there is no derivative.
OPERATION_ERRORS: tuple[type[Exception], ...] = (
    tf.errors.OpError,
    KeyError,
    TypeError,
    ValueError,
)
OUT_OF_MEMORY: tuple[type[Exception], ...] = (
    MemoryError,
    tf.errors.ResourceExhaustedError,
)
NO_DERIVATIVE: tuple[type[Exception], ...] = (LookupError,)

# State that code holds besides that of Keras; classes whose attributes may be state;
# compiled functions.
STATE: tuple[type, ...] = (tf.Variable, tf.random.Generator)
HOLDERS: tuple[type, ...] = (tf.Module, tf.train.ExponentialMovingAverage)
FUNCTIONS: tuple[type, ...] = (tf.types.experimental.PolymorphicFunction,)
# Tensors that NumPy cannot represent, and values for each replica.
RAGGED: tuple[type, ...] = (tf.RaggedTensor,)
SPARSE: tuple[type, ...] = (tf.SparseTensor,)
DISTRIBUTED: tuple[type, ...] = (tf.distribute.DistributedValues,)
# Formats of files that only this backend makes.
EXPORTS: tuple[str, ...] = ("litert", "saved_model")
# What `compiled_calls` returns.
ENGINES = ("tensorflow", "xla")


def differentiate(
    function: Callable[[Tensors], tuple[Any, Any]], values: Tensors
) -> tuple[Any, Any, Tensors]:
    """Returns the value of a function and its derivatives; it may be called inside.

    Args:
        function: of `{name: tensor}`, returns one number and anything else.
        values: `{name: tensor}`, where to differentiate.

    Returns:
        The number, what else the function returned, and `{name: tensor}`, None where
        the number does not depend on a value.
    """
    # Eager, not traced: for one batch a trace costs more than it saves.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        value, more = function(values)
    gradients = tape.gradient(value, values)
    # Dense, also where only some rows have a gradient, as with sparse inputs.
    dense = {
        path: None if gradient is None else tf.convert_to_tensor(gradient)
        for path, gradient in gradients.items()
    }
    return value, more, dense


@contextlib.contextmanager
def second_derivatives() -> Iterator[None]:
    """Has operations be differentiated right twice, in this thread, for a while."""
    _let_moments_be_in_full()
    _give_rows_operators()
    with _twice.on():
        yield


_twice = Switch("second_derivatives")


@functools.cache
def _let_moments_be_in_full() -> None:
    """Has TensorFlow differentiate a variance through its mean, too, where asked.

    `tf.nn.moments`, with which Keras normalizes, leaves that out with a `stop_gradient`
    (https://github.com/tensorflow/tensorflow/pull/19609). The term is zero, but its
    derivative is not: without it, second derivatives through a LayerNormalization of
    six features are off by a tenth. No public switch restores it.
    """
    theirs = tf.nn.moments

    @functools.wraps(theirs)
    def moments(x, axes, shift=None, keepdims=False, name=None):
        if not _twice:
            return theirs(x, axes, shift, keepdims, name)
        mean = tf.reduce_mean(x, axes, keepdims=True)
        squares = tf.math.squared_difference(x, mean)
        mean = mean if keepdims else tf.squeeze(mean, axes)
        return mean, tf.reduce_mean(squares, axes, keepdims=keepdims)

    tf.nn.moments = moments


@functools.cache
def _give_rows_operators() -> None:
    """Has gradients of single rows support the operators of tensors, where asked.

    TensorFlow's second derivatives of tanh and sigmoid multiply the incoming gradient
    by numbers; after a product with a sparse matrix, or a sum over segments, that
    gradient is a `tf.IndexedSlices`, which has no operators.
    """
    for name in ("__add__", "__mul__", "__sub__", "__truediv__"):
        theirs = getattr(tf.IndexedSlices, name, None)
        operator = functools.partialmethod(_of_tensor, name, theirs)
        setattr(tf.IndexedSlices, name, operator)


def _of_tensor(
    rows: tf.IndexedSlices, name: str, theirs: Callable | None, other: Any
) -> Any:
    if _twice:
        return getattr(tf.convert_to_tensor(rows), name)(other)
    # As without the operator: Python then tries that of the other operand.
    return theirs(rows, other) if theirs else NotImplemented


def in_float64() -> contextlib.AbstractContextManager:
    """Has float64 be that, for a while."""
    return contextlib.nullcontext()


def value_of(variable: keras.Variable) -> Any:
    """Returns the value as a tensor, which stays when the variable changes."""
    return tf.convert_to_tensor(variable)


def new_mask(values: Any, name: str) -> keras.Variable:
    """Returns a mask as a variable."""
    return keras.Variable(values, dtype="bool", trainable=False, name=name)


def sync(model: Any) -> None:
    """Does nothing: variables have their values while `fit` runs, too."""


def state_of_fit(model: keras.Model) -> contextlib.AbstractContextManager:
    """Does nothing: an optimizer has its values while `fit` runs, too."""
    del model
    return contextlib.nullcontext()


def as_array(tensor: Any) -> np.ndarray:
    """Returns a tensor, or the value of a variable, as an array that may share it."""
    # (NumPy reads a tensor in place, but copies a variable.)
    return np.asarray(tf.convert_to_tensor(tensor))


def constant(array: Any, dtype: str | None = None) -> Any:
    """Returns an array as a tensor; text, and SciPy's sparse matrices, too."""
    if not hasattr(array, "tocoo"):
        return tf.convert_to_tensor(array, dtype)
    entries = array.tocoo()
    indices = tf.stack([entries.row, entries.col], axis=1)
    tensor = tf.SparseTensor(tf.cast(indices, tf.int64), entries.data, entries.shape)
    return tf.sparse.reorder(tensor)


def name_scope(path: str) -> contextlib.AbstractContextManager:
    """Has variables be created under a path; Keras' own scopes take longer."""
    return tf.name_scope(path) if path else contextlib.nullcontext()


def runs_eagerly() -> bool:
    """Returns whether operations run at once, rather than being traced."""
    return tf.executing_eagerly()


def replica_count() -> int:
    """Returns how many replicas the strategy of this scope has."""
    return tf.distribute.get_strategy().num_replicas_in_sync


@contextlib.contextmanager
def variables_read() -> Iterator[Callable[[], set[int]]]:
    """Yields a function that returns the ids of the variables read by then.

    Of `keras.Variable.value`; code may read that past the scopes of Keras.
    """
    with tf.GradientTape() as tape:
        yield lambda: {id(variable) for variable in tape.watched_variables()}


def compiled_calls(model: keras.Model) -> dict[str, Callable[[Any], Any]]:
    """Returns inference with a model as functions of arrays, by what compiles them."""

    def infer(x: Any) -> Any:
        return model(x, training=False)

    return {
        "tensorflow": _of_arrays(tf.function(infer)),
        "xla": _of_arrays(tf.function(infer, jit_compile=True)),
    }


def _of_arrays(compiled: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        # (For a single array, mapping over a nest would take longer than the rest.)
        if isinstance(x, (dict, list, tuple)):
            outputs = compiled(keras.tree.map_structure(tf.convert_to_tensor, x))
        else:
            outputs = compiled(tf.convert_to_tensor(x))
        if isinstance(outputs, (dict, list, tuple)):
            return keras.tree.map_structure(lambda tensor: tensor.numpy(), outputs)
        return outputs.numpy()

    return call


def can_run(engine: str, call: Callable[[Any], Any], x: Any) -> bool:
    """Returns whether one of `compiled_calls` runs on this input; XLA may not.

    Never call this for a model that takes text: when XLA fails a second time,
    TensorFlow 2.21 ends the process.
    """
    if engine != "xla":
        return True
    try:
        call(x)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        return False
    return True


def recompute_unless(plainly: Callable[[], bool]) -> None:
    """Has nothing be recomputed for its gradients where `plainly()`, from now on."""
    # `keras.remat` calls it.
    recompute_grad = tf.recompute_grad

    @functools.wraps(recompute_grad)
    def not_where_asked(f):
        return f if plainly() else recompute_grad(f)

    tf.recompute_grad = not_where_asked


def copy_state(value: Any) -> Any:
    """Returns a copy of one of `STATE`."""
    if isinstance(value, tf.random.Generator):
        state = value.state.numpy()
        return tf.random.Generator.from_state(state, value.algorithm)
    return tf.Variable(
        tf.convert_to_tensor(value),
        trainable=value.trainable,
        name=value.name.partition(":")[0],
        dtype=value.dtype,
        constraint=value.constraint,
        synchronization=value.synchronization,
        aggregation=value.aggregation,
        shape=value.shape,
    )


def product_by_rows(weight: Any, mask: Any) -> Any:
    """Returns `weight * mask`, which preserves gradients of some rows only.

    A lookup in a table has such a gradient, and optimizers then leave the other rows
    alone. A plain product would make it dense, and so train differently.
    """
    # Read outside of the function with a custom gradient.
    return _product_by_rows(tf.convert_to_tensor(weight), mask)


@tf.custom_gradient
def _product_by_rows(weight: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    def gradient(of_product: Any) -> tuple[Any, None]:
        if not isinstance(of_product, tf.IndexedSlices):
            return of_product * mask, None
        rows = of_product.values * tf.gather(mask, of_product.indices)
        return tf.IndexedSlices(rows, of_product.indices, tf.shape(weight)), None

    return weight * mask, gradient
