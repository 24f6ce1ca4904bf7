import re
import sys

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import models
from tests.random_networks import Words, attention_over_padding, prune_at_random
from tests.savings.reading import litert
from tests.versions import since


def stack_of(*layers):
    return keras.Sequential([keras.Input((8,)), *layers])


@pytest.mark.parametrize("int8", [False, "weights"])
def test_recurrent_layers_in_litert(tmp_path, int8):
    inputs = keras.Input((9, 32))
    x = keras.layers.GRU(48, return_sequences=True)(inputs)
    x = keras.layers.Bidirectional(keras.layers.LSTM(40))(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    model = keras.Sequential([inputs, model]) if int8 else model
    pruned = prune_at_random(model, 0.95, np.random.default_rng(0))
    lines, path = [], tmp_path / "m.tflite"
    snip_tf.export(pruned, path, "litert", int8=int8, print_fn=lines.append)
    assert "one example at a time" in lines[1]
    x = np.random.default_rng(1).normal(size=(1, 9, 32)).astype(np.float32)
    outputs = litert(path, x, int8=int8)
    np.testing.assert_allclose(outputs, pruned(x), atol=0.02 if int8 else 1e-6)
    dense = np.sum([np.prod(w.shape) for w in model.trainable_weights]) * 4
    assert path.stat().st_size < 0.5 * dense


def test_recurrent_layers_run_on_as_many_examples_as_asked_for(tmp_path):
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4)])
    lines, path = [], tmp_path / "m.tflite"
    snip_tf.export(model, path, "litert", batch_size=3, print_fn=lines.append)
    assert "on 3 examples at a time" in lines[1]
    x = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(litert(path, x), model(x), atol=1e-6)
    with pytest.raises(TypeError, match=r"batch_size=1\.5"):
        snip_tf.export(model, path, "litert", batch_size=1.5)
    with pytest.raises(ValueError, match="format='litert' with `batch_size`"):
        snip_tf.export(model, tmp_path / "m", "sparse", batch_size=2)


def test_no_interpreter_is_needed_to_write_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    dense = keras.layers.Dense(4, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((31,)), dense])
    snip_tf.export(model, tmp_path / "m.tflite", "litert", print_fn=lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]


@pytest.mark.parametrize("words", [None, Words])
def test_an_attention_in_litert_sees_no_padding(tmp_path, words):
    pruned, ids = attention_over_padding(words)
    path, lines = tmp_path / "m.tflite", []
    snip_tf.export(pruned, path, "litert", print_fn=lines.append)
    assert len(lines) == 1
    np.testing.assert_allclose(litert(path, ids), pruned(ids), atol=1e-4)


def test_int8_after_it_is_smaller_still(tmp_path):
    lines, path = [], tmp_path / "m.tflite"
    model, rng = models.build("lenet300"), np.random.default_rng(0)
    pruned = prune_at_random(model, 0.95, rng)
    images = rng.random((3, 28, 28, 1)).astype(np.float32)
    snip_tf.export(pruned, path, "litert", int8="weights", print_fn=lines.append)
    assert path.stat().st_size < 60_000
    assert "BUILTIN_WITHOUT_DEFAULT_DELEGATES" in lines[1]
    expected = np.asarray(pruned(images))
    outputs = litert(path, images, int8=True)
    np.testing.assert_allclose(outputs, expected, atol=0.02 * np.abs(expected).max())


