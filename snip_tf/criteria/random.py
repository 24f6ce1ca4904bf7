"""Random pruning: the baseline that any criterion has to beat."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from snip_tf.checks import check_seed
from snip_tf.criteria.base import Criterion, ScoringContext


@dataclasses.dataclass(frozen=True)
class Random(Criterion):
    """A score drawn for each connection, uniform between 0 and 1.

    Over the whole network this removes about the same fraction of every layer, so that
    only small layers are cut off. It needs neither data nor a loss.

    Args:
        seed: int, 0 or more. None takes the `seed` of `prune_model`, or else draws with
            NumPy's global generator, which `keras.utils.set_random_seed` seeds.

    Example:

    >>> import keras, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = snip_tf.prune_model(model, sparsity=0.75, criterion="random")
    >>> snip_tf.sparsity(pruned)
    0.75
    """

    seed: int | None = None
    needs_data: ClassVar[bool] = False

    def __post_init__(self):
        check_seed(self.seed)

    def __call__(self, context: ScoringContext) -> dict[str, np.ndarray]:
        """Returns the scores."""
        seed = context.seed if self.seed is None else self.seed
        rng = np.random.default_rng(np.random.randint(2**32) if seed is None else seed)
        return {p: rng.random(w.shape, np.float32) for p, w in context.weights.items()}
