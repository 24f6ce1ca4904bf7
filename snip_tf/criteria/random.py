"""Random pruning: the baseline that any criterion has to beat."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from snip_tf.checks import check_seed
from snip_tf.scoring.batches import Batch


@dataclasses.dataclass(frozen=True)
class Random:
    """A score drawn for each connection, uniform between 0 and 1.

    Over the whole network that removes about the same fraction of every layer, so that
    none is cut off before it is small. No data and no loss is needed.

    Args:
        seed: int. None draws with NumPy's global generator, which
            `keras.utils.set_random_seed` seeds.

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

    def with_seed(self, seed: int | None) -> Random:
        """The same, of whichever class, with this seed if it has none of its own."""
        if self.seed is not None:
            return self
        seeded = copy.copy(self)
        object.__setattr__(seeded, "seed", seed)  # a class may have another constructor
        return seeded

    def __call__(
        self,
        model: keras.Model,
        weights: Mapping[str, keras.Variable],
        batches: Iterable[Batch],
        *,
        loss: Any = None,
        training: bool = False,
    ) -> dict[str, np.ndarray]:
        """The scores; see `snip_tf.criteria`."""
        del model, batches, loss, training
        seed = np.random.randint(2**32) if self.seed is None else self.seed
        rng = np.random.default_rng(seed)
        return {p: rng.random(w.shape, np.float32) for p, w in weights.items()}
