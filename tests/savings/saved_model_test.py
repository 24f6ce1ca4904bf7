import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from tests.random_networks import prune_at_random
from tests.savings.reading import litert, served


@pytest.fixture(scope="module")
def pruned():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    return prune_at_random(model, 0.5, np.random.default_rng(0))


def test_a_saved_model_replaces_nothing_else(pruned, tmp_path):
    kept = tmp_path / "thesis.txt"
    kept.write_text("all of it")
    for path, words in ((tmp_path, "holds something else: thesis.txt"), (kept, "a f")):
        with pytest.raises(ValueError, match=words):
            snip_tf.export(pruned, path, "saved_model")
    assert kept.read_text() == "all of it"


def test_a_saved_model_goes_into_an_empty_folder_and_keeps_notes(pruned, tmp_path):
    for _ in range(2):  # into an empty folder, and over a SavedModel
        snip_tf.export(pruned, tmp_path, "saved_model", print_fn=lambda line: None)
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ValueError, match=r"something else: notes\.txt"):
        snip_tf.export(pruned, tmp_path, "saved_model")
    assert notes.read_text() == "mine"


class Own(keras.Model):
    """Made of objects that Keras writes into no configuration."""

    def __init__(self, function):
        super().__init__(name="own")
        self.function = function
        self.a, self.b = keras.layers.Dense(4, name="a"), keras.layers.Dense(4)
        self.drop = keras.layers.Dropout(0.5)


class OfATensor(Own):
    def call(self, x):
        return self.function(self.a(x))


class OfADict(Own):
    def call(self, x):
        return {"sum": self.a(x["p"]) + self.b(x["q"]), "a": self.a(x["p"])}


class OfAList(Own):
    def call(self, x, training=False):
        return self.a(x[0]) + self.b(self.drop(x[1], training=training))


class AsInTraining(Own):
    """In training mode unless it is called otherwise, as `predict` does."""

    def call(self, x, training=True):
        return self.a(self.drop(x, training=training))


class WithAnOption(Own):
    def call(self, x, *, other=None):
        return self.a(x) if other is None else self.a(x) + self.b(other)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


OWN = {
    OfATensor: normal(3, 8),
    OfADict: {"p": normal(3, 8), "q": normal(3, 5)},
    OfAList: [normal(3, 8), normal(3, 5)],
    AsInTraining: normal(3, 8),
    WithAnOption: normal(3, 8),
}


def own_and_pruned(cls):
    model = cls(keras.ops.tanh)
    model(OWN[cls])
    return prune_at_random(model, 0.5, np.random.default_rng(0)), OWN[cls]


@pytest.mark.parametrize("cls", OWN)
def test_neither_a_saved_model_nor_litert_needs_a_configuration(tmp_path, cls):
    pruned, x = own_and_pruned(cls)
    expected = pruned.predict(x, verbose=0)
    snip_tf.export(pruned, tmp_path / "m", "saved_model", print_fn=lambda line: None)
    tensors = keras.tree.map_structure(tf.convert_to_tensor, x)
    outputs = served(tmp_path / "m", tensors)
    keras.tree.assert_same_structure([outputs], [expected])
    for output, wanted in zip(
        keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True
    ):
        np.testing.assert_allclose(output, wanted, atol=1e-6)
    path = tmp_path / "m.tflite"
    snip_tf.export(pruned, path, "litert", print_fn=lambda line: None)
    if isinstance(x, np.ndarray):
        np.testing.assert_allclose(litert(path, x), expected, atol=1e-6)


def test_what_the_model_was_called_on_must_be_known(tmp_path):
    class OfTwo(Own):
        def call(self, x, y):
            return self.a(x) + self.b(y)

    model = OfTwo(None)
    model(normal(3, 8), normal(3, 5))
    for name, format in (("m", "saved_model"), ("m.tflite", "litert")):
        with pytest.raises(ValueError, match="OfTwo, whose `call` needs x, y"):
            snip_tf.export(model, tmp_path / name, format)
    assert not list(tmp_path.iterdir())


class OnNumbers(keras.layers.Layer):
    def call(self, x):
        return x

    def compute_output_spec(self, x):
        raise NotImplementedError


def test_the_inputs_of_a_sequential_model_must_be_known(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3), OnNumbers()])
    model(normal(2, 4))
    with pytest.raises(ValueError, match=r"Begin it with a `keras\.Input`"):
        snip_tf.export(model, tmp_path / "m", "saved_model")


def test_text_goes_into_a_saved_model(tmp_path):
    layers = keras.layers
    split = layers.TextVectorization(output_sequence_length=4, name="split")
    split.adapt(["the cat sat", "a dog ran"])
    inputs = keras.Input((), dtype="string")
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(9, 6)(split(inputs)))
    model = keras.Model(inputs, layers.Dense(3)(embedded))
    pruned = prune_at_random(model, 0.5, np.random.default_rng(0))
    snip_tf.export(pruned, tmp_path / "m", "saved_model", print_fn=lambda line: None)
    words = tf.constant(["the dog", "a cat sat"])
    np.testing.assert_allclose(served(tmp_path / "m", words), pruned(words), atol=1e-6)
    lines = []
    snip_tf.export(pruned, tmp_path / "m.tflite", "litert", print_fn=lines.append)
    assert "StringSplitV2" in lines[1] and "in split (TextVectorization)" in lines[1]


class OfTokens(keras.Model):
    def __init__(self):
        super().__init__()
        self.lookup = keras.layers.StringLookup(vocabulary=["a", "b"], name="lookup")
        self.embedding = keras.layers.Embedding(3, 8, name="embedding")

    def call(self, x):
        return keras.ops.mean(self.embedding(self.lookup(x)), axis=1)


def test_says_that_the_types_of_inputs_are_not_known(tmp_path):
    model, x, path = OfTokens(), tf.constant([["a", "b"]]), tmp_path / "m"
    expected = model(x)
    for name, format in (("m", "saved_model"), ("m.tflite", "litert")):
        lines = []
        snip_tf.export(model, tmp_path / name, format, print_fn=lines.append)
        assert "It takes float32" in lines[1]
        assert "lookup (StringLookup), embedding (Embedding)" in lines[1]
    inputs = keras.Input((2,), dtype="string")  # as it says
    lines, known = [], keras.Model(inputs, model(inputs))
    snip_tf.export(known, path, "saved_model", print_fn=lines.append)
    assert not lines[1:]
    np.testing.assert_allclose(served(path, x), expected, atol=1e-6)
