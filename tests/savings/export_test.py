import errno
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf import models
from tests.random_networks import prune_at_random
from tests.savings.reading import litert, served
from tests.versions import since

FILES = {"keras": "m.keras", "litert": "m.tflite", "saved_model": "m", "sparse": "m.s"}


READ = {
    "keras": lambda path, x: keras.models.load_model(path)(x),
    "litert": litert,
    "saved_model": served,
    "sparse": lambda path, x: snip_tf.load_sparse(path)(x),
}


@pytest.fixture(scope="module")
def pruned():
    return prune_at_random(models.build("lenet300"), 0.95, np.random.default_rng(0))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, 28, 28, 1)).astype(np.float32)


@pytest.mark.parametrize("format", FILES)
def test_each_format_computes_the_same(pruned, images, tmp_path, format):
    lines, path = [], tmp_path / FILES[format]
    sizes = snip_tf.export(pruned, path, format, print_fn=lines.append)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    expected = pruned(images)
    atol = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(READ[format](path, images), expected, atol=atol)
    [line] = lines
    before, after = sizes
    assert f"{after:,} bytes, {after / before:.3f} of the {before:,} that" in line
    if format == "keras":
        assert "that Keras writes of the plain model" in line
        assert before > 4 * 266_610
    else:  # for which Keras is not asked to write another file
        assert "that the weights of the plain model take" in line
        assert before == 4 * 266_610
    if format == "saved_model":
        files = [part for part in path.rglob("*") if part.is_file()]
        assert after == sum(part.stat().st_size for part in files) > before
    else:
        assert after == path.stat().st_size < 0.15 * before


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
def test_a_full_disk_leaves_the_old_content(pruned, tmp_path, monkeypatch, format):
    path = tmp_path / FILES[format]
    snip_tf.export(pruned, path, format, print_fn=lambda line: None)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fill(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fill)
    monkeypatch.setattr(Path, "write_bytes", fill)
    monkeypatch.setattr(tf.saved_model, "save", fill)
    with pytest.raises(OSError, match="No space left"):
        snip_tf.export(pruned, path, format, print_fn=lambda line: None)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("format", FILES)
def test_a_full_disk_names_the_path(tmp_path, format):
    resource = pytest.importorskip("resource")
    path, old = tmp_path / FILES[format], resource.getrlimit(resource.RLIMIT_FSIZE)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, old[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"File too large: '{path}'")):
            snip_tf.export(model, path, format, print_fn=lambda line: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("m.keras", "tflite"), "'keras', 'litert', 'saved_model', 'sparse'"),
        (("m.tflite", "tflite"), "Did you mean format='litert'"),
        (("m.h5", "keras"), r"ends in '\.keras'"),
        (("m.tflite", "keras"), "Did you mean format='litert'"),
        (("m.keras", "sparse"), r"without '\.keras' .*mean format='keras'"),
        (("m.tflite", "saved_model"), r"without '\.tflite' .*mean format='litert'"),
        (("m", "litert"), r"ends in '\.tflite'"),
    ],
)
def test_refuses_and_says_what_is_known(pruned, tmp_path, arguments, words):
    name, format = arguments
    with pytest.raises(ValueError, match=words):
        snip_tf.export(pruned, tmp_path / name, format)
    assert not list(tmp_path.iterdir())


def test_refuses_invalid_int8_and_models(pruned, tmp_path):
    with pytest.raises(ValueError, match="format='litert' with `int8`"):
        snip_tf.export(pruned, tmp_path / "m.keras", int8="weights")
    with pytest.raises(ValueError, match=r"False or 'weights'\. Received: int8=True"):
        snip_tf.export(pruned, tmp_path / "m.tflite", "litert", int8=True)
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.export("model", tmp_path / "m.keras")


class Own(keras.Model):
    """Made of an object that Keras writes into no configuration."""

    def __init__(self, function):
        super().__init__(name="own")
        self.function, self.dense = function, keras.layers.Dense(4)

    def call(self, x):
        return self.function(self.dense(x))


def own():
    model = Own(keras.ops.tanh)
    model(np.ones((3, 8), np.float32))
    return model


class Ridge(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(x**2)


class Odd(keras.layers.Layer):
    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), "odd": object()}


def stack_of(*layers):
    return keras.Sequential([keras.Input((8,)), *layers])


UNWRITABLE = {
    "own": own,
    "ridge": lambda: stack_of(
        keras.layers.Dense(3, kernel_regularizer=Ridge(), name="ridge")
    ),
    "odd": lambda: stack_of(keras.layers.Dense(3), Odd(name="odd")),
    "inside": lambda: stack_of(stack_of(Odd(name="inside")), keras.layers.Dense(3)),
}


@since("3.13")  # before, Keras wrote some models that it could not read
@pytest.mark.parametrize("layer", UNWRITABLE)
@pytest.mark.parametrize("format", ["keras", "sparse"])
def test_says_which_layer_has_no_configuration(tmp_path, layer, format):
    model = UNWRITABLE[layer]()
    with pytest.raises(ValueError, match=f"in which '{layer}' of class .* has none"):
        snip_tf.export(model, tmp_path / FILES[format], format)
    assert not list(tmp_path.iterdir())
    snip_tf.export(model, tmp_path / "m", "saved_model", print_fn=lambda line: None)
