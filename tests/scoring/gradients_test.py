import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import _keras
from snip_tf.network import prunable_weights
from snip_tf.weights import weights_by_path
from tests.kinds import activity_is_a_mean
from tests.scoring.of_fit import gradients, mean_gradients
from tests.versions import on

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ACTIVITY_IS_A_MEAN = activity_is_a_mean()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 5)).astype(np.float32), rng.integers(3, size=12)


@pytest.fixture
def model():
    """A network with all the state that a forward pass may change."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(6, kernel_regularizer="l2", activity_regularizer="l1"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, kernel_regularizer="l2"),
        ]
    )


def numpy_loss(weights, x, y):
    """The loss of `model` in inference mode with fresh statistics, in float64.

    Without the penalties on its kernels, but with that on what a layer gives.
    """
    kernel1, bias1, kernel2, bias2 = weights
    hidden = x.astype(np.float64) @ kernel1 + bias1
    logits = hidden / np.sqrt(1 + 1e-3) @ kernel2 + bias2
    log_sum = np.log(np.exp(logits).sum(axis=1))
    activity = 0.01 * np.abs(hidden).sum() / (len(x) if ACTIVITY_IS_A_MEAN else 1)
    return np.mean(log_sum - logits[np.arange(len(y)), y]) + activity


def test_equals_finite_differences_of_the_loss_without_penalties(model, data):
    layers = [model.layers[0], model.layers[3]]
    weights = [v.numpy().astype(np.float64) for layer in layers for v in layer.weights]
    found = list(gradients(model, data, loss=LOSS).values())
    for position, gradient in ((0, found[0]), (2, found[1])):
        for index in np.ndindex(gradient.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [w.copy() for w in weights]
                moved[position][index] += step
                sides.append(numpy_loss(moved, *data))
            expected = (sides[0] - sides[1]) / 2e-5
            np.testing.assert_allclose(gradient[index], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.skipif(not ACTIVITY_IS_A_MEAN, reason="adds up over the examples")
def test_batches_are_averaged_with_their_signs_like_one_larger(model, data):
    x, y = data
    whole = gradients(model, data, loss=LOSS)
    parts = gradients(
        model, (x[:3], y[:3]), (x[3:8], y[3:8]), (x[8:], y[8:]), loss=LOSS
    )
    for path, gradient in whole.items():
        np.testing.assert_allclose(parts[path], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("training", [False, True])
def test_leaves_the_model_as_it_was(model, data, training):
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(*data, verbose=0)

    def state():
        variables = [*model.variables, *model.optimizer.variables]
        variables += model.metrics_variables
        return [variable.numpy() for variable in variables]

    before = state()
    gradients(model, data, training=training)
    for old, new in zip(before, state(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_mode_uses_the_statistics_of_the_batch(model, data):
    inference = gradients(model, data, loss=LOSS)
    training = gradients(model, data, loss=LOSS, training=True)
    for path in inference:
        assert not np.allclose(inference[path], training[path])


def test_the_compiled_loss_is_the_default(model, data):
    expected = gradients(model, data, loss=LOSS)
    model.compile("sgd", LOSS)
    found = gradients(model, data)
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path])


def test_a_loss_may_be_a_name_or_a_function(data):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    x, y = data

    def squares(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    targets = y[:, None].astype(np.float32)
    by_name = gradients(model, (x, targets), loss="mse")
    by_function = gradients(model, (x, targets), loss=squares)
    np.testing.assert_allclose(
        *(next(iter(g.values())) for g in (by_name, by_function))
    )


def test_sample_weights_weigh_the_examples(data):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    x, y = data
    half = (np.arange(12) < 6).astype(np.float32)
    weights = prunable_weights(model)
    weighted = mean_gradients(model, weights, [(x, y, half)], loss=LOSS)
    only = mean_gradients(model, weights, [(x[:6], y[:6], None)], loss=LOSS)
    for path in only:
        # The loss is divided by all 12 examples, as in `fit`.
        np.testing.assert_allclose(2 * weighted[path], only[path], rtol=1e-5)


def two_headed_model():
    x = keras.Input((5,), name="x")
    a = keras.layers.Dense(3, name="a")(x)
    b = keras.layers.Dense(1, name="b")(x)
    return keras.Model({"x": x}, {"a": a, "b": b})


def test_several_outputs_with_loss_weights(data):
    model = two_headed_model()
    x, y = {"x": data[0]}, {"a": data[1], "b": data[0][:, :1]}
    model.compile("sgd", {"a": LOSS, "b": "mse"}, loss_weights={"a": 2.0, "b": 0.5})
    both = gradients(model, (x, y))
    head = keras.Model(model.input, model.output["a"])
    alone = gradients(head, (x, data[1]), loss=LOSS)
    np.testing.assert_allclose(both["a/kernel"], 2 * alone["a/kernel"], rtol=1e-5)


def test_a_model_that_is_not_compiled_needs_a_loss(data):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"not compiled.*pass loss="):
        gradients(model, data)
    model.compile("sgd")
    with pytest.raises(ValueError, match="compiled without a loss"):
        gradients(model, data)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("loss", [LOSS, "sparse_categorical_crossentropy"])
def test_labels_out_of_range(model, data, label, loss):
    x, y = data[0], data[1].copy()
    y[4] = label
    with pytest.raises(ValueError, match="Expected labels from 0 to 2"):
        gradients(model, (x, y), loss=loss)


def test_a_label_that_the_loss_ignores_is_no_output(data):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    x, y = data
    kept = y.copy()
    kept[3] = -1
    ignored = gradients(model, (x, kept), loss=loss)
    rest = np.arange(12) != 3
    expected = gradients(model, (x[rest], y[rest]), loss=LOSS)
    for path in expected:
        np.testing.assert_allclose(ignored[path], expected[path], rtol=1e-4, atol=1e-6)


def test_targets_may_be_a_list_of_one(data):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    x, y = data[0], np.eye(3, dtype=np.float32)[data[1]]
    loss = keras.losses.MeanSquaredError()
    found = [gradients(model, (x, targets), loss=loss) for targets in (y, [y])]
    np.testing.assert_allclose(*(next(iter(each.values())) for each in found))


def test_names_the_weights_that_are_not_finite(model, data):
    model.layers[3].kernel.assign(model.layers[3].kernel * np.inf)
    path = f"{model.layers[3].name}/kernel"
    with pytest.raises(ValueError, match=f"infinity in the weights {path}"):
        gradients(model, data, loss=LOSS)


def test_missing_targets(model, data):
    with pytest.raises(ValueError, match="y=None"):
        gradients(model, (data[0], None), loss=LOSS)


def test_a_loss_that_is_not_finite(model, data):
    x = data[0].copy()
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"finite loss.*Received: loss=nan"):
        gradients(model, (x, data[1]), loss=LOSS)


@on("tensorflow")  # elsewhere it is 0 for a negative number
def test_a_derivative_that_is_not_finite():
    root = keras.layers.Lambda(lambda x: keras.ops.sqrt(keras.ops.relu(x)))
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), root])
    with pytest.raises(ValueError, match=r"if there is none.*square root"):
        snip_tf.prune_model(net, np.eye(4), np.ones((4, 3)), sparsity=0.5, loss="mse")


def test_a_loss_that_is_not_one_number(model, data):
    loss = keras.losses.SparseCategoricalCrossentropy(True, reduction=None)
    with pytest.raises(ValueError, match=r"one number.*of shape \(.*reduction="):
        gradients(model, data, loss=loss)


def test_names_a_weight_that_the_loss_does_not_depend_on(data):
    model = two_headed_model()
    head = keras.Model(model.input, model.output["a"])
    weights = weights_by_path(model)
    chosen = {path: weights[path] for path in ("a/kernel", "b/kernel")}
    batch = ({"x": data[0]}, data[1], None)
    with pytest.raises(ValueError, match="does not depend on 'b/kernel'"):
        mean_gradients(head, chosen, [batch], loss=LOSS)


class Reshapes(keras.layers.Layer):
    """Has a weight, and fails on any batch but one of three."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x):
        return keras.ops.reshape(x @ self.kernel, (3, 4))


