"""GraSP: what keeps the gradient flowing (Wang, Zhang & Grosse, ICLR 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf.checks import check_number
from snip_tf.scoring.batches import Batch
from snip_tf.scoring.gradients import mean_gradients, mean_hessian_products


@dataclasses.dataclass(frozen=True)
class Grasp:
    """How much the norm of the gradient falls when a connection is removed.

        s = w * (H g),   g = dL/dw,   H the Hessian of L by w

    to first order what |g|^2 / 2 loses without the connection, so that the largest are
    kept. (The paper writes -w * H g, and removes the largest.) Logits of a
    cross-entropy are divided by a temperature, as at initialization the outputs say
    nothing yet. H g is exact, in about twice the memory of a gradient. Scores are
    signed.

    Args:
        temperature: float, above 0; the paper uses 200, and 10 examples of each class.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.random.rand(32, 8), np.random.randint(4, size=32)
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> pruned = snip_tf.prune_model(
    ...     model, x, y, sparsity=0.75, loss=loss, criterion="grasp"
    ... )

    Reference: Wang et al., "Picking winning tickets before training by preserving
    gradient flow", ICLR 2020, https://arxiv.org/abs/2002.07376
    """

    temperature: float = 200.0

    def __post_init__(self):
        check_number("temperature", self.temperature, above=0)

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
        batches = list(batches)
        options = {"loss": loss, "training": training, "temperature": self.temperature}
        gradients = mean_gradients(model, weights, batches, **options)
        products = mean_hessian_products(model, weights, batches, gradients, **options)
        return {
            path: np.asarray(weight, np.float32) * np.asarray(products.pop(path))
            for path, weight in weights.items()
        }