@since("3.13")  # has the layer
@pytest.mark.parametrize("int8", [False, "weights"])
def test_a_tied_embedding_in_litert(tmp_path, capfd, int8):
    layers = keras.layers
    embedding = layers.ReversibleEmbedding(64, 32, tie_weights=True, name="embedding")
    tokens = keras.Input((8,), dtype="int32")
    hidden = layers.Dense(32)(embedding(tokens))
    model = keras.Model(tokens, embedding(hidden, reverse=True))
    masks = {"embedding/embeddings": np.random.default_rng(0).random((64, 32)) < 0.1}
    pruned = snip_tf.apply_masks(model, masks)
    lines, path = [], tmp_path / "m.tflite"
    capfd.readouterr()
    snip_tf.export(pruned, path, "litert", int8=int8, print_fn=lines.append)
    assert capfd.readouterr() == ("", "")  # the converter has a word to say on it
    if not int8:  # else it can
        assert re.search(r"not sparse.* in embedding \(ReversibleEmb", lines[1])
    x = np.random.default_rng(0).integers(64, size=(2, 8)).astype(np.int32)
    expected = pruned(x).numpy()
    atol = np.abs(expected).max() * (0.03 if int8 else 1e-6)
    np.testing.assert_allclose(litert(path, x, int8=int8), expected, atol=atol)


def test_says_which_layers_litert_runs_by_tensorflow_only(tmp_path):
    layers = keras.layers
    names = ("dense", "dense_1")  # the scope of the first has the second's name
    half = [layers.Dense(3, dtype="mixed_float16", name=name) for name in names]
    pools = [layers.AveragePooling3D(2), layers.MaxPooling3D(2, name="last")]
    model = keras.Sequential([keras.Input((8, 8, 8, 2)), *half, *pools])
    lines = []
    snip_tf.export(model, tmp_path / "m.tflite", "litert", print_fn=lines.append)
    [_, note] = lines
    assert "Flex" in note
    assert "tf.lite.Interpreter" not in note  # whose wheels leave that out, too
    for operation, layer in (
        ("BiasAdd", "dense (Dense)"),
        ("BiasAdd", "dense_1 (Dense)"),
        ("AvgPool3D", "average_pooling3d"),
        ("MaxPool3D", "last (MaxPooling3D)"),
    ):
        assert re.search(rf"{operation}[^;]* in {re.escape(layer)}", note), note


def test_lists_a_few_of_many_such_layers(tmp_path):
    half = [keras.layers.Dense(3, dtype="float16") for _ in range(7)]
    lines = []
    path = tmp_path / "m.tflite"
    snip_tf.export(stack_of(*half), path, "litert", print_fn=lines.append)
    assert "and more in 2 other layers" in lines[1]


def test_says_which_layer_the_converter_does_not_know(tmp_path, capfd):
    inverse = keras.layers.Lambda(keras.ops.erfinv, name="inverse")
    capfd.readouterr()
    with pytest.raises(ValueError, match=r"Erfinv.*, in inverse \(Lambda\)"):
        snip_tf.export(stack_of(inverse), tmp_path / "m.tflite", "litert")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_says_that_litert_runs_nothing_that_keras_has_quantized(tmp_path):
    model = stack_of(keras.layers.Dense(4, name="whole"))
    whole = model.get_layer("whole")
    whole.kernel.assign(np.where(np.eye(*whole.kernel.shape), 0, whole.kernel))
    whole.quantize("int8")
    with pytest.raises(ValueError, match=r"in whole \(Dense\).*int8='weights'"):
        snip_tf.export(model, tmp_path / "m.tflite", "litert")
    assert not list(tmp_path.iterdir())


def test_a_state_keeps_the_size_of_its_batches_in_litert(tmp_path):
    inputs = keras.Input(batch_shape=(2, 3, 5))
    model = keras.Model(inputs, keras.layers.GRU(7, stateful=True)(inputs))
    lines, path = [], tmp_path / "m.tflite"
    snip_tf.export(model, path, "litert", print_fn=lines.append)
    assert "on 2 examples at a time" in lines[1]
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    np.testing.assert_allclose(litert(path, x), model(x), atol=1e-6)


def test_a_layer_of_single_precision_after_one_of_half(tmp_path):
    half = keras.layers.Dense(6, dtype="mixed_float16", name="half")
    lines, path = [], tmp_path / "m.tflite"
    pruned = prune_at_random(
        stack_of(half, keras.layers.Dense(40)), 0.9, np.random.default_rng(0)
    )
    snip_tf.export(pruned, path, "litert", print_fn=lines.append)
    assert lines[1].endswith("MatMul, BiasAdd in half (Dense).")
