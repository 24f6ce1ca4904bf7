"""Calls of a model, with errors that say on what and where it fails."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def call_model(model: keras.Model, x: Any, training: bool = False) -> Any:
    """The outputs of a model; if it fails, an error that says on what and where."""
    try:
        return model(x, training=training)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        layer = _where(error)
        place = f" in layer {layer.name!r} ({type(layer).__name__})" if layer else ""
        raise ValueError(
            f"Expected the model to run on the mini-batch. Received: inputs of shape "
            f"{shapes(x)}, on which {model.name!r} fails{place}. (The first axis must "
            f"be that of the examples: call `.batch(...)` on a dataset of single ones.)"
            f" The error: {error}"
        ) from error


def _where(error: Exception) -> keras.Layer | None:
    """The innermost layer whose code an exception came through, if any."""
    layer, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, keras.Layer) and not isinstance(owner, keras.Model):
            layer = owner
        trace = trace.tb_next
    return layer


def shapes(nest: Any) -> Any:
    """The shapes of the arrays in a nest, for an error to tell."""
    shapes = [tuple(np.shape(array)) for array in keras.tree.flatten(nest)]
    return shapes[0] if len(shapes) == 1 else shapes
