import errno
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf import models
from tests.random_networks import prune_at_random

FILES = {"keras": "m.keras", "litert": "m.tflite", "saved_model": "m", "sparse": "m.s"}


@pytest.fixture(scope="module")
def pruned():
    return prune_at_random(models.build("lenet300"), 0.95, np.random.default_rng(0))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, 28, 28, 1)).astype(np.float32)


def litert(path, x, **options):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    if options.pop("plain", False):
        types = interpreter.OpResolverType
        options["experimental_op_resolver_type"] = (
            types.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    run = interpreter.Interpreter(str(path), **options)
    [given], [returned] = run.get_input_details(), run.get_output_details()
    run.resize_tensor_input(given["index"], x.shape)
    run.allocate_tensors()
    run.set_tensor(given["index"], x)
    run.invoke()
    return run.get_tensor(returned["index"])


def served(path, x):
    loaded = tf.saved_model.load(path)  # whose variables go with it
    return loaded.serve(x)


READ = {
    "keras": lambda path, x: keras.models.load_model(path)(x),
    "litert": litert,
    "saved_model": served,
    "sparse": lambda path, x: snip_tf.load_sparse(path)(x),
}


@pytest.mark.parametrize("format", FILES)
def test_each_format_computes_the_same(pruned, images, tmp_path, format):
    lines, path = [], tmp_path / FILES[format]
    snip_tf.export(pruned, path, format, print_fn=lines.append)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    expected = pruned(images)
    atol = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(READ[format](path, images), expected, atol=atol)
    [line] = lines
    dense = int(line.split("of the ")[1].split()[0].replace(",", ""))
    assert dense >= 4 * 266_610
    if format != "saved_model":
        size = path.stat().st_size
        assert f"{size:,} bytes, {size / dense:.3f}" in line
        assert size < 0.15 * dense


@pytest.mark.parametrize("int8", [False, True])
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
    outputs = litert(path, x, plain=int8)
    np.testing.assert_allclose(outputs, pruned(x), atol=0.02 if int8 else 1e-6)
    dense = np.sum([np.prod(w.shape) for w in model.trainable_weights]) * 4
    assert path.stat().st_size < 0.5 * dense


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("zeros", [0.5, 0.97])
def test_sizes_that_blocks_do_not_divide_in_litert(tmp_path, int8, zeros):
    rng, path = np.random.default_rng(0), tmp_path / "m.tflite"
    for sizes in ([31, 10], [66, 33], [30, 101, 50, 3], [7, 4], [127, 43], [15, 3]):
        inside = [keras.layers.Dense(n, "relu", name="same") for n in sizes[1:2]]
        stack = [keras.layers.Dense(n, name=f"d{i}") for i, n in enumerate(sizes[2:])]
        model = keras.Sequential(
            [keras.Input(sizes[:1]), keras.Sequential(inside), *stack], name="m"
        )
        for weight in model.trainable_weights:
            weight.assign(rng.normal(size=weight.shape))
            if "kernel" in weight.path:
                weight.assign(weight * (rng.random(weight.shape) >= zeros))
        lines = []
        snip_tf.export(model, path, "litert", int8=int8, print_fn=lines.append)
        assert len(lines) == 1 + int8  # it says nothing of tensors that are not sparse
        x = rng.normal(size=(2, sizes[0])).astype(np.float32)
        expected = model(x).numpy()
        scale = np.abs(expected).max()
        outputs = litert(path, x, plain=int8)
        np.testing.assert_allclose(
            outputs, expected, atol=scale * (0.02, 1e-6)[not int8]
        )


def test_the_interpreter_of_tensorflow_looks_into_the_file_too(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    dense = keras.layers.Dense(4, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((31,)), dense])
    snip_tf.export(model, tmp_path / "m.tflite", "litert", print_fn=lambda line: None)
    monkeypatch.delattr(tf.lite, "Interpreter")
    with pytest.raises(ImportError, match="pip install ai-edge-litert"):
        snip_tf.export(model, tmp_path / "n.tflite", "litert")
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]


CUT_LOOPS = {
    "unrolled": (lambda: keras.layers.GRU(34, unroll=True), 35, False, "[102, 35]"),
    "a loop": (lambda: keras.layers.GRU(34), 35, False, "[102, 35]"),
    "of eight bits": (lambda: keras.layers.LSTM(40), 10, True, "[160, 10]"),
}


