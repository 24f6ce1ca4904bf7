"""Masks that are set, and zeros that stay, whoever sets the weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.weights import weights_by_path
from tests.masking.networks import (
    X,
    assert_zeros,
    network,
    outputs,
    pruned_network,
    random_masks,
)
from tests.replicas import two_replicas

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_set_masks_leaves_everything_as_it_was_if_one_is_wrong():
    pruned = pruned_network()
    masks, weights = snip_tf.get_masks(pruned), pruned.get_weights()
    good = np.zeros_like(masks["out/kernel"])
    for bad, error, words in (
        ({"out/krnel": good}, ValueError, "Did you mean 'out/kernel'"),
        ({"out/kernel": good.T}, ValueError, r"of shape \(3, 8\), for a weight"),
        ({"out/kernel": good * 1.0}, TypeError, "float64"),
        ({"out/bias": np.zeros(3, bool)}, ValueError, "out/bias, which is not pruned"),
        ({}, ValueError, "at least one mask"),
    ):
        with pytest.raises(error, match=words):
            snip_tf.set_masks(pruned, {"out/kernel": good, **bad} if bad else bad)
        np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
        np.testing.assert_equal(pruned.get_weights(), weights)
    with pytest.raises(ValueError, match="no masks"):
        snip_tf.set_masks(network(), {"out/kernel": good})


def test_functions_that_are_traced_see_new_masks():
    pruned = pruned_network()
    traced = tf.function(lambda x: pruned(x, training=False))
    before = traced(X).numpy()
    snip_tf.set_masks(pruned, random_masks(pruned, seed=5))
    assert (traced(X).numpy() != before).any()
    np.testing.assert_allclose(traced(X), outputs(pruned), atol=1e-6)


def test_zeros_stay_where_weights_are_set():
    """As `EarlyStopping` does, with weights from before the masks."""
    pruned, plain = pruned_network(), network(1)
    masks, before = snip_tf.get_masks(pruned), plain.get_weights()
    pruned.set_weights(before)
    assert_zeros(pruned, masks)
    paths = snip_tf.prunable_weights(plain)  # inside, layers have other names
    same_masks = dict(zip(paths, masks.values(), strict=True))
    expected = snip_tf.apply_masks(plain, same_masks)
    np.testing.assert_array_equal(outputs(pruned), outputs(expected))
    np.testing.assert_equal(plain.get_weights(), before)


def test_the_state_of_a_pruned_model_as_a_tree():
    """Keras wants no path twice in it."""
    pruned = pruned_network()
    pruned.compile("adam", LOSS)
    masks, expected = snip_tf.get_masks(pruned), outputs(pruned)
    state = pruned.get_state_tree(value_format="numpy_array")
    snip_tf.set_masks(pruned, random_masks(pruned, seed=5))
    pruned.set_state_tree(state)
    np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
    np.testing.assert_array_equal(outputs(pruned), expected)


class MaskedConvolution(layers.Layer):
    """With a mask of its own among its weights, as in a PixelCNN."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
        self.kernel_mask = self.add_weight(
            shape=(shape[-1], 4),
            name="kernel_mask",
            initializer="ones",
            trainable=False,
        )

    def call(self, x):
        return x @ (self.kernel * self.kernel_mask)


def test_a_mask_of_the_layers_own_in_the_state(tmp_path):
    model = keras.Sequential([keras.Input((8,)), MaskedConvolution(name="own")])
    pruned = snip_tf.apply_masks(model, random_masks(model))
    pruned.compile("adam", LOSS)
    state = pruned.get_state_tree(value_format="numpy_array")
    masks = snip_tf.get_masks(pruned)
    snip_tf.set_masks(pruned, random_masks(model, seed=5))
    pruned.set_state_tree(state)
    np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
    expected = np.asarray(pruned(X[:, 0]))
    pruned.export(tmp_path / "saved_model", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved_model")
    np.testing.assert_allclose(saved.serve(X[:, 0]), expected, atol=1e-6)


def test_new_masks_reach_all_replicas():
    """And the steps that are traced already."""
    strategy = two_replicas()
    x, y = np.repeat(X, 2, axis=0), np.arange(32) % 3
    with strategy.scope():
        pruned = pruned_network()
        pruned.compile(keras.optimizers.Adam(0.01), LOSS)
    pruned.fit(x, y, verbose=0)
    masks = random_masks(pruned, seed=5)
    snip_tf.set_masks(pruned, masks)
    pruned.fit(x, y, epochs=2, verbose=0)
    weights = weights_by_path(pruned)
    for path, mask in masks.items():
        weight = weights[path]
        for value, kept in zip(
            strategy.experimental_local_results(weight.value),
            strategy.experimental_local_results(weight._snip_mask.value),
            strict=True,
        ):
            np.testing.assert_array_equal(kept, mask)
            assert not value.numpy()[~mask].any()
