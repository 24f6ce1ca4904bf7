"""Masks in files: in one of their own, in a configuration, in HDF5."""

from __future__ import annotations

import base64
import json
import os
import re
import reprlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snip_tf.checks import check_path
from snip_tf.files import DAMAGE, inflate, named_damage, whole_file
from snip_tf.masking.masks import PackedMask, check_masks, packed_length

_FORMAT = "snip_tf masks 1"
# The header of an array in an npz file, as NumPy writes it for `save_masks`.
_ARRAY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>]U\d+|\|u1)', 'fortran_order': False, "
    rb"'shape': \((\d+,)?\), \} *\n",
    re.DOTALL,
)
_LONGEST_BEGINNING = 1000  # bytes
_MOST_HEADER = 1 << 26  # bytes, for the paths and shapes of all masks
_DEFLATE = 1032  # the highest ratio that zlib compresses by


def save_masks(path: str | os.PathLike, masks: Mapping[str, np.ndarray]) -> None:
    """Writes masks to a file: one bit for each connection, then compressed.

    The file is an npz archive without pickled objects. It is written to a temporary
    file and renamed, so that `path` never holds a half-written file, even with several
    writers. Links are followed, and a replaced file keeps its mode.

    Args:
        path: where to write, such as `masks.npz`. No suffix is added.
        masks: `{weight path: bool array}`, as `get_masks` returns.

    Raises:
        TypeError: if `path` is not a path, a mask is not a boolean array, or its key is
            not a weight path.
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
    check_path(path)
    check_masks(masks)
    header = {"format": _FORMAT, "shapes": {p: m.shape for p, m in masks.items()}}
    arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
    for index, mask in enumerate(masks.values()):
        arrays[f"bits{index}"] = PackedMask.of(mask).bits
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_masks(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads what `save_masks` wrote.

    Args:
        path: the file.

    Returns:
        `{weight path: bool array}`, in the order in which they were saved.

    Raises:
        TypeError: if `path` is not a path.
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or does not hold masks.

    Example: see `save_masks`.
    """
    check_path(path)
    expected = f"a file that `snip_tf.save_masks` wrote ({_FORMAT!r})"
    with named_damage(path, expected), open(os.fspath(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError("it is empty")
        with zipfile.ZipFile(file) as archive:
            return _read_masks(archive, size)


def _read_masks(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    members = archive.infolist()
    # Members could share their bytes, and together be many times as large.
    if sum(member.compress_size for member in members) > size:
        raise ValueError("its parts are larger than the file")
    shapes = _read_shapes(archive)
    if len(members) != 1 + len(shapes):
        raise ValueError(f"it has {len(members)} parts for {len(shapes)} masks")
    masks = {}
    for index, (name, shape) in enumerate(shapes.items()):
        length = packed_length(shape)
        kind, bits = _read_array(archive, f"bits{index}.npy", length)
        if kind != b"|u1":
            raise ValueError(f"the mask of {name!r} is of type {kind.decode()}")
        masks[name] = PackedMask.of_bytes(bits, shape).unpack()
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
    """Returns the type and the bytes of an array, if it has at most `most` bytes."""
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy does not use")
    if member.file_size > min(
        most + _LONGEST_BEGINNING, _DEFLATE * member.compress_size
    ):
        raise ValueError(f"{name} has more bytes than expected")
    with archive.open(member) as part:
        content = part.read(member.file_size + 1)  # to the end, for its checksum
    beginning = _ARRAY.match(content)
    if not beginning:
        raise ValueError(f"{name} is not an array as `save_masks` writes it")
    return beginning[1], content[beginning.end() :]


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask as text for a configuration: a compressed bit per connection."""
    bits = zlib.compress(PackedMask.of(mask).bits.tobytes())
    return {"shape": list(mask.shape), "kept": base64.b64encode(bits).decode("ascii")}


def decode_mask(config: Mapping[str, Any]) -> np.ndarray:
    """Returns the mask from which `encode_mask` made this.

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
        length = packed_length(shape)
        if length > _DEFLATE * len(compressed):
            raise ValueError("there are fewer bits than the shape has connections")
        return PackedMask.of_bytes(inflate(compressed, length), shape).unpack()
    except DAMAGE as error:
        raise ValueError(
            f"Expected a mask in a configuration to be as snip_tf wrote it. Received: "
            f"shape={reprlib.repr(shape)}, kept={reprlib.repr(config['kept'])}, which "
            f"are damaged: {str(error) or type(error).__name__}"
        ) from error


def mask_to_row(name: str, mask: np.ndarray) -> np.ndarray:
    """Returns a mask as a row of an HDF5 file: its bits, then a checksum.

    HDF5 has no checksum, and Keras does not read that of the archive around it.
    """
    packed = PackedMask.of(mask)
    return np.concatenate([packed.bits, _checksum(name, packed)])


def mask_from_row(name: str, row: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns the mask that `mask_to_row` wrote; raises a ValueError if damaged."""
    packed = _packed_row(row[:-4], shape)
    if not np.array_equal(row[-4:], _checksum(name, packed)):
        raise ValueError("other bits than were written")
    return packed.unpack()


def mask_from_old_row(row: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns the mask from a file of an earlier version, which has no checksums."""
    return _packed_row(row, shape).unpack()


def _packed_row(bits: np.ndarray, shape: Sequence[int]) -> PackedMask:
    if bits.dtype != np.uint8 or bits.ndim != 1:
        raise ValueError(f"an array of shape {bits.shape} and type {bits.dtype}")
    # (Keras up to 3.8 hands on what lies in the file, not yet read.)
    return PackedMask.of_bytes(np.asarray(bits).tobytes(), tuple(shape))


def _checksum(name: str, mask: PackedMask) -> np.ndarray:
    text = f"{name} {list(mask.shape)} ".encode()
    number = zlib.crc32(text + mask.bits.tobytes())
    return np.frombuffer(number.to_bytes(4, "little"), np.uint8)
