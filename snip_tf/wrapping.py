"""Copies of a model: with masks in its layers, and without them again."""

from __future__ import annotations

import contextlib
import random
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np

from snip_tf.compiling import compile_like
from snip_tf.masked_layer import (
    all_masks,
    is_made_of_layers,
    mask_model,
    masked_value,
    unmasked,
)
from snip_tf.masks import check_masks
from snip_tf.weights import (
    check_built,
    check_model,
    held_layers,
    layer_tree,
    weights_by_path,
)


def apply_masks(model: keras.Model, masks: Mapping[str, np.ndarray]) -> keras.Model:
    """A copy of a model in which the connections whose mask is False are removed.

    Args:
        model: a built `keras.Model`. It is left as it is. If it is pruned already, what
            was removed stays removed.
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
    check_built(model)
    check_masks(masks, weights_by_path(model))
    earlier = current_masks(model)
    combined = {**earlier, **masks}
    for path in earlier.keys() & masks.keys():
        combined[path] = earlier[path] & masks[path]
    pruned = _copy(model)
    mask_model(pruned, combined)
    return pruned


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
    stripped = _copy(pruned)
    weights = weights_by_path(stripped)
    for path, mask in get_masks(pruned).items():
        weights[path].assign(masked_value(weights[path], mask))
    return stripped


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
    return {
        path: keras.ops.convert_to_numpy(mask)
        for path, mask in all_masks(model).items()
    }


def _copy(model: keras.Model) -> keras.Model:
    """A copy of a model without its masks."""
    copies: dict[int, tuple[keras.Layer, keras.Layer]] = {}

    def copy_layer(layer: keras.Layer) -> keras.Layer:
        if id(layer) not in copies:
            copies[id(layer)] = layer, _new_layer(layer, copy_layer, undo)
        return copies[id(layer)][1]

    with contextlib.ExitStack() as undo:
        undo.enter_context(unmasked(model))
        undo.enter_context(_uncompiled(model))
        undo.enter_context(_random_state_kept())
        copy = copy_layer(model)
        if not copy.built:
            copy.build_from_config(model.get_build_config())
    # Outer models come first: what is set on them is set on all below.
    for layer, new in reversed(copies.values()):
        if isinstance(layer, keras.Model):
            new.trainable = layer.trainable
    for layer, new in copies.values():
        if isinstance(layer, keras.Layer) and not is_made_of_layers(layer):
            _copy_state(layer, new)
    compile_like(copy, model)
    return copy


def _new_layer(
    layer: keras.Layer, copy_layer: Callable, undo: contextlib.ExitStack
) -> keras.Layer:
    """A layer of the same configuration, or a model made of copies of its layers."""
    if is_made_of_layers(layer):
        return keras.models.clone_model(layer, clone_function=copy_layer)
    if not isinstance(layer, keras.Layer):
        # An operation (`keras.ops`) in a Functional graph, which has no state.
        return type(layer).from_config(layer.get_config())
    config = keras.saving.serialize_keras_object(layer)
    config.pop("build_config", None)  # it is built as the original was, in its model
    # The layer is here in the flesh, so that neither its class nor the functions it was
    # given need to be registered, and code inside it (a Lambda) is no stranger's.
    copy = keras.saving.deserialize_keras_object(
        config, custom_objects=_custom_objects(layer), safe_mode=False
    )
    _copy_names_and_functions(layer, copy)
    undo.enter_context(_zero_initializers(copy))
    return copy


def _copy_names_and_functions(layer: keras.Layer, copy: keras.Layer) -> None:
    """What a configuration loses of the layers that there are before building."""
    if copy.name != layer.name:  # Keras gave it, and it is not in the configuration
        copy.name = layer.name
    for name, value in vars(layer).items():
        # By name or by its code, Keras may have found another function.
        if isinstance(value, types.FunctionType) and not hasattr(type(layer), name):
            setattr(copy, name, value)
    held, new = held_layers(layer), held_layers(copy)
    if len(held) == len(new):
        for part, its_copy in zip(held, new, strict=True):
            _copy_names_and_functions(part, its_copy)


def _copy_state(layer: keras.Layer, copy: keras.Layer) -> None:
    """What a configuration does not hold: values, and what is trainable."""
    _copy_names_and_functions(layer, copy)
    of_masks = {id(mask) for mask in all_masks(layer).values()}
    variables = [v for v in layer.variables if id(v) not in of_masks]
    shapes = [(v.name, tuple(v.shape)) for v in variables]
    shapes_of_copy = [(v.name, tuple(v.shape)) for v in copy.variables]
    if shapes != shapes_of_copy:
        raise ValueError(
            f"Expected {layer.name!r} ({type(layer).__name__}) to be made again from "
            f"its configuration with the same variables: {shapes}. Received from "
            f"`from_config` and `build`: {shapes_of_copy}. Have `get_config` return "
            f"all that its constructor needs, and make its weights in `build` or in "
            f"the constructor."
        )
    for part, new in zip(layer_tree(layer), layer_tree(copy), strict=True):
        if new.trainable != part.trainable:
            new.trainable = part.trainable
    for old, new in zip(variables, copy.variables, strict=True):
        new.assign(old)
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    for part, new in zip(layer_tree(layer), layer_tree(copy), strict=True):
        if hasattr(part, "save_assets"):  # the vocabulary of a lookup, for one
            with tempfile.TemporaryDirectory() as folder:
                part.save_assets(folder)
                new.load_assets(folder)
        if hasattr(new, "finalize_state"):
            new.finalize_state()  # preprocessing layers compute from their state


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
    """Lets Keras copy the layers alone.

    It would compile the copies too, from their configuration, which fails for any loss
    or metric that is not registered.
    """
    models = [
        part
        for part in layer_tree(model)
        if isinstance(part, keras.Model) and part.compiled
    ]
    for compiled in models:
        compiled.compiled = False
    try:
        yield
    finally:
        for compiled in models:
            compiled.compiled = True
