"""Iterative SNIP: SNIP in many steps (de Jorge et al., ICLR 2021)."""

from __future__ import annotations

import dataclasses

from snip_tf.checks import check_count
from snip_tf.criteria.base import Criterion, ScoringContext
from snip_tf.selecting.scores import Product


@dataclasses.dataclass(frozen=True)
class IterativeSnip(Criterion):
    """The connection sensitivity in the network so far, a few connections at a time.

    In each of T steps the scores are SNIP's in the network so far,

        s_j = |w_j * dL(c * w)/d(c * w)_j|,   c the mask of the step before

    and after step t the fraction keep^(t / T) is kept. What is removed stays removed. A
    single SNIP scores each connection as if all others stayed, which at high sparsities
    they do not. One step is SNIP. All steps score on the same mini-batches (the
    authors' program draws a new one in each).

    Args:
        steps: int, T; the paper uses up to 300, and finds little change from 60 on.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.random.rand(32, 8), np.random.rand(32, 4)
    >>> ten = snip_tf.criteria.IterativeSnip(steps=10)
    >>> pruned = snip_tf.prune_model(
    ...     model, x, y, sparsity=0.75, loss="mse", criterion=ten
    ... )
    >>> snip_tf.sparsity(pruned)
    0.75

    Reference: de Jorge et al., "Progressive skeletonization: trimming more fat from a
    network at initialization", ICLR 2021, https://arxiv.org/abs/2006.09081
    """

    steps: int = 60

    def __post_init__(self):
        check_count("steps", self.steps)

    def __call__(self, context: ScoringContext) -> dict[str, Product]:
        """Returns the scores of one step, computed lazily."""
        gradients = context.gradients()
        return {p: Product(gradients[p], w) for p, w in context.weights.items()}
