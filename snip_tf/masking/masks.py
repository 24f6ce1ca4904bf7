"""Checks masks, and packs them into bits."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from snip_tf.checks import check_paths

_MOST_DIMENSIONS = 32


class PackedMask(NamedTuple):
    """A bit-packed mask: one bit per connection.

    Attributes:
        bits: bytes, as `numpy.packbits` makes them of the flat mask.
        shape: that of the mask.
    """

    bits: np.ndarray
    shape: Sequence[int]

    @classmethod
    def of(cls, mask: np.ndarray) -> PackedMask:
        """Packs a boolean array."""
        return cls(np.packbits(mask), mask.shape)

    @classmethod
    def of_bytes(cls, content: bytes, shape: Any) -> PackedMask:
        """Makes a mask from bytes; raises a ValueError unless they fit the shape."""
        if len(content) != packed_length(shape):
            raise ValueError(f"{len(content)} bytes do not fit a mask of shape {shape}")
        beyond = -math.prod(shape) % 8
        if content and content[-1] & ((1 << beyond) - 1):
            raise ValueError(f"there are bits beyond a mask of shape {shape}")
        return cls(np.frombuffer(content, np.uint8), shape)

    def unpack(self) -> np.ndarray:
        """Returns the boolean array."""
        bits = np.unpackbits(self.bits, count=math.prod(self.shape))
        return bits.view(bool).reshape(self.shape)

    def kept(self) -> int:
        """Returns how many connections are kept."""
        return int(np.count_nonzero(np.unpackbits(self.bits)))


def packed_length(shape: Any) -> int:
    """Returns the bytes that a mask takes; raises a ValueError for an invalid shape."""
    sizes = shape if isinstance(shape, (list, tuple)) else [None]
    if len(sizes) > _MOST_DIMENSIONS or any(type(s) is not int or s < 0 for s in sizes):
        raise ValueError(f"{reprlib.repr(shape)} is not the shape of a mask")
    return -(-math.prod(sizes) // 8)


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
        _check_mask(path, mask)
    if weights is not None:
        check_paths(masks, weights, "The paths of `masks`")
        for path, mask in masks.items():
            check_fits(path, mask, weights[path])


def _check_mask(path: Any, mask: Any) -> None:
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


def check_fits(path: str, mask: Any, weight: keras.Variable) -> None:
    """Raises unless a mask has the shape of its weight."""
    if tuple(mask.shape) != tuple(weight.shape):
        raise ValueError(
            f"Expected each mask to have the shape of its weight. Received: "
            f"masks[{path!r}] of shape {tuple(mask.shape)}, for a weight of shape "
            f"{tuple(weight.shape)}"
        )
