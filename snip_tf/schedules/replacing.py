"""What SET and RigL share: some connections go, and as many others come."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from snip_tf.checks import check_number, list_of, visible
from snip_tf.network import Network
from snip_tf.schedules.base import Schedule
from snip_tf.weights import values_of


class Replacing(Schedule):
    """Replaces, in each weight, the connections with the smallest |w| by others.

    Of the n connections that a weight keeps, floor(z * n) go, at most as many as are
    removed. As many of those that were removed before come, at zero, so that the number
    kept of each weight stays exactly the same.

    Args:
        frequency: int, steps between updates; the first is at this step.
        end_step: int, the step of the last update; None for three quarters of `fit`.
        fraction: float, z, above 0 and below 1.
        seed: int or None.
    """

    def __init__(
        self, frequency: int, end_step: int | None, fraction: float, seed: int | None
    ):
        super().__init__(frequency, end_step, seed, begin_step=frequency)
        check_number("fraction", fraction, above=0, below=1)
        self._fraction = float(fraction)

    @abc.abstractmethod
    def _growth(self, network: Network, step: int) -> Mapping[str, Any]:
        """Returns `{weight path: scores}`: the removed ones with the largest come."""

    def _fraction_at(self, step: int) -> float:
        """Returns z at a step."""
        del step
        return self._fraction

    def _check(self, network: Network) -> None:
        """Raises a ValueError if a weight is frozen."""
        frozen = [
            visible(path)
            for path in network.mask_variables
            if not network.weights[path].trainable
        ]
        if frozen:
            raise ValueError(
                f"Expected masked weights that are trained, since connections that "
                f"come start at zero. Received: {list_of(frozen)}, frozen. Make "
                f"these layers trainable, or leave them out when the masks are made "
                f"(exclude=...)."
            )

    def _new_masks(self, network: Network, step: int) -> dict[str, np.ndarray]:
        """Returns the masks after the replacement of a step."""
        fraction = self._fraction_at(step)
        counts = {
            path: min(int(fraction * mask.sum() + 1e-9), int((~mask).sum()))
            for path, mask in network.masks.items()
        }
        if not any(counts.values()):
            return {}
        scores = self._growth(network, step)
        return {
            path: _replaced(
                network.masks[path],
                np.abs(values_of(network.weights[path])),
                scores[path],
                count,
            )
            for path, count in counts.items()
            if count
        }


def _replaced(
    mask: np.ndarray, magnitudes: np.ndarray, growth: np.ndarray, count: int
) -> np.ndarray:
    """Returns the mask with `count` connections replaced."""
    new = mask.reshape(-1).copy()
    kept, removed = np.flatnonzero(new), np.flatnonzero(~new)
    go = _smallest(magnitudes.reshape(-1)[kept], count)
    come = _smallest(-growth.reshape(-1)[removed], count)
    new[kept[go]], new[removed[come]] = False, True
    return new.reshape(mask.shape)


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the positions of the smallest values, the first ones among ties."""
    threshold = np.partition(values, count - 1)[count - 1]
    below = np.flatnonzero(values < threshold)
    equal = np.flatnonzero(values == threshold)[: count - below.size]
    return np.concatenate([below, equal])
