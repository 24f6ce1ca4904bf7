"""SNIP: connection sensitivity on a mini-batch (Lee, Ajanthan & Torr, ICLR 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from snip_tf.scoring.batches import Batch
from snip_tf.scoring.gradients import mean_gradients
from snip_tf.scoring.scores import Product


def snip(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    batches: Iterable[Batch],
    *,
    loss: Any = None,
    training: bool = False,
) -> dict[str, Any]:
    """The magnitude of each connection's effect on the loss, |w * dL/dw|.

    With an indicator c in {0, 1} on each connection, the network uses c * w. How much
    the loss changes when connection j is removed is, to first order,

        g_j = dL(c * w) / dc_j  at c = 1  =  w_j * dL/dw_j

    by the chain rule, so that the gradient of the weights gives it without storing c.
    The paper divides |g_j| by their sum over the network, which does not change the
    order; here the undivided values are returned, since the division could round two
    different values into a tie.

    Args:
        model: a built `keras.Model`.
        weights: `{weight path: variable}` to score.
        batches: tuples `(x, y, sample_weight)`; g is averaged over them with its sign.
        loss: what `Model.compile` takes as `loss`. None takes what `fit` minimizes.
        training: the mode of the forward pass.

    Returns:
        `{weight path: scores}`, non-negative, of the weights' shapes: arrays to NumPy,
        each worked out where it is read.

    Reference: https://arxiv.org/abs/1810.02340
    """
    gradients = mean_gradients(model, weights, batches, loss=loss, training=training)
    return {path: Product(gradients[path], w) for path, w in weights.items()}
