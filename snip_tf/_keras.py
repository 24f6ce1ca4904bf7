"""The private names of Keras and TensorFlow that this package uses, all of them.

Each is wrapped in a function that says what it is for, and why no public name suffices;
each has a test in tests/_keras_test.py that fails when a new version changes it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

# The base class of anything that Keras saves and loads.
from keras.src.saving.keras_saveable import KerasSaveable


def held_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers that a layer holds directly, in the order Keras tracks them.

    Keras has a public name for those of a model, but not for those of a plain layer.
    """
    if isinstance(layer, keras.Model):
        return layer.layers
    return layer._flatten_layers(include_self=False, recursive=False)


@functools.cache
def functional_class() -> type[keras.Model]:
    """Returns the class of Functional models, for which Keras has no public name."""
    # Named, so that the user's next layers do not get other numbers; and with a layer,
    # since Keras only from 3.14 on accepts an input as the output.
    x = keras.Input((), name="x")
    return type(keras.Model(x, keras.layers.Identity(name="y")(x), name="of_layers"))


class AfterBuild:
    """Calls `_snip_after_build` of a layer whenever Keras has built it.

    Keras calls `_post_build` however a layer gets its weights, and has no public hook:
    `build` is an attribute of the layer, bound before it is masked.
    """

    def _post_build(self) -> None:
        super()._post_build()  # type: ignore[misc]  # of Keras, the next class
        self._snip_after_build()

    def _snip_after_build(self) -> None:
        """Does nothing; a layer may override it."""


def unpickle() -> Callable:
    """Returns the function that unpickles any layer.

    Pickle finds a method by the name of its class, which a masked class lacks.
    """
    return keras.Layer._unpickle_model


# Attributes that Keras sets on every layer and changes later, to call and save it.
_SETTINGS = (
    "built",
    "supports_jit",
    "_allow_non_tensor_positional_args",
    "_auto_config",
    "_build_shapes_dict",
    "_called",
    "_convert_input_args",
    "_dtype_policy",
    "_input_spec",
    "_remat_mode",
    "_supports_masking",
    "_trainable",
)


def settings_of(layer: keras.Layer) -> dict[str, Any]:
    """Returns the attributes of a layer that a copy needs from its original.

    The constructor of `keras.Layer` makes all others for a copy, too. Some of these
    have no public name, or one that does more than set them.
    """
    attributes = vars(layer)
    return {name: attributes[name] for name in _SETTINGS if name in attributes}


# Attributes that `compile`, `fit`, `evaluate` and `predict` add to a model.
ADDED_BY_TRAINING = frozenset(
    {
        "_compile_config",
        "_compiled_trainable_state",
        "_eval_epoch_iterator",
        "history",
        "optimizer",
        "stop_evaluating",
        "stop_predicting",
        "stop_training",
    }
)
# Attributes that TensorFlow adds to objects it tracks.
ADDED_BY_TENSORFLOW = frozenset(
    {
        "_self_name_based_restores",
        "_self_saveable_object_factories",
        "_self_unconditional_checkpoint_dependencies",
        "_self_unconditional_deferred_dependencies",
        "_self_unconditional_dependency_names",
        "_self_update_uid",
    }
)


def tracked(owner: Any) -> dict[str, list[Any]]:
    """Returns what Keras tracks of a layer or metric, by kind, each in order.

    No public list tells which frozen variables were created as trainable.
    """
    return {store: list(values) for store, (_, values) in owner._tracker.config.items()}


def track(owner: Any, store: str, value: Any) -> None:
    """Has Keras track a value, after those that it tracks already.

    Publicly, Keras tracks only attributes, in the order in which they are set.
    """
    owner._tracker.add_to_store(store, value)


def adapt_penalties(adapt: Callable[[Callable], Callable]) -> None:
    """Replaces the method of all layers that returns the penalties on variables.

    Only `losses` is public, in which nothing distinguishes them from the rest.
    """
    layer = keras.Layer
    layer._get_regularization_losses = adapt(layer._get_regularization_losses)


def show_to_tensorflow(layer: keras.Layer, name: str, variable: keras.Variable) -> None:
    """Has TensorFlow's checkpoints save a variable with a layer.

    Keras treats what TensorFlow tracks as a weight, unless this is switched off.
    """
    from keras.src.utils import tracking

    if keras.backend.backend() == "tensorflow":
        with tracking.DotNotTrackScope():
            layer._track_trackable(variable, name, overwrite=True)


def autocasts(variable: keras.Variable) -> bool:
    """Returns whether a variable is cast in layers of mixed precision.

    It is a public argument of `keras.Variable`, but not a public attribute.
    """
    return variable._autocast


def set_path(variable: keras.Variable, path: str) -> None:
    """Sets the path of a variable, which Keras derives from its scopes."""
    variable._path = path


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns the operation that made a tensor of a graph, which is not public."""
    return tensor._keras_history.operation


def mask_on(tensor: Any) -> Any:
    """Returns the mask of timesteps that Keras attached to a tensor, or None.

    Publicly, it is only passed to layers.
    """
    return getattr(tensor, "_keras_mask", None)


def put_mask_on(tensor: Any, mask: Any) -> None:
    """Attaches a mask to a tensor, for losses and metrics; see `mask_on`."""
    tensor._keras_mask = mask


def logits_of(outputs: Any) -> Any:
    """Returns the logits of a softmax or sigmoid; other tensors unchanged.

    Keras attaches them for its own losses.
    """
    return getattr(outputs, "_keras_logits", outputs)


def set_dtype(part: keras.KerasTensor | keras.layers.InputLayer, dtype: str) -> None:
    """Sets the dtype to which a model casts an input.

    It is public only when an input is made.
    """
    part._dtype = dtype


def compile_config(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of `compile`, as the very objects that were passed.

    `get_compile_config` returns them serialized, which fails for a function or class
    that is not registered, and for many schedules.
    """
    return model._compile_config.config


