import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import snip_tf
from snip_tf.savings import runtime
from tests import random_networks as networks

layers = keras.layers


def by_layer(model, x, way):
    """The outputs when each layer that has a choice is run in one way."""
    run = snip_tf.sparse_runtime(model)
    ways = run._ways
    steps = [each.get(way) or each["dense"] for each in ways]
    return runtime._Program(run._graph, steps)(x)


@hypothesis.given(
    st.lists(st.sampled_from(networks.IMAGE_PARTS), min_size=1, max_size=3),
    st.sampled_from([networks.flat, networks.recurrent, networks.and_back]),
    st.sampled_from(["sparse", "dense"]),
    st.integers(0, 2**32),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_each_way_computes_the_same(parts, head, way, seed):
    rng = np.random.default_rng(seed)
    model = networks.network(parts, head, True, True, rng)
    pruned = networks.prune_at_random(model, 0.7, rng)
    x = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    for output, expected in zip(
        by_layer(pruned, x, way), pruned(x, training=False), strict=True
    ):
        atol = 1e-5 * max(1e-30, float(np.abs(expected).max()))
        np.testing.assert_allclose(output, expected, rtol=0, atol=atol)


class OwnTraining(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def test_a_class_that_trains_in_its_own_way():
    inputs = keras.Input((6,))
    model = OwnTraining(inputs, layers.Dense(2)(layers.Dense(40, "relu")(inputs)))
    pruned = networks.prune_at_random(model, 0.8, np.random.default_rng(0))
    x = np.random.default_rng(0).random((3, 6), np.float32)
    np.testing.assert_allclose(by_layer(pruned, x, "sparse"), pruned(x), atol=1e-6)


class Doubled:
    """An activation that cannot be a key."""

    __hash__ = None

    def __call__(self, x):
        return 2 * x


@pytest.mark.parametrize("way", ["sparse", "dense"])
def test_layers_of_half_precision_and_activations_of_ones_own(way):
    half = layers.Dense(30, "relu", dtype="mixed_bfloat16")
    stack = [half, layers.Dense(20, Doubled()), layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,)), *stack])
    pruned = networks.prune_at_random(model, 0.5, np.random.default_rng(0))
    x = np.random.default_rng(0).random((3, 6), np.float32)
    expected = pruned(x)
    np.testing.assert_allclose(by_layer(pruned, x, way), expected, atol=1e-5)


def stack():
    dense = [layers.Dense(800, "relu"), layers.Dense(800, "tanh"), layers.Dense(10)]
    return keras.Sequential([keras.Input((700,)), *dense])


def test_measures_once_for_each_batch_size(monkeypatch):
    pruned = networks.prune_at_random(stack(), 0.98, np.random.default_rng(0))
    run = snip_tf.sparse_runtime(pruned)
    measured = []
    fastest = run._fastest
    monkeypatch.setattr(
        run, "_fastest", lambda x, size: measured.append(size) or fastest(x, size)
    )
    for batch_size in (1, 3, 1, 3):
        x = np.random.default_rng(0).random((batch_size, 700), np.float32)
        np.testing.assert_allclose(run(x), pruned(x), atol=1e-5)
    assert measured == [1, 3] == list(run.chosen)


@pytest.mark.parametrize(
    "fastest", ["by layer", "tensorflow", "xla", "tensorflow, whole", "xla, whole"]
)
def test_whichever_is_fastest_computes_the_same(monkeypatch, fastest):
    pruned = networks.prune_at_random(stack(), 0.9, np.random.default_rng(0))
    # Something for `compact` to remove.
    first = pruned.layers[0]
    first.kernel.assign(first.kernel * (np.arange(800) > 0))
    first.bias.assign(first.bias * (np.arange(800) > 0))
    run = snip_tf.sparse_runtime(pruned)
    measure = runtime._seconds

    def seconds(calls, *arguments):
        found = measure(calls, *arguments)
        # First of the ways to run it compacted, then of these two.
        name = fastest if fastest in calls else fastest.partition(",")[0]
        return {**found, name: 0.0} if name in calls else found

    monkeypatch.setattr(runtime, "_seconds", seconds)
    x = np.random.default_rng(0).random((2, 700), np.float32)
    np.testing.assert_allclose(run(x), pruned(x), atol=1e-5)
    chosen = run.chosen[2]
    if fastest == "by layer":
        assert len(chosen) == 3
        assert set(chosen.values()) <= {"sparse", "dense"}
    else:
        assert chosen == fastest


