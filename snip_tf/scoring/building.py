"""Building a model on its first mini-batch."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.masking.compiling import strategy_scope
from snip_tf.masking.copying import copy_unmasked
from snip_tf.network import is_built
from snip_tf.scoring.calling import call_model
from snip_tf.scoring.examples import Batch, as_tensors
from snip_tf.scoring.objective import Objective, check_has_call


def build_on(model: keras.Model, batch: Batch, objective: Objective) -> None:
    """Builds a model on a mini-batch; if that fails, the model is unchanged."""
    with strategy_scope(model):
        _build(copy_unmasked(model), batch, objective)
        _build_in_place(model, batch, objective)


def _build(model: keras.Model, batch: Batch, objective: Objective) -> None:
    """Builds a model by running it as it will be scored."""
    if objective.function is not None:
        objective.function(model, as_tensors(batch)[0], False)
        return
    check_has_call(model)
    call_model(model, batch[0])


def _build_in_place(model: keras.Model, batch: Batch, objective: Objective) -> None:
    """Builds a model as `_build` did with its copy, and changes nothing else.

    Like Keras' own trainer, it calls the model on symbolic inputs, so that no state
    changes. Where the model's code needs numbers, or an objective calls its parts, it
    runs the model.
    """
    inputs = keras.tree.flatten(batch[0])
    if objective.function is None and all(map(_has_shape, inputs)):
        with contextlib.suppress(
            AttributeError, RuntimeError, *_backend.OPERATION_ERRORS
        ):
            model(keras.tree.map_structure(_shape_only, batch[0]), training=False)
    if not is_built(model):
        _build(model, batch, objective)


def _has_shape(leaf: Any) -> bool:
    special = _backend.RAGGED + _backend.SPARSE
    is_tensor = keras.ops.is_tensor(leaf) and not isinstance(leaf, special)
    return is_tensor or isinstance(leaf, np.ndarray)


def _shape_only(leaf: Any) -> keras.KerasTensor:
    dtype = keras.backend.standardize_dtype(leaf.dtype)
    return keras.KerasTensor(tuple(leaf.shape), dtype)
