"""Quantizes a masked layer, as Keras does the plain one."""

from __future__ import annotations

from typing import Any

import keras

from snip_tf.masking.low_rank import masked_updates
from snip_tf.masking.plain_class import plain_class, set_class
from snip_tf.network import mask_of

_MODES = ("int8", "int4", "float8")


def quantize(layer: keras.Layer, mode: Any = None, **options: Any) -> None:
    """Quantizes the plain layer; zeros stay zeros in eight bits.

    Quantized weights are not trained, and so need no mask; weights that stay floats
    keep theirs.
    """
    config = options.get("config")
    wanted = mode or getattr(config, "mode", None)
    if wanted not in _MODES:
        raise ValueError(
            f"Expected one of {', '.join(map(repr, _MODES))} as the mode to "
            f"quantize a pruned model in. Received: {wanted!r} for layer "
            f"{layer.name!r}. Call `quantize` on the model that "
            f"`snip_tf.strip_pruning` gives."
        )
    updated = [part.name for part in masked_updates(layer)]
    if updated:
        raise ValueError(
            f"Expected a pruned model without low-rank updates (LoRA) to quantize. "
            f"Received: {', '.join(updated)} with one. Call `quantize` on the model "
            f"that `snip_tf.strip_pruning` gives, in which they are merged."
        )
    masked, layers_own = type(layer), vars(layer)["quantize"]
    set_class(layer, plain_class(layer))
    try:
        layers_own(mode, **options)
    finally:
        if any(mask_of(weight) is not None for weight in layer.weights):
            set_class(layer, masked)
