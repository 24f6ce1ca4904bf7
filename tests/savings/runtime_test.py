import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.savings import engines
from tests import random_networks as networks

layers = keras.layers


def stack():
    dense = [layers.Dense(800, "relu"), layers.Dense(800, "tanh"), layers.Dense(10)]
    return keras.Sequential([keras.Input((700,)), *dense])


def x_of(batch_size):
    return np.random.default_rng(0).random((batch_size, 700), np.float32)


def test_measures_once_for_each_batch_size(monkeypatch):
    pruned = networks.prune_at_random(stack(), 0.98, np.random.default_rng(0))
    run = snip_tf.sparse_runtime(pruned, engines=["scipy", "tensorflow"])
    measured = []
    fastest = engines.Engines.fastest
    monkeypatch.setattr(
        engines.Engines,
        "fastest",
        lambda self, x: measured.append(len(x)) or fastest(self, x),
    )
    for batch_size in (1, 3, 1, 3):
        x = x_of(batch_size)
        np.testing.assert_allclose(run(x), pruned(x), atol=1e-5)
    assert measured == [1, 3] == list(run.chosen)


def test_measures_at_once_for_a_batch_size():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    run = snip_tf.sparse_runtime(model, batch_size=4, engines=["tensorflow"])
    assert run.chosen == {4: "tensorflow"}
    of_any_length = keras.Sequential([keras.Input((None, 6)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"inputs of any size.*batch_size=4"):
        snip_tf.sparse_runtime(of_any_length, 4)


@pytest.fixture(scope="module")
def compactable():
    """A pruned model with a unit that `compact` removes."""
    pruned = networks.prune_at_random(stack(), 0.9, np.random.default_rng(0))
    first = pruned.layers[0]
    first.kernel.assign(first.kernel * (np.arange(800) > 0))
    first.bias.assign(first.bias * (np.arange(800) > 0))
    return pruned


def test_each_layer_is_run_in_its_fastest_way(compactable):
    run = snip_tf.sparse_runtime(compactable, engines=["scipy"])
    np.testing.assert_allclose(run(x_of(2)), compactable(x_of(2)), atol=1e-5)
    assert len(run.chosen[2]) == 3
    assert set(run.chosen[2].values()) <= {"sparse", "dense"}


@pytest.mark.parametrize("chosen", ["xla", "xla, whole", "tensorflow, whole"])
def test_whichever_is_fastest_computes_the_same(monkeypatch, compactable, chosen):
    monkeypatch.setattr(
        engines,
        "median_seconds",
        lambda calls, *x: {name: float(name != chosen) for name in calls},
    )
    name = chosen.partition(",")[0]
    run = snip_tf.sparse_runtime(compactable, engines=[name])
    np.testing.assert_allclose(run(x_of(2)), compactable(x_of(2)), atol=1e-5)
    assert run.chosen == {2: chosen}


def test_the_fastest_engine_is_chosen(monkeypatch, compactable):
    seconds = {"scipy": 3.0, "tensorflow": 2.0, "xla": 1.0}
    seconds |= {"tensorflow, whole": 2.1, "xla, whole": 1.5}
    monkeypatch.setattr(
        engines, "median_seconds", lambda calls, *x: {n: seconds[n] for n in calls}
    )
    run = snip_tf.sparse_runtime(compactable)
    run(x_of(1))
    seconds["xla"] = 2.5
    run(x_of(2))
    # A little faster might be noise.
    seconds["scipy"] = 1.95
    run(x_of(3))
    seconds["scipy"] = 1.0
    run(x_of(4))
    chosen = [run.chosen[size] for size in (1, 2, 3)]
    assert chosen == ["xla", "tensorflow", "tensorflow"]
    assert len(run.chosen[4]) == 3


def test_models_that_xla_cannot_compile():
    split = layers.TextVectorization(max_tokens=9, output_sequence_length=4)
    split.adapt(["the cat sat", "a dog ran"])
    first = layers.Lambda(lambda x: tf.unique(tf.reshape(x, [-1]))[0][:1])
    numbers = keras.Input((1,))
    text = keras.Input((1,), dtype="string")
    embedded = layers.GlobalMaxPooling1D()(layers.Embedding(9, 6)(split(text)))
    unique = keras.Model(numbers, layers.Dense(3)(numbers) + first(numbers))
    for model, x in (
        (unique, np.ones((1, 1), np.float32)),
        (keras.Model(text, layers.Dense(3)(embedded)), np.array([["a dog"]], object)),
    ):
        for _ in range(2):  # TensorFlow ended the process at the second failure
            run = snip_tf.sparse_runtime(model)
            expected = model(tf.convert_to_tensor(x))
            np.testing.assert_allclose(run.predict(x), expected, atol=1e-5)
            np.testing.assert_allclose(run(tf.constant(x)), expected, atol=1e-5)


def test_engines_that_cannot_run_a_model():
    text = keras.Input((1,), dtype="string")
    known = layers.StringLookup(vocabulary=["a"], output_mode="multi_hot")(text)
    with pytest.raises(ValueError, match="XLA does not compile text"):
        snip_tf.sparse_runtime(keras.Model(text, known), engines=["xla"])
    for wrong, error in (("xla", TypeError), (["gpu"], ValueError), ([], ValueError)):
        with pytest.raises(error, match=r"a list of 'scipy', 'tensorflow', 'xla'"):
            snip_tf.sparse_runtime(stack(), engines=wrong)


def test_repr_names_the_model_and_what_runs():
    dense = [layers.Dense(9, "relu"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((7,)), *dense], name="small")
    run = snip_tf.sparse_runtime(model)
    assert repr(run) == (
        "<SparseRuntime of 'small': measures what is fastest at its first call>"
    )
    run.chosen.update({1: {"dense": "sparse", "dense_1": "dense"}, 32: "xla, whole"})
    assert repr(run) == (
        "<SparseRuntime of 'small': batches of 1: layer by layer, 1 of 2 sparse; "
        "batches of 32: xla, whole>"
    )


def test_later_changes_of_the_model_are_not_seen():
    model = stack()
    run = snip_tf.sparse_runtime(model, engines=["scipy", "tensorflow"])
    x = np.ones((1, 700), np.float32)
    before = run(x)
    model.layers[0].kernel.assign(0 * model.layers[0].kernel)
    np.testing.assert_array_equal(run(x), before)


@pytest.mark.parametrize("words", [None, networks.Words])
def test_an_attention_sees_no_padding(words):
    pruned, ids = networks.attention_over_padding(words)
    with pytest.raises(ValueError, match="layers that pass masks on"):
        snip_tf.sparse_runtime(pruned, engines=["scipy"])
    run = snip_tf.sparse_runtime(pruned, engines=["scipy", "tensorflow"])
    networks.assert_same_outputs(lambda x, training: run(x), pruned, ids)


def test_nothing_is_drawn_at_random():
    inputs = keras.Input((8, 8, 3))
    x = layers.RandomTranslation(0.5, 0.5)(layers.RandomFlip()(inputs))
    x = layers.Dropout(0.5)(layers.Flatten()(x), training=True)  # `predict` does not
    model = keras.Model(inputs, layers.Dense(2)(x))
    x = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    run = snip_tf.sparse_runtime(model, engines=["scipy"])
    np.testing.assert_allclose(run(x), model.predict(x, verbose=0), atol=1e-5)


def test_refuses_what_it_cannot_run():
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.sparse_runtime(lambda x: x)
    with pytest.raises(ValueError, match="built"):
        snip_tf.sparse_runtime(keras.Sequential([layers.Dense(3)]))
    remembers = layers.LSTM(3, stateful=True, name="remembers")
    with pytest.raises(ValueError, match="remembers keeps a state"):
        inputs = keras.Input((4, 2), batch_size=1)
        snip_tf.sparse_runtime(keras.Model(inputs, remembers(inputs)))
    run = snip_tf.sparse_runtime(stack(), engines=["tensorflow"])
    for shape in ((2, 699), (0, 700), (700,)):
        with pytest.raises(ValueError, match=r"shape \[\(None, 700\)\].*Received"):
            run(np.zeros(shape, np.float32))


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_takes_lists_and_double_precision(engine):
    model = keras.Sequential([keras.Input((7,)), layers.Dense(9, "relu")])
    run = snip_tf.sparse_runtime(model, engines=[engine])
    assert run(np.zeros((2, 7)).tolist()).shape == (2, 9)
    assert run(np.zeros((2, 7))).dtype == np.float32