def test_several_inputs_and_outputs_by_name():
    inputs = {name: keras.Input((6,), name=name) for name in ("a", "b")}
    x = layers.Concatenate()([inputs["a"], inputs["b"]])
    model = keras.Model(inputs, {"y": layers.Dense(3)(x), "z": layers.ReLU()(x)})
    run = snip_tf.sparse_runtime(model)
    x = {name: np.random.default_rng(0).normal(size=(2, 6)) for name in inputs}
    x = {name: value.astype(np.float32) for name, value in x.items()}
    for _ in range(2):
        outputs = run(x)
        for name, expected in model(x).items():
            np.testing.assert_allclose(outputs[name], expected, atol=1e-5)


def test_inputs_of_a_list_by_name():
    a, b = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    model = keras.Model([a, b], layers.Dense(2)(a) + 3 * layers.Dense(2)(b))
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in ("a", "b")}
    run = snip_tf.sparse_runtime(model)
    np.testing.assert_allclose(run(x), model(x), atol=1e-5)


def test_names_that_are_not_those_of_the_inputs():
    inputs = {name: keras.Input((6,), name=name) for name in ("a", "b")}
    outputs = layers.Dense(3)(inputs["a"]) - layers.Dense(3)(inputs["b"])
    model, x = keras.Model(inputs, outputs), np.ones((2, 6), np.float32)
    run = snip_tf.sparse_runtime(model)
    expected = "Expected inputs of the names 'a', 'b'. Received: 'c', 'd'"
    with pytest.raises(ValueError, match=expected):
        run({"c": x, "d": x})
    with pytest.raises(ValueError, match=expected):
        snip_tf.sparse_runtime(keras.Model(list(inputs.values()), outputs)).predict(
            {"c": x, "d": x}
        )
    np.testing.assert_allclose(
        run({"more": x, "b": 2 * x, "a": x}), model({"b": 2 * x, "a": x}), atol=1e-5
    )


@pytest.fixture(scope="module")
def small():
    """A pruned model and its runtime."""
    dense = [layers.Dense(9, "relu"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((7,)), *dense], name="small")
    pruned = networks.prune_at_random(model, 0.7, np.random.default_rng(0))
    return pruned, snip_tf.sparse_runtime(pruned)


@pytest.mark.parametrize(
    ("count", "batch_size", "measured"),
    [(1, None, 1), (70, None, 32), (5, 8, 5), (8, 4, 4), (9, 4, 4), (3, 1, 1)],
)
def test_predict_takes_any_number_of_examples(small, count, batch_size, measured):
    pruned, run = small
    run.chosen.clear()
    run._runs.clear()
    x = np.random.default_rng(0).random((count, 7), np.float32)
    outputs = run.predict(x, batch_size=batch_size, verbose=0)
    assert outputs.shape == (count, 3)
    np.testing.assert_allclose(outputs, pruned(x), atol=1e-5)
    assert list(run.chosen) == [measured]  # of one size, filled up where needed


def test_predict_takes_datasets(small):
    import tensorflow as tf

    pruned, run = small

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            part = slice(4 * index, 4 * index + 4)
            return x[part], np.zeros(len(x[part]))

    x = np.random.default_rng(0).random((10, 7), np.float32)
    of_x = tf.data.Dataset.from_tensor_slices(x).batch(4)
    for dataset in (of_x, of_x.map(lambda x: (x, x)), Batches()):
        np.testing.assert_allclose(run.predict(dataset), pruned(x), atol=1e-5)
    with pytest.raises(ValueError, match="no `batch_size` for a dataset"):
        run.predict(of_x, batch_size=4)
    with pytest.raises(ValueError, match="an empty dataset"):
        run.predict(of_x.take(0))


def test_predict_takes_sparse_arrays_and_generators(small):
    pruned, run = small
    x = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    x[x < 0.5] = 0
    expected = pruned.predict(x, verbose=0)
    generator = (x[i : i + 2] for i in range(0, 6, 2))
    for given in (scipy.sparse.csr_matrix(x), tf.sparse.from_dense(x), generator):
        np.testing.assert_allclose(run.predict(given), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "received"),
    [
        (None, "a NoneType"),
        (np.array([["a"] * 7]), "text"),
        ({"image": 1, "label": 2}, "'image', 'label'"),
    ],
)
def test_predict_refuses_what_are_no_numbers(small, x, received):
    _, run = small
    with pytest.raises((TypeError, ValueError), match=f"Received: {received}"):
        run.predict(x)


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


