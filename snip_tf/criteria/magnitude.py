"""Magnitude of the initial weights: a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from snip_tf.scoring.batches import Batch
from snip_tf.scoring.scores import Product


def magnitude(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    batches: Iterable[Batch],
    *,
    loss: Any = None,
    training: bool = False,
) -> dict[str, Any]:
    """The magnitude of each weight as it was initialized, |w|.

    With one variance in all layers that is a random choice; with initializers that
    scale by the width of a layer, it keeps narrow layers and cuts wide ones. No data
    and no loss is needed.

    Args:
        model, batches, loss, training: not used.
        weights: `{weight path: variable}` to score.

    Returns:
        `{weight path: scores}`, of the weights' shapes.

    Reference: the baseline of Frankle et al., "Pruning neural networks at
    initialization: why are we missing the mark?", ICLR 2021,
    https://arxiv.org/abs/2009.08576
    """
    del model, batches, loss, training
    return {
        path: Product(keras.ops.ones_like(keras.ops.convert_to_tensor(w)), w)
        for path, w in weights.items()
    }


magnitude.needs_data = False
