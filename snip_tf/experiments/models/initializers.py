"""Initializers by the names that the paper and the authors' release give them."""

from __future__ import annotations

from collections.abc import Callable

import keras

# RN and TN are the paper's names for a normal and a truncated normal distribution of
# fixed variance, which it does not state: 1 is the default of TensorFlow 1. VS-X and
# VS-H are variance scaling after Glorot and He; `vs` is what the authors' release uses,
# TensorFlow 1's `variance_scaling_initializer`: a truncated normal of variance 1 /
# fan_in.
INITIALIZERS: dict[str, Callable[[], keras.initializers.Initializer]] = {
    "rn": lambda: keras.initializers.RandomNormal(stddev=1.0),
    "tn": lambda: keras.initializers.TruncatedNormal(stddev=1.0),
    "vs": keras.initializers.VarianceScaling,
    "vs-x": keras.initializers.GlorotNormal,
    "vs-h": keras.initializers.HeNormal,
    "zeros": keras.initializers.Zeros,
}


def for_layer(initializer: str | Callable, layer: int) -> Callable:
    """Returns an initializer for one layer, which draws values of its own.

    A Keras initializer returns the same random numbers in each call, so that several
    layers sharing one object would all be alike, up to scale.

    Args:
        initializer: a name in `INITIALIZERS`, a name that Keras knows, or an
            initializer; its seed, if it has one, is raised by `layer`.
        layer: int, the number of the layer.

    Raises:
        ValueError: if there is no initializer with that name.
    """
    if isinstance(initializer, str):
        return for_layer(_by_name(initializer), layer)
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer  # a function
    if isinstance(getattr(initializer, "seed", None), keras.random.SeedGenerator):
        return initializer  # its state advances with each draw
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += layer
    return type(initializer).from_config(config)


def _by_name(name: str) -> keras.initializers.Initializer:
    if name in INITIALIZERS:
        return INITIALIZERS[name]()
    try:
        return keras.initializers.get(name)
    except ValueError as error:
        raise ValueError(
            "Expected an initializer that is one of "
            f"{', '.join(map(repr, INITIALIZERS))}, or one that Keras knows. Received: "
            f"{name!r}"
        ) from error
