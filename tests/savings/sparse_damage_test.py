import hashlib
import tracemalloc
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from tests.random_networks import prune_at_random
from tests.savings.sparse_files import parts, write

layers = keras.layers


@pytest.fixture
def path(tmp_path):
    dense = [layers.Dense(9, dtype="bfloat16"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *dense])
    model.compile("adam", "mse")
    pruned = prune_at_random(model, 0.95, np.random.default_rng(0))
    snip_tf.export(pruned, tmp_path / "m", "sparse", print_fn=lambda line: None)
    return tmp_path / "m"


def test_any_change_is_reported(path):
    content = path.read_bytes()
    for position in range(0, len(content), 97):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"of another kind|was changed"):
            snip_tf.load_sparse(path)
    for length in (0, 10, 40, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"of another kind|truncated"):
            snip_tf.load_sparse(path)


def test_weights_of_another_model_are_refused(path, monkeypatch):
    other = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="other")])
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", lambda _: other)
    with pytest.raises(ValueError, match="its weights are not those"):
        snip_tf.load_sparse(path)


def test_the_hash_is_of_all_before_it(path):
    content = path.read_bytes()
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]


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


@pytest.mark.parametrize(
    "error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")]
)
def test_too_little_memory_is_told_of_the_file(path, monkeypatch, error):
    def fail(config):
        raise error

    monkeypatch.setattr(keras.saving, "deserialize_keras_object", fail)
    with pytest.raises(ValueError, match=f"'{path}', whose weights need more"):
        snip_tf.load_sparse(path)
