import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import snip_tf
from tests import random_networks as networks

layers = keras.layers


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
    expected = "Expected inputs named 'a', 'b'. Received: 'c', 'd'"
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
    """A pruned model and its runtime, in the engine that takes the least to begin."""
    dense = [layers.Dense(9, "relu"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((7,)), *dense], name="small")
    pruned = networks.prune_at_random(model, 0.7, np.random.default_rng(0))
    return pruned, snip_tf.sparse_runtime(pruned, engines=["tensorflow"])


@pytest.mark.parametrize(
    ("count", "batch_size", "measured"),
    [(1, None, 1), (70, None, 32), (5, 8, 5), (8, 4, 4), (9, 4, 4), (3, 1, 1)],
)
def test_predict_takes_any_number_of_examples(small, count, batch_size, measured):
    pruned, _ = small
    run = snip_tf.sparse_runtime(pruned, engines=["tensorflow"])
    x = np.random.default_rng(0).random((count, 7), np.float32)
    outputs = run.predict(x, batch_size=batch_size, verbose=0)
    assert outputs.shape == (count, 3)
    np.testing.assert_allclose(outputs, pruned(x), atol=1e-5)
    assert list(run.chosen) == [measured]  # of one size, filled up where needed


def test_predict_takes_datasets(small):
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
def test_predict_refuses_non_numbers(small, x, received):
    _, run = small
    with pytest.raises((TypeError, ValueError), match=f"Received: {received}"):
        run.predict(x)


def test_a_last_axis_of_one_entry_is_optional():
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


def test_predict_refuses_an_invalid_batch_size(small):
    _, run = small
    x = np.zeros((2, 7), np.float32)
    for wrong in (1.5, "4", True):
        with pytest.raises(TypeError, match="Received: batch_size="):
            run.predict(x, batch_size=wrong)
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        run.predict(x, batch_size=0)
    with pytest.raises(ValueError, match=r"Received: inputs of shape \[\(0, 7\)\]"):
        run.predict(x[:0])
