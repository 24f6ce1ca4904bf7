import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.graph.graph import trace
from snip_tf.structured.units import Units
from tests import random_networks as networks

layers = keras.layers
LOSS = keras.losses.MeanSquaredError()


def kernel_sizes(model):
    return sum(int(np.prod(w.shape)) for w in snip_tf.prunable_weights(model).values())


@hypothesis.given(
    st.lists(st.sampled_from(networks.IMAGE_PARTS), min_size=1, max_size=4),
    st.sampled_from([networks.flat, networks.recurrent, networks.and_back]),
    st.sampled_from(["units", "parameters", "multiply_adds"]),
    st.integers(0, 2**32),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_any_network_gets_smaller_and_computes_the_same(parts, head, budget, seed):
    rng = np.random.default_rng(seed)
    model = networks.network(parts, head, True, False, rng)
    x = rng.normal(size=(4, 6, 6, 3)).astype(np.float32)
    y = rng.normal(size=(4, 3)).astype(np.float32)
    asked = {"pattern": "units", "budget": budget, "loss": LOSS}
    try:
        pruned = snip_tf.prune_model(model, x, y, sparsity=0.2, **asked)
    except ValueError as error:
        assert "can be removed" in str(error)
        hypothesis.reject()  # hardly more than one unit in each layer
    smaller = networks.compacted(pruned)
    networks.assert_same_outputs(smaller, pruned, x)
    if budget == "parameters":
        assert kernel_sizes(smaller) <= 0.8 * kernel_sizes(model)
    assert kernel_sizes(smaller) < kernel_sizes(model)


class Gate(layers.Layer):
    """Multiplies each feature by a number c, which is 1."""

    def build(self, shape):
        self.c = self.add_weight(shape=(shape[-1],), initializer="ones", name="c")

    def call(self, x):
        return x * self.c


def test_the_score_of_a_unit_is_the_gradient_of_its_gate():
    stack = {
        "conv": layers.Conv2D(4, 3, activation="relu"),
        "conv_gate": Gate(),
        "flat": layers.Flatten(),
        "dense": layers.Dense(5, activation="tanh"),
        "dense_gate": Gate(),
        "out": layers.Dense(3),
    }
    gated = keras.Sequential([keras.Input((6, 6, 2)), *stack.values()])
    plain = [layer for name, layer in stack.items() if "gate" not in name]
    model = keras.Sequential([keras.Input((6, 6, 2)), *plain])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6, 6, 2)), rng.normal(size=(8, 3))
    with tf.GradientTape() as tape:
        loss = LOSS(y, gated(x))
    gates = [stack["conv_gate"].c, stack["dense_gate"].c]
    expected = np.abs(np.concatenate(tape.gradient(loss, [g.value for g in gates])))
    weights = snip_tf.prunable_weights(model)
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x))
    gradients = tape.gradient(loss, [w.value for w in weights.values()])
    scores = Units(trace(model), weights).scores(
        dict(zip(weights, gradients, strict=True))
    )
    np.testing.assert_allclose(np.sort(scores), np.sort(expected), rtol=1e-4)


def mlp():
    stack = [layers.Dense(20, "relu", name="a"), layers.Dense(30, "relu", name="b")]
    return keras.Sequential([keras.Input((6,)), *stack, layers.Dense(3, name="c")])


def prune(model, sparsity, **asked):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6)), rng.normal(size=(8, 3))
    asked = {"pattern": "units", "loss": LOSS, **asked}
    return snip_tf.prune_model(model, x, y, sparsity=sparsity, **asked)


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.9, 0.96])
def test_the_number_of_units_is_exact(sparsity):
    smaller = networks.compacted(prune(mlp(), sparsity))
    units = smaller.get_layer("a").units + smaller.get_layer("b").units
    assert units == round((1 - sparsity) * 50)


def test_what_is_added_up_goes_together():
    inputs = keras.Input((6,))
    x = layers.Dense(10, name="a")(inputs)
    x = layers.Add()([x, layers.Dense(10, name="b")(layers.ReLU()(x))])
    model = keras.Model(inputs, layers.Dense(3, name="c")(x))
    masks = snip_tf.get_masks(prune(model, 0.5))
    left = masks["c/kernel"].any(axis=1)
    assert left.sum() == 5
    for path in ("a/kernel", "b/kernel"):
        np.testing.assert_array_equal(masks[path].any(axis=0), left)


def test_a_pruned_model_loses_units_and_gets_nothing_back():
    pruned = snip_tf.apply_masks(mlp(), {"b/kernel": np.eye(20, 30, dtype=bool)})
    masks = snip_tf.get_masks(prune(pruned, 0.5))
    assert not masks["b/kernel"][~np.eye(20, 30, dtype=bool)].any()
    assert not masks["a/kernel"].all()


def test_excluded_weights_keep_the_units_that_they_read():
    masks = snip_tf.get_masks(prune(mlp(), 0.3, exclude="c/kernel"))
    assert masks["b/kernel"].any(axis=0).all()
    assert not masks["a/kernel"].any(axis=0).all()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"pattern": "filters"}, "'weights', 'units'"),
        ({"budget": "flops"}, "'multiply_adds'"),
        ({"scope": "layer"}, 'scope="global"'),
        ({"criterion": lambda *_, **__: {}}, 'criterion="snip"'),
        ({"pattern": "weights", "budget": "parameters"}, 'pattern="units"'),
        ({"sparsity": 0.99}, "no more than 0.960 of the units"),
    ],
)
def test_refuses_what_it_cannot_do(asked, words):
    with pytest.raises(ValueError, match=words):
        prune(mlp(), **{"sparsity": 0.5, **asked})


def test_refuses_a_model_without_a_unit():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="a unit that can be removed"):
        prune(model, 0.5)
