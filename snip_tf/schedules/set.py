"""SET: sparse evolutionary training (Mocanu et al., 2018)."""

from __future__ import annotations

import numpy as np

from snip_tf.network import Network
from snip_tf.schedules.base import seed_of
from snip_tf.schedules.replacing import Replacing


class SET(Replacing):
    """Replaces the smallest connections by random ones while a model trains.

    Every `frequency` steps, in each weight, the fraction z of the kept connections with
    the smallest |w| goes, and as many of the removed ones come at random, at zero. The
    number kept of each weight never changes. N:M patterns and blocks are lost.

    A callback for `fit`, on a model that is pruned already, as by
    `prune_model(criterion="random", scope="erk")`. In a loop of one's own call
    `set_model(pruned)` once, then `step()` after each step.

    Args:
        frequency: int, steps (of the optimizer's `iterations`) between updates.
        end_step: int, the step of the last update, also where it is no multiple of
            `frequency`. None for three quarters of the steps of `fit`.
        fraction: float, z, above 0 and below 1.
        seed: int, 0 or more: what comes follows from it and the step. None draws with
            NumPy's global generator.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an argument has a bad value. When training begins: if the model
            has no masks, a frozen weight has one, `end_step` is None and `fit` does not
            know its steps, or the model has another schedule.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model.compile("adam", "mse")
    >>> pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random", seed=0)
    >>> x, y = np.random.rand(64, 8), np.random.rand(64, 4)
    >>> schedule = snip_tf.SET(frequency=5, seed=0)
    >>> history = pruned.fit(x, y, epochs=10, callbacks=[schedule], verbose=0)
    >>> snip_tf.sparsity(pruned)
    0.5

    Reference: Mocanu et al., "Scalable training of artificial neural networks with
    adaptive sparse connectivity inspired by network science", Nature Communications
    2018, https://arxiv.org/abs/1707.04780
    """

    def __init__(
        self,
        frequency: int = 100,
        end_step: int | None = None,
        fraction: float = 0.3,
        seed: int | None = None,
    ):
        super().__init__(frequency, end_step, fraction, seed)

    def _growth(self, network: Network, step: int) -> dict[str, np.ndarray]:
        """Returns random numbers."""
        seed = seed_of(self._seed, step)
        rng = np.random.default_rng(np.random.randint(2**32) if seed is None else seed)
        return {
            path: rng.random(mask.shape, np.float32)
            for path, mask in network.masks.items()
        }
