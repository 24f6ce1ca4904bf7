"""Where a model has no derivative, or takes no numbers: what is said."""

import contextlib
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from tests.replicas import two_replicas

layers, ops = keras.layers, keras.ops
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 6, 6, 3)).astype(np.float32)


def images(*stack):
    keras.utils.set_random_seed(0)
    first, last = layers.Conv2D(4, 3, name="conv"), layers.Dense(2, name="head")
    return keras.Sequential(
        [keras.Input((6, 6, 3)), first, *stack, layers.Flatten(), last]
    )


class Resized(layers.Layer):
    """TensorFlow differentiates this once."""

    def call(self, x):
        return tf.image.resize(x, (7, 7), "bicubic")


def test_an_operation_without_a_second_derivative():
    model, y = images(Resized()), np.arange(8) % 2
    options = {
        "sparsity": 0.5,
        "loss": keras.losses.SparseCategoricalCrossentropy(True),
    }
    snip_tf.prune_model(model, IMAGES, y, **options)
    with pytest.raises(
        ValueError, match=r"second derivative.*ResizeBicubicGrad.*'snip'"
    ):
        snip_tf.prune_model(model, IMAGES, y, criterion="grasp", **options)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "elu"])
def test_second_derivatives_behind_sparse_inputs(activation):
    x = RNG.normal(size=(16, 20)) * (RNG.random((16, 20)) < 0.2)
    x, y, masks = x.astype(np.float32), np.arange(16) % 3, []
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for sparse, data in ((False, x), (True, tf.sparse.from_dense(x))):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((20,), sparse=sparse)
        hidden = layers.Dense(6, activation, name="hidden")(inputs)
        model = keras.Model(inputs, layers.Dense(3, name="head")(hidden))
        pruned = snip_tf.prune_model(
            model, data, y, sparsity=0.5, loss=loss, criterion="grasp"
        )
        masks.append(snip_tf.get_masks(pruned))
    np.testing.assert_equal(*masks)
    rows = tf.IndexedSlices(tf.ones((1, 2)), [0])
    with pytest.raises(TypeError, match="unsupported operand"):
        rows * 2.0


def test_a_loss_without_a_finite_second_derivative():
    x = RNG.normal(size=(4, 16, 8)).astype(np.float32)
    stack = layers.Dense(8, "tanh"), layers.Dense(6, name="out")
    model = keras.Sequential([keras.Input((16, 8)), *stack])
    model.compile("adam", keras.losses.CTC())
    y = RNG.integers(1, 6, (4, 3))
    snip_tf.prune_model(model, x, y, sparsity=0.5)
    with pytest.raises(
        ValueError, match=r"finite second derivative.*out/kernel.*'force'"
    ):
        snip_tf.prune_model(model, x, y, sparsity=0.5, criterion="grasp")


def test_an_operation_without_a_gradient():
    def lacks(gradient):
        raise LookupError("No gradient defined for operation 'Lacks'")

    class Lacks(layers.Layer):
        def call(self, x):
            @tf.custom_gradient
            def same(x):
                return tf.identity(x), lacks

            return same(x)

    with pytest.raises(ValueError, match=r"have a gradient.*'Lacks'.*'magnitude'"):
        snip_tf.prune_model(
            images(Lacks()), IMAGES, np.zeros((8, 2)), sparsity=0.5, loss="mse"
        )


def text(model_of_text=True):
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=6)
    words.adapt(TEXT)
    x = keras.Input((1,), dtype="string")
    hidden = layers.Conv1D(8, 3, name="conv")(layers.Embedding(20, 8)(words(x)))
    hidden = layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(x, layers.Dense(1, "sigmoid", name="head")(hidden))


TEXT = tf.constant([["good film"], ["bad plot"], ["fine actor good"], ["awful"]])


@pytest.mark.parametrize("data", [(), (TEXT,), (TEXT.numpy().astype(str),)])
def test_synflow_takes_no_text(data):
    with pytest.raises(ValueError, match=r"takes numbers.*'synflow'.*'magnitude'"):
        snip_tf.prune_model(text(), *data, sparsity=0.5, criterion="synflow")


def test_other_criteria_take_text():
    y = np.array([[1.0], [0.0], [1.0], [0.0]])
    for name in ("snip", "force", "grasp"):
        pruned = snip_tf.prune_model(
            text(), TEXT, y, sparsity=0.5, criterion=name, loss="binary_crossentropy"
        )
        assert snip_tf.sparsity(pruned) == pytest.approx(0.5, abs=0.01)


class Fails(layers.Layer):
    """Fails, for a reason or for want of an operation in double precision."""

    calls: ClassVar[list] = []  # of all copies of the layer, one of which is scored

    def __init__(self, words):
        super().__init__()
        self.words = words

    def call(self, x):
        if not tf.executing_eagerly():
            return x
        Fails.calls.append(x.dtype.name)
        if self.words == "in float64" and x.dtype == "float64":
            return x + tf.constant(1.0, tf.float32)
        if self.words == "at all":
            raise ValueError("this layer is shy")
        return x


@pytest.mark.parametrize(
    ("words", "calls"),
    [("in float64", ["float64", "float32"]), ("at all", ["float64"])],
)
def test_synflow_tries_single_precision_only_for_the_type(words, calls):
    layer = Fails(words)
    model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(3)])
    one_step = snip_tf.criteria.SynFlow(steps=1)
    options = {"sparsity": 0.5, "criterion": one_step}
    Fails.calls.clear()
    if words == "at all":
        with pytest.raises(ValueError, match="this layer is shy"):
            snip_tf.prune_model(model, **options)
    else:
        snip_tf.prune_model(model, **options)
    assert Fails.calls == calls


def test_second_derivatives_keep_what_embeddings_give_in_rows():
    model = keras.Sequential([keras.Input((5,), dtype="int32"), layers.Embedding(9, 4)])
    x, y = RNG.integers(9, size=(6, 5)), RNG.normal(size=(6, 5, 4))
    grasp = snip_tf.criteria.Grasp(temperature=1.0)
    scores = snip_tf.score(model, x, y, criterion=grasp, loss="mse", include="*")
    assert all(score.any() for score in scores.values())


def test_second_derivatives_on_replicas_are_those_on_one_device():
    """Each replica runs in a thread of its own, in which moments must be in full."""
    x, y = RNG.normal(size=(12, 5)).astype(np.float32), np.arange(12) % 3
    masks = []
    for scope in (contextlib.nullcontext(), two_replicas().scope()):
        with scope:
            keras.utils.set_random_seed(0)
            model = keras.Sequential(
                [
                    keras.Input((5,)),
                    layers.Dense(6, "tanh"),
                    layers.LayerNormalization(),
                    layers.Dense(3),
                ]
            )
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            pruned = snip_tf.prune_model(
                model, x, y, sparsity=0.5, loss=loss, criterion="grasp"
            )
        masks.append(list(snip_tf.get_masks(pruned).values()))
    np.testing.assert_equal(*masks)
