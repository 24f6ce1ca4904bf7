"""RigL: rigged lottery tickets (Evci et al., ICML 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from snip_tf import _backend, criteria
from snip_tf.criteria.reading import Scoring, check_data
from snip_tf.network import Network
from snip_tf.schedules.base import seed_of
from snip_tf.schedules.replacing import Replacing


class RigL(Replacing):
    """Replaces the smallest connections by those with the largest gradients.

    Every `frequency` steps t, in each weight, the fraction

        z(t) = fraction / 2 * (1 + cos(pi * t / end_step))

    of the kept connections with the smallest |w| goes, and as many of the removed ones
    come where |dL/dw| is largest, at zero. The number kept of each weight never
    changes. N:M patterns and blocks are lost.

    The gradients are of the dense network, on a mini-batch drawn anew for each update,
    in training mode. It takes thousands of steps to pay off, and cannot revive a
    network through which nothing flows: begin with Erdos-Renyi kernels,
    `prune_model(criterion="random", scope="erk")`, or with a mask of SNIP.

    A callback for `fit`, on a model that is pruned already. In a loop of one's own call
    `set_model(pruned)` once, then `step()` after each step.

    Args:
        x, y, sample_weight: the training data, as in `prune_model`.
        frequency: int, steps (of the optimizer's `iterations`) between updates.
        end_step: int, the step of the last update, also where it is no multiple of
            `frequency`. None for three quarters of the steps of `fit`.
        fraction: float, above 0 and below 1.
        batch_size: int, examples in the mini-batch of array data; default 128.
        loss, objective: as in `prune_model`.
        seed: int, 0 or more: the mini-batch follows from it and the step. None draws
            with NumPy's global generator.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an argument has a bad value. When training begins: if the model
            has no masks, a frozen weight has one, `end_step` is None and `fit` does not
            know its steps, or the model has another schedule. At an update: as
            `prune_model`.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model.compile("adam", "mse")
    >>> pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random", seed=0)
    >>> x, y = np.random.rand(64, 8), np.random.rand(64, 4)
    >>> schedule = snip_tf.RigL(x, y, frequency=5, seed=0)
    >>> history = pruned.fit(x, y, epochs=10, callbacks=[schedule], verbose=0)
    >>> snip_tf.sparsity(pruned)
    0.5

    Reference: Evci et al., "Rigging the lottery: making all tickets winners", ICML
    2020, https://arxiv.org/abs/1911.11134
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        frequency: int = 100,
        end_step: int | None = None,
        fraction: float = 0.3,
        batch_size: int | None = None,
        *,
        sample_weight: Any = None,
        loss: Any = None,
        objective: Callable[[keras.Model, Any, bool], Any] | None = None,
        seed: int | None = None,
    ):
        super().__init__(frequency, end_step, fraction, seed)
        check_data(x, criteria.get("snip"))
        self._data, self._goal = (x, y, sample_weight), (loss, objective, True)
        self._batch_size = batch_size

    def _fraction_at(self, step: int) -> float:
        """Returns z(t)."""
        assert self._last is not None
        share = min(step / self._last, 1)
        return self._fraction / 2 * (1 + math.cos(math.pi * share))

    def _check(self, network: Network) -> None:
        """Raises an error if a weight is frozen, or an argument is not valid."""
        super()._check(network)
        self._scoring(0)

    def _scoring(self, step: int) -> Scoring:
        return Scoring(
            self.model,
            self._data,
            "snip",
            choice=None,
            goal=self._goal,
            sampling=(self._batch_size, 1, seed_of(self._seed, step)),
        )

    def _growth(self, network: Network, step: int) -> dict[str, np.ndarray]:
        """Returns the magnitudes of the gradients of the dense network."""
        found = self._scoring(step).context.gradients(revives=True)
        return {path: np.abs(_backend.on_host(found[path])) for path in found}
