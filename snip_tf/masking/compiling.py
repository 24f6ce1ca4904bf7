"""Compiles a copy of a model as the original, under the strategy it was made with."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
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
