"""Scores to masks: which connections are kept, within a budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from snip_tf.masking.masks import PackedMask
from snip_tf.scoring.scores import Scores, as_floats
from snip_tf.selecting.allocation import Scope, Shapes, floors, groups, lifted
from snip_tf.selecting.structure import Blocks, NOfM
from snip_tf.selecting.threshold import Zeros, keep_largest


def select_masks(
    scores: Mapping[str, np.ndarray],
    sparsity: float,
    scope: Scope = "global",
    *,
    min_kept: float = 0,
) -> dict[str, np.ndarray]:
    """Keeps the connections with the largest scores.

    Of the m scores, exactly k = round((1 - sparsity) * m) are kept: those with the
    largest values. Equal scores are kept in order, earlier weight first, then lower
    flat index, so that the choice never depends on the machine. A warning says where
    that rule alone chooses among scores of zero.

    Args:
        scores: `{weight path: array of numbers}`, of any shapes: floats up to 64 bits,
            or integers. Of larger types, values that are exact in 64 bits.
        sparsity: the fraction removed, 0 <= sparsity < 1.
        scope: `"global"` ranks all scores together; `"layer"` removes the same fraction
            from each weight by itself; `"erk"` more from larger ones; or
            `{path pattern: sparsity}`: see `prune_model`.
        min_kept: int or float, the number, or the fraction, of connections that each
            weight keeps at least, at the expense of the others.

    Returns:
        `{weight path: bool array}` of the same shapes; True is kept.

    Raises:
        TypeError: if `sparsity` is not a number, or scores are not arrays of numbers
            that float64 has exactly.
        ValueError: if `sparsity` is outside [0, 1), `scope` is unknown, `scores` is
            empty, a score is NaN or infinite (the weight is named), or the budgets
            cannot be met together.

    Example:

    >>> import numpy as np, snip_tf
    >>> scores = {"a": np.array([3.0, 1.0]), "b": np.array([2.0, 0.5])}
    >>> snip_tf.select_masks(scores, sparsity=0.5)
    {'a': array([ True, False]), 'b': array([ True, False])}
    """
    arrays = as_floats(scores)
    shapes = {path: array.shape for path, array in arrays.items()}
    selection = Selection(shapes, sparsity, scope, min_kept)
    chosen = selection.masks(arrays)
    warn_of_zeros(selection.zeros, stacklevel=3)
    return {path: mask.unpack() for path, mask in chosen.items()}


def warn_of_zeros(zeros: Mapping[str, int], stacklevel: int) -> None:
    """Warns of connections that are kept by their position alone."""
    if not zeros:
        return
    listing = ", ".join(f"{count} of {path!r}" for path, count in zeros.items())
    warnings.warn(
        f"{sum(zeros.values())} of the kept connections have a score of zero, as "
        f"others that are removed, and were chosen by their position alone: {listing}. "
        f"The usual reason is a layer that is initialized with zeros, this one or one "
        f"after it: initialize it with small random numbers, score after a few steps "
        f"of training, or leave these weights out with exclude={list(zeros)}. Another "
        f"is inputs or activations that are zero in all examples: score on more of "
        f"them.",
        stacklevel=stacklevel,
    )


class Selection:
    """What is to be kept of some weights, before there are scores.

    Args:
        shapes: `{weight path: shape}`.
        sparsity, scope, min_kept: as in `snip_tf.prune_model`.
        pattern: connections that go together; None if each goes by itself.
        earlier: `{weight path: bool array}`, of weights that are pruned already: what
            was removed stays removed.

    Attributes:
        zeros: `{weight path: int}`, of the masks made last: how many connections with a
            score of zero are kept, where others with that score were removed.

    Raises:
        TypeError, ValueError: if one of them has a bad value, or they leave no choice.
    """

    def __init__(
        self,
        shapes: Shapes,
        sparsity: float,
        scope: Scope = "global",
        min_kept: float = 0,
        pattern: NOfM | Blocks | None = None,
        earlier: Mapping[str, np.ndarray] | None = None,
    ):
        self._area = area = pattern.area if isinstance(pattern, Blocks) else 1
        self._shapes, self._pattern, self._earlier = (
            shapes,
            pattern,
            dict(earlier or {}),
        )
        self.zeros: dict[str, int] = {}
        self._divided: set[str] = set()  # where zeros were removed, in any step
        self._groups = groups(shapes, sparsity, scope, area)
        # How many there are to choose from.
        self._there = {path: math.prod(shape) // area for path, shape in shapes.items()}
        for path, mask in self._earlier.items():
            self._there[path] = self._count(path, mask)
        least = floors(shapes, min_kept, area)
        self._floors = {path: min(n, self._there[path]) for path, n in least.items()}
        self._groups = lifted(self._groups, self._floors)
        if isinstance(pattern, NOfM):
            _check_n_of_m(pattern, sparsity, scope, min_kept)
        else:
            self._check(shapes, sparsity, scope, min_kept)

    def all(self) -> dict[str, PackedMask]:
        """The masks before anything more is removed."""
        masks = {path: np.ones(shape, bool) for path, shape in self._shapes.items()}
        masks |= self._earlier
        return {p: PackedMask(np.packbits(m), m.shape) for p, m in masks.items()}

    def masks(
        self,
        scores: Mapping[str, Any],
        share: float = 1.0,
        left: Mapping[str, PackedMask] | None = None,
    ) -> dict[str, PackedMask]:
        """Keeps those with the largest scores.

        Args:
            scores: `{weight path: scores}`.
            share: of the way from all to what is to be kept in the end: the fraction
                keep^share is kept.
            left: masks outside of which nothing is kept.
        """
        among = self._earlier if left is None else {p: left[p].unpack() for p in left}
        arrays = as_floats(
            {path: self._ranked(path, s, among.get(path)) for path, s in scores.items()}
        )
        zeros: Zeros = {}
        if isinstance(self._pattern, NOfM):
            masks = self._pattern.keep(arrays, share, zeros)
        else:
            masks = {}
            for group in self._groups:
                there = sum(self._there[path] for path in group.paths)
                kept = group.kept
                if share < 1 and there:
                    # One at least, so that there are scores until the last step.
                    kept = round(there * (max(kept, 1) / there) ** share)
                one = {path: arrays[path] for path in group.paths}
                masks.update(_keep_with_floors(one, kept, self._floors, zeros))
            if self._pattern:
                masks = {
                    p: self._pattern.of_connections(p, m) for p, m in masks.items()
                }
            masks = {path: masks[path] for path in scores}
        self._note_zeros(zeros)
        for path, mask in among.items():
            # A group of M may have had fewer than N left, a block less than all.
            bits = masks[path].bits & np.packbits(mask)
            masks[path] = PackedMask(bits, masks[path].shape)
        return masks

    def _note_zeros(self, zeros: Zeros) -> None:
        for group in self._groups:
            here = [zeros[path] for path in group.paths if path in zeros]
            if sum(kept for kept, _ in here) < sum(equal for _, equal in here):
                self._divided |= {path for path in group.paths if path in zeros}
        self.zeros = {
            path: kept * self._area
            for path, (kept, _) in zeros.items()
            if kept and path in self._divided
        }

    def _ranked(self, path: str, score: Any, mask: np.ndarray | None) -> Any:
        """The scores of what is counted, the lowest possible where none is left."""
        if isinstance(self._pattern, Blocks):
            score = np.asarray(score) if mask is None else np.where(mask, score, 0)
            score = self._pattern.of_blocks(path, score)
            mask = None if mask is None else self._blocks_left(path, mask)
        if mask is None or mask.all():
            return score
        score = np.asarray(as_floats({path: score})[path])
        return np.where(mask, score, np.finfo(score.dtype).min)

    def _blocks_left(self, path: str, mask: np.ndarray) -> np.ndarray:
        return self._pattern.of_blocks(path, mask.astype(np.float32)) > 0

    def _count(self, path: str, mask: np.ndarray) -> int:
        if isinstance(self._pattern, Blocks):
            mask = self._blocks_left(path, mask)
        return np.count_nonzero(mask)

    def _check(
        self, shapes: Shapes, sparsity: float, scope: Scope, min_kept: float
    ) -> None:
        for group in self._groups:
            there = sum(self._there[path] for path in group.paths)
            if group.kept > there:
                total = sum(math.prod(shapes[path]) for path in group.paths)
                raise ValueError(
                    f"Expected a sparsity of at least "
                    f"{1 - there * self._area / total:g}, as the model is pruned to "
                    f"that already and what was removed stays removed. Received: "
                    f"sparsity={sparsity}, scope={scope!r}. Prune the original model "
                    f"instead."
                )
            least = sum(self._floors[path] for path in group.paths)
            if group.kept < least:
                raise ValueError(
                    f"Expected a `min_kept` (with on_collapse='keep' it is 1 at least) "
                    f"that the sparsity leaves room for. "
                    f"Received: min_kept={min_kept}, which keeps {least} of "
                    f"{', '.join(group.paths)}, where sparsity={sparsity} and "
                    f"scope={scope!r} keep {group.kept}"
                )


def _keep_with_floors(
    scores: Mapping[str, Scores], kept: int, floors: Mapping[str, int], zeros: Zeros
) -> dict[str, PackedMask]:
    """The `kept` largest, but of each weight its floor at least."""
    own: Zeros = {}
    masks = keep_largest(scores, kept, own)
    short = {
        path: floors[path]
        for path, mask in masks.items()
        if floors[path] > np.bitwise_count(mask.bits).sum()
    }
    if not short:
        zeros.update(own)
        return masks
    for path, least in short.items():
        masks.update(keep_largest({path: scores[path]}, least, zeros))
    # With fewer for the rest the threshold rises: the short ones stay short.
    rest = {path: score for path, score in scores.items() if path not in short}
    if rest:
        left = kept - sum(short.values())
        masks.update(_keep_with_floors(rest, left, floors, zeros))
    return masks


def _check_n_of_m(
    pattern: NOfM, sparsity: float, scope: Scope, min_kept: float
) -> None:
    removed = 1 - pattern.n / pattern.m
    if (
        abs(sparsity - removed) > 5e-4  # thirds in a few decimals
        or scope != "global"
        or min_kept not in (0, 1)
    ):
        raise ValueError(
            f"Expected sparsity={removed:g}, scope='global' and no `min_kept` with "
            f"pattern='{pattern.n}:{pattern.m}', which says what is kept of every "
            f"weight. Received: sparsity={sparsity}, scope={scope!r}, "
            f"min_kept={min_kept}"
        )
