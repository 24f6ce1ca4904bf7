"""A network of several kinds of layers, pruned at random, and what it computes."""

import keras
import numpy as np

import snip_tf
from snip_tf.weights import weights_by_path

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5, 8)).astype(np.float32)


class Block(layers.Layer):
    """A composite layer, with private names before and after ours."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._first = layers.Dense(8, "relu")
        self._values = [layers.Dense(8), layers.Dense(8)]

    def build(self, shape):
        for layer in (self._first, *self._values):
            layer.build(shape)

    def call(self, x):
        return self._values[1](self._values[0](self._first(x)))


def network(seed=0, names=("gru", "block", "attention", "both", "out")):
    """Layers that own their weights, and layers whose parts do."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((5, 8))
    y = layers.GRU(8, return_sequences=True, name=names[0])(x)
    y = Block(name=names[1])(y)
    y = layers.MultiHeadAttention(2, 4, name=names[2])(y, y)
    y = layers.Bidirectional(layers.LSTM(4), name=names[3])(y)
    return keras.Model(x, layers.Dense(3, name=names[4])(y))


def random_masks(model, seed=0, **options):
    rng = np.random.default_rng(seed)
    weights = snip_tf.prunable_weights(model, **options)
    return {path: rng.random(weight.shape) < 0.4 for path, weight in weights.items()}


def pruned_network(seed=0, **options):
    model = network(seed)
    return snip_tf.apply_masks(model, random_masks(model, seed, **options))


def outputs(model):
    return np.asarray(model(X, training=False))


def assert_zeros(model, masks):
    weights = weights_by_path(model)
    for path, mask in masks.items():
        assert not weights[path].numpy()[~mask].any(), path
        assert weights[path].numpy()[mask].all(), path


def assert_zeros_at_least(model, masks):
    weights = weights_by_path(model)
    for path, mask in masks.items():
        assert not weights[path].numpy()[~mask].any(), path