def test_names_the_layer_that_fails():
    model = keras.Sequential([keras.layers.Dense(4), Reshapes(name="fails")])
    x, y = np.zeros((8, 6), np.float32), np.zeros((8, 4))
    with pytest.raises(ValueError, match=r"shape \(8, 6\).*layer 'fails' \(Reshapes\)"):
        snip_tf.prune_model(model, x, y, sparsity=0.5, loss="mse")
    assert not model.built
    assert not model.layers[0].built, "a part of the model was built"


def test_says_that_targets_do_not_fit():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    x, y = np.zeros((8, 6), np.float32), np.zeros((8, 5))
    with pytest.raises(ValueError, match=r"targets of shape \(8, 5\) for .* \(8, 4\)"):
        snip_tf.prune_model(model, x, y, sparsity=0.5, loss="mse")


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_half_precision_chooses_as_full_precision(policy, inside):
    def network(dtype):
        dense = [keras.layers.Dense(n, "tanh", dtype=dtype) for n in (64, 64, 5)]
        if inside:  # models, which cast what they are given
            dtype = keras.DTypePolicy(dtype).compute_dtype
            inputs = [keras.Input((n,), dtype=dtype) for n in (20, 64, 64)]
            pairs = zip(inputs, dense, strict=True)
            dense = [keras.Sequential(pair) for pair in pairs]
        return keras.Sequential([keras.Input((20,)), *dense])

    half, full = network(policy), network("float32")
    full.set_weights([w.astype(np.float32) for w in half.get_weights()])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 20)).astype(np.float32), rng.normal(size=(32, 5))
    masks = [
        snip_tf.get_masks(snip_tf.prune_model(model, x, y, sparsity=0.95, loss="mse"))
        for model in (half, full)
    ]
    flat = [np.concatenate([m.ravel() for m in each.values()]) for each in masks]
    assert (flat[0] & flat[1]).sum() >= 0.99 * flat[1].sum()
    first = half.layers[0].layers[0] if inside else half.layers[0]
    assert first.compute_dtype != "float32"


