"""Copies of a model: with masks in its layers, and without them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras
import numpy as np

from snip_tf.checks import check_built, check_model
from snip_tf.masking.compiling import strategy_scope
from snip_tf.masking.copying import copy_unmasked
from snip_tf.masking.masked_layer import MaskedLayer, mask_model
from snip_tf.masking.masked_weights import (
    all_masks,
    check_not_low_rank,
    masked_below,
    masked_value,
)
from snip_tf.masking.masks import check_masks
from snip_tf.masking.optimizers import optimizers_of, reset_slots
from snip_tf.network import check_none_pending, mask_of
from snip_tf.weights import layer_tree, weights_by_path


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
    weights = weights_by_path(model)
    check_masks(masks, weights)
    check_not_low_rank(masks, weights)
    earlier = current_masks(model)
    combined = {**earlier, **masks}
    for path in earlier.keys() & masks.keys():
        combined[path] = earlier[path] & masks[path]
    return masked_copy(model, combined.items())


def masked_copy(
    model: keras.Model, masks: Iterable[tuple[str, np.ndarray]]
) -> keras.Model:
    """A copy of a model with exactly these masks, which may be made one by one."""
    pruned = copy_unmasked(model)
    with strategy_scope(model):
        mask_model(pruned, masks)
    return pruned


def strip_pruning(pruned: keras.Model) -> keras.Model:
    """A plain copy of a pruned model: the original layer classes, zeros in place.

    Args:
        pruned: a model that `prune_model` or `apply_masks` returned, or one loaded from
            a file. It is left as it is.

    Returns:
        A `keras.Model` without `MaskedLayer`s, with the names, weight paths and outputs
        of `pruned`. Nothing holds its zeros at zero when it is trained on: `fit` makes
        it dense again. Train before stripping.

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
    masks = get_masks(pruned)
    stripped = copy_unmasked(pruned)
    weights = weights_by_path(stripped)
    for path, mask in masks.items():
        weights[path].assign(masked_value(weights[path], mask))
    return stripped


def get_masks(pruned: keras.Model) -> dict[str, np.ndarray]:
    """The masks of a pruned model.

    Args:
        pruned: a model that `prune_model` or `apply_masks` returned, or one loaded from
            a file; or a single `MaskedLayer`.

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
    if not isinstance(pruned, MaskedLayer):
        check_model(pruned)
    masks = current_masks(pruned)
    if not masks:
        raise ValueError(
            f"Expected a pruned model, as `snip_tf.prune_model` returns. "
            f"Received: model={pruned.name!r}, which has no masks. (Masks are never "
            f"guessed from zeros: a stripped model has none.)"
        )
    return masks


def set_masks(pruned: keras.Model, masks: Mapping[str, np.ndarray]) -> None:
    """Gives a pruned model other masks, in place.

    What they remove becomes zero, in the weights and in what the optimizer keeps for
    them. What they bring back starts at zero, as new connections do, with nothing in
    the optimizer; to bring weights back with values, apply masks to the original model.
    All replicas have the new masks, and so do functions that are traced already.

    Args:
        pruned: a model that `prune_model` or `apply_masks` returned, or one loaded from
            a file; or a single `MaskedLayer`. Reset is the state of the optimizer it
            is compiled with, and of those that it has as attributes.
        masks: `{weight path: bool array of the weight's shape}`, True is kept, for any
            of the weights that have masks. The others keep theirs.

    Raises:
        TypeError: if `pruned` is not a Keras model, or a mask is not boolean.
        ValueError: if `pruned` is not pruned, or a mask has an unknown path, is of a
            weight without a mask, or has another shape than its weight. Then nothing
            is changed.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> pruned = snip_tf.apply_masks(model, {"out/kernel": np.eye(2, dtype=bool)})
    >>> snip_tf.set_masks(pruned, {"out/kernel": np.array([[True, False]] * 2)})
    >>> snip_tf.get_masks(pruned)["out/kernel"].tolist()
    [[True, False], [True, False]]
    """
    get_masks(pruned)  # raises unless it has some
    weights, masked = weights_by_path(pruned), masked_below(pruned)
    check_masks(masks, weights)
    bare = [path for path in masks if path not in masked]
    if bare:
        raise ValueError(
            f"Expected masks of weights that have one. Received: masks of "
            f"{', '.join(bare)}, which {'are' if len(bare) > 1 else 'is'} not pruned. "
            f"The pruned weights are: {', '.join(masked)}. `snip_tf.apply_masks` gives "
            f"masks to weights without one, in a copy of the model."
        )
    optimizers = optimizers_of(pruned)
    for path, mask in masks.items():
        weight = masked[path]
        kept = mask & keras.ops.convert_to_numpy(mask_of(weight))
        # First without what returns, lest another thread sees weights of before.
        weight.assign(masked_value(weight, kept))
        mask_of(weight).assign(mask)
        for optimizer in optimizers:
            reset_slots(optimizer, weight, kept)


def current_masks(model: keras.Model) -> dict[str, np.ndarray]:
    """The masks of a model by weight path; empty if it is not pruned."""
    for layer in layer_tree(model):
        check_none_pending(layer)
    return {
        path: keras.ops.convert_to_numpy(mask)
        for path, mask in all_masks(model).items()
    }
