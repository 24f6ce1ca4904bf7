import errno
import re
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf import models
from tests.random_networks import Words, attention_over_padding, prune_at_random

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


def served(path, *x):
    loaded = tf.saved_model.load(path)  # whose variables go with it
    return loaded.serve(*x)


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
    if format == "keras":
        assert "that Keras writes of the plain model" in line
        assert dense > 4 * 266_610
    else:  # for which Keras is not asked to write another file
        assert "that the weights of the plain model take" in line
        assert dense == 4 * 266_610
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


def test_no_interpreter_is_needed_to_write_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    dense = keras.layers.Dense(4, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((31,)), dense])
    snip_tf.export(model, tmp_path / "m.tflite", "litert", print_fn=lambda line: None)
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


@pytest.mark.parametrize("words", [None, Words])
def test_an_attention_in_litert_sees_no_padding(tmp_path, words):
    pruned, ids = attention_over_padding(words)
    path, lines = tmp_path / "m.tflite", []
    snip_tf.export(pruned, path, "litert", print_fn=lines.append)
    assert len(lines) == 1
    np.testing.assert_allclose(litert(path, ids), pruned(ids), atol=1e-4)


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
    monkeypatch.setattr(tf.saved_model, "save", fill)
    with pytest.raises(OSError, match="No space left"):
        snip_tf.export(pruned, path, format, print_fn=lambda line: None)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


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


@pytest.mark.parametrize("format", FILES)
def test_a_disk_that_takes_no_more_is_told_of_the_path(tmp_path, format):
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


def test_refuses_int8_elsewhere_and_what_is_no_model(pruned, tmp_path):
    with pytest.raises(ValueError, match="format='litert' with `int8`"):
        snip_tf.export(pruned, tmp_path / "m.keras", int8=True)
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.export("model", tmp_path / "m.keras")


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
    "own": lambda: own_and_pruned(OfATensor)[0],
    "ridge": lambda: stack_of(
        keras.layers.Dense(3, kernel_regularizer=Ridge(), name="ridge")
    ),
    "odd": lambda: stack_of(keras.layers.Dense(3), Odd(name="odd")),
    "inside": lambda: stack_of(stack_of(Odd(name="inside")), keras.layers.Dense(3)),
}


@pytest.mark.parametrize("layer", UNWRITABLE)
@pytest.mark.parametrize("format", ["keras", "sparse"])
def test_says_which_layer_has_no_configuration(tmp_path, layer, format):
    model = UNWRITABLE[layer]()
    with pytest.raises(ValueError, match=f"in which '{layer}' of class .* gives none"):
        snip_tf.export(model, tmp_path / FILES[format], format)
    assert not list(tmp_path.iterdir())
    snip_tf.export(model, tmp_path / "m", "saved_model", print_fn=lambda line: None)


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


@pytest.mark.parametrize("int8", [False, True])
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
    np.testing.assert_allclose(litert(path, x, plain=int8), expected, atol=atol)


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
        *(("BiasAdd", "dense (Dense)"), ("BiasAdd", "dense_1 (Dense)")),
        *(("AvgPool3D", "average_pooling3d"), ("MaxPool3D", "last (MaxPooling3D)")),
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
    with pytest.raises(ValueError, match=r"in whole \(Dense\).*int8=True"):
        snip_tf.export(model, tmp_path / "m.tflite", "litert")
    assert not list(tmp_path.iterdir())


def test_a_state_keeps_the_size_of_its_batches_in_litert(tmp_path):
    inputs = keras.Input(batch_shape=(2, 3, 5))
    model = keras.Model(inputs, keras.layers.GRU(7, stateful=True)(inputs))
    lines, path = [], tmp_path / "m.tflite"
    snip_tf.export(model, path, "litert", print_fn=lines.append)
    assert "on 2 examples at a time" in lines[1]
    x = normal(2, 3, 5)
    np.testing.assert_allclose(litert(path, x), model(x), atol=1e-6)


def test_a_layer_of_single_precision_after_one_of_half(tmp_path):
    half = keras.layers.Dense(6, dtype="mixed_float16", name="half")
    lines, path = [], tmp_path / "m.tflite"
    pruned = prune_at_random(
        stack_of(half, keras.layers.Dense(40)), 0.9, np.random.default_rng(0)
    )
    snip_tf.export(pruned, path, "litert", print_fn=lines.append)
    assert lines[1].endswith("MatMul, BiasAdd in half (Dense).")
