"""Copies a model with masks in its layers, or without them again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import keras
import numpy as np

from snip_tf.masking.compiling import strategy_scope
from snip_tf.masking.copying import copied_network, plain_copy
from snip_tf.masking.masked_layer import MaskedLayer, wrap_model
from snip_tf.masking.masked_weights import (
    mask_variable,
    masked_value,
    put_mask,
)
from snip_tf.masking.masks import check_masks
from snip_tf.masking.optimizers import optimizers_of, reset_slots
from snip_tf.masking.stored_masks import keep_with_owners
from snip_tf.network import Network


def apply_masks(model: keras.Model, masks: Mapping[str, np.ndarray]) -> keras.Model:
    """Returns a copy of a model without the connections whose mask is False.

    Args:
        model: a built `keras.Model`. It is left unchanged. If it is already pruned,
            what was removed stays removed.
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
    network = Network(model)
    check_masks(masks, network.weights)
    earlier = network.masks
    combined = {**earlier, **masks}
    for path in earlier.keys() & masks.keys():
        combined[path] = earlier[path] & masks[path]
    return masked_copy(network, combined.items()).model


def masked_copy(network: Network, masks: Iterable[tuple[str, np.ndarray]]) -> Network:
    """Returns a copy of a model with exactly these masks.

    They may be generated one by one, so that no mask is held both as an array and as a
    variable.
    """
    with strategy_scope(network.model):
        variables = {path: mask_variable(path, mask) for path, mask in masks}
        copied = copied_network(network, variables)
        for path, variable in variables.items():
            put_mask(copied.weights[path], variable)
        wrap_model(copied.model)
        keep_with_owners(copied.owners)
    return copied


def strip_pruning(pruned: keras.Model) -> keras.Model:
    """Returns a plain copy of a pruned model: original layer classes, zeros in place.

    Args:
        pruned: a model that `prune_model` or `apply_masks` returned, or one loaded from
            a file. It is left unchanged.

    Returns:
        A `keras.Model` without `MaskedLayer`s, with the names, weight paths and outputs
        of `pruned`. Nothing holds its zeros at zero in further training: `fit` makes it
        dense again. Train before stripping. Low-rank updates (LoRA) of masked weights
        are merged into them, m * (W + s A B); these layers have none any more.

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
    return plain_copy(_pruned_network(pruned))


def get_masks(pruned: keras.Model) -> dict[str, np.ndarray]:
    """Returns the masks of a pruned model.

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
    return _pruned_network(pruned).masks


def _pruned_network(pruned: keras.Model) -> Network:
    """Reads a pruned model, or a single masked layer."""
    is_layer = isinstance(pruned, MaskedLayer) and not isinstance(pruned, keras.Model)
    network = Network.of_layer(pruned) if is_layer else Network(pruned)
    if not network.mask_variables:
        raise ValueError(
            f"Expected a pruned model, as `snip_tf.prune_model` returns. "
            f"Received: model={pruned.name!r}, which has no masks. (Masks are never "
            f"guessed from zeros: a stripped model has none.)"
        )
    return network


def set_masks(pruned: keras.Model, masks: Mapping[str, np.ndarray]) -> None:
    """Gives a pruned model other masks, in place.

    Removed connections become zero, in the weights and in the optimizer's state.
    Connections that come back start at zero, with fresh optimizer state; to bring
    weights back with values, apply masks to the original model. The new masks take
    effect on all replicas, and in functions that are traced already.

    Args:
        pruned: a model that `prune_model` or `apply_masks` returned, or one loaded from
            a file; or a single `MaskedLayer`. The state of the optimizer that it is
            compiled with is reset, and that of optimizers that are its attributes.
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
    network = _pruned_network(pruned)
    _check_new_masks(masks, network)
    assign_masks(network, masks, optimizers_of(network.layers))


def assign_masks(
    network: Network,
    masks: Mapping[str, np.ndarray],
    optimizers: Collection[keras.Optimizer],
) -> None:
    """Gives a pruned model other masks, in place, which are known to fit.

    Args:
        network: the model.
        masks: `{weight path: bool array}`.
        optimizers: those whose state is reset.
    """
    for path, mask in masks.items():
        weight, variable = network.weights[path], network.mask_variables[path]
        kept = mask & keras.ops.convert_to_numpy(variable)
        # First without the returning connections, so that no other thread sees old
        # weights.
        weight.assign(masked_value(weight, kept))
        variable.assign(mask)
        for optimizer in optimizers:
            reset_slots(optimizer, weight, kept)


def _check_new_masks(masks: Mapping[str, np.ndarray], network: Network) -> None:
    check_masks(masks, network.weights)
    bare = [path for path in masks if path not in network.mask_variables]
    if bare:
        raise ValueError(
            f"Expected masks of weights that have one. Received: masks of "
            f"{', '.join(bare)}, which {'are' if len(bare) > 1 else 'is'} not pruned. "
            f"The pruned weights are: {', '.join(network.mask_variables)}. "
            f"`snip_tf.apply_masks` gives masks to weights without one, in a copy of "
            f"the model."
        )
