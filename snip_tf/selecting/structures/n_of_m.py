"""N of each M connections, the format of a GPU's sparse tensor cores."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from snip_tf.checks import check_count
from snip_tf.selecting.allocation import Kernels, Minimums, Part, Scope, Shares
from snip_tf.selecting.kernels import Kernel
from snip_tf.selecting.structures.base import (
    Division,
    Structure,
    check_divides,
)


@dataclasses.dataclass(frozen=True)
class NOfM(Structure):
    """Keeps the N best of each M successive connections along the input axis.

    `sparsity` is 1 - N / M. `NOfM(2, 4)` is also written `"2:4"`.

    Args:
        n: int, how many are kept, 1 or more.
        m: int, of how many, more than `n`. The number of inputs of each weight must be
            a multiple of it.

    Raises:
        TypeError: if one of them is not a whole number.
        ValueError: if they are out of range.

    Example:

    >>> import numpy as np, snip_tf
    >>> scores = {"a": np.array([[3.0], [1.0], [2.0], [4.0]])}
    >>> masks = snip_tf.select_masks(scores, 0.5, structure=snip_tf.NOfM(1, 2))
    >>> masks["a"].ravel().tolist()
    [True, False, False, True]
    """

    n: int
    m: int
    why: ClassVar[str] = "which fixes what is kept of every weight"
    least: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_count("n", self.n)
        check_count("m", self.m)
        if self.n >= self.m:
            raise ValueError(
                f"Expected `n` to be below `m`. Received: n={self.n}, m={self.m}"
            )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def divisions(self) -> frozenset[Division]:
        """Patterns only, which choose the weights to prune."""
        return frozenset({"pattern"})

    def check(self, kernels: Kernels) -> None:
        """Raises a ValueError where M does not divide the inputs of a weight."""

        def divides(kernel: Kernel) -> bool:
            return (
                kernel.inputs is not None and not kernel.shape[kernel.inputs] % self.m
            )

        check_divides(self, kernels, divides)

    def allocate(
        self, kernels: Kernels, shares: Shares, scope: Scope, minimums: Minimums
    ) -> list[Part]:
        """Returns rows of M connections, each of which keeps N."""
        del scope, minimums
        parts, removed = [], 1 - self.n / self.m
        for paths, sparsity in shares:
            if abs(sparsity - removed) > 5e-4:  # thirds in a few decimals
                raise ValueError(
                    f"Expected sparsity={removed:g} with structure='{self}', {self.why}"
                    f". Received: sparsity={sparsity}"
                )
            for path in paths:
                rows = kernels[path].rows_of_inputs(self.m)
                kept = kernels[path].size // self.m * self.n
                parts.append(Part((path,), kept, sparsity, rows, at_most=True))
        return parts
