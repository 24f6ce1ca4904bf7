"""Masks as values: what they must be, as bits, and in a file."""

from __future__ import annotations

import base64
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from snip_tf.files import whole_file
from snip_tf.weights import check_paths

_FORMAT = "snip_tf masks 1"


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
        bits = np.unpackbits(self.bits, count=int(np.prod(self.shape)))
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
    and renamed, so that no half-written file is ever found under `path`.

    Args:
        path: where to write, such as `masks.npz`. No ending is added.
        masks: `{weight path: bool array}`, as `get_masks` returns.

    Raises:
        TypeError: if a mask is not a boolean array.
        ValueError: if there are no masks.

    Example:

    >>> import numpy as np, snip_tf, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> snip_tf.save_masks(folder + "/m.npz", {"out/kernel": np.eye(2, dtype=bool)})
    >>> snip_tf.load_masks(folder + "/m.npz")["out/kernel"].tolist()
    [[True, False], [False, True]]
    """
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
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            if header["format"] != _FORMAT:
                raise ValueError(f"its format is {header['format']!r}")
            masks = {}
            for index, (name, shape) in enumerate(header["shapes"].items()):
                size = int(np.prod(shape))
                packed = archive[f"bits{index}"]
                if packed.dtype != np.uint8 or packed.size != -(-size // 8):
                    raise ValueError(f"{name!r} has the wrong number of bits")
                masks[name] = PackedMask(packed, shape).unpack()
            return masks
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # not there, not readable: the system's own words are best
        raise _damaged(path, error) from error
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask as text, for a configuration: one bit for each connection, compressed."""
    bits = zlib.compress(np.packbits(mask).tobytes())
    return {"shape": list(mask.shape), "kept": base64.b64encode(bits).decode("ascii")}


def decode_mask(config: Mapping[str, Any]) -> np.ndarray:
    """The mask that `encode_mask` made this of."""
    bits = zlib.decompress(base64.b64decode(config["kept"]))
    return PackedMask(np.frombuffer(bits, np.uint8), config["shape"]).unpack()


def _damaged(path: str | os.PathLike, error: Exception) -> ValueError:
    return ValueError(
        f"Expected a file that `snip_tf.save_masks` wrote ({_FORMAT!r}). "
        f"Received: {os.fspath(path)!r}, which is damaged or of another kind: {error}"
    )
