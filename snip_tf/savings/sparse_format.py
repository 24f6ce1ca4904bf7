"""The sparse file format, in which zeros cost next to nothing.

    magic line | length of the header, 8 bytes | header | data of each weight | SHA-256

The header is JSON, compressed: the model's configuration and, for each weight, in the
model's order, its path, shape, type and coding. The non-zero numbers of a weight are
stored unchanged; their positions, as one bit for each number, or as the gaps between
them, a byte each (255 means that 255 numbers are skipped and the next byte continues),
whichever zlib compresses further. A weight that would take more space than all its
numbers is stored whole. The hash at the end covers everything before it. Nothing in the
file is executed, unless the caller allows it with `keras.config`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.checks import check_path, visible
from snip_tf.files import inflate, named_damage, whole_file
from snip_tf.network import Network
from snip_tf.savings.bounded_memory import (
    DAMAGED_MODEL,
    bounded_variables,
)

_MAGIC = b"snip_tf sparse model 1\n"
_HASH = 32  # bytes
_MOST_HEADER = 1 << 26  # bytes, once it is decompressed


def save_sparse(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a model without its zeros; see the docstring of this module."""
    network = Network(model)
    _check_has_no_assets(network)
    entries, data = [], []
    for name, weight in network.weights.items():
        entry, parts = _encoded(keras.ops.convert_to_numpy(weight))
        entries.append({"path": name, **entry})
        data += parts
    config = keras.saving.serialize_keras_object(model)
    header = json.dumps({"model": config, "weights": entries}).encode()
    if len(header) > _MOST_HEADER:
        raise ValueError(
            f"Expected the configuration of a model to have at most {_MOST_HEADER:,} "
            f"bytes with format='sparse'. Received: {len(header):,}. Write it with "
            f"format='keras'."
        )
    header = zlib.compress(header, level=9)
    content = b"".join([_MAGIC, len(header).to_bytes(8, "little"), header, *data])
    with whole_file(path) as partial:
        partial.write_bytes(content + hashlib.sha256(content).digest())


