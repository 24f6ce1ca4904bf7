"""Blocks of connections."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from snip_tf.checks import check_count
from snip_tf.masking.masks import PackedMask
from snip_tf.selecting.allocation import Kernels
from snip_tf.selecting.kernels import Kernel
from snip_tf.selecting.scores import check_finite
from snip_tf.selecting.structures.base import (
    Division,
    Structure,
    check_divides,
)


@dataclasses.dataclass(frozen=True)
class Blocks(Structure):
    """Keeps or removes blocks of inputs by outputs as a whole.

    A block is ranked by the sum of the scores of its connections, and `sparsity` is the
    fraction of blocks. `Blocks(4, 4)` is also written `"4x4"`.

    Args:
        inputs: int, how many successive inputs a block has. The number of inputs of
            each weight must be a multiple of it.
        outputs: int, how many outputs, likewise.

    Raises:
        TypeError: if one of them is not a whole number.
        ValueError: if one of them is below 1, or both are 1.

    Example:

    >>> import numpy as np, snip_tf
    >>> scores = {"a": np.array([[3.0, 1.0], [2.0, 1.0]])}
    >>> masks = snip_tf.select_masks(scores, 0.5, structure=snip_tf.Blocks(2, 1))
    >>> masks["a"].tolist()
    [[True, False], [True, False]]
    """

    inputs: int
    outputs: int
    why: ClassVar[str] = "whose blocks lie across several outputs"

    def __post_init__(self) -> None:
        check_count("inputs", self.inputs)
        check_count("outputs", self.outputs)
        if self.area == 1:
            raise ValueError(
                "Expected a block of more than one connection. "
                "Received: inputs=1, outputs=1"
            )

    def __str__(self) -> str:
        return f"{self.inputs}x{self.outputs}"

    @property
    def divisions(self) -> frozenset[Division]:
        """All divisions, but by outputs only if a block has a single one."""
        across: set[Division] = {"unit"} if self.outputs > 1 else set()
        return super().divisions - across

    @property
    def area(self) -> int:
        """The number of connections in a block."""
        return self.inputs * self.outputs

    def check(self, kernels: Kernels) -> None:
        """Raises a ValueError where a weight does not divide into blocks."""

        def divides(kernel: Kernel) -> bool:
            sides = self._sides(kernel)
            return len(sides) == 2 and not any(
                kernel.shape[axis] % size for axis, size in sides.items()
            )

        check_divides(self, kernels, divides)

    def _sides(self, kernel: Kernel) -> dict[int, int]:
        """Returns the length of a block along each axis of a weight."""
        inputs = {} if kernel.inputs is None else {kernel.inputs: self.inputs}
        return inputs | dict.fromkeys(kernel.outputs[-1:], self.outputs)

    def groups_left(self, kernel: Kernel, left: np.ndarray) -> np.ndarray:
        """Returns which blocks of a weight have connections left."""
        return self._sums(kernel, left.astype(np.float32)) > 0

    def group_scores(
        self, path: str, kernel: Kernel, score: Any, left: np.ndarray | None
    ) -> np.ndarray:
        """Returns the scores of the blocks of a weight: sums over what is left."""
        score = np.asarray(score) if left is None else np.where(left, score, 0)
        check_finite(path, score)
        return self._sums(kernel, score)

    def _sums(self, kernel: Kernel, array: np.ndarray) -> np.ndarray:
        for axis, size in self._sides(kernel).items():
            shape = list(array.shape)
            shape[axis : axis + 1] = [shape[axis] // size, size]
            array = array.reshape(shape).sum(axis + 1)
        return array

    def masks(
        self, kernels: Kernels, chosen: Mapping[str, PackedMask]
    ) -> dict[str, PackedMask]:
        """Returns the masks of the connections of the chosen blocks."""
        masks = {}
        for path, mask in chosen.items():
            array = mask.unpack()
            for axis, size in self._sides(kernels[path]).items():
                array = array.repeat(size, axis)
            masks[path] = PackedMask(np.packbits(array), array.shape)
        return masks
