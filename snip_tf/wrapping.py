"""Puts `MaskedLayer`s into a copy of a model, and takes them out again."""

from __future__ import annotations

import contextlib
import random
import types
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from snip_tf.compiling import compile_like
from snip_tf.masked_layer import MaskedLayer
from snip_tf.masks import check_masks
from snip_tf.weights import check_model, layer_tree, weights_by_path


def apply_masks(model: keras.Model, masks: Mapping[str, np.ndarray]) -> keras.Model:
    """A copy of a model in which the connections whose mask is False are removed.

    Args:
        model: a built Sequential or Functional `keras.Model`. It is left as it is. If
            it is pruned already, what was removed stays removed.
        masks: `{weight path: bool array of the weight's shape}`; True is kept. Weights
            without a mask are not pruned.

    Returns:
        A `keras.Model` with the same layer names, weight paths and weight values, the
        removed ones exactly zero; compiled as `model` is, with a new optimizer.

    Raises:
        TypeError: if `model` is not a Keras model, or a mask is not boolean.
        ValueError: if the model is not built, or a mask has an unknown path or another
            shape than its weight.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> mask = np.array([[True, False], [False, False]])
    >>> pruned = snip_tf.apply_masks(model, {"out/kernel": mask})
    >>> snip_tf.sparsity(pruned)
    0.75
    """
    check_can_wrap(model)
    check_masks(masks, weights_by_path(model))
    earlier = current_masks(model)
    combined = {**earlier, **masks}
    for path in earlier.keys() & masks.keys():
        combined[path] = earlier[path] & masks[path]
    return _rebuild(model, combined, wrap=True)


def strip_pruning(pruned: keras.Model) -> keras.Model:
    """A plain copy of a pruned model: the original layer classes, zeros in place.

    Args:
        pruned: a model that `prune_model` or `apply_masks` returned, or one loaded from
            a file. It is left as it is.

    Returns:
        A `keras.Model` without `MaskedLayer`s, with the names, weight paths and outputs
        of `pruned`. Nothing holds the zeros any more: train before stripping.

    Raises:
        TypeError: if `pruned` is not a Keras model.
        ValueError: if it is not pruned.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> pruned = snip_tf.apply_masks(model, {"out/kernel": np.eye(2, dtype=bool)})
    >>> type(snip_tf.strip_pruning(pruned).get_layer("out")).__name__
    'Dense'
    """
    return _rebuild(pruned, get_masks(pruned), wrap=False)


def get_masks(pruned: keras.Model) -> dict[str, np.ndarray]:
    """The masks of a pruned model.

    Args:
        pruned: a model that `prune_model` or `apply_masks` returned, or one loaded from
            a file.

    Returns:
        `{weight path: bool array of the weight's shape}`; True is kept.

    Raises:
        TypeError: if `pruned` is not a Keras model.
        ValueError: if it is not pruned.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> pruned = snip_tf.apply_masks(model, {"out/kernel": np.eye(2, dtype=bool)})
    >>> snip_tf.get_masks(pruned)["out/kernel"].tolist()
    [[True, False], [False, True]]
    """
    check_model(pruned)
    masks = current_masks(pruned)
    if not masks:
        raise ValueError(
            f"Expected a pruned model, as `snip_tf.prune_model` returns. "
            f"Received: model={pruned.name!r}, which has no masks. (Masks are never "
            f"guessed from zeros: a stripped model has none.)"
        )
    return masks


def current_masks(model: keras.Model) -> dict[str, np.ndarray]:
    """The masks of a model by weight path; empty if it is not pruned."""
    by_weight = {
        id(weight): mask
        for layer in _masked_layers(model)
        for weight, mask in layer.masked_weights()
    }
    return {
        path: keras.ops.convert_to_numpy(by_weight[id(weight)])
        for path, weight in weights_by_path(model).items()
        if id(weight) in by_weight
    }


def check_can_wrap(model: keras.Model) -> None:
    """Raises unless `model` is a built Sequential or Functional model."""
    check_model(model)
    if not (isinstance(model, keras.Sequential) or hasattr(model, "operations")):
        raise _no_plain_model(model)
    if not model.built:
        raise ValueError(
            f"Expected a built model. Received: model={model.name!r}, not built. Call "
            f"it on a batch, or give it a `keras.Input`."
        )


def _no_plain_model(model: keras.Model) -> ValueError:
    return ValueError(
        f"Expected a Sequential or Functional model. Received: model {model.name!r} of "
        f"the subclass {type(model).__name__}, which Keras cannot copy from its "
        f"configuration."
    )


def _masked_layers(layer: keras.Layer) -> Iterator[MaskedLayer]:
    return (part for part in layer_tree(layer) if isinstance(part, MaskedLayer))


