"""Layers that are built, and masks for them."""

import numpy as np

from snip_tf.weights import weights_by_path

RNG = np.random.default_rng(0)


def keep_all(*shape):
    return np.ones(shape, bool)


def random_masks(layer, include=("kernel",)):
    return {
        path: RNG.random(weight.shape) < 0.3
        for path, weight in weights_by_path(layer).items()
        if path.rpartition("/")[2] in include
    }


def built(layer, *shape):
    layer(np.zeros((1, *shape), np.float32))
    return layer
