"""Keras' layers, adapted to masks of weights that they own or hold."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from snip_tf.masking.low_rank import adapt_low_rank
from snip_tf.masking.masked_weights import remove
from snip_tf.masking.plain_class import plain_class
from snip_tf.masking.stored_masks import layers_with_masks
from snip_tf.network import mask_of, masks_of
from snip_tf.weights import layer_tree, own_weights


@functools.cache
def adapt_layers() -> None:
    """Makes Keras' layers respect masks of weights that they own or hold.

    Only composite layers are masked as a whole; the layers inside them, and models,
    keep their classes. For weights without a mask these methods are unchanged.
    """
    keras.Layer.set_weights = _with_zeros(keras.Layer.set_weights)
    keras.Model.load_weights = _unless_masks_are_left(keras.Model.load_weights)
    adapt_low_rank()


def _with_zeros(set_weights: Callable) -> Callable:
    """Wraps `Layer.set_weights` to keep removed weights at zero, as after a step."""

    @functools.wraps(set_weights)
    def set_weights_with_zeros(self, weights):
        set_weights(self, weights)
        for weight in self.weights:
            if mask_of(weight) is not None:
                remove(weight)

    return set_weights_with_zeros


def _unless_masks_are_left(load_weights: Callable) -> Callable:
    """Wraps `Model.load_weights` to refuse masks for layers that are not pruned.

    Zeros of those layers would not stay, while those of the others would. A plain model
    loads the file of any pruned one.
    """

    @functools.wraps(load_weights)
    def load_weights_with_all_masks(self, filepath, skip_mismatch=False, **kwargs):
        pruned = {id(part) for part in layer_tree(self) if "_snip_masks" in vars(part)}
        masked = layers_with_masks(filepath) if pruned else ()
        if len(masked) > len(pruned) and not skip_mismatch:
            raise ValueError(
                f"Expected a file with masks of the {len(pruned)} layers of "
                f"{self.name!r} that are pruned. Received: {str(filepath)!r}, of a "
                f"model with {len(masked)} pruned layers: {', '.join(masked)}. Load it "
                "into a model that is pruned alike, or into the plain one, and apply "
                "its masks (`snip_tf.apply_masks`)."
            )
        return load_weights(self, filepath, skip_mismatch, **kwargs)

    return load_weights_with_all_masks


def unless_masked(enable_lora: Callable) -> Callable:
    """Wraps the `enable_lora` of a user's class to refuse a layer with masks.

    Nothing is known of what it adds to which weight that it owns. (Keras' own is
    masked, and so is one that enables those of the layers inside, as KerasHub's does.)
    """

    @functools.wraps(enable_lora)
    def enable_lora_unless_masked(self, *args, **kwargs):
        masked = masks_of(own_weights(self))
        if masked.keys() - {"bias"}:
            raise ValueError(
                f"Expected a layer without masks, or one of Keras' own, since a "
                f"low-rank update (LoRA) is dense: it would bring removed connections "
                f"back. Received: layer={self.name!r} of {plain_class(self).__name__}, "
                f"which is pruned and has an `enable_lora` of its own. Call it on the "
                f"model that `snip_tf.strip_pruning` returns; the zeros stay in the "
                f"kernel, beside the update."
            )
        return enable_lora(self, *args, **kwargs)

    return enable_lora_unless_masked
