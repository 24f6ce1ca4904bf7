"""What must hold of SynFlow in any network."""

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf import criteria
from snip_tf.criteria import ScoringContext
from snip_tf.network import prunable_weights
from tests.criteria.networks import bits, dense

layers = keras.layers


def of_images(pooling=layers.MaxPooling2D):
    stack = [
        keras.Input((12, 12, 3)),
        layers.Conv2D(6, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        pooling(),
        layers.SeparableConv2D(8, 3, activation="relu"),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(7),
        layers.Dense(4, activation="softmax"),
    ]
    return keras.Sequential(stack)


def ones(model):
    return {p: np.ones(w.shape, bool) for p, w in prunable_weights(model).items()}


def sums(model, masks=None):
    weights = prunable_weights(model)
    context = ScoringContext(model, weights, masks=masks or ones(model))
    scores = criteria.SynFlow()(context)
    return [score.sum() for score in scores.values()]


@pytest.mark.parametrize("make", [lambda: dense(12, 9, 30, 4), of_images])
def test_synflow_conserves_the_sum_of_each_layer(make):
    model = make()
    found = sums(model)
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
    pruned = snip_tf.prune_model(model, sparsity=0.9, criterion="synflow")
    found = sums(model, snip_tf.get_masks(pruned))
    np.testing.assert_allclose(found, found[0], rtol=1e-6)


def test_synflow_does_not_overflow_in_a_hundred_layers():
    """R is about 1e175 there, far outside of float32."""
    keras.utils.set_random_seed(0)
    model = dense(*[16] * 100 + [10])
    for layer in model.layers:
        layer.kernel.assign(32 * layer.kernel)
    found = sums(model)
    values = np.ones(16)
    for layer in model.layers:
        values = values @ np.abs(layer.get_weights()[0].astype(np.float64))
    assert values.sum() > 1e150
    np.testing.assert_allclose(found, values.sum(), rtol=1e-6)
    ten_steps = criteria.SynFlow(10)
    pruned = snip_tf.prune_model(model, sparsity=0.9, criterion=ten_steps)
    assert min(m.sum() for m in snip_tf.get_masks(pruned).values()) > 0


def nested(depth):
    def block():
        return keras.Sequential(
            layers.Dense(16, "relu", kernel_initializer="he_normal") for _ in range(10)
        )

    blocks = [block() for _ in range(depth // 10)]
    return keras.Sequential([keras.Input((16,)), *blocks])


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(7, 2, size=(50, 6)))
    return layer


UNUSUAL = {
    "a hundred layers in ten models": lambda: nested(100),
    "a shift before the first weight": lambda: keras.Sequential(
        [
            keras.Input((6,)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Dense(8, "relu"),
            layers.Dense(4),
        ]
    ),
    "adapted": lambda: keras.Sequential(
        [keras.Input((6,)), adapted(), layers.Dense(8, "relu"), layers.Dense(4)]
    ),
    "activations with a bound": lambda: keras.Sequential(
        [
            keras.Input((600,)),
            *[layers.Dense(80, "relu6") for _ in range(5)],
            layers.Dense(4, "tanh"),
        ]
    ),
    "a constant in float32": lambda: keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8),
            layers.Lambda(lambda x: x * tf.constant(2.0)),
            layers.Dense(4),
        ]
    ),
    "filters in groups": lambda: keras.Sequential(
        [
            keras.Input((5, 5, 4)),
            layers.Conv2D(8, 3, groups=4),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    ),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_synflow_flows_through(kind):
    keras.utils.set_random_seed(0)
    model = UNUSUAL[kind]()
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:]))
    before = model(x).numpy()
    found = sums(model)
    assert min(found) > 0
    if kind != "activations with a bound":  # which are in proportion up to it
        np.testing.assert_allclose(found, found[0], rtol=1e-6)
    pruned = snip_tf.prune_model(model, sparsity=0.9, criterion=criteria.SynFlow(10))
    assert min(mask.sum() for mask in snip_tf.get_masks(pruned).values()) > 0
    np.testing.assert_array_equal(model(x), before)  # it computes as it did


def test_synflow_says_that_the_flow_overflows():
    model = dense(*[16] * 30)
    for layer in model.layers:
        layer.kernel.assign(1e12 * layer.kernel)
    with pytest.raises(ValueError, match="Expected a finite flow through the network"):
        snip_tf.prune_model(model, sparsity=0.9, criterion="synflow")


@hypothesis.given(
    st.lists(st.integers(2, 12), min_size=3, max_size=6),
    st.integers(0, 40),
    st.integers(0, 2**31),
)
@hypothesis.settings(max_examples=6, deadline=None)
def test_synflow_cuts_no_layer_where_a_path_is_possible(units, more, seed):
    keras.utils.set_random_seed(seed)
    model = dense(*units)
    shapes = [w.shape for w in prunable_weights(model).values()]
    size = sum(a * b for a, b in shapes)
    kept = min(size, len(shapes) + more)  # a path takes one connection of each layer
    pruned = snip_tf.prune_model(
        model,
        sparsity=1 - (kept + 0.1) / size if kept < size else 0.0,
        criterion="synflow",
    )
    masks = snip_tf.get_masks(pruned)
    assert sum(m.sum() for m in masks.values()) == kept
    flow = np.ones(units[0])
    for mask in masks.values():
        flow = flow @ mask
    assert flow.sum() > 0


def test_synflow_needs_no_data_and_leaves_out_the_softmax():
    softmax, plain = (
        keras.Sequential([keras.Input((12,)), layers.Dense(9), layers.Dense(4, end)])
        for end in ("softmax", None)
    )
    plain.set_weights(softmax.get_weights())
    first, second = (
        snip_tf.prune_model(model, sparsity=0.8, criterion="synflow")
        for model in (softmax, plain)
    )
    np.testing.assert_array_equal(bits(first), bits(second))


def test_synflow_asks_for_data_where_the_shape_is_open():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((None, 6)), layers.LSTM(4)])
    with pytest.raises(ValueError, match=r"\(None, None, 6\).*mini-batch as `x`"):
        snip_tf.prune_model(model, sparsity=0.5, criterion="synflow")
    x = np.ones((1, 5, 6), np.float32)
    pruned = snip_tf.prune_model(model, x, sparsity=0.5, criterion="synflow")
    [recurrent] = [m for p, m in snip_tf.get_masks(pruned).items() if "recurrent" in p]
    assert recurrent.sum() > 20  # of 64: as much as the order of equals would leave


def test_synflow_gives_a_state_as_many_examples_as_it_is_of():
    stack = [layers.GRU(5, stateful=True, name="gru"), layers.Dense(3, name="out")]
    model = keras.Sequential([keras.Input(batch_shape=(4, 6, 2)), *stack])
    x = np.ones((4, 6, 2), np.float32)
    options = {"sparsity": 0.5, "criterion": criteria.SynFlow(10)}
    found = snip_tf.prune_model(model, **options)
    other = snip_tf.prune_model(model, x, **options)
    for path, mask in snip_tf.get_masks(found).items():
        np.testing.assert_array_equal(mask, snip_tf.get_masks(other)[path])
    assert not np.any(model.layers[0].states[0])