def test_a_last_axis_of_one_entry_may_be_there_or_not():
    one, none = keras.Input((1,)), keras.Input(())
    text = keras.Input((1,), dtype="string")
    known = layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")
    x, words = np.random.rand(5).astype(np.float32), np.array(["b", "a", "z"])
    for model, given in (
        (keras.Model(one, layers.Dense(3)(one)), x),
        (keras.Model(none, layers.Dense(3)(keras.ops.reshape(none, (-1, 1)))), x),
        (keras.Model(text, layers.Dense(3)(known(text))), words),
    ):
        run = snip_tf.sparse_runtime(model)
        expected = model(tf.constant(given))
        for examples in (given, given[:, None]):
            np.testing.assert_allclose(run(examples), expected, atol=1e-5)
            np.testing.assert_allclose(run.predict(examples), expected, atol=1e-5)
    with pytest.raises(TypeError, match=r"that are text, .* Received: numbers"):
        run(x)


def test_predict_keeps_nests():
    inputs = {name: keras.Input((6,), name=name) for name in ("a", "b")}
    x = layers.Concatenate()([inputs["a"], inputs["b"]])
    model = keras.Model(inputs, {"y": layers.Dense(3)(x), "z": [layers.ReLU()(x)]})
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(5, 6)).astype(np.float32) for name in inputs}
    outputs = snip_tf.sparse_runtime(model).predict(x, batch_size=2)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(outputs["y"], expected["y"], atol=1e-5)
    np.testing.assert_allclose(outputs["z"][0], expected["z"][0], atol=1e-5)
    x["b"] = x["b"][:4]
    with pytest.raises(ValueError, match="the same number of examples"):
        snip_tf.sparse_runtime(model).predict(x)


def test_predict_refuses_what_is_no_batch_size(small):
    _, run = small
    x = np.zeros((2, 7), np.float32)
    for wrong in (1.5, "4", True):
        with pytest.raises(TypeError, match="Received: batch_size="):
            run.predict(x, batch_size=wrong)
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        run.predict(x, batch_size=0)
    with pytest.raises(ValueError, match=r"Received: inputs of shape \[\(0, 7\)\]"):
        run.predict(x[:0])


def test_it_says_of_what_it_is_and_what_is_run(small):
    pruned, _ = small
    run = snip_tf.sparse_runtime(pruned)
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
    run = snip_tf.sparse_runtime(model)
    x = np.ones((1, 700), np.float32)
    before = run(x)
    model.layers[0].kernel.assign(0 * model.layers[0].kernel)
    np.testing.assert_array_equal(run(x), before)


def by_layer_is_fastest(calls, *_):
    return {name: float(name != "by layer") for name in calls}


@pytest.mark.parametrize("words", [None, networks.Words])
def test_an_attention_sees_no_padding(monkeypatch, words):
    monkeypatch.setattr(runtime, "_seconds", by_layer_is_fastest)
    pruned, ids = networks.attention_over_padding(words)
    run = snip_tf.sparse_runtime(pruned)
    networks.assert_same_outputs(lambda x, training: run(x), pruned, ids)


def test_nothing_is_drawn_at_random(monkeypatch):
    monkeypatch.setattr(runtime, "_seconds", by_layer_is_fastest)
    inputs = keras.Input((8, 8, 3))
    x = layers.RandomTranslation(0.5, 0.5)(layers.RandomFlip()(inputs))
    x = layers.Dropout(0.5)(layers.Flatten()(x), training=True)  # `predict` does not
    model = keras.Model(inputs, layers.Dense(2)(x))
    x = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    run = snip_tf.sparse_runtime(model)
    np.testing.assert_allclose(run(x), model.predict(x, verbose=0), atol=1e-5)
    assert isinstance(run.chosen[3], dict)  # layer by layer


def test_refuses_what_it_cannot_run():
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.sparse_runtime(lambda x: x)
    with pytest.raises(ValueError, match="built"):
        snip_tf.sparse_runtime(keras.Sequential([layers.Dense(3)]))
    remembers = layers.LSTM(3, stateful=True, name="remembers")
    with pytest.raises(ValueError, match="remembers keeps a state"):
        inputs = keras.Input((4, 2), batch_size=1)
        snip_tf.sparse_runtime(keras.Model(inputs, remembers(inputs)))
    run = snip_tf.sparse_runtime(stack())
    run(np.zeros((2, 700)).tolist())
    for shape in ((2, 699), (0, 700), (700,)):
        with pytest.raises(ValueError, match=r"shape \[\(None, 700\)\].*Received"):
            run(np.zeros(shape, np.float32))
    assert run(np.zeros((1, 700))).dtype == np.float32
