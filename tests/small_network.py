"""A small network, and the same with a filter, a unit and two inputs cut off."""

import keras
import numpy as np

import snip_tf

layers = keras.layers


def small_network():
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(3, 2, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(),
            layers.Dense(5, name="fc"),
            layers.Dense(2, name="head"),
        ],
        name="small",
    )


def cut(model):
    rng = np.random.default_rng(0)
    conv = np.ones((2, 2, 1, 3), bool)
    conv[..., 1] = False
    fc = rng.random((27, 5)) < 0.9
    fc[[3, 8]] = False
    fc[:, 4] = False
    return snip_tf.apply_masks(model, {"conv/kernel": conv, "fc/kernel": fc})
