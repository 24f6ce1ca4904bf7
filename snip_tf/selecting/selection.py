"""Turns scores into masks: which connections are kept, within a budget."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from snip_tf.checks import visible
from snip_tf.masking.masks import PackedMask
from snip_tf.selecting import structures
from snip_tf.selecting.allocation import (
    Budget,
    Kernels,
    Part,
    Scope,
    Sparsity,
    minimums_of,
    shares_by_pattern,
)
from snip_tf.selecting.kernels import plain_kernels
from snip_tf.selecting.scores import as_floats
from snip_tf.selecting.structures.base import Masks, Structure
from snip_tf.selecting.structures.connections import Connections
from snip_tf.selecting.structures.units import Units
from snip_tf.selecting.threshold import Zeros


class CollapseWarning(UserWarning):
    """Issued if nothing is kept of a weight, so that nothing passes through its layer.

    Example:

    >>> import warnings, snip_tf
    >>> warnings.simplefilter("error", snip_tf.CollapseWarning)  # now it is raised
    >>> warnings.simplefilter("default", snip_tf.CollapseWarning)
    """


def select_masks(
    scores: Mapping[str, np.ndarray],
    sparsity: Sparsity,
    scope: Scope = "global",
    structure: str | Structure = "weights",
    min_kept: float = 0,
) -> dict[str, np.ndarray]:
    """Keeps the connections with the largest scores.

    Of the m scores, exactly k = round((1 - sparsity) * m) are kept: those with the
    largest values. Equal scores are kept in order, earlier weight first, then lower
    flat index, so that the choice never depends on the machine. A warning names weights
    where only this rule decides among scores of zero.

    Args:
        scores: `{weight path: array of numbers}`, of any shapes: floats up to 64 bits,
            or integers. Values of larger types must be exact in float64.
        sparsity: float, the fraction removed, 0 <= sparsity < 1; or `{path pattern:
            float}`, see `prune_model`.
        scope: what is ranked together: `"global"`, all scores; `"layer"`, those of each
            weight; `"unit"`, those of each index of its last axis; or `"erk"`, those of
            each weight, where larger weights keep a smaller fraction.
        structure: what is kept as a whole: `"weights"`, `"2:4"` (N:M) or `"4x4"`
            (blocks), or a value such as `snip_tf.NOfM(2, 4)`; see `prune_model`. The
            inputs of a weight are its last axis but one, the outputs its last.
        min_kept: int or float, the number, or the fraction, of connections that each
            weight keeps at least, at the expense of the others.

    Returns:
        `{weight path: bool array}` of the same shapes; True is kept.

    Raises:
        TypeError: if an argument is of the wrong kind, or scores are not arrays of
            numbers that float64 holds exactly.
        ValueError: if an argument has a bad value, `structure` does not divide a weight
            or needs a model (`"units"`), the arguments cannot be met together, `scores`
            is empty, or a score is NaN or infinite (the weight is named).

    Example:

    >>> import numpy as np, snip_tf
    >>> scores = {"a": np.array([3.0, 1.0]), "b": np.array([2.0, 0.5])}
    >>> snip_tf.select_masks(scores, sparsity=0.5)
    {'a': array([ True, False]), 'b': array([ True, False])}
    """
    chosen = structures.get(structure)
    if isinstance(chosen, Units):
        raise ValueError(
            f"Expected a structure of connections, since scores alone do not say which "
            f"units a network has. Received: structure={structure!r}. Use "
            f"snip_tf.prune_model(model, ..., structure={structure!r})."
        )
    arrays = as_floats(scores)
    kernels = plain_kernels({path: array.shape for path, array in arrays.items()})
    selection = Selection(kernels, sparsity, scope, min_kept, chosen)
    masks = selection.masks(arrays)
    selection.warn_of_zeros(stacklevel=3)
    return {path: mask.unpack() for path, mask in masks.items()}


class Selection:
    """What to keep of some weights, decided before there are scores.

    Args:
        kernels: `{weight path: kernel}`.
        sparsity, scope, min_kept: as in `snip_tf.prune_model`.
        structure: what is ranked; each connection by itself by default.
        earlier: `{weight path: bool array}`, the masks of weights that are pruned
            already: what was removed stays removed.
        at_most: whether to keep less where less is left.

    Attributes:
        zeros: `{weight path: int}`, for the latest masks: how many connections with a
            score of zero are kept where others with that score were removed.

    Raises:
        TypeError, ValueError: if one of them has a bad value, or they leave no choice.
    """

    def __init__(
        self,
        kernels: Kernels,
        sparsity: Sparsity,
        scope: Scope = "global",
        min_kept: float = 0,
        structure: Structure | None = None,
        earlier: Masks | None = None,
        at_most: bool = False,
    ):
        self._structure = structure or Connections()
        structures.check_request(self._structure, sparsity, scope, min_kept)
        shares = shares_by_pattern(kernels, sparsity)
        pruned = {path for share in shares for path in share.paths}
        self._kernels = {p: k for p, k in kernels.items() if p in pruned}
        self._structure.check(self._kernels)
        self._all = {path: kernel.shape for path, kernel in kernels.items()}
        self._earlier = dict(earlier or {})
        self._divided: set[str] = set()  # where zeros were removed, in any step
        self.zeros: dict[str, int] = {}
        left = self._structure.sizes(self._kernels, self._earlier)
        least = minimums_of(self._kernels, min_kept, self._structure.area)
        minimums = {path: min(n, left.get(path, n)) for path, n in least.items()}
        parts = self._structure.allocate(self._kernels, shares, scope, minimums)
        parts = [part._replace(at_most=at_most or part.at_most) for part in parts]
        self._budget = Budget(parts, minimums, left)
        for part in parts:
            self._check_left(part, scope)
            self._check_minimum(part, scope, min_kept)

    def all(self) -> dict[str, PackedMask]:
        """Returns the masks before anything else is removed."""
        masks = {path: np.ones(shape, bool) for path, shape in self._all.items()}
        return {p: _packed(m) for p, m in (masks | self._earlier).items()}

    def masks(
        self,
        scores: Mapping[str, Any],
        share: float = 1.0,
        left: Mapping[str, PackedMask] | None = None,
    ) -> dict[str, PackedMask]:
        """Keeps the connections with the largest scores.

        Args:
            scores: `{weight path: scores}`.
            share: how far to go from keeping all to the final fraction: keep^share is
                kept.
            left: masks outside of which nothing is kept.
        """
        among = self._earlier if left is None else {p: left[p].unpack() for p in left}
        ranked = as_floats(self._structure.scores(self._kernels, scores, among))
        zeros: Zeros = {}
        chosen = self._structure.choose(ranked, self._budget, share, zeros)
        masks = self._structure.masks(self._kernels, chosen)
        self._note_zeros(zeros)
        return {
            path: _within(masks.get(path), among.get(path), shape)
            for path, shape in self._all.items()
        }

    def warn_of_zeros(self, stacklevel: int) -> None:
        """Warns of what the latest masks keep only because of its position."""
        if self.zeros:
            words = self._structure.describe_zeros(self.zeros)
            warnings.warn(words, stacklevel=stacklevel)

    def warn_of_collapse(
        self, masks: Mapping[str, PackedMask], stacklevel: int
    ) -> None:
        """Warns of weights that keep no connection."""
        cut = [path for path, mask in masks.items() if not mask.bits.any()]
        if cut:
            # (Where zeros are kept by position, a lower sparsity would keep more.)
            advice = (
                "Exclude them" if self.zeros else "Lower the sparsity, exclude them"
            )
            warnings.warn(
                f"Pruning kept nothing of {', '.join(map(visible, cut))}: nothing "
                f"passes through these weights any more. {advice}, or set `min_kept`.",
                CollapseWarning,
                stacklevel=stacklevel,
            )

    def _note_zeros(self, zeros: Zeros) -> None:
        for part in self._budget.parts:
            here = {path: zeros[path] for path in part.paths if path in zeros}
            removed = sum(equal - kept for kept, equal in here.values())
            if removed:
                self._divided |= here.keys()
        self.zeros = {
            path: kept * self._structure.area
            for path, (kept, _) in zeros.items()
            if kept and path in self._divided
        }

    def _check_left(self, part: Part, scope: Scope) -> None:
        """Raises a ValueError if more is to be kept than is left."""
        fraction = 1.0 if part.at_most else self._fraction_left(part)
        if fraction < 1:
            raise ValueError(
                f"Expected a sparsity of at least {1 - fraction:g}, since the model is "
                "already pruned to that and what was removed stays removed. Received: "
                f"sparsity={part.sparsity}, scope={scope!r}. Prune the original model "
                "instead."
            )

    def _fraction_left(self, part: Part) -> float:
        """Returns the fraction left of a part that should keep more, or 1 if it can."""
        if part.rows is None:
            left = self._budget.left_of(part)
            if part.kept <= left:
                return 1.0
            total = sum(self._kernels[path].size for path in part.paths)
            return left * self._structure.area / total
        [path] = part.paths
        if path not in self._earlier or not part.kept:
            return 1.0
        groups = self._structure.groups_left(self._kernels[path], self._earlier[path])
        rows = part.rows.of(groups)
        left_of_each = rows.sum(axis=1)
        of_each, more = divmod(part.kept, len(left_of_each))
        wanted = of_each + (np.arange(len(left_of_each)) < more)
        if (wanted <= left_of_each).all():
            return 1.0
        return float(left_of_each.min() / rows.shape[1])

    def _check_minimum(self, part: Part, scope: Scope, min_kept: float) -> None:
        least = self._budget.minimum_of(part)
        if part.kept < least:
            raise ValueError(
                f"Expected a `min_kept` that the sparsity leaves room for. Received: "
                f"min_kept={min_kept}, which keeps {least} of {', '.join(part.paths)}, "
                f"where sparsity={part.sparsity} and scope={scope!r} keep {part.kept}"
            )


def _within(
    mask: PackedMask | None, among: np.ndarray | None, shape: tuple[int, ...]
) -> PackedMask:
    """Returns the intersection of two masks; None stands for a mask of ones."""
    if mask is None:
        mask = _packed(np.ones(shape, bool))
    if among is None:
        return mask
    # A group of M may have fewer than N left, and a block only some connections.
    return PackedMask(mask.bits & np.packbits(among), mask.shape)


def _packed(mask: np.ndarray) -> PackedMask:
    return PackedMask(np.packbits(mask), mask.shape)
