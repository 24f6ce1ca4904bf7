"""Masks that keep everything change nothing: training is what it is without them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.masking.copying import copy_unmasked
from tests.kinds import EXAMPLES, KINDS, classifier
from tests.network_kinds import NETWORKS

STEPS = 4


class UnitNorm(keras.layers.Layer):
    """Divides its own kernel by its norm in each training call, then uses it."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 6), name="kernel")

    def call(self, x, training=False):
        if training:
            norm = keras.ops.norm(self.kernel, axis=0, keepdims=True)
            self.kernel.assign(self.kernel / norm)
        return x @ self.kernel


class ReadTwice(keras.layers.Layer):
    """Uses its kernel before it clips it, and after."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 6), name="kernel")

    def call(self, x):
        before = x @ self.kernel
        self.kernel.assign(keras.ops.clip(self.kernel, -0.3, 0.3))
        return before + 2 * keras.ops.tanh(x @ self.kernel)


class AssignedInABranch(keras.layers.Layer):
    """Changes its kernel inside a branch of the graph, and reads it outside."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 6), name="kernel")

    def compute_output_spec(self, x):
        # Keras itself cannot tell: it keeps what is assigned, even in a branch.
        return keras.KerasTensor((*x.shape[:-1], 6), x.dtype)

    def call(self, x):
        tf.cond(
            tf.reduce_mean(x) < 100,
            lambda: self._assigned(self.kernel * 0.9),
            lambda: self._assigned(self.kernel * 1.1),
        )
        return x @ self.kernel

    def _assigned(self, value):
        self.kernel.assign(value)
        return 0.0


class OfParts(keras.layers.Layer):
    """A composite layer whose own code changes the kernel of one inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(6, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        self.dense.kernel.assign_sub(0.01 * self.dense.kernel)
        return self.dense(x)


CHANGE_THEMSELVES = {
    "spectral normalization": lambda: keras.layers.SpectralNormalization(
        keras.layers.Dense(6), power_iterations=2
    ),
    "unit norm": UnitNorm,
    "read before and after": ReadTwice,
    "in a branch": AssignedInABranch,
    "of a layer inside": OfParts,
}
MODELS = {
    **KINDS,
    **{
        title: lambda make=make: classifier(make(), shape=(5,))
        for title, make in CHANGE_THEMSELVES.items()
    },
}
# Those that a newcomer's run of the tests has, and under XLA all that are tried.
FEW = (
    "Sequential, Dense",
    "Conv2D, BatchNormalization, Dropout",
    "GRU(reset_after=True)",
    "MultiHeadAttention, GroupedQueryAttention",
    *CHANGE_THEMSELVES,
)


def slow(titles):
    return [pytest.param(title, marks=pytest.mark.slow) for title in titles]


REST = [title for title in MODELS if title not in FEW]
# Squeeze and excitation, layers traced apart, attention behind masks of Keras.
LARGER = [
    title
    for title in NETWORKS
    if any(name in title for name in ("MobileNetV3", "ConvNeXt", "BertBackbone"))
]


def pair(title):
    """A model of a kind, the same with masks that keep everything, and data."""
    keras.utils.set_random_seed(0)
    model, x, y = (MODELS | NETWORKS)[title]()
    weights = snip_tf.prunable_weights(model)
    kept = {path: np.ones(w.shape, bool) for path, w in weights.items()}
    return copy_unmasked(model), snip_tf.apply_masks(model, kept), x, y


def assert_trained_alike(title, rtol, **options):
    plain, masked, x, y = pair(title)
    for model in (plain, masked):
        model.run_eagerly = options.get("run_eagerly", False)
        model.jit_compile = options.get("jit_compile", False)
        options_of_fit = {"batch_size": EXAMPLES, "epochs": STEPS, "verbose": 0}
        model.fit(x, y, shuffle=False, **options_of_fit)
    for before, after in zip(plain.weights, masked.weights, strict=True):
        before, after = np.asarray(before), np.asarray(after)
        if rtol:
            scale = np.abs(before).max() if before.size else 0
            np.testing.assert_allclose(before, after, rtol=rtol, atol=rtol * scale)
        else:
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("title", [*FEW, *slow(REST)])
def test_to_the_bit_in_a_function(title):
    assert_trained_alike(title, rtol=0)


@pytest.mark.parametrize("title", [*FEW, *slow([*REST, *LARGER])])
def test_to_the_bit_eagerly(title):
    assert_trained_alike(title, rtol=0, run_eagerly=True)


@pytest.mark.parametrize("title", slow(t for t in FEW if t != "in a branch"))
def test_nearly_under_xla(title):
    assert_trained_alike(title, rtol=1e-6, jit_compile=True)


class Lookup(keras.layers.Layer):
    """A table of which each step reads, and trains, some rows."""

    def build(self, shape):
        self.table = self.add_weight(shape=(20, 3), name="table")

    def call(self, x):
        rows = tf.nn.embedding_lookup(tf.convert_to_tensor(self.table), x)
        return tf.reduce_sum(rows, axis=1)


def lookups():
    embedding = keras.layers.Embedding(20, 4, name="embedding")
    parts = [embedding, keras.layers.Flatten(), keras.layers.Dense(3)]
    return {
        "embedding/embeddings": keras.Sequential([keras.Input((5,)), *parts]),
        "lookup/table": keras.Sequential(
            [keras.Input((5,), dtype="int32"), Lookup(name="lookup")]
        ),
    }


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "lion"])
@pytest.mark.parametrize("path", ["embedding/embeddings", "lookup/table"])
def test_optimizers_leave_rows_alone_that_are_not_read(path, optimizer):
    rng = np.random.default_rng(0)
    x, y = rng.integers(20, size=(STEPS, 2, 5)), rng.integers(3, size=(STEPS, 2))
    plain = lookups()[path]
    kept = np.ones(plain.layers[0].weights[0].shape, bool)
    masked = snip_tf.apply_masks(plain, {path: kept})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for model in (plain, masked):
        model.compile(optimizer, loss)
        for step in range(STEPS):
            model.train_on_batch(x[step], y[step])
    for expected, found in zip(plain.get_weights(), masked.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
