"""Networks, and their sensitivities computed by hand."""

import keras
import numpy as np
import tensorflow as tf

from snip_tf.weights import prunable_weights

layers = keras.layers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype(np.float32)
Y = RNG.normal(size=(24, 2)).astype(np.float32)


def dense(name, inputs, *units, **options):
    stack = [layers.Dense(n, "tanh", name=f"d{n}", **options) for n in units]
    return keras.Sequential([keras.Input((inputs,)), *stack], name=name)


def by_hand(model, value, paths=None):
    """w * dL/dw in magnitude, all of them 1 in sum; `value` is computed on a tape."""
    weights = prunable_weights(model)
    weights = {path: weights[path] for path in paths or weights}
    with tf.GradientTape() as tape:
        loss = value()
    found = tape.gradient(loss, [weight.value for weight in weights.values()])
    scores = {
        path: np.abs(np.asarray(weight) * gradient)
        for (path, weight), gradient in zip(weights.items(), found, strict=True)
    }
    total = sum(score.sum() for score in scores.values())
    return {path: score / total for path, score in scores.items()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=2e-4, atol=1e-7)


class Gan(keras.Model):
    """Has no `call`, and a step of its own."""

    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def train_step(self, data):
        raise AssertionError("not to be run")
