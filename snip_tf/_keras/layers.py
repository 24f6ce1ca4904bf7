"""Private names of layers: what they hold, track and are built by."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras


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
    "_parent_path",
    "_path",
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


# Attributes that TensorFlow adds to objects it tracks, and PyTorch's Keras to layers.
ADDED_BY_BACKEND = frozenset(
    {
        "_modules",
        "_torch_params",
        "_self_name_based_restores",
        "_self_saveable_object_factories",
        "_self_unconditional_checkpoint_dependencies",
        "_self_unconditional_deferred_dependencies",
        "_self_unconditional_dependency_names",
        "_self_update_uid",
    }
)


def modules_of(layer: Any) -> dict[str, Any]:
    """Returns the layers that are attributes of a layer, where PyTorch keeps them.

    It has a name for those below, too, but not for what one module holds itself.
    """
    if keras.backend.backend() != "torch":
        return {}
    modules = vars(layer).get("_modules", {})
    return {n: part for n, part in modules.items() if n not in ADDED_BY_BACKEND}


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
