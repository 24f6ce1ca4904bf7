import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.graph.graph import trace
from snip_tf.savings.layer_by_layer import Program
from snip_tf.savings.sparse_steps import ways_of
from tests import random_networks as networks

layers = keras.layers


def in_one_way(pruned, x, way):
    """The outputs when each layer that has a choice is run in one way."""
    graph = trace(snip_tf.strip_pruning(pruned))
    steps = [ways.get(way) or ways["dense"] for ways in map(ways_of, graph.nodes)]
    return Program(graph, steps)(x)


@hypothesis.given(
    st.lists(st.sampled_from(networks.IMAGE_PARTS), min_size=1, max_size=3),
    st.sampled_from([networks.flat, networks.recurrent, networks.and_back]),
    st.integers(0, 2**32),
)
@hypothesis.settings(max_examples=15, deadline=None)
def test_each_way_computes_the_same(parts, head, seed):
    rng = np.random.default_rng(seed)
    model = networks.network(parts, head, True, True, rng)
    pruned = networks.prune_at_random(model, 0.7, rng)
    x = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    outputs = pruned(x, training=False)
    for way in ("sparse", "dense"):
        found = in_one_way(pruned, x, way)
        for output, expected in zip(found, outputs, strict=True):
            atol = 1e-5 * max(1e-30, float(np.abs(expected).max()))
            np.testing.assert_allclose(output, expected, rtol=0, atol=atol)


RECURRENT = {
    "simple": lambda **o: layers.SimpleRNN(5, activation="relu", **o),
    "lstm": lambda **o: layers.LSTM(5, **o),
    "gru": lambda **o: layers.GRU(5, **o),
    "gru that resets before": lambda **o: layers.GRU(5, reset_after=False, **o),
}


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("use_bias", [False, True])
def test_each_cell_computes_the_same(kind, use_bias):
    options = {"use_bias": use_bias, "bias_initializer": "random_normal"}
    every = RECURRENT[kind](return_sequences=True, **options)
    model = keras.Sequential([keras.Input((4, 3)), every, RECURRENT[kind](**options)])
    pruned = networks.prune_at_random(model, 0.5, np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
    expected = pruned(x, training=False)
    np.testing.assert_allclose(in_one_way(pruned, x, "sparse"), expected, atol=1e-6)


class OwnTraining(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def test_a_class_that_trains_in_its_own_way():
    inputs = keras.Input((6,))
    model = OwnTraining(inputs, layers.Dense(2)(layers.Dense(40, "relu")(inputs)))
    pruned = networks.prune_at_random(model, 0.8, np.random.default_rng(0))
    x = np.random.default_rng(0).random((3, 6), np.float32)
    np.testing.assert_allclose(in_one_way(pruned, x, "sparse"), pruned(x), atol=1e-6)


class Doubled:
    """An activation that cannot be a key."""

    __hash__ = None

    def __call__(self, x):
        return 2 * x


@pytest.mark.parametrize("way", ["sparse", "dense"])
def test_half_precision_and_custom_activations(way):
    half = layers.Dense(30, "relu", dtype="mixed_bfloat16")
    stack = [half, layers.Dense(20, Doubled()), layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,)), *stack])
    pruned = networks.prune_at_random(model, 0.5, np.random.default_rng(0))
    x = np.random.default_rng(0).random((3, 6), np.float32)
    expected = pruned(x)
    np.testing.assert_allclose(in_one_way(pruned, x, way), expected, atol=1e-5)
