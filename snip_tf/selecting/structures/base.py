"""Structure: what is ranked, and the masks that follow from a choice."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from snip_tf.checks import visible
from snip_tf.masking.masks import PackedMask
from snip_tf.selecting.allocation import (
    Budget,
    Kernels,
    Minimums,
    Part,
    Scope,
    Shares,
    allocate,
)
from snip_tf.selecting.kernels import Kernel
from snip_tf.selecting.ranking import keep_in_parts
from snip_tf.selecting.scores import Scores, as_floats
from snip_tf.selecting.threshold import Zeros

Masks = Mapping[str, np.ndarray]
Division = Literal["pattern", "layer", "unit", "erk", "minimum"]


class Structure:
    """What is kept or removed as a whole: the groups that are ranked.

    Kernels, scores and masks are given by weight path. The defaults are right for
    groups that lie within one weight; a structure whose groups lie across weights uses
    names of its own for what it ranks.

    Attributes:
        why: why it lacks some divisions, as the end of a sentence.
        least: how many connections each weight keeps in any case.
    """

    why: ClassVar[str] = ""
    least: ClassVar[int] = 0

    @property
    def divisions(self) -> frozenset[Division]:
        """What the number kept can be divided by, besides the whole network.

        These are divisions whose parts contain whole groups: a group that lies across
        two parts would be counted in neither.
        """
        return frozenset({"pattern", "layer", "unit", "erk", "minimum"})

    @property
    def area(self) -> int:
        """The number of connections in a group."""
        return 1

    def check(self, kernels: Kernels) -> None:
        """Raises a ValueError where a weight cannot be divided into groups."""

    def sizes(self, kernels: Kernels, left: Masks) -> dict[str, int]:
        """Returns how many groups of each weight have connections left.

        Args:
            kernels: `{weight path: kernel}`.
            left: masks of earlier pruning.
        """
        return {
            path: int(np.count_nonzero(self.groups_left(kernel, left[path])))
            if path in left
            else kernel.size // self.area
            for path, kernel in kernels.items()
        }

    def groups_left(self, kernel: Kernel, left: np.ndarray) -> np.ndarray:
        """Returns which groups of a weight have connections left, by its mask."""
        del kernel
        return left

    def allocate(
        self, kernels: Kernels, shares: Shares, scope: Scope, minimums: Minimums
    ) -> list[Part]:
        """Returns which weights are ranked together, and how many groups are kept."""
        return allocate(kernels, self.sizes(kernels, {}), shares, scope, minimums)

    def scores(
        self, kernels: Kernels, scores: Mapping[str, Any], left: Masks
    ) -> dict[str, Any]:
        """Returns the scores of the groups: the lowest possible if nothing is left."""
        return {
            path: self._ranked(path, kernel, scores[path], left.get(path))
            for path, kernel in kernels.items()
        }

    def _ranked(
        self, path: str, kernel: Kernel, score: Any, left: np.ndarray | None
    ) -> Any:
        score = self.group_scores(path, kernel, score, left)
        groups = None if left is None else self.groups_left(kernel, left)
        if groups is None or groups.all():
            return score
        score = np.asarray(as_floats({path: score})[path])
        return np.where(groups, score, np.finfo(score.dtype).min)

    def group_scores(
        self, path: str, kernel: Kernel, score: Any, left: np.ndarray | None
    ) -> Any:
        """Returns the scores of the groups of one weight, by what is left of it."""
        del path, kernel, left
        return score

    def choose(
        self, scores: Mapping[str, Scores], budget: Budget, share: float, zeros: Zeros
    ) -> dict[str, PackedMask]:
        """Returns which groups are kept; see `keep_in_parts`."""
        return keep_in_parts(scores, budget, share, zeros)

    def masks(
        self, kernels: Kernels, chosen: Mapping[str, PackedMask]
    ) -> dict[str, PackedMask]:
        """Returns the masks of the connections of the chosen groups."""
        del kernels
        return dict(chosen)

    def describe_zeros(self, zeros: Mapping[str, int]) -> str:
        """Returns the warning about connections kept only because of their position."""
        listing = ", ".join(f"{count} of {path!r}" for path, count in zeros.items())
        return (
            f"{sum(zeros.values())} of the kept connections have a score of zero, like "
            f"others that were removed, and were chosen by position alone: {listing}. "
            "The usual reason is a layer that is initialized with zeros, this one or "
            "one after it: initialize it with small random numbers, score after a few "
            "steps of training, or leave these weights out with "
            f"exclude={list(zeros)}. Another is inputs or activations that are zero in "
            "all examples: score on more of them."
        )


def check_divides(
    structure: Structure, kernels: Kernels, divides: Callable[[Kernel], bool]
) -> None:
    """Raises a ValueError that names the weights that do not divide into groups."""
    bad = [path for path, kernel in kernels.items() if not divides(kernel)]
    if bad:
        listing = ", ".join(f"{visible(p)} of shape {kernels[p].shape}" for p in bad)
        raise ValueError(
            f"Expected weights whose inputs (and outputs) the structure divides. "
            f"Received: structure='{structure}', with {listing}. "
            f"To prune the rest, exclude={[glob.escape(path) for path in bad]}."
        )
