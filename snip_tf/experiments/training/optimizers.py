"""Optimizers and learning rates by the names of the authors' release."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence

import keras

OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "momentum": functools.partial(keras.optimizers.SGD, momentum=0.9),
    "adam": keras.optimizers.Adam,
}
DECAY_TYPES = ("constant", "piecewise", "cosine")
_MOST_ITERATIONS = 2**63 - 1  # as TensorFlow counts them


def make_optimizer(
    name: str,
    lr: float,
    decay_type: str = "constant",
    boundaries: Sequence[int] = (),
    values: Sequence[float] = (),
    weight_decay: float = 0,
    iterations: int = 0,
) -> keras.optimizers.Optimizer:
    """Returns an optimizer with its learning rate.

    Args:
        name: one of `OPTIMIZERS`; `momentum` is SGD with momentum 0.9.
        lr: float, the learning rate where `decay_type` is `"constant"`, and the first
            one where it is `"cosine"`.
        decay_type: `"constant"`; `"piecewise"`: `values[i]` until `boundaries[i]`
            iterations are done, and the last value from then on; or `"cosine"`: lr / 2
            * (1 + cos(pi * t / iterations)), which falls to zero.
        boundaries: iterations, increasing, below 2**63.
        values: learning rates, one more than boundaries.
        weight_decay: float, decoupled from the loss: each step subtracts `rate *
            weight_decay * w` from every weight `w`, except for the scales and offsets
            of normalization.
        iterations: int, in which the rate falls to zero where `decay_type` is
            `"cosine"`.

    Raises:
        ValueError: if a name is unknown, a rate is not positive, the lengths do not
            match, or the boundaries do not increase or are too large.
    """
    _check_known("name", name, OPTIMIZERS)
    _check_known("decay_type", decay_type, DECAY_TYPES)
    for rate in (lr, *values):
        if not 0 < rate < math.inf:  # also catches NaN
            raise ValueError(
                f"Expected learning rates to be positive numbers. Received: {rate}"
            )
    if decay_type != "piecewise":
        _check_empty(boundaries, values, decay_type)
        rate = lr
        if decay_type == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(lr, iterations)
        return _decaying(OPTIMIZERS[name](rate), weight_decay)
    _check_boundaries(boundaries, values)
    # Keras keeps a value up to and including its boundary, counting iterations from 0,
    # which is one iteration too long.
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [boundary - 1 for boundary in boundaries], [float(value) for value in values]
    )
    return _decaying(OPTIMIZERS[name](schedule), weight_decay)


def _check_known(argument: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ValueError(
            f"Expected `{argument}` to be one of {', '.join(map(repr, known))}. "
            f"Received: {argument}={value!r}"
        )


def _check_empty(
    boundaries: Sequence[int], values: Sequence[float], decay_type: str
) -> None:
    if boundaries or values:
        raise ValueError(
            f"Expected no boundaries or values with the decay type {decay_type!r}. "
            f"Received: boundaries={list(boundaries)}, values={list(values)}. "
            f"Use the decay type 'piecewise'."
        )


def _check_boundaries(boundaries: Sequence[int], values: Sequence[float]) -> None:
    if len(values) != len(boundaries) + 1 or not boundaries:
        raise ValueError(
            f"Expected at least one boundary, and one more value than boundaries. "
            f"Received: boundaries={list(boundaries)}, values={list(values)}"
        )
    if list(boundaries) != sorted(set(boundaries)) or not (
        0 < boundaries[0] <= boundaries[-1] <= _MOST_ITERATIONS
    ):
        raise ValueError(
            f"Expected positive, increasing boundaries, up to {_MOST_ITERATIONS:,}. "
            f"Received: boundaries={list(boundaries)}"
        )


def _decaying(
    optimizer: keras.optimizers.Optimizer, weight_decay: float
) -> keras.optimizers.Optimizer:
    if weight_decay:
        optimizer.weight_decay = weight_decay
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta"])
    return optimizer
