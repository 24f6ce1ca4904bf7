import hashlib
import json
import os
import tracemalloc
import zlib

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.savings import sparse_format
from tests.random_networks import prune_at_random

layers = keras.layers


@hypothesis.given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int32, bool]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=30),
        elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 1]),
    )
)
def test_any_array_comes_back(array):
    entry, parts = sparse_format._encoded(array)
    decoded = sparse_format._decoded(entry, b"".join(parts))
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)


@hypothesis.given(st.lists(st.integers(0, 2000), min_size=1, max_size=50))
def test_gaps_of_any_length(passed):
    positions = np.cumsum(np.array(passed) + 1) - 1
    coded = sparse_format._gaps(positions)
    assert coded.size == sum(gap // 255 + 1 for gap in passed)
    np.testing.assert_array_equal(sparse_format._positions(coded), positions)


def test_negative_zeros_and_nan_come_back_bit_for_bit():
    array = np.array([0.0, -0.0, np.nan, np.inf, 1e-45] + [0.0] * 200, np.float32)
    entry, parts = sparse_format._encoded(array)
    assert entry["coding"] != "all"
    decoded = sparse_format._decoded(entry, b"".join(parts))
    assert decoded.tobytes() == array.tobytes()


@pytest.fixture(scope="module")
def model():
    stack = [layers.Conv2D(8, 3, dtype="bfloat16"), layers.Flatten(), layers.Dense(40)]
    stack += [layers.BatchNormalization(), layers.Dense(3, dtype="float32")]
    model = keras.Sequential([keras.Input((8, 8, 2)), *stack])
    model.compile("adam", "mse")
    return prune_at_random(model, 0.95, np.random.default_rng(0))


@pytest.fixture
def path(model, tmp_path):
    snip_tf.export(model, tmp_path / "m", format="sparse", print_fn=lambda line: None)
    return tmp_path / "m"


def test_a_model_comes_back_bit_for_bit(model, path):
    loaded = snip_tf.load_sparse(path)
    stripped = snip_tf.strip_pruning(model)
    assert loaded.compiled
    assert loaded.to_json() == stripped.to_json()
    for new, old in zip(loaded.weights, stripped.weights, strict=True):
        assert new.dtype == old.dtype
        assert np.asarray(new).tobytes() == np.asarray(old).tobytes()
    x = np.random.default_rng(0).random((3, 8, 8, 2))
    np.testing.assert_array_equal(loaded(x), stripped(x))


@keras.saving.register_keras_serializable("sparse_files_test")
class Block(layers.Layer):
    """Makes layers, which get the next names that this process has."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.first = layers.Dense(units)

    def build(self, shape):
        self.first.build(shape)

    def call(self, x):
        return self.first(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("sparse_files_test")
class Own(keras.Model):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.first, self.second = Block(units), layers.Dense(2)

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(9, 3, size=(50, 4)))
    return layer


def quantized(mode):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.Dense(2)])
    model(np.ones((1, 4)))
    for layer in model.layers:
        layer.quantize(mode)
    return model


UNUSUAL = {
    # Whose weights Keras makes in another order when it is loaded.
    "a model in float8": lambda: quantized("float8"),
    "a model in int8": lambda: quantized("int8"),
    "a model in int4": lambda: quantized("int4"),
    "layers that make layers": lambda: keras.Sequential(
        [keras.Input((4,)), Block(4), Block(2)]
    ),
    "a subclassed model": lambda: Own(3),
    "an adapted layer": lambda: keras.Sequential(
        [keras.Input((4,)), adapted(), layers.Dense(2)]
    ),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_other_models_come_back(kind, tmp_path):
    model, x = UNUSUAL[kind](), np.random.default_rng(1).normal(size=(3, 4))
    expected = model(x)
    snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    np.testing.assert_array_equal(snip_tf.load_sparse(tmp_path / "m")(x), expected)


def test_refuses_layers_that_keep_more_than_weights(tmp_path):
    lookup = layers.StringLookup(vocabulary=["a", "b"], name="lookup")
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, layers.Embedding(3, 2)(lookup(inputs)))
    with pytest.raises(ValueError, match="'lookup' of class StringLookup"):
        snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_any_change_is_told(path):
    content = path.read_bytes()
    for position in range(0, len(content), 97):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"of another kind|was changed"):
            snip_tf.load_sparse(path)
    for length in (0, 10, 40, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"of another kind|cut short"):
            snip_tf.load_sparse(path)


def test_weights_of_another_model_are_refused(path, monkeypatch):
    other = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="other")])
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", lambda _: other)
    with pytest.raises(ValueError, match="its weights are not those"):
        snip_tf.load_sparse(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        snip_tf.load_sparse(tmp_path / "m")


def test_the_hash_is_of_all_before_it(path):
    content = path.read_bytes()
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]


MAGIC = b"snip_tf sparse model 1\n"


def parts(path):
    """The header of a file, and its data."""
    content = path.read_bytes()[len(MAGIC) : -32]
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(zlib.decompress(content[8:end])), content[end:]


def write(path, header, data=b"", length=None):
    """A file whose hash is right."""
    if not isinstance(header, bytes):
        header = zlib.compress(json.dumps(header).encode())
    length = len(header) if length is None else length
    content = MAGIC + length.to_bytes(8, "little") + header + data
    path.write_bytes(content + hashlib.sha256(content).digest())


BOMB = zlib.compress(b" " * (1 << 28))


@pytest.mark.parametrize(
    "header",
    [
        b"junk",
        BOMB,
        zlib.compress(b"[" * 100_000),
        [],
        {},
        {"model": None, "weights": []},
        {"model": "Dense", "weights": []},
        *(
            {"model": keras.saving.serialize_keras_object(other), "weights": []}
            for other in (layers.Dense(3), keras.optimizers.SGD(), keras.Sequential())
        ),
    ],
)
def test_refuses_a_header_of_another_kind(tmp_path, header):
    write(tmp_path / "m", header)
    with pytest.raises(ValueError, match=rf"'{tmp_path / 'm'}', which is damaged"):
        snip_tf.load_sparse(tmp_path / "m")


@pytest.mark.parametrize("length", [0, 10**6, 2**64 - 1])
def test_refuses_a_header_of_another_length(path, length):
    header, data = parts(path)
    write(path, header, data, length)
    with pytest.raises(ValueError, match="damaged"):
        snip_tf.load_sparse(path)


@pytest.mark.parametrize(
    "changes",
    [
        *({"shape": shape} for shape in ([10**11], [-1], [72.0], None)),
        *({"dtype": dtype} for dtype in ("object", "float64", "nothing", None)),
        *({"bytes": sizes} for sizes in ([], [10**11], [-1, 1], [True], "12", None)),
        *({"coding": coding} for coding in ("all", "zzz", ["bits"], None)),
        {"bytes": [1, 1, 1]},
    ],
)
def test_refuses_a_weight_that_does_not_fit(path, changes):
    header, data = parts(path)
    assert header["weights"][0]["coding"] != "all"
    header["weights"][0].update(changes)
    write(path, header, data)
    with pytest.raises(ValueError, match=f"'{path}', which is damaged"):
        snip_tf.load_sparse(path)


@pytest.mark.parametrize("coding", ["bits", "gaps"])
@pytest.mark.parametrize(
    "places",
    [
        BOMB,
        zlib.compress(b"\xff" * 18),  # as bits too many, as gaps none
        zlib.compress(b"\xfe"),  # beyond the end
        zlib.compress(b"\x00\x00"),  # more, or fewer, than there are numbers
        b"junk",
    ],
)
def test_refuses_positions_that_do_not_fit(path, coding, places):
    header, data = parts(path)
    entry = header["weights"][0]
    rest = data[sum(entry["bytes"]) :]
    entry.update(coding=coding, bytes=[len(places), 2])
    write(path, header, places + b"\x00\x40" + rest)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"'{path}', which is damaged"):
        snip_tf.load_sparse(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_refuses_to_write_what_it_would_not_read(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sparse_format, "_MOST_HEADER", 1000)
    with pytest.raises(ValueError, match=r"at most 1,000 .*format='keras'"):
        snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_allocates_no_more_than_the_weights(tmp_path):
    path = tmp_path / "m"
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    model.compile("adam", "mse")
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    header, data = parts(path)
    for units in (10**7, 10**12):
        header["model"]["config"]["layers"][1]["config"]["units"] = units
        write(path, header, data)
        with pytest.raises(ValueError, match=f"'{path}': .* {2 * units:,} numbers"):
            snip_tf.load_sparse(path)


def test_a_model_that_tensorflow_cannot_make_is_refused(path):
    header, data = parts(path)
    ones = keras.initializers.Constant([1.0] * 5)  # which no kernel has the shape of
    config = header["model"]["config"]["layers"][1]["config"]
    config["kernel_initializer"] = keras.saving.serialize_keras_object(ones)
    write(path, header, data)
    with pytest.raises(ValueError, match=f"'{path}': .*[Ss]hape"):
        snip_tf.load_sparse(path)


@pytest.mark.parametrize("coding", ["bits", "gaps"])
def test_positions_cannot_be_of_more_numbers_than_zlib_makes(path, coding):
    header, data = parts(path)
    header["weights"][0].update(shape=[10**9], coding=coding)
    write(path, header, data)
    with pytest.raises(ValueError, match=rf"of shape \[1000000000\] has {coding} of"):
        snip_tf.load_sparse(path)


def test_a_few_bytes_declare_no_model_of_zeros(tmp_path):
    path, units = tmp_path / "m", 10**10
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    header, _ = parts(path)
    header["model"]["config"]["layers"][1]["config"]["units"] = units
    none = zlib.compress(b"")
    for entry, shape in zip(header["weights"], ([2, units], [units]), strict=True):
        entry.update(shape=shape, coding="gaps", bytes=[len(none), 0])
    write(path, header, 2 * none)
    with pytest.raises(ValueError, match=f"'{path}', which is damaged"):
        snip_tf.load_sparse(path)


@pytest.mark.parametrize("all_zero", [False, True])
def test_a_large_weight_comes_back(tmp_path, all_zero):
    model = keras.Sequential([keras.Input((1200,)), layers.Dense(1000)])
    kernel = np.zeros((1200, 1000), np.float32)  # more numbers than any may have
    kernel[5, 5:50] = not all_zero
    model.layers[0].set_weights([kernel, np.zeros(1000)])
    snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    loaded = snip_tf.load_sparse(tmp_path / "m")
    np.testing.assert_array_equal(loaded.get_weights()[0], kernel)


@pytest.mark.parametrize(
    "error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")]
)
def test_too_little_memory_is_told_of_the_file(path, monkeypatch, error):
    def fail(config):
        raise error

    monkeypatch.setattr(keras.saving, "deserialize_keras_object", fail)
    with pytest.raises(ValueError, match=f"'{path}', whose weights need more"):
        snip_tf.load_sparse(path)


class Unregistered(layers.Dense):
    pass


def test_says_which_class_is_not_known(tmp_path):
    path = tmp_path / "m"
    model = keras.Sequential([keras.Input((2,)), Unregistered(3)])
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    header, data = parts(path)
    header["model"]["config"]["layers"][1]["module"] = "of_another_process"
    write(path, header, data)
    with pytest.raises(ValueError, match="needs the class 'Unregistered'") as raised:
        snip_tf.load_sparse(path)
    assert "damaged" not in str(raised.value)
    with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
        loaded = snip_tf.load_sparse(path)
    np.testing.assert_array_equal(loaded.weights[0], model.weights[0])


class UnregisteredConstraint(keras.constraints.Constraint):
    def __call__(self, weight):
        return weight


def test_says_which_part_of_a_layer_is_not_known(tmp_path):
    path = tmp_path / "m"
    dense = layers.Dense(3, kernel_constraint=UnregisteredConstraint())
    model = keras.Sequential([keras.Input((2,)), dense])
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    header, data = parts(path)
    of_layer = header["model"]["config"]["layers"][1]["config"]
    of_layer["kernel_constraint"]["module"] = None
    write(path, header, data)
    name = "UnregisteredConstraint"
    with pytest.raises(ValueError, match=f"needs the class '{name}'") as raised:
        snip_tf.load_sparse(path)
    assert len(str(raised.value)) < 500  # and not the whole configuration
    with keras.saving.custom_object_scope({name: UnregisteredConstraint}):
        snip_tf.load_sparse(path)


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("activation function", {"activation": lambda x: 2 * x}),
        ("initializer", {"kernel_initializer": lambda s, dtype: keras.ops.ones(s)}),
    ],
)
def test_says_which_lambda_cannot_be_read(tmp_path, role, settings):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, **settings)])
    with pytest.warns(UserWarning, match="lambda"):  # of Keras
        snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    with pytest.raises(ValueError, match=f"lambda as {role}, which Keras") as raised:
        snip_tf.load_sparse(tmp_path / "m")
    assert len(str(raised.value)) < 600


def test_says_that_a_lambda_is_code(tmp_path):
    path = tmp_path / "m"
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Lambda(lambda x: 2 * x)(layers.Dense(2)(inputs)))
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    with pytest.raises(ValueError, match="enable_unsafe_deserialization") as raised:
        snip_tf.load_sparse(path)
    assert "damaged" not in str(raised.value)


def test_a_path_of_bytes(model, path):
    loaded = snip_tf.load_sparse(os.fsencode(path))
    assert len(loaded.weights) == len(snip_tf.strip_pruning(model).weights)