def load_sparse(path: str | os.PathLike) -> keras.Model:
    """Reads what `export(..., format="sparse")` wrote, bit for bit.

    Custom classes must be known, as for `keras.models.load_model`: register them
    (`keras.saving.register_keras_serializable`) or load in a
    `keras.saving.custom_object_scope`.

    Args:
        path: the file.

    Returns:
        The `keras.Model`, compiled if it was.

    Raises:
        TypeError: if `path` is not a path.
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, changed, or of another kind, asks for more
            memory than is available, or Keras cannot make the model.

    Example:

    >>> import keras, snip_tf, tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> path = tempfile.mkdtemp() + "/model.sparse"
    >>> sizes = snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    >>> snip_tf.load_sparse(path).layers[0].name
    'out'
    """
    expected = "a file that `snip_tf.export` wrote with format='sparse'"
    check_path(path)
    path = os.fsdecode(path)
    with named_damage(path, expected):
        header, data = _read(Path(path))
        config, entries = header["model"], header["weights"]
        _check_weights(entries, len(data))
    most = max((math.prod(entry["shape"]) for entry in entries), default=0)
    with _named_memory(path), bounded_variables(most):
        model = _model_of(config, path)
        with named_damage(path, expected):
            if not isinstance(model, keras.Model):
                raise ValueError(f"it is of a {type(model).__name__}, not of a model")
            network = Network(model)
            _assign(network, entries, data)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # derives what it computes with from its weights
    return model


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Returns the header and the data of the weights, after checking the hash."""
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin like one")
        content = file.read()
    digest = hashlib.sha256(_MAGIC + content[:-_HASH]).digest()
    if content[-_HASH:] != digest:
        raise ValueError("it is truncated or was changed")
    content = content[:-_HASH]
    end = 8 + int.from_bytes(content[:8], "little")
    if end > len(content):
        raise ValueError("its header is longer than the file")
    return json.loads(inflate(content[8:end], _MOST_HEADER)), content[end:]


# The number of data parts of each coding.
_PARTS = {"all": 1, "bits": 2, "gaps": 2}
# zlib expands a byte to at most this many.
_MOST_INFLATED = 1032
# The size that any weight may have, however few bytes its positions take.
_ANY_COUNT = 1 << 20


def _check_weights(entries: list[dict[str, Any]], length: int) -> None:
    """Raises if weights are not as `_encoded` describes them, before creating any."""
    for entry in entries:
        shape, coding, sizes = entry["shape"], entry["coding"], entry["bytes"]
        if coding not in _PARTS:
            raise ValueError(f"a weight has the unknown coding {coding!r}")
        if type(sizes) is not list or len(sizes) != _PARTS[coding]:
            raise ValueError(f"a weight of the coding {coding!r} has sizes {sizes}")
        for number in (*shape, *sizes):
            if type(number) is not int or number < 0:
                raise ValueError(f"a weight has the shape {shape} and sizes {sizes}")
        count, itemsize = math.prod(shape), _dtype(entry["dtype"]).itemsize
        if coding == "all" and sizes[0] != count * itemsize:
            raise ValueError(f"a weight of shape {shape} has {sizes[0]} bytes")
        if coding != "all" and count > _most_numbers(sizes[0]):
            raise ValueError(
                f"a weight of shape {shape} has {coding} of {sizes[0]} bytes"
            )
    total = sum(size for entry in entries for size in entry["bytes"])
    if total != length:
        raise ValueError(f"its weights have {total} bytes of {length}")


def _most_numbers(positions: int) -> int:
    """Returns how many numbers a weight may have, by the bytes of its positions.

    This is the most that bits could describe. Gaps do not count trailing zeros, so
    without a limit a file of a few bytes could ask for any amount of memory.
    """
    return _ANY_COUNT + 8 * _MOST_INFLATED * positions


def _model_of(config: Any, path: str) -> Any:
    """Returns the model that a configuration describes."""
    try:
        return keras.saving.deserialize_keras_object(config)
    except _backend.OUT_OF_MEMORY:
        raise
    except DAMAGED_MODEL as error:
        raise ValueError(
            "Expected a configuration from which Keras can make a model, in a file "
            f"that `snip_tf.export` wrote with format='sparse'. Received: {path!r}: "
            f"{_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """Describes what Keras finds wrong with a configuration, and what to do."""
    text = str(error) or type(error).__name__
    if found := _UNKNOWN.search(text):
        kind, name = found["kind"] or "class", found["name"] or found["other"]
        return (
            f"its configuration needs the {kind} {name!r}. Register it "
            f"(keras.saving.register_keras_serializable), or load in a "
            f"`with keras.saving.custom_object_scope({{{name!r}: {name}}})`."
        )
    if "enable_unsafe_deserialization" in text:
        return (
            "its configuration holds a Python lambda, which is code. If you trust the "
            "file, call keras.config.enable_unsafe_deserialization() first."
        )
    if found := _LAMBDA.search(text):
        return (
            f"its configuration holds a Python lambda as {found['role']}, which Keras "
            "can write but not read. Give the layer a named function that is "
            "registered (keras.saving.register_keras_serializable), and export the "
            "model again."
        )
    # Keras repeats the whole configuration of each part around the one that failed.
    return text.rpartition("Exception encountered: ")[2]


_UNKNOWN = re.compile(
    r"Could not locate (?P<kind>\w+) '(?P<name>.+?)'\."
    r"|Cannot deserialize object of type `(?P<other>.+?)`"
)
_LAMBDA = re.compile(
    r"Could not interpret (?P<role>[\w ]+?) identifier: \{.*'value': \["
)


@contextlib.contextmanager
def _named_memory(path: str) -> Iterator[None]:
    """Names the file in an error about missing memory."""
    try:
        yield
    except MemoryError as error:
        raise ValueError(
            f"Expected enough memory for the model in a file. Received: {path!r}, "
            "whose weights need more than is free. If you do not know the file, do "
            "not trust it."
        ) from error


def _assign(network: Network, entries: list[dict[str, Any]], data: bytes) -> None:
    weights = _in_order_of(entries, network.weights)
    found = [(entry["shape"], entry["dtype"]) for entry in entries]
    if found != [(list(w.shape), w.dtype) for w in weights.values()]:
        raise ValueError(
            f"its weights are not those of the model that its configuration describes: "
            f"{', '.join(map(visible, weights))}"
        )
    start = 0
    for entry, weight in zip(entries, weights.values(), strict=True):
        end = start + sum(entry["bytes"])
        weight.assign(_decoded(entry, data[start:end]))
        start = end


def _in_order_of(
    entries: list[dict[str, Any]], weights: dict[str, keras.Variable]
) -> dict[str, keras.Variable]:
    """Returns the weights of a model in the order in which a file has them.

    A layer that was quantized after it was built has them in another order than one
    created quantized, so weights are matched by path; where a layer creates others,
    which get new names in each process, only the order identifies them.
    """
    paths = [entry["path"] for entry in entries]
    if sorted(paths) == sorted(weights):
        return {path: weights[path] for path in paths}
    return weights


def _check_has_no_assets(network: Network) -> None:
    """Raises if a layer keeps more than its configuration and weights."""
    for layer in network.layers:
        if hasattr(layer, "save_assets"):
            raise ValueError(
                "Expected a model that consists of configuration and weights only "
                f"with format='sparse'. Received: the layer {layer.name!r} of class "
                f"{type(layer).__name__}, which may keep a vocabulary besides. Write "
                "it with format='keras'."
            )


def _encoded(array: np.ndarray) -> tuple[dict[str, Any], list[bytes]]:
    """Returns the header entry of a weight, and its data."""
    entry = {"shape": list(array.shape), "dtype": array.dtype.name}
    flat = np.ascontiguousarray(array).reshape(-1)
    # By the bits, so that a negative zero is preserved.
    there = flat.view(f"u{flat.itemsize}") != 0
    values = flat[there].tobytes()
    positions = np.flatnonzero(there)
    codings = {"bits": np.packbits(there), "gaps": _gaps(positions)}
    packed = {name: zlib.compress(c.tobytes(), 9) for name, c in codings.items()}
    if flat.size > _most_numbers(len(packed["gaps"])):
        del packed["gaps"]
    coding = min(packed, key=lambda name: len(packed[name]))
    if len(values) + len(packed[coding]) >= flat.nbytes:
        return {**entry, "coding": "all", "bytes": [flat.nbytes]}, [flat.tobytes()]
    parts = [packed[coding], values]
    return {**entry, "coding": coding, "bytes": [len(part) for part in parts]}, parts


def _decoded(entry: dict[str, Any], data: bytes) -> np.ndarray:
    dtype = _dtype(entry["dtype"])
    if entry["coding"] == "all":
        return np.frombuffer(data, dtype).reshape(entry["shape"])
    length = entry["bytes"][0]
    values = np.frombuffer(data[length:], dtype)
    array = np.zeros(math.prod(entry["shape"]), dtype)
    if entry["coding"] == "bits":
        bits = inflate(data[:length], -(-array.size // 8))
        there = np.unpackbits(np.frombuffer(bits, np.uint8))
        positions = np.flatnonzero(there)
    else:
        gaps = inflate(data[:length], len(values) + array.size // 255)
        positions = _positions(np.frombuffer(gaps, np.uint8))
    if len(positions) != len(values):
        raise ValueError(f"it has {len(values)} numbers for {len(positions)} places")
    array[positions] = values
    return array.reshape(entry["shape"])


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":  # not a dtype of NumPy
        return np.asarray(keras.ops.zeros(1, name)).dtype
    return np.dtype(name)


def _gaps(positions: np.ndarray) -> np.ndarray:
    """Returns how many numbers are skipped before each position, as bytes."""
    passed = np.diff(positions, prepend=-1) - 1
    whole, rest = np.divmod(passed, 255)
    coded = np.full(int(whole.sum()) + len(passed), 255, np.uint8)
    coded[np.cumsum(whole + 1) - 1] = rest
    return coded


def _positions(gaps: np.ndarray) -> np.ndarray:
    """Returns the positions from which `_gaps` made these."""
    ends = np.flatnonzero(gaps != 255)
    return np.cumsum(gaps, dtype=np.int64)[ends] + np.arange(len(ends))
