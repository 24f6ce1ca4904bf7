"""The configuration of a masked layer: that of the plain layer, and its masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from snip_tf.masking.low_rank import are_updates, updates_in
from snip_tf.masking.mask_files import encode_mask
from snip_tf.masking.plain_class import plain_class, plainly
from snip_tf.network import masks_of
from snip_tf.weights import layer_tree, weights_by_path


def config_of(layer: keras.Layer) -> dict[str, Any]:
    """Returns the configuration of the plain layer, with all masks in it."""
    masks = {**masks_of(weights_by_path(layer)), **layer._snip_pending}
    config = _plain_config(layer)
    config.pop("compile_config", None)
    if not isinstance(layer, keras.Model):
        config.pop("build_config", None)
    return {
        "layer": config,
        "sublayer_names": [part.name for part in layer_tree(layer)][1:],
        "masks": {
            path: encode_mask(keras.ops.convert_to_numpy(mask))
            for path, mask in masks.items()
        },
        **updates_in(layer),
    }


def _plain_config(layer: keras.Layer) -> dict[str, Any]:
    try:
        with plainly.on():
            return keras.saving.serialize_keras_object(layer)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"To save or clone {layer.name!r}, Keras needs the `get_config` of "
            f"{plain_class(layer).__name__}, which does not return a configuration: "
            "implement it. Or keep `save_weights(...)` and `snip_tf.save_masks(path, "
            "snip_tf.get_masks(model))`, and then build the model anew, its layers "
            "named as now, call `snip_tf.apply_masks(model, "
            "snip_tf.load_masks(path))`, and `load_weights(...)` on that."
        ) from error


def check_config(config: Any) -> None:
    """Raises unless this is what `get_config` of a masked layer returns."""
    received = config if isinstance(config, Mapping) else {}
    names = received.get("sublayer_names", ())
    fits = {
        "layer": isinstance(received.get("layer"), Mapping),
        "sublayer_names": isinstance(received.get("sublayer_names"), (list, tuple))
        and all(isinstance(name, str) for name in names),
        "low_rank": are_updates(received),
        "masks": isinstance(received.get("masks"), Mapping),
    }
    wrong = [name for name, does in fits.items() if not does]
    if wrong:
        raise ValueError(
            f"Expected the configuration of a masked layer: its `layer`, the names of "
            f"the layers inside as `sublayer_names`, and its `masks`. Received: one "
            f"without a valid {' and '.join(wrong)}"
        )


def known_class(cls: type, config: Mapping[str, Any]) -> dict[str, type]:
    """Returns the plain class of a masked class, if the configuration names it.

    To clone a model Keras asks the class itself, which need not be registered.
    """
    plain = getattr(cls, "_snip_plain_class", None)
    if plain is None or config.get("registered_name") != plain.__name__:
        return {}
    return {plain.__name__: plain}
