import re

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
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
@hypothesis.settings(max_examples=12, deadline=None)
def test_any_network_gets_smaller_and_computes_the_same(parts, head, cost, seed):
    rng = np.random.default_rng(seed)
    model = networks.network(parts, head, True, False, rng)
    x = rng.normal(size=(4, 6, 6, 3)).astype(np.float32)
    y = rng.normal(size=(4, 3)).astype(np.float32)
    asked = {"structure": snip_tf.Units(cost=cost), "loss": LOSS}
    try:
        pruned = snip_tf.prune_model(model, x, y, sparsity=0.2, **asked)
    except ValueError as error:
        assert re.search("can be removed|score that is not zero", str(error))
        hypothesis.reject()  # hardly more than one unit in each layer
    smaller = networks.compacted(pruned)
    networks.assert_same_outputs(smaller, pruned, x)
    if cost == "parameters":
        assert kernel_sizes(smaller) <= 0.8 * kernel_sizes(model)
    assert kernel_sizes(smaller) < kernel_sizes(model)


def units_kept(masks, layers):
    """Whether each unit of some layers is kept, by the weights into it."""
    into = [masks[f"{layer}/kernel"] for layer in layers]
    return np.concatenate([m.any(axis=tuple(range(m.ndim - 1))) for m in into])


class Gate(layers.Layer):
    """Multiplies each feature by a number c, which is 1."""

    def build(self, shape):
        self.c = self.add_weight(shape=(shape[-1],), initializer="ones", name="c")

    def call(self, x):
        return x * self.c


def test_the_score_of_a_unit_is_the_gradient_of_its_gate():
    stack = {
        "conv": layers.Conv2D(4, 3, activation="relu", name="conv"),
        "conv_gate": Gate(),
        "flat": layers.Flatten(),
        "dense": layers.Dense(5, activation="tanh", name="dense"),
        "dense_gate": Gate(),
        "out": layers.Dense(3, name="out"),
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
    # Which are kept says how they are ranked, from the worst to the best.
    order = np.argsort(expected)
    for removed in range(1, len(expected) - 1):
        pruned = snip_tf.prune_model(
            model, x, y, sparsity=removed / len(expected), structure="units", loss=LOSS
        )
        kept = units_kept(snip_tf.get_masks(pruned), ("conv", "dense"))
        best = {np.argmax(expected[:4]), 4 + np.argmax(expected[4:])}
        gone = [unit for unit in order if unit not in best][:removed]
        assert set(np.flatnonzero(~kept)) == set(gone)


def mlp():
    stack = [layers.Dense(20, "relu", name="a"), layers.Dense(30, "relu", name="b")]
    return keras.Sequential([keras.Input((6,)), *stack, layers.Dense(3, name="c")])


def prune(model, sparsity, **asked):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6)), rng.normal(size=(8, 3))
    asked = {"structure": "units", "loss": LOSS, **asked}
    return snip_tf.prune_model(model, x, y, sparsity=sparsity, **asked)


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.9, 0.96])
def test_the_number_of_units_is_exact(sparsity):
    smaller = networks.compacted(prune(mlp(), sparsity))
    units = smaller.get_layer("a").units + smaller.get_layer("b").units
    assert units == round((1 - sparsity) * 50)


def test_summands_are_removed_together():
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
        ({"scope": "layer"}, "scope='global' with structure='units', whose units lie"),
        ({"scope": "unit"}, "whose units lie across several weights"),
        ({"sparsity": {"*": 0.5}}, "one number as `sparsity` with structure='units'"),
        ({"min_kept": 2}, "no `min_kept` with"),
        (
            {"min_kept": 2, "scope": "erk"},
            r"scope='global', no `min_kept` with.*scope='erk', min_kept=2",
        ),
        ({"criterion": lambda *_, **__: {}}, "criterion='snip'"),
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


@pytest.mark.parametrize("cost", ["parameters", "multiply_adds"])
@pytest.mark.parametrize("block", [1, 3, 8])
def test_blocks_of_units_go_together(cost, block):
    units = snip_tf.Units(cost=cost, block=block)
    masks = snip_tf.get_masks(prune(mlp(), 0.5, structure=units))
    for layer, count in (("a", 20), ("b", 30)):
        kept = int(units_kept(masks, [layer]).sum())
        # Only the last block has more, as many as do not make a block.
        assert kept % block in (0, count % block)
        assert kept >= block
    left = sum(
        int(np.prod(w.shape))
        for w in snip_tf.prunable_weights(
            networks.compacted(snip_tf.apply_masks(mlp(), masks))
        ).values()
    )
    assert 0.5 * 0.5 * 810 < left <= 0.5 * 810  # 6 x 20 + 20 x 30 + 30 x 3


@pytest.mark.parametrize(
    ("block", "received"),
    [(1, r"0\.999$"), (8, r"0\.999, block=8\. A smaller block removes more$")],
)
def test_a_sparsity_that_is_too_high_for_blocks(block, received):
    units = snip_tf.Units(cost="parameters", block=block)
    with pytest.raises(ValueError, match=f"can be removed. Received: .*{received}"):
        prune(mlp(), 0.999, structure=units)


def test_units_are_refused_before_data_are_read():
    def data():
        raise AssertionError("it was read")
        yield

    fixed = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    for model, words in ((fixed, "that can be removed"), (mlp(), "'global'")):
        with pytest.raises(ValueError, match=words):
            options = {"structure": "units", "loss": LOSS, "sparsity": 0.5}
            scope = "global" if model is fixed else "layer"
            snip_tf.prune_model(model, data(), scope=scope, **options)


def test_zeros_kept_by_position_are_reported():
    model = mlp()
    kernel = model.get_layer("c").kernel
    kernel.assign(np.r_[kernel[:10], np.zeros((20, 3))])
    with pytest.warns(UserWarning, match=r"\d of the kept units have a score of zero"):
        prune(model, 0.2)


def test_a_gradient_that_is_not_finite_names_the_weight():
    def rooted(y_true, y_pred):
        return keras.ops.sqrt(keras.ops.sum(y_pred * 0, axis=-1))

    with pytest.raises(ValueError, match="/kernel' are NaN"):
        prune(mlp(), 0.5, loss=rooted)
