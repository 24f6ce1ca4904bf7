"""The largest scores of each part of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from snip_tf.masking.masks import PackedMask
from snip_tf.selecting.allocation import Budget, Part
from snip_tf.selecting.kernels import Rows
from snip_tf.selecting.scores import Scores, check_finite
from snip_tf.selecting.threshold import Zeros, keep_largest

_MOST_AT_ONCE = 1 << 20  # entries of rows that are ranked together


def keep_in_parts(
    scores: Mapping[str, Scores], budget: Budget, share: float, zeros: Zeros
) -> dict[str, PackedMask]:
    """Returns the masks of the largest scores of each part.

    Args:
        scores: `{weight path: scores}`.
        budget: how many are kept, and which weights are ranked together.
        share: how far to go from all connections to these; see `Selection.masks`.
        zeros: filled with the ties among scores of zero that order decides.
    """
    masks: dict[str, PackedMask] = {}
    for part in budget.parts:
        own = {path: scores[path] for path in part.paths}
        if part.rows is None:
            kept = _kept_on_the_way(budget.left_of(part), part.kept, share)
            masks |= _keep_with_minimums(own, kept, budget.minimums, zeros)
        else:
            [(path, score)] = own.items()
            masks[path] = _keep_in_rows(path, score, part, part.rows, share, zeros)
    return masks


def _kept_on_the_way(left: int, kept: int, share: float) -> int:
    if share == 1 or not left:
        return kept
    # At least one, so that there are scores until the last step.
    return round(left * (max(kept, 1) / left) ** share)


def _keep_with_minimums(
    scores: Mapping[str, Scores], kept: int, minimums: Mapping[str, int], zeros: Zeros
) -> dict[str, PackedMask]:
    """Keeps the `kept` largest, but of each weight at least its minimum."""
    own: Zeros = {}
    masks = keep_largest(scores, kept, own)
    short = {
        path: minimums[path]
        for path, mask in masks.items()
        if minimums.get(path, 0) > mask.kept()
    }
    if not short:
        zeros.update(own)
        return masks
    for path, least in short.items():
        masks.update(keep_largest({path: scores[path]}, least, zeros))
    # With fewer for the rest the threshold rises, so weights below their minimum stay
    # below.
    rest = {path: score for path, score in scores.items() if path not in short}
    if rest:
        left = kept - sum(short.values())
        masks.update(_keep_with_minimums(rest, left, minimums, zeros))
    return masks


def _keep_in_rows(
    path: str, scores: Scores, part: Part, view: Rows, share: float, zeros: Zeros
) -> PackedMask:
    """Returns the mask of the largest scores of each row.

    Where the rows do not divide the number kept, the first rows keep one more.
    """
    check_finite(path, scores)
    array = np.asarray(scores)
    kept = np.zeros(array.shape, bool)
    tied = np.zeros(2, int)  # zeros kept, and all zeros, in rows that keep only some
    if array.size:
        rows = view.of(array)
        of_each, more = divmod(part.kept, len(rows))
        mask = np.empty(rows.shape, bool)
        for some, final in ((slice(more), of_each + 1), (slice(more, None), of_each)):
            count = _of_row_on_the_way(rows.shape[1], final, share)
            tied += _keep_largest_of_each(rows[some], count, mask[some])
        kept = view.array(mask, array.shape)
    if tied.any():
        zeros[path] = int(tied[0]), int(tied[1])
    return PackedMask(np.packbits(kept), kept.shape)


def _of_row_on_the_way(length: int, kept: int, share: float) -> int:
    if share == 1:
        return kept
    # Rows are short: rounded up, none loses what it keeps in the end.
    return math.ceil(length * (max(kept, 1) / length) ** share - 1e-9)


def _keep_largest_of_each(
    rows: np.ndarray, count: int, mask: np.ndarray
) -> tuple[int, int]:
    """Writes the mask of the `count` largest of each row, the first among ties.

    Returns, for the rows that keep only some of their zeros, how many zeros are kept
    and how many there are.
    """
    length = rows.shape[1]
    if count in (0, length):
        mask[:] = count > 0
        return 0, 0
    kept_zeros = all_zeros = 0
    at_once = max(1, _MOST_AT_ONCE // length)
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        threshold = np.partition(some, length - count)[:, length - count, np.newaxis]
        above, equal = some > threshold, some == threshold
        missing = count - above.sum(axis=1, keepdims=True)
        first = equal & (equal.cumsum(axis=1) <= missing)
        mask[start : start + at_once] = above | first
        number = equal.sum(axis=1, keepdims=True)
        divided = (threshold == 0) & (missing < number)
        kept_zeros += int(missing[divided].sum())
        all_zeros += int(number[divided].sum())
    return kept_zeros, all_zeros
