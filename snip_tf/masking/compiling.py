"""Compiles a copy of a model as the original, and makes compiled calls."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from snip_tf import _keras


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of `model.compile`, as the very objects that were passed.

    Empty if the model is not compiled.
    """
    if not model.compiled:
        return {}
    # Keras takes the optimizer out of its record when it saves to HDF5.
    return {"optimizer": model.optimizer, **_keras.compile_config(model)}


def compile_like(copy: keras.Model, model: keras.Model) -> None:
    """Compiles a copy as the model is, with a new optimizer and new metrics.

    Losses keep no state and are shared. If the optimizer or a metric cannot be
    recreated from its configuration, warns and leaves the copy uncompiled.
    """
    arguments = compile_arguments(model)
    if not arguments:
        return
    try:
        for name in ("optimizer", "metrics", "weighted_metrics"):
            arguments[name] = keras.tree.map_structure(_made_again, arguments[name])
    except (NotImplementedError, TypeError, ValueError) as error:
        warnings.warn(
            f"The copy of {model.name!r} is not compiled, since something that the "
            "model was compiled with cannot be recreated from its configuration: "
            f"{error}. Call `compile` on the copy.",
            stacklevel=2,
        )
        return
    # A custom `compile` may take other arguments; what it sets on the model are
    # attributes, which are copied.
    keras.Model.compile(copy, **arguments)


def _made_again(part: Any) -> Any:
    if isinstance(part, (keras.Optimizer, keras.Metric)):
        return type(part).from_config(part.get_config())
    return part  # a name or a function


def compiled_calls(model: keras.Model) -> list[Callable[[Any], Any]]:
    """Returns inference with the model as functions of arrays, without and with XLA."""
    import tensorflow as tf

    def of_arrays(compiled: Callable[[Any], Any]) -> Callable[[Any], Any]:
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

    def infer(x: Any) -> Any:
        return model(x, training=False)

    return [
        of_arrays(tf.function(infer)),
        of_arrays(tf.function(infer, jit_compile=True)),
    ]


def can_compile(call: Callable[[Any], Any], x: Any) -> bool:
    """Returns whether XLA compiles a function of `compiled_calls` for this input.

    Never call this for a model that takes text: when XLA fails a second time,
    TensorFlow 2.21 ends the process.
    """
    import tensorflow as tf

    try:
        call(x)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        return False
    return True


def strategy_of(model: keras.Model) -> Any:
    """Returns the `tf.distribute.Strategy` of the scope, or that of the model.

    Without either, this is TensorFlow's default strategy with one replica; with another
    backend of Keras it is None.
    """
    return getattr(model, "distribute_strategy", None)


@contextlib.contextmanager
def strategy_scope(model: keras.Model) -> Iterator[None]:
    """Enters the scope in which variables are created like those of a model."""
    strategy = strategy_of(model)
    with strategy.scope() if strategy else contextlib.nullcontext():
        yield
