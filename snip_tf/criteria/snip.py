"""SNIP: connection sensitivity on a mini-batch (Lee, Ajanthan & Torr, ICLR 2019)."""

from __future__ import annotations

import dataclasses

from snip_tf.criteria.base import Criterion, ScoringContext
from snip_tf.selecting.scores import Product


@dataclasses.dataclass(frozen=True)
class Snip(Criterion):
    """The magnitude of each connection's effect on the loss, |w * dL/dw|.

    With an indicator c in {0, 1} on each connection, the network uses c * w. How much
    the loss changes when connection j is removed is, to first order,

        g_j = dL(c * w) / dc_j  at c = 1  =  w_j * dL/dw_j

    by the chain rule, so the gradient by the weights gives it without storing c. The
    paper divides |g_j| by their sum over the network, which does not change the order;
    here the undivided values are returned, since division could round two different
    values to the same one.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.random.rand(32, 8), np.random.rand(32, 4)
    >>> pruned = snip_tf.prune_model(
    ...     model, x, y, sparsity=0.75, loss="mse", criterion=snip_tf.criteria.Snip()
    ... )
    >>> snip_tf.sparsity(pruned)
    0.75

    Reference: https://arxiv.org/abs/1810.02340
    """

    def __call__(self, context: ScoringContext) -> dict[str, Product]:
        """Returns the scores, computed lazily."""
        gradients = context.gradients()
        return {p: Product(gradients[p], w) for p, w in context.weights.items()}
