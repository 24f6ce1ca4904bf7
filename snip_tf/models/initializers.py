"""Initializers by the names that the paper and the authors' release give them."""

from __future__ import annotations

import keras

# VS-X and VS-H are the paper's names for variance scaling after Glorot and He; `vs` is
# TensorFlow 1's `variance_scaling_initializer`, which the authors' release uses: a
# truncated normal of variance 1 / fan_in.
INITIALIZERS: dict[str, type[keras.initializers.Initializer]] = {
    "vs": keras.initializers.VarianceScaling,
    "vs-x": keras.initializers.GlorotNormal,
    "vs-h": keras.initializers.HeNormal,
    "zeros": keras.initializers.Zeros,
}


def get(name: str) -> keras.initializers.Initializer:
    """A new initializer by its name in `INITIALIZERS`, or by Keras' own name.

    Raises:
        ValueError: if neither has that name.
    """
    if name in INITIALIZERS:
        return INITIALIZERS[name]()
    try:
        return keras.initializers.get(name)
    except ValueError as error:
        raise ValueError(
            f"Expected an initializer out of {', '.join(map(repr, INITIALIZERS))}, or "
            f"one that Keras knows. Received: {name!r}"
        ) from error
