"""What a model was compiled with, the same for a copy, and how its layers are run."""

from __future__ import annotations

import contextlib
import functools
import threading
import warnings
import weakref
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


def can_compile(call: Callable[[Any], Any], x: Any) -> bool:
    """Whether XLA compiles a function of `compiled_calls` for these numbers.

    Of text it must not even be asked: where it fails a second time, TensorFlow 2.21
    ends the process.
    """
    import tensorflow as tf

    try:
        call(x)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        return False
    return True


def runs_eagerly() -> bool:
    """Whether operations are run at once, not traced by TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    return tf.executing_eagerly()


def product_by_rows(weight: Any, mask: Any) -> Any:
    """`weight * mask`, whose gradient is of some rows only where that given is.

    So it is behind a lookup in a table, and optimizers then leave the other rows alone;
    the gradient of a product would be of all rows, and train otherwise.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.ops.multiply(weight, mask)
    import tensorflow as tf

    # What the variable holds, read outside of what has a gradient of its own.
    return _product_of_tensorflow()(tf.convert_to_tensor(weight), mask)


@functools.cache
def _product_of_tensorflow() -> Callable[[Any, Any], Any]:
    import tensorflow as tf

    @tf.custom_gradient
    def product(weight: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(of_product: Any) -> tuple[Any, None]:
            if not isinstance(of_product, tf.IndexedSlices):
                return of_product * mask, None
            rows = of_product.values * tf.gather(mask, of_product.indices)
            return tf.IndexedSlices(rows, of_product.indices, tf.shape(weight)), None

        return weight * mask, gradient

    return product


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
    of a `keras.RematScope`, or a call of `keras.remat`, which is run again for its
    gradients, after the scope.
    """
    with (
        _without_functions(layer),
        _without_rematerialization(layer),
        _without_recomputing(),
    ):
        yield


def _without_functions(layer: keras.Layer) -> contextlib.AbstractContextManager:
    # Where there are none, nothing is changed, since Keras has some inside operations,
    # for grouped convolutions, that should stay compiled.
    if not any(_has_functions(part) for part in layer_tree(layer)):
        return contextlib.nullcontext()
    return functions_inlined()


def functions_inlined() -> contextlib.AbstractContextManager:
    """Runs every `tf.function` line by line for a while.

    One that is traced in a `keras.StatelessScope` keeps the values of that scope.
    """
    import tensorflow as tf

    config = tf.config
    return held(
        "functions", config.functions_run_eagerly, config.run_functions_eagerly, True
    )


@contextlib.contextmanager
def _without_rematerialization(layer: keras.Layer) -> Iterator[None]:
    # Keras has no public name for the mode that a layer took from its scope, and before
    # version 3.9 no modes.
    with contextlib.ExitStack() as stack:
        for part in layer_tree(layer):
            if ("mode", id(part)) in _overrides or getattr(part, "_remat_mode", None):
                get = functools.partial(getattr, part, "_remat_mode")
                put = functools.partial(setattr, part, "_remat_mode")
                stack.enter_context(held(("mode", id(part)), get, put, None))
        yield


def _without_recomputing() -> contextlib.AbstractContextManager:
    """Has `keras.remat` and `tf.recompute_grad` return what they are given."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    get = functools.partial(getattr, tf, "recompute_grad")
    put = functools.partial(setattr, tf, "recompute_grad")
    return held("recompute_grad", get, put, lambda function: function)


# What several threads hold at another value: how many of them, and the value before.
_overrides: dict[Any, tuple[int, Any]] = {}
_overriding = threading.Lock()


@contextlib.contextmanager
def held(
    key: Any, get: Callable[[], Any], put: Callable[[Any], None], value: Any
) -> Iterator[None]:
    """Has something at a value until the last thread that asked for it has ended.

    No thread waits for another, as replicas would for ever.
    """
    with _overriding:
        count, before = _overrides.get(key, (0, None))
        if not count:
            before = get()
            put(value)
        _overrides[key] = count + 1, before
    try:
        yield
    finally:
        with _overriding:
            count, before = _overrides.pop(key)
            if count > 1:
                _overrides[key] = count - 1, before
            else:
                put(before)


def _has_functions(layer: keras.Layer) -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    cls = type(layer)
    if cls not in _with_functions:
        _with_functions[cls] = any(
            _is_function(value) for base in cls.__mro__ for value in vars(base).values()
        )
    return _with_functions[cls] or any(map(_is_function, vars(layer).copy().values()))


# Whether classes have functions; weakly, since classes of the user's come and go.
_with_functions: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def _is_function(value: Any) -> bool:
    import tensorflow as tf

    return isinstance(value, tf.types.experimental.PolymorphicFunction)
