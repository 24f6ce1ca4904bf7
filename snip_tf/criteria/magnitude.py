"""Magnitude of the initial weights: a baseline."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras

from snip_tf.criteria.base import Criterion, ScoringContext
from snip_tf.selecting.scores import Product


@dataclasses.dataclass(frozen=True)
class Magnitude(Criterion):
    """The magnitude of each weight as it was initialized, |w|.

    With the same variance in all layers this is a random choice; with initializers that
    scale by the width of a layer, it keeps narrow layers and cuts wide ones. It needs
    neither data nor a loss.

    Example:

    >>> import keras, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = snip_tf.prune_model(model, sparsity=0.75, criterion="magnitude")
    >>> snip_tf.sparsity(pruned)
    0.75

    Reference: the baseline of Frankle et al., "Pruning neural networks at
    initialization: why are we missing the mark?", ICLR 2021,
    https://arxiv.org/abs/2009.08576
    """

    needs_data: ClassVar[bool] = False

    def __call__(self, context: ScoringContext) -> dict[str, Product]:
        """Returns the scores, computed lazily."""
        return {
            path: Product(keras.ops.ones_like(keras.ops.convert_to_tensor(w)), w)
            for path, w in context.weights.items()
        }
