"""Parameters as the paper counts them."""

import keras
import numpy as np


def parameters(model):
    """Of all layers but normalization."""
    return sum(
        int(np.prod(weight.shape))
        for layer in model.layers
        if not isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.trainable_weights
    )