_WITHOUT_ONEDNN = """
import keras, numpy as np, tensorflow as tf
import snip_tf
inputs = keras.Input((6, 6, 4))
grouped = keras.layers.Conv2D(6, 3, groups=2, use_bias=False, name="grouped")
x = keras.layers.Flatten()(grouped(inputs))
model = keras.Model(inputs, keras.layers.Dense(3, name="out")(x))
x, y = np.random.default_rng(0).normal(size=(8, 6, 6, 4)), np.arange(8) % 3
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
found = snip_tf.connection_sensitivity(model, x, y, loss=loss)
kernel = tf.constant(grouped.kernel.numpy())
with tf.GradientTape() as tape:
    tape.watch(kernel)
    halves = zip(tf.split(tf.cast(x, tf.float32), 2, 3), tf.split(kernel, 2, 3))
    y_pred = tf.concat([tf.nn.conv2d(a, b, 1, "VALID") for a, b in halves], 3)
    value = loss(y, model.get_layer("out")(tf.reshape(y_pred, (8, -1))))
expected = np.abs(tape.gradient(value, kernel) * kernel)
scores = found["grouped/kernel"]
np.testing.assert_allclose(scores / scores.sum(), expected / expected.sum(), 1e-3, 1e-7)
"""


def test_a_cast_to_half_precision_is_scored_in_full():
    def network(cast):
        x = keras.Input((20,))
        hidden = keras.layers.Dense(64, "tanh", name="hidden")(x)
        return keras.Model(x, keras.layers.Dense(5, name="out")(cast(hidden)))

    half = network(lambda tensor: keras.ops.cast(tensor, "float16"))
    full = network(lambda tensor: tensor)
    full.set_weights(half.get_weights())
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 20)).astype(np.float32), rng.normal(size=(32, 5))
    scores = [
        snip_tf.connection_sensitivity(model, x, y, loss="mse")
        for model in (half, full)
    ]
    for path, score in scores[1].items():
        np.testing.assert_allclose(scores[0][path], score, rtol=1e-5)
    assert _keras.casts_in(half)[0].dtype == "float16"


@on("tensorflow")
def test_grouped_convolutions_without_onednn():
    """Where TensorFlow has their gradients under XLA alone, as on macOS."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "-c", _WITHOUT_ONEDNN]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
