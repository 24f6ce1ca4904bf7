"""The private names of Keras and TensorFlow that this package uses, all of them.

Each is behind a function that says what it is for, and why no public name will do; each
has a test in tests/_keras_test.py that fails when a new version changes it.
"""

from __future__ import annotations

import keras


def held_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers that a layer holds directly, in the order Keras tracks them.

    Keras gives those of a model in public, but not those of a plain layer.
    """
    if isinstance(layer, keras.Model):
        return layer.layers
    return layer._flatten_layers(include_self=False, recursive=False)
