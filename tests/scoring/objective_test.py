"""What is scored is what `fit` minimizes, without penalties on weights.

The witness is a tape over what `keras.Model.train_step` differentiates.
"""

import threading

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.network import prunable_weights
from tests.replicas import two_replicas
from tests.scoring.of_fit import (
    RNG,
    Adds,
    X,
    Y,
    assert_scored,
    functional,
    of_fit,
    sequence,
)
from tests.versions import since

layers, ops = keras.layers, keras.ops


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


class Balances(layers.Layer):
    """A mixture of experts with a term that balances them."""

    def build(self, shape):
        self.experts = self.add_weight(
            (4, shape[-1], 3), "glorot_uniform", name="experts"
        )
        self.gate = self.add_weight((shape[-1], 4), "glorot_uniform", name="gate")

    def call(self, x):
        share = ops.softmax(x @ self.gate)
        self.add_loss(4 * ops.sum(ops.square(ops.mean(share, axis=0))))
        return ops.einsum("be,bi,eio->bo", share, x, self.experts)


class Codebook(layers.Layer):
    """Vectors to quantize by, with the terms of a VQ-VAE."""

    def build(self, shape):
        self.codes = self.add_weight((5, shape[-1]), "uniform", name="codes")

    def call(self, x):
        nearest = ops.argmin(ops.sum((x[:, None] - self.codes) ** 2, -1), -1)
        chosen = ops.take(self.codes, nearest, axis=0)
        self.add_loss(ops.mean((ops.stop_gradient(x) - chosen) ** 2))
        self.add_loss([0.25 * ops.mean((x - ops.stop_gradient(chosen)) ** 2)])
        return x + ops.stop_gradient(chosen - x)


class Divergence(layers.Layer):
    """What a VAE draws, here with no noise, and its divergence."""

    def call(self, inputs):
        mean, log_variance = inputs
        terms = 1 + log_variance - ops.square(mean) - ops.exp(log_variance)
        self.add_loss(-0.5 * ops.mean(ops.sum(terms, axis=-1)))
        return mean


def encoder(dtype=None):
    x = keras.Input((6,))
    hidden = layers.Dense(8, "relu", name="hidden", dtype=dtype)(x)
    mean = layers.Dense(3, name="mean", dtype=dtype)(hidden)
    variance = layers.Dense(3, name="variance", dtype=dtype)(hidden)
    code = Divergence(name="sampling", dtype=dtype)([mean, variance])
    return keras.Model(x, code, name="encoder")


def vae(dtype=None):
    """A model in a model; the inner one adds a term."""
    x = keras.Input((6,))
    decoder = keras.Sequential([layers.Dense(6, name="decoded")], name="decoder")
    return keras.Model(x, decoder(encoder(dtype)(x)))


class Itself(keras.Model):
    """Adds a term in its own call."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(7, "tanh"), layers.Dense(6)

    def call(self, x):
        code = self.first(x)
        self.add_loss(ops.mean(ops.square(code)))
        return self.second(code)


ADDING = {
    "activity": lambda: sequence(
        layers.Dense(7, activity_regularizer="l2"), layers.Dense(6)
    ),
    "balance": lambda: sequence(Balances(), layers.Dense(6)),
    "codebook": lambda: sequence(layers.Dense(4), Codebook(), layers.Dense(6)),
    "divergence in a model": vae,
    "the model": Itself,
}


@pytest.mark.parametrize("loss", ["mse", None])
@pytest.mark.parametrize("kind", ADDING)
def test_what_layers_add_counts(kind, loss):
    model = ADDING[kind]()
    model.compile("sgd", loss)
    model(X)  # built
    expected = of_fit(model, X, X)
    # What is behind the layer that adds a term has no part in that term.
    exclude = [path for path in prunable_weights(model) if path not in expected]
    data = (X,) if loss is None else (X, X)
    assert_scored(model, expected, *data, exclude=exclude or None)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_terms_are_added_to_a_loss_of_another_type(dtype):
    model = ADDING["activity"]()
    model.compile("sgd", keras.losses.MeanSquaredError(dtype=dtype))
    found = snip_tf.connection_sensitivity(model, X, X)
    expected = snip_tf.connection_sensitivity(model, X, X, loss="mse")
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=2e-2, atol=1e-5)


def test_terms_are_added_to_a_loss_that_is_given():
    model = vae()
    model.compile("sgd", "mse")
    expected = of_fit(model, X, X)
    fresh = vae()
    fresh.set_weights(model.get_weights())
    assert_scored(fresh, expected, X, X, loss="mse")


def test_an_activity_is_no_loss_of_a_model_that_is_not_compiled():
    with pytest.raises(ValueError, match=r"not compiled.*without a loss.*objective="):
        snip_tf.connection_sensitivity(functional(activity_regularizer="l2"), X, Y)


def test_terms_of_a_pruned_model_count():
    model = vae()
    model.compile("sgd", "mse")
    pruned = snip_tf.prune_model(model, X, X, sparsity=0.5)
    assert_scored(pruned, of_fit(pruned, X, X), X, X)


def test_terms_count_while_another_thread_calls_the_model():
    model, stop = vae(), threading.Event()
    model.compile("sgd", "mse")
    expected = snip_tf.connection_sensitivity(model, X, X)

    def serve():
        while not stop.is_set():
            model(X[:2])

    server = threading.Thread(target=serve)
    server.start()
    try:
        for _ in range(20):
            found = snip_tf.connection_sensitivity(model, X, X)
            for path, score in expected.items():
                np.testing.assert_array_equal(found[path], score)
    finally:
        stop.set()
        server.join()


class Labelled(layers.Layer):
    """CTC as a layer, as in Keras' example of captchas."""

    def call(self, labels, logits):
        lengths = (ops.shape(logits)[0],)
        steps = ops.full(lengths, logits.shape[1], "int32")
        count = ops.full(lengths, labels.shape[1], "int32")
        self.add_loss(ops.mean(ops.ctc_loss(labels, logits, count, steps)))
        return logits


