"""Functions that TensorFlow traced read what weights and masks are now."""

import keras
import numpy as np
import tensorflow as tf

from snip_tf import (
    apply_masks,
    connection_sensitivity,
    prune_model,
    set_masks,
)
from tests.masking.layers import RNG


def test_state_that_changes_in_a_loop_is_kept():
    class Cell(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.state_size = 4
            self.dense = keras.layers.Dense(4, name="dense")
            self.drop = keras.layers.Dropout(0.5)

        def build(self, shape):
            self.dense.build((None, shape[-1]))

        def call(self, x, states, training=False):
            y = self.drop(self.dense(x), training=training) + states[0]
            return y, [y]

    model = keras.Sequential([keras.Input((5, 3)), keras.layers.RNN(Cell(), name="r")])
    masks = {"r/cell/dense/kernel": RNG.random((3, 4)) < 0.5}
    pruned = apply_masks(model, masks)
    pruned.compile("sgd", "mse")
    seed = pruned.layers[0].cell.drop.seed_generator.state
    before = seed.numpy()
    pruned.fit(np.ones((2, 5, 3)), np.ones((2, 4)), verbose=0)
    assert (seed.numpy() != before).any()


def test_compiled_functions_read_their_variables():
    """Both in the original and in the pruned model."""

    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3, name="dense")

        def build(self, shape):
            self.dense.build(shape)

        @tf.function
        def call(self, x):
            return self.dense(x)

    model = Compiled()
    model.build((None, 4))
    x = np.ones((2, 4), np.float32)
    options = {"sparsity": 0.5, "loss": "mse", "batch_size": 1, "batches": 2}
    pruned = prune_model(model, x, np.ones((2, 3)), **options)
    for each in (model, pruned):
        before = np.asarray(each(x))
        for variable in each.trainable_variables:
            variable.assign(2 * variable + 1)
        assert (np.asarray(each(x)) != before).any()
    kernel = pruned.dense.kernel.numpy()
    pruned.compile("sgd", "mse")
    pruned.fit(x, np.ones((2, 3)), verbose=0)
    assert (pruned.dense.kernel.numpy() != kernel).any()
    pruned.evaluate(x, np.ones((2, 3)), verbose=0)


@tf.function
def helper(layer, x):
    return x @ layer.kernel


class UsesAFunction(keras.layers.Dense):
    def call(self, x):
        return helper(self, x)


def test_a_function_elsewhere_reads_what_weights_and_masks_are_now():
    """Whether it was traced in a scope, or before."""
    model = keras.Sequential([keras.Input((3,)), UsesAFunction(4, name="uses")])
    x, y = np.ones((5, 3), np.float32), np.ones((5, 4), np.float32)
    for _ in range(2):  # traced by then
        scores = prunable_scores(model, x, y)
        layer = model.layers[0]
        kernel = layer.kernel.numpy()
        error = (x @ kernel - y) * 2 / y.size
        expected = np.abs(kernel * (x.T @ error))
        np.testing.assert_allclose(scores, expected / expected.sum(), rtol=1e-4)
        np.testing.assert_allclose(model(x), x @ kernel, rtol=1e-5)
        layer.kernel.assign(layer.kernel + RNG.normal(size=(3, 4)))
        np.testing.assert_allclose(model(x), x @ layer.kernel.numpy(), rtol=1e-5)
    pruned = apply_masks(model, {"uses/kernel": RNG.random((3, 4)) < 0.5})
    for seed in (1, 2):
        np.testing.assert_allclose(
            pruned(x), x @ pruned.layers[0].kernel.numpy(), rtol=1e-5
        )
        kept = np.random.default_rng(seed).random((3, 4)) < 0.7
        set_masks(pruned, {"uses/kernel": kept})
        pruned.layers[0].kernel.assign(RNG.normal(size=(3, 4)) * kept)


def prunable_scores(model, x, y):
    return connection_sensitivity(model, x, y, loss="mse")["uses/kernel"]