@pytest.mark.parametrize("kind", CUT_LOOPS)
def test_recurrent_layers_that_blocks_do_not_divide(tmp_path, kind):
    make, features, int8, shape = CUT_LOOPS[kind]
    model = keras.Sequential([keras.Input((5, features)), make()])
    pruned = prune_at_random(model, 0.98, np.random.default_rng(0))
    lines, path = [], tmp_path / "m.tflite"
    snip_tf.export(pruned, path, "litert", int8=int8, print_fn=lines.append)
    assert shape in lines[1]
    x = np.random.default_rng(1).normal(size=(1, 5, features)).astype(np.float32)
    expected = pruned(x).numpy()
    atol = np.abs(expected).max() * (0.02 if int8 else 1e-6)
    np.testing.assert_allclose(litert(path, x, plain=int8), expected, atol=atol)


def test_a_shared_layer_that_blocks_do_not_divide(tmp_path):
    a, b = keras.Input((11,)), keras.Input((11,))
    shared = keras.layers.Dense(32, name="shared")
    model = keras.Model([a, b], shared(a) + 2 * shared(b))
    pruned = prune_at_random(model, 0.9, np.random.default_rng(0))
    snip_tf.export(pruned, tmp_path / "m.tflite", "litert", print_fn=lambda line: None)
    assert (tmp_path / "m.tflite").stat().st_size < 4 * 11 * 32 + 3000


def test_int8_after_it_is_smaller_still(pruned, images, tmp_path):
    lines, path = [], tmp_path / "m.tflite"
    snip_tf.export(pruned, path, "litert", int8=True, print_fn=lines.append)
    assert path.stat().st_size < 60_000
    assert "BUILTIN_WITHOUT_DEFAULT_DELEGATES" in lines[1]
    expected = np.asarray(pruned(images))
    outputs = litert(path, images, plain=True)
    np.testing.assert_allclose(outputs, expected, atol=0.02 * np.abs(expected).max())


def test_a_compressed_archive_has_the_parts_that_keras_wrote(pruned, tmp_path):
    snip_tf.strip_pruning(pruned).save(tmp_path / "plain.keras")
    snip_tf.export(pruned, tmp_path / "m.keras", print_fn=lambda line: None)
    with (
        zipfile.ZipFile(tmp_path / "plain.keras") as plain,
        zipfile.ZipFile(tmp_path / "m.keras") as compressed,
    ):
        assert compressed.namelist() == plain.namelist()
        name = "model.weights.h5"
        assert len(compressed.read(name)) == len(plain.read(name))


@pytest.mark.parametrize("format", FILES)
def test_a_full_disk_leaves_what_was_there(pruned, tmp_path, monkeypatch, format):
    path = tmp_path / FILES[format]
    snip_tf.export(pruned, path, format, print_fn=lambda line: None)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fill(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fill)
    monkeypatch.setattr(Path, "write_bytes", fill)
    monkeypatch.setattr(keras.Model, "export", fill)
    with pytest.raises(OSError, match="No space left"):
        snip_tf.export(pruned, path, format, print_fn=lambda line: None)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("m.keras", "tflite"), "'keras', 'litert', 'saved_model', 'sparse'"),
        (("m.h5", "keras"), r"ends in '\.keras'"),
        (("m", "litert"), r"ends in '\.tflite'"),
    ],
)
def test_refuses_and_says_what_is_known(pruned, tmp_path, arguments, words):
    name, format = arguments
    with pytest.raises(ValueError, match=words):
        snip_tf.export(pruned, tmp_path / name, format)
    assert not list(tmp_path.iterdir())


def test_a_saved_model_replaces_nothing_else(pruned, tmp_path):
    kept = tmp_path / "thesis.txt"
    kept.write_text("all of it")
    for path in (tmp_path, kept):
        with pytest.raises(ValueError, match="holds something else"):
            snip_tf.export(pruned, path, "saved_model")
    assert kept.read_text() == "all of it"


def test_refuses_int8_elsewhere_and_what_is_no_model(pruned, tmp_path):
    with pytest.raises(ValueError, match="format='litert' with `int8`"):
        snip_tf.export(pruned, tmp_path / "m.keras", int8=True)
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.export("model", tmp_path / "m.keras")