def test_ctc_as_a_layer():
    x, labels = keras.Input((16, 6)), keras.Input((3,), dtype="int32")
    logits = layers.Dense(5)(layers.Dense(8, "tanh")(x))
    model = keras.Model([x, labels], Labelled()(labels, logits))
    model.compile("adam")
    data = [
        RNG.normal(size=(24, 16, 6)).astype(np.float32),
        RNG.integers(1, 5, size=(24, 3)).astype(np.int32),
    ]
    assert_scored(model, of_fit(model, data), data)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_half_precision_as_in_full(policy):
    half, full = vae(policy), vae()
    full.set_weights(half.get_weights())
    for model in (half, full):
        model.compile("sgd", "mse")
    assert_scored(half, of_fit(full, X, X), X, X)


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("examples", [24, 23])
@pytest.mark.parametrize("kind", ["adds", "own", "two outputs"])
def test_replicas_score_as_one_device(kind, examples, where):
    make = {"adds": vae, "own": lambda: functional(Adds), "two outputs": heads}[kind]
    y = {"adds": X, "own": Y, "two outputs": [X[:, :1], X[:, 1:4]]}[kind]
    y = keras.tree.map_structure(lambda leaf: leaf[:examples], y)
    alone = make()
    alone.compile("sgd", "mse")
    expected = snip_tf.connection_sensitivity(alone, X[:examples], y)
    with two_replicas().scope():
        model = make()
        model.compile("sgd", "mse")
        model.set_weights(alone.get_weights())
        if where == "inside":
            found = snip_tf.connection_sensitivity(model, X[:examples], y)
    if where == "outside":
        found = snip_tf.connection_sensitivity(model, X[:examples], y)
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=1e-4, atol=1e-7)


def heads():
    x = keras.Input((6,))
    hidden = layers.Dense(8, "tanh", name="hidden")(x)
    outputs = [layers.Dense(1, name="one")(hidden), layers.Dense(3, name="two")(hidden)]
    return keras.Model(x, outputs)


def test_several_outputs_beside_a_term():
    model = heads()
    y = {"one": X[:, :1], "two": np.arange(24) % 3}
    mean = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", {"one": "mae", "two": mean}, {"one": 0.3, "two": 2.0})
    assert_scored(model, of_fit(model, X, y), X, y)


class Student(keras.Model):
    def __init__(self):
        super().__init__()
        self.student, self.teacher = (
            keras.Sequential(
                [keras.Input((6,)), layers.Dense(5, "tanh", name="a"), layers.Dense(2)],
                name=name,
            )
            for name in ("student", "teacher[0]")
        )

    def call(self, x):
        return self.student(x)


def test_names_all_weights_that_are_not_reached_with_one_exclude():
    model = Student()
    with pytest.raises(ValueError, match=r"does not depend on") as caught:
        snip_tf.prune_model(model, X, Y, sparsity=0.5, loss="mse")
    for path in prunable_weights(model):
        assert (repr(path) in str(caught.value)) == path.startswith("teacher")
    assert "exclude=['teacher[[]0]/*']" in str(caught.value)
    scores = snip_tf.connection_sensitivity(
        model, X, Y, loss="mse", exclude=["teacher[[]0]/*"]
    )
    assert all(path.startswith("student/") for path in scores)


@since("3.12")
def test_keras_distiller():
    teacher, student = (
        sequence(layers.Dense(n, "relu"), layers.Dense(3)) for n in (9, 5)
    )
    teacher.trainable = False
    model = keras.distillation.Distiller(
        teacher, student, keras.distillation.LogitsDistillation(), 1.0, 0.3
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss)
    y = np.arange(24) % 3
    model(X)
    assert_scored(model, of_fit(model, X, y), X, y)
