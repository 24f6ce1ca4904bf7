import concurrent.futures
import contextlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.masking.inlining import functions_inlined, inlined
from snip_tf.weights import layer_tree
from tests.versions import since

X = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
Y = np.arange(12) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Composite(keras.layers.Layer):
    """A dense layer inside a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(6, activation="tanh", name="inner")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


def composite_model(scope):
    keras.utils.set_random_seed(0)
    with scope:
        layers = [
            Composite(name="composite"),
            keras.layers.Dense(6, activation="tanh", name="dense"),
        ]
    head = keras.layers.Dense(3, name="head")
    model = keras.Sequential([keras.Input((5,)), *layers, head])
    # With TensorFlow, Keras 3.15 cannot trace a layer of a `RematScope`.
    model.compile(keras.optimizers.SGD(0.1), LOSS, run_eagerly=True)
    return model


@since("3.9")
def test_rematerialized_layers_are_pruned_and_trained_like_others():
    trained = []
    for scope in (contextlib.nullcontext(), keras.RematScope(mode="full")):
        model = composite_model(scope)
        pruned = snip_tf.prune_model(model, X, Y, sparsity=0.5)
        modes = [layer._remat_mode for layer in layer_tree(pruned)]
        assert modes == [layer._remat_mode for layer in layer_tree(model)]
        before = [weight.numpy() for weight in pruned.trainable_weights]
        pruned.fit(X, Y, epochs=2, shuffle=False, verbose=0)
        after = pruned.trainable_weights
        assert all((a.numpy() != b).any() for a, b in zip(after, before, strict=True))
        trained.append((sum(mode is not None for mode in modes), pruned))
    (plain_modes, plain), (modes, rematerialized) = trained
    assert (plain_modes, modes) == (0, 3)
    np.testing.assert_equal(snip_tf.get_masks(rematerialized), snip_tf.get_masks(plain))
    for one, other in zip(plain.weights, rematerialized.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "remat",
    [
        pytest.param(lambda f: keras.remat(f), marks=since("3.9")),
        lambda f: tf.recompute_grad(f),
    ],
    ids=["keras", "tensorflow"],
)
@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow"])
def test_what_recomputes_by_itself_is_scored_like_other_layers(remat, criterion):
    class Recomputing(Composite):
        def call(self, x):
            return remat(self.dense)(x)

    masks = []
    for layer in (Composite, Recomputing):
        keras.utils.set_random_seed(0)
        inner = layer(name="composite")
        model = keras.Sequential([keras.Input((5,)), inner, keras.layers.Dense(3)])
        pruned = snip_tf.prune_model(
            model, X, Y, sparsity=0.5, loss=LOSS, criterion=criterion
        )
        masks.append(list(snip_tf.get_masks(pruned).values()))
    np.testing.assert_equal(*masks)


@since("3.9")
def test_what_recomputes_from_before_the_call_is_refused_with_advice():
    class Recomputing(Composite):
        def build(self, shape):
            super().build(shape)
            self.recomputed = keras.remat(self.dense)

        def call(self, x):
            return self.recomputed(x)

    model = keras.Sequential([keras.Input((5,)), Recomputing(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"inner/kernel'.*write keras.remat"):
        snip_tf.prune_model(model, X, Y, sparsity=0.5, loss=LOSS)


class Traced:
    """Counts how often functions run line by line."""

    def __init__(self):
        self.runs = 0

    def line_by_line(self, x):
        self.runs += 1
        return x

    @tf.function
    def method(self, x):
        self.runs += 1
        return x


def test_functions_run_line_by_line_in_one_thread_only():
    counter = Traced()
    function = tf.function(counter.line_by_line)
    calls = (function, counter.method, tf.function(jit_compile=True)(function))
    for call in calls:
        call(1.0)  # traced
    counter.runs = 0
    with functions_inlined():
        for call in calls:
            call(1.0)
        assert counter.runs == 3
        assert not tf.config.functions_run_eagerly()

        def elsewhere():
            for call in calls:
                call(1.0)

        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
        assert counter.runs == 3
    elsewhere()
    assert counter.runs == 3


def test_functions_run_line_by_line_inside_one_that_is_traced():
    counter = Traced()
    inner = tf.function(counter.line_by_line)
    inner(1.0)

    @tf.function
    def outer(x):
        with functions_inlined():
            return inner(x) + inner(x)

    outer(1.0)
    assert counter.runs == 3
    names = [op.type for op in outer.get_concrete_function(1.0).graph.get_operations()]
    assert not any("Call" in name for name in names)


def test_what_runs_only_as_a_function_still_does():
    """TensorFlow vectorizes a graph, and what is loaded from a file has no lines."""
    x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with functions_inlined():
        squares = tf.vectorized_map(lambda row: row * row, x)
    np.testing.assert_array_equal(squares, x * x)


def test_what_is_loaded_from_a_file_still_runs(tmp_path):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    with functions_inlined():
        outputs = loaded.serve(X)
    np.testing.assert_allclose(outputs, model.predict(X, verbose=0), rtol=1e-5)


def test_functions_run_eagerly_if_tensorflow_is_set_to():
    counter = Traced()
    function = tf.function(counter.line_by_line)
    with functions_inlined():
        function(1.0)
    tf.config.run_functions_eagerly(True)
    try:
        function(1.0)
        function(1.0)
    finally:
        tf.config.run_functions_eagerly(False)
    assert counter.runs == 3


@since("3.9")
def test_nothing_is_recomputed_in_one_thread_only():
    dense = keras.layers.Dense(2)
    recomputing = []

    def look():
        recomputing.append(keras.remat(dense) is not dense)

    with inlined(dense):
        look()
        other = threading.Thread(target=look)
        other.start()
        other.join()
    look()
    assert recomputing == [False, True, True]


class Compiling(Composite):
    """Calls its dense layer in a function that TensorFlow traces."""

    @tf.function
    def apply(self, x):
        return self.dense(x)

    def call(self, x):
        return self.apply(x)


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_several_threads_score_at_once(criterion):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            Compiling(name="composite"),
            keras.layers.LayerNormalization(),
            keras.layers.Dense(3),
        ]
    )

    def masks():
        pruned = snip_tf.prune_model(
            model, X, Y, sparsity=0.5, loss=LOSS, criterion=criterion
        )
        return snip_tf.get_masks(pruned)

    alone = masks()
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        for together in [threads.submit(masks) for _ in range(6)]:
            np.testing.assert_equal(together.result(), alone)