def input_signature(model: keras.Model) -> list[Any]:
    """Returns the input signature of a model, as `model.export` determines it."""
    from keras.src.export.export_utils import get_input_signature

    return get_input_signature(model)


def converter_error() -> type[Exception]:
    """Returns the error that TensorFlow's LiteRT converter raises, which is not public.

    Raises:
        ImportError: if TensorFlow lacks the converter.
    """
    from tensorflow.lite.python.convert import ConverterError

    return ConverterError


def litert_schema() -> Any:
    """Returns readers of LiteRT files, generated from their public schema.

    `ai_edge_litert`, which has them too, need not be installed to write a file.
    """
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def loss_settings(loss: keras.losses.Loss) -> dict[str, Any]:
    """Returns what a Keras loss passes to its function, besides targets and outputs.

    `get_config` returns it serialized.
    """
    return loss._fn_kwargs


def trained_by(optimizer: Any) -> list[keras.Variable]:
    """Returns the weights that an optimizer trains, which are not public."""
    return vars(optimizer).get("_trainable_variables", [])


def first_value(optimizer: keras.Optimizer, slots: str) -> float:
    """Returns the initial value of a list of slots, such as `_momentums`."""
    if slots == "_accumulators":
        return getattr(optimizer, "initial_accumulator_value", 0.0)
    return 0.0


def averages_of(
    optimizer: keras.Optimizer,
) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """Yields each weight with the moving average that the optimizer keeps of it.

    These exist with `use_ema`, once it is built; they are public only as variables.
    """
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if getattr(optimizer, "use_ema", False) and averages:
        for weight, average in zip(trained_by(optimizer), averages, strict=True):
            if average is not None:
                yield weight, average


def position_in(optimizer: keras.Optimizer, variable: Any) -> int:
    """Returns the index of a variable among the weights that an optimizer trains."""
    return optimizer._get_variable_index(variable)


class SavedPart(KerasSaveable):
    """An attribute of a layer that Keras saves, in a group of its own.

    It needs `save_own_variables` and `load_own_variables`.
    """

    def _obj_type(self) -> str:
        return "Operation"  # for which Keras skips attributes of operations


def paths_in(store: Any) -> Iterable[str]:
    """Returns all paths in the file that a store reads.

    Publicly, Keras shows a layer only its own part. This asks the HDF5 file of the
    store, or its index of several files; other kinds have no paths.
    """
    names = list(getattr(store, "sharding_config", {}).get("weight_map", {}))
    file = getattr(store, "h5_file", None)
    if file:
        file.visit(names.append)
    return names


@contextlib.contextmanager
def names_not_counted() -> Iterator[None]:
    """Has Keras number the user's next objects as if nothing had been made here.

    The counts, of this thread, have no public name.
    """
    from keras.src.backend.common import global_state

    counts = global_state.get_global_attribute("object_name_uids")
    before = None if counts is None else dict(counts)
    try:
        yield
    finally:
        if before is not None:
            counts.clear()
            counts.update(before)


def inline_functions_where(asks: Callable[[], bool]) -> None:
    """Has every `tf.function` run eagerly where `asks()` is true, from now on.

    `tf.config.run_functions_eagerly` does it for all threads; what the functions
    themselves look up has no public name. TensorFlow's own functions, as in
    `tf.vectorized_map`, which do not work eagerly, are unchanged, and so are functions
    loaded from a file, which have no Python code.
    """
    import tensorflow as tf

    cls = type(tf.function(lambda: None))
    theirs = cls._run_functions_eagerly

    def run_eagerly(function: Any) -> bool:
        if not asks():
            return theirs.fget(function)
        module = getattr(function.python_function, "__module__", None) or ""
        return not module.startswith("tensorflow.")

    cls._run_functions_eagerly = property(run_eagerly)


def function_like(function: Any, python_function: Callable) -> Any:
    """Returns a `tf.function` of other Python code, with the options of a given one."""
    return function._clone(python_function)


def is_reference(value: Any) -> bool:
    """Returns whether this is a result of TensorFlow's `ref()`, of a private class."""
    return type(value).__name__ == "Reference" and hasattr(value, "deref")


def unwrapped(value: Any) -> Any:
    """Returns the tuple that TensorFlow wraps if it is an attribute of a layer."""
    return getattr(value, "__wrapped__", value)


def is_traced_for_one_call() -> bool:
    """Returns whether the function being traced exists for one call only.

    Keras makes one for grouped convolutions, whose gradients exist only under XLA where
    TensorFlow is built without oneDNN, as on Apple's processors.
    """
    import tensorflow as tf

    return getattr(tf.compat.v1.get_default_graph(), "name", None) == "_conv_xla"
