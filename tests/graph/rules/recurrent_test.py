import keras
import numpy as np
import pytest

import snip_tf
from tests.random_networks import assert_same_outputs, compacted, prune_at_random

layers = keras.layers


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("constants", [1, 2])
def test_a_new_bias_is_not_larger_than_what_it_saves(reset_after, constants):
    recurrent = layers.GRU(8, use_bias=False, reset_after=reset_after)
    stack = [layers.Dense(4, name="in", bias_initializer="ones"), recurrent]
    model = keras.Sequential([keras.Input((5, 1)), *stack])
    mask = np.ones((1, 4), bool)
    mask[:, :constants] = False
    pruned = snip_tf.apply_masks(model, {"in/kernel": mask})
    smaller = compacted(pruned)
    assert smaller.count_params() <= model.count_params()
    folded = constants if constants > 1 or not reset_after else 0
    assert smaller.get_layer("in").units == 4 - folded
    assert_same_outputs(smaller, pruned, np.random.rand(3, 5, 1))


def test_a_mask_of_timesteps_is_heeded():
    stack = [layers.Embedding(9, 6, mask_zero=True), layers.LSTM(8), layers.Dense(2)]
    model = keras.Sequential([keras.Input((5,), dtype="int32"), *stack])
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.9, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    assert_same_outputs(smaller, pruned, rng.integers(0, 9, (20, 5)))


@pytest.mark.parametrize(
    "layer",
    [
        layers.SimpleRNN(8, "softmax"),
        layers.LSTM(8, "softmax"),
        layers.LSTM(8, recurrent_activation="softmax"),
        layers.GRU(8, recurrent_activation="softmax", reset_after=False),
        layers.Bidirectional(layers.GRU(8, "softmax")),
    ],
)
def test_units_stay_where_an_activation_takes_all_together(layer):
    stack = [layers.Dense(9, "relu", name="in"), layer, layers.Dense(2, name="out")]
    model = keras.Sequential([keras.Input((5, 4)), *stack])
    rng = np.random.default_rng(0)
    masks = {}
    for path, weight in snip_tf.prunable_weights(model).items():
        kept = np.ones(weight.shape, bool)
        if path.startswith("in/"):
            kept[:, 3:] = False
        elif not path.endswith("/kernel") or path.startswith("out/"):
            kept[5:8] = False  # what reads these units
        masks[path] = kept
    pruned = snip_tf.apply_masks(model, masks)
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer("in").units == 3
    x = rng.normal(size=(3, 5, 4)).astype(np.float32)
    assert_same_outputs(smaller, pruned, x)
