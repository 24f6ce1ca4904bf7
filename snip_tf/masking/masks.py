"""Masks as values: what they must be, as bits, and in a file."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import reprlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from snip_tf.checks import check_paths
from snip_tf.files import DAMAGE, inflate, named_damage, whole_file

_FORMAT = "snip_tf masks 1"
# The beginning of an array in an npz file, as NumPy writes those of `save_masks`.
_ARRAY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>]U\d+|\|u1)', 'fortran_order': False, "
    rb"'shape': \((\d+,)?\), \} *\n",
    re.DOTALL,
)
_LONGEST_BEGINNING = 1000  # bytes
_MOST_HEADER = 1 << 26  # bytes, for the paths and shapes of all masks
_MOST_DIMENSIONS = 32
_DEFLATE = 1032  # the most times that zlib makes anything smaller


class PackedMask(NamedTuple):
    """A mask while nobody reads it: one bit for each connection.

    Attributes:
        bits: bytes, as `numpy.packbits` makes them of the flat mask.
        shape: that of the mask.
    """

    bits: np.ndarray
    shape: Sequence[int]

    def unpack(self) -> np.ndarray:
        """The boolean array."""
        bits = np.unpackbits(self.bits, count=math.prod(self.shape))
        return bits.view(bool).reshape(self.shape)


def check_masks(
    masks: Mapping[str, np.ndarray], weights: Mapping[str, keras.Variable] | None = None
) -> None:
    """Raises unless masks are boolean arrays that fit the weights of their paths."""
    if not isinstance(masks, Mapping):
        raise TypeError(
            f"Expected `masks` to be a dict {{weight path: bool array}}. "
            f"Received: masks={masks!r}"
        )
    if not masks:
        raise ValueError("Expected at least one mask. Received: masks={}")
    for path, mask in masks.items():
        if not isinstance(path, str):
            raise TypeError(
                f"Expected the keys of `masks` to be weight paths, of type str. "
                f"Received: {path!r} of {type(path).__name__}"
            )
        if not isinstance(mask, np.ndarray) or mask.dtype != bool:
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(
                f"Expected each mask to be a boolean NumPy array (True is kept). "
                f"Received: masks[{path!r}] of {kind}"
            )
    if weights is not None:
        check_paths(masks, weights, "The paths of `masks`")
        for path, mask in masks.items():
            check_fits(path, mask, weights[path])


def check_fits(path: str, mask: Any, weight: keras.Variable) -> None:
    """Raises unless a mask has the shape of its weight."""
    if tuple(mask.shape) != tuple(weight.shape):
        raise ValueError(
            f"Expected each mask to have the shape of its weight. Received: "
            f"masks[{path!r}] of shape {tuple(mask.shape)}, for a weight of shape "
            f"{tuple(weight.shape)}"
        )


def save_masks(path: str | os.PathLike, masks: Mapping[str, np.ndarray]) -> None:
    """Writes masks to a file: one bit for each connection, then compressed.

    The file is an npz archive without pickled objects. It is written beside its place
    and renamed, so that no half-written file is ever found under `path`, also where
    several write it. Links are followed, and a file that is replaced keeps its mode.

    Args:
        path: where to write, such as `masks.npz`. No ending is added.
        masks: `{weight path: bool array}`, as `get_masks` returns.

    Raises:
        TypeError: if a mask is not a boolean array, or its key not a weight path.
        ValueError: if there are no masks.

    Example:

    >>> import numpy as np, snip_tf, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> snip_tf.save_masks(folder + "/m.npz", {"out/kernel": np.eye(2, dtype=bool)})
    >>> snip_tf.load_masks(folder + "/m.npz")["out/kernel"].tolist()
    [[True, False], [False, True]]
    """
    if isinstance(path, Mapping) or isinstance(masks, (str, bytes, os.PathLike)):
        raise TypeError(
            f"Expected the path first: `save_masks(path, masks)`. Received: path of "
            f"{type(path).__name__}, masks of {type(masks).__name__}"
        )
    check_masks(masks)
    header = {"format": _FORMAT, "shapes": {p: m.shape for p, m in masks.items()}}
    bits = {f"bits{i}": np.packbits(mask) for i, mask in enumerate(masks.values())}
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **bits)


def load_masks(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads what `save_masks` wrote.

    Args:
        path: the file.

    Returns:
        `{weight path: bool array}`, in the order in which they were saved.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or is not one of masks.

    Example: see `save_masks`.
    """
    expected = f"a file that `snip_tf.save_masks` wrote ({_FORMAT!r})"
    with named_damage(path, expected), open(os.fspath(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError("it is empty")
        with zipfile.ZipFile(file) as archive:
            return _read_masks(archive, size)


def _read_masks(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    members = archive.infolist()
    # Members could share their bytes, and be many times as large together.
    if sum(member.compress_size for member in members) > size:
        raise ValueError("its parts are larger than the file")
    shapes = _read_shapes(archive)
    if len(members) != 1 + len(shapes):
        raise ValueError(f"it has {len(members)} parts for {len(shapes)} masks")
    masks = {}
    for index, (name, shape) in enumerate(shapes.items()):
        length = _packed_length(shape)
        kind, bits = _read_array(archive, f"bits{index}.npy", length)
        if kind != b"|u1":
            raise ValueError(f"the mask of {name!r} is of type {kind.decode()}")
        masks[name] = packed_mask(bits, shape).unpack()
    return masks


def _read_shapes(archive: zipfile.ZipFile) -> dict[str, list[int]]:
    kind, text = _read_array(archive, "header.npy", _MOST_HEADER)
    if kind == b"|u1":
        raise ValueError("its header is not text")
    header = json.loads(text.decode("utf-32-le" if kind[:1] == b"<" else "utf-32-be"))
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f"its header is {reprlib.repr(header)}")
    shapes = header.get("shapes")
    if not isinstance(shapes, dict) or not shapes:
        raise ValueError(f"its shapes are {reprlib.repr(shapes)}")
    return shapes


def _read_array(archive: zipfile.ZipFile, name: str, most: int) -> tuple[bytes, bytes]:
    """The type and the bytes of an array, if it has at most `most` bytes."""
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy does not use")
    if member.file_size > min(
        most + _LONGEST_BEGINNING, _DEFLATE * member.compress_size
    ):
        raise ValueError(f"{name} has more bytes than it can have")
    with archive.open(member) as part:
        content = part.read(member.file_size + 1)  # to the end, for its checksum
    beginning = _ARRAY.match(content)
    if not beginning:
        raise ValueError(f"{name} is not an array as `save_masks` writes it")
    return beginning[1], content[beginning.end() :]


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask as text, for a configuration: one bit for each connection, compressed."""
    bits = zlib.compress(np.packbits(mask).tobytes())
    return {"shape": list(mask.shape), "kept": base64.b64encode(bits).decode("ascii")}


def decode_mask(config: Mapping[str, Any]) -> np.ndarray:
    """The mask that `encode_mask` made this of.

    Raises:
        TypeError: if it is not a dict with `shape` and `kept`.
        ValueError: if the two do not fit.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("kept"), str):
        raise TypeError(
            f"Expected a mask in a configuration to be a dict of `shape`, a list of "
            f"int, and `kept`, a str. Received: {reprlib.repr(config)}"
        )
    shape = config.get("shape")
    try:
        compressed = base64.b64decode(config["kept"], validate=True)
        length = _packed_length(shape)
        if length > _DEFLATE * len(compressed):
            raise ValueError("there are fewer bits than the shape has connections")
        return packed_mask(inflate(compressed, length), shape).unpack()
    except DAMAGE as error:
        raise ValueError(
            f"Expected a mask in a configuration to be as snip_tf wrote it. Received: "
            f"shape={reprlib.repr(shape)}, kept={reprlib.repr(config['kept'])}, which "
            f"are damaged: {str(error) or type(error).__name__}"
        ) from error


def _packed_length(shape: Sequence[int]) -> int:
    """How many bytes the bits of a mask take."""
    sizes = shape if isinstance(shape, (list, tuple)) else [None]
    if len(sizes) > _MOST_DIMENSIONS or any(type(s) is not int or s < 0 for s in sizes):
        raise ValueError(f"{reprlib.repr(shape)} is not the shape of a mask")
    return -(-math.prod(sizes) // 8)


def packed_mask(content: bytes, shape: Sequence[int]) -> PackedMask:
    """The mask of these bits; a ValueError unless they fit its shape."""
    if len(content) != _packed_length(shape):
        raise ValueError(f"{len(content)} bytes do not fit a mask of shape {shape}")
    beyond = -math.prod(shape) % 8
    if content and content[-1] & ((1 << beyond) - 1):
        raise ValueError(f"there are bits beyond a mask of shape {shape}")
    return PackedMask(np.frombuffer(content, np.uint8), shape)