def _rebuild(
    model: keras.Model, masks: Mapping[str, np.ndarray], wrap: bool
) -> keras.Model:
    """A copy of `model` with `masks` applied, as MaskedLayers or as plain zeros."""
    weights = weights_by_path(model)
    by_weight = {id(weights[path]): mask for path, mask in masks.items()}
    copies: list[tuple[keras.Layer, keras.Layer]] = []

    def copy_layer(layer):
        if not isinstance(layer, keras.Layer):
            # An operation (`keras.ops`) in a Functional graph, which has no state.
            return type(layer).from_config(layer.get_config())
        layer = getattr(layer, "unmasked_layer", layer)
        copy = _copy_layer(layer)
        copies.append((layer, copy))
        inside = weights_by_path(layer) if wrap else {}
        masked = {
            path: by_weight[id(weight)]
            for path, weight in inside.items()
            if id(weight) in by_weight
        }
        return MaskedLayer(copy, masked) if masked else copy

    with _uncompiled(model), _random_state_kept():
        copied_model = keras.models.clone_model(
            model, clone_function=copy_layer, recursive=True
        )
    if type(copied_model) is not type(model):
        raise _no_plain_model(model)
    for old, new in zip(_models(model), _models(copied_model), strict=True):
        new.trainable = old.trainable
    for layer, copy in copies:
        _copy_state(layer, copy, by_weight)
    compile_like(copied_model, model)
    return copied_model


def _copy_layer(layer: keras.Layer) -> keras.Layer:
    """A new layer of the same configuration, built if its build config allows."""
    config = keras.saving.serialize_keras_object(layer)
    build_config = config.pop("build_config", None)
    # The layer is here in the flesh, so that neither its class nor the functions it was
    # given need to be registered, and code inside it (a Lambda) is no stranger's.
    copy = keras.saving.deserialize_keras_object(
        config, custom_objects=_custom_objects(layer), safe_mode=False
    )
    if build_config and not copy.built:
        with _zero_initializers(copy):
            copy.build_from_config(build_config)
    for part, new in zip(layer_tree(layer), layer_tree(copy), strict=False):
        new.name = part.name  # a name that Keras gave is not in the configuration
    return copy


def _copy_state(
    layer: keras.Layer, copy: keras.Layer, masks: Mapping[int, np.ndarray]
) -> None:
    """What a configuration does not hold: values, functions, what is trainable."""
    for part, new in zip(layer_tree(layer), layer_tree(copy), strict=True):
        new.trainable = part.trainable
        for name, value in vars(part).items():
            if isinstance(value, types.FunctionType):
                # By name or by its code, Keras may have found another function.
                setattr(new, name, value)
    for old, new in zip(layer.variables, copy.variables, strict=True):
        mask = masks.get(id(old))
        new.assign(old if mask is None else keras.ops.where(mask, old, 0.0))
        new.trainable = old.trainable
    for part in layer_tree(copy):
        if hasattr(part, "finalize_state"):
            part.finalize_state()  # preprocessing layers compute from their state


@contextlib.contextmanager
def _zero_initializers(layer: keras.Layer) -> Iterator[None]:
    """Builds with zeros: random values would only be drawn to be overwritten.

    For LeNet-5 that is a third of the time of the copy; an orthogonal recurrent kernel
    takes a QR decomposition.
    """
    found = [
        (owner, name, value)
        for owner in layer_tree(layer)
        for name, value in vars(owner).items()
        if isinstance(value, keras.initializers.Initializer)
    ]
    zeros = keras.initializers.Zeros()
    for owner, name, _ in found:
        setattr(owner, name, zeros)
    try:
        yield
    finally:
        for owner, name, value in found:
            setattr(owner, name, value)


def _models(model: keras.Model) -> Iterator[keras.Model]:
    return (part for part in layer_tree(model) if isinstance(part, keras.Model))


def _custom_objects(layer: keras.Layer) -> dict[str, object]:
    """The classes of a layer's parts and the functions they were given, by name."""
    objects: dict[str, object] = {}
    for part in layer_tree(layer):
        objects[type(part).__name__] = type(part)
        for value in vars(part).values():
            if callable(value) and not isinstance(value, keras.Layer):
                value = value if hasattr(value, "__name__") else type(value)
                objects.setdefault(value.__name__, value)
    return objects


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Keras draws default seeds from Python's generator, which is the user's too."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def _uncompiled(model: keras.Model) -> Iterator[None]:
    """Lets `clone_model` copy the layers alone.

    It would compile the copies too, from their configuration, which fails for any loss
    or metric that is not registered.
    """
    models = [inner for inner in _models(model) if inner.compiled]
    for compiled in models:
        compiled.compiled = False
    try:
        yield
    finally:
        for compiled in models:
            compiled.compiled = True
