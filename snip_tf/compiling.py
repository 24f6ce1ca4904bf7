"""What a model was compiled with, the same for a copy, and how its layers are run."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from snip_tf.weights import layer_tree


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The arguments of `model.compile`, as the very objects that were given.

    Keras' public `get_compile_config` gives them serialized, which fails for a function
    or class that is not registered, and for many schedules; so this reads the private
    record. Empty if the model is not compiled.
    """
    if not model.compiled:
        return {}
    # Keras takes the optimizer out of its record when it saves to HDF5.
    return {"optimizer": model.optimizer, **model._compile_config.config}


def compile_like(copy: keras.Model, model: keras.Model) -> None:
    """Compiles a copy as the model is, with a new optimizer and new metrics.

    Losses keep no state and are shared. Warns, and leaves the copy as it is, if the
    optimizer or a metric cannot be made again from its own configuration.
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
            f"model was compiled with cannot be made again from its configuration: "
            f"{error}. Call `compile` on the copy.",
            stacklevel=2,
        )
        return
    # A `compile` of the class may want other arguments; what it sets on the model are
    # attributes, which are copied.
    keras.Model.compile(copy, **arguments)


def _made_again(part: Any) -> Any:
    if isinstance(part, (keras.Optimizer, keras.Metric)):
        return type(part).from_config(part.get_config())
    return part  # a name or a function


def compiled_calls(model: keras.Model) -> list[Callable[[Any], Any]]:
    """The model in inference mode as functions of arrays, without and with XLA."""
    import tensorflow as tf

    def of_arrays(compiled: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            # (For one array the walk through a nest would take longer than the rest.)
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


def strategy_of(model: keras.Model) -> Any:
    """The `tf.distribute.Strategy` in whose scope we are, or the model was made.

    TensorFlow's default strategy, of one replica, where there is none; None with
    another backend of Keras.
    """
    return getattr(model, "distribute_strategy", None)


@contextlib.contextmanager
def strategy_scope(model: keras.Model) -> Iterator[None]:
    """The scope in which variables are made as those of the model are."""
    strategy = strategy_of(model)
    with strategy.scope() if strategy else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def inlined(layer: keras.Layer) -> Iterator[None]:
    """Runs a layer and those below as one piece of what calls them.

    Values that a variable has in a `keras.StatelessScope` are lost where a part is
    cut out: in a `tf.function`, which TensorFlow traces once and keeps, and in a layer
    of a `keras.RematScope`, which is run again for its gradients, after the scope.
    """
    with _without_functions(layer), _without_rematerialization(layer):
        yield


@contextlib.contextmanager
def _without_functions(layer: keras.Layer) -> Iterator[None]:
    # Where there are none, nothing is changed, since Keras has some inside operations,
    # for grouped convolutions, that should stay compiled.
    if not any(_has_functions(part) for part in layer_tree(layer)):
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def _without_rematerialization(layer: keras.Layer) -> Iterator[None]:
    # Keras has no public name for the mode that a layer took from its scope.
    modes = {
        part: part._remat_mode
        for part in layer_tree(layer)
        if part._remat_mode is not None
    }
    for part in modes:
        part._remat_mode = None
    try:
        yield
    finally:
        for part, mode in modes.items():
            part._remat_mode = mode


def _has_functions(layer: keras.Layer) -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    return _class_has_functions(type(layer)) or any(
        map(_is_function, vars(layer).values())
    )


@functools.cache
def _class_has_functions(cls: type) -> bool:
    return any(
        _is_function(value) for base in cls.__mro__ for value in vars(base).values()
    )


def _is_function(value: Any) -> bool:
    import tensorflow as tf

    return isinstance(value, tf.types.experimental.PolymorphicFunction)
