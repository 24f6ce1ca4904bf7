"""Errors that name the part of a model without a configuration."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import keras

from snip_tf.weights import layer_tree


@contextlib.contextmanager
def named_configurations(model: keras.Model, format: str) -> Iterator[None]:
    """Makes Keras' errors name the part of a model without a configuration."""
    try:
        yield
    except (NotImplementedError, TypeError, ValueError) as error:
        parts = [part for part in layer_tree(model) if not _has_configuration(part)]
        if not parts:
            raise
        layer = parts[-1]  # the innermost one, whose error the outer ones pass on
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise ValueError(
            f"Expected a model that Keras can serialize, since format={format!r} "
            "stores its configuration with the weights. Received: "
            f"model={model.name!r}, in which {layer.name!r} of class "
            f"{type(layer).__name__} has none ({reason}). Implement the `get_config` "
            "that is missing, or use format='saved_model' or format='litert', which "
            "need none."
        ) from error


def _has_configuration(layer: keras.Layer) -> bool:
    try:
        json.dumps(keras.saving.serialize_keras_object(layer))
    except (NotImplementedError, TypeError, ValueError):
        return False
    return True
