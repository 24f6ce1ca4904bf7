"""A forward pass in which every variable has a value of its own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.weights import prunable_weights
from tests.scoring.of_fit import (
    X,
    Y,
    sequence,
)

layers, ops = keras.layers, keras.ops


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


class Bounded(layers.Layer):
    """Clips its own kernel before it is used."""

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], 7), "random_normal", name="kernel")

    def call(self, x):
        self.kernel.assign(ops.clip(2 * self.kernel, -0.05, 0.05))
        return x @ self.kernel


class UnitNorm(Bounded):
    def call(self, x):
        before = x @ self.kernel
        self.kernel.assign(self.kernel / ops.norm(self.kernel, axis=0))
        return before + x @ self.kernel


CHANGING = {
    "spectral": lambda: layers.SpectralNormalization(layers.Dense(7), 2),
    "clipped": Bounded,
    "unit norm": UnitNorm,
}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", CHANGING)
def test_a_layer_that_assigns_to_its_kernel(kind, policy):
    model = sequence(CHANGING[kind](), layers.Dense(2))
    model.compile("sgd", "mse")
    weights = model.get_weights()
    paths = list(prunable_weights(model))
    expected = snip_tf.connection_sensitivity(model, X, Y, training=True)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    # A step of plain SGD takes the gradient away from what is in the variable then.
    values = [weight.value for weight in prunable_weights(model).values()]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(X, Y, model(X, training=True))
    found = tape.gradient(loss, values)
    model.set_weights(weights)
    scores = [np.abs(np.asarray(w) * g) for w, g in zip(values, found, strict=True)]
    total = sum(score.sum() for score in scores)
    for path, score in zip(paths, scores, strict=True):
        np.testing.assert_allclose(expected[path], score / total, rtol=1e-4, atol=1e-7)
