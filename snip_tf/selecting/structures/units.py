"""The settings of whole units (`structured.units` finds and ranks them)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from snip_tf.checks import check_count, check_one_of
from snip_tf.selecting.structures.base import Division

Cost = Literal["units", "parameters", "multiply_adds"]
COSTS = ("units", "parameters", "multiply_adds")


@dataclasses.dataclass(frozen=True)
class Units:
    """Keeps or removes whole units: filters, dense and recurrent units.

    They are ranked over the whole network by

        |dL/dc|  at c = 1,  of a gate c on all outputs of the unit.

    Units that are added up count as one unit. Each layer keeps its best unit, and the
    inputs and outputs of the model stay. `snip_tf.compact` then makes the network
    smaller, and its training faster. For Sequential and Functional models.

    Args:
        cost: what `sparsity` is a fraction of: `"units"`, which is met exactly; or the
            kernels' `"parameters"` or `"multiply_adds"`, of which at least that
            fraction is removed, ranking units by sensitivity per cost.
        block: int, how many units of a layer are removed together if `cost` is not
            `"units"`; the default suits processors.

    Raises:
        TypeError: if `block` is not a whole number.
        ValueError: if `cost` is unknown, or `block` is below 1.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> layers = [keras.layers.Dense(32), keras.layers.Dense(4)]
    >>> model = keras.Sequential([keras.Input((8,)), *layers])
    >>> x, y = np.random.rand(32, 8), np.random.rand(32, 4)
    >>> half = {"sparsity": 0.5, "structure": snip_tf.Units(cost="parameters")}
    >>> pruned = snip_tf.prune_model(model, x, y, loss="mse", **half)
    >>> model.count_params(), snip_tf.compact(pruned).count_params()
    (420, 212)
    """

    cost: Cost = "units"
    # Processors multiply eight or more numbers at once: with half of the multiply-adds,
    # a training step of ResNet-20 with 11, 23 and 45 filters is 1.1 to 1.2 times as
    # fast as with 16, 32 and 64; with 8, 24 and 56 filters, 1.2 to 1.4 times.
    block: int = 8
    why: ClassVar[str] = "whose units lie across several weights"
    least: ClassVar[int] = 1
    divisions: ClassVar[frozenset[Division]] = frozenset()

    def __post_init__(self) -> None:
        check_one_of("cost", self.cost, COSTS)
        check_count("block", self.block)

    def __str__(self) -> str:
        return "units"
