"""Finds exactly the k largest of all scores, without sorting them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.masking.masks import PackedMask
from snip_tf.selecting.scores import (
    Product,
    Scores,
    check_finite,
    chunks,
    sample,
)

# The range of the threshold is estimated from a sample of at most this many scores.
_FEWEST_SAMPLED, _MOST_SAMPLED = 1 << 18, 1 << 22
# At most this many scores in that range are held back, 16 bytes each: four times the
# usual number for a billion.
_MOST_NEAR = 1 << 22
# The number of bins of a histogram (4 MB), which one pass over a large network
# justifies.
_FEWEST_BINS, _MOST_BINS = 1 << 12, 1 << 19


# For each weight with zeros at the threshold: how many are kept, and of how many.
Zeros = dict[str, tuple[int, int]]


def keep_largest(
    scores: Mapping[str, Scores], kept: int, zeros: Zeros | None = None
) -> dict[str, PackedMask]:
    """Returns the masks of the `kept` largest of all scores.

    Equal scores are kept in order, earlier weight first, then lower flat index.

    Every score is read once, in chunks: a sample tells in which narrow range the k-th
    largest lies, so that scores above it are kept at once, and only the few inside it
    are held back and ranked. Where these are too many because scores tie, or the sample
    misleads, a radix select finds the threshold: a float's bits, read as an integer
    (after flipping them for negative numbers), sort as the floats do, so a histogram of
    these integers over all weights, then one inside the chosen bin, and so on until a
    bin is a single value, gives the k-th largest. Nothing is concatenated, and apart
    from the masks no memory grows with the number of scores.

    Args:
        scores: `{weight path: scores}`, all of one float type.
        kept: int, from 0 to the number of scores.
        zeros: filled, where the threshold is zero, with the ties that order decides.

    Raises:
        ValueError: if a score is NaN or infinite (the weight is named).
    """
    threshold, ties = np.inf, 0
    masks = {
        path: PackedMask(np.zeros(-(-score.size // 8), np.uint8), score.shape)
        for path, score in scores.items()
    }
    if not kept:
        for path, score in scores.items():
            check_finite(path, score)
    elif products := _on_accelerator(scores):
        threshold, ties = _threshold_on_accelerator(products, kept)
        _keep_above(scores, masks, threshold, ties)
    else:
        lowest, highest = _likely_range(scores, kept)
        found = _keep_in_one_pass(scores, masks, kept, lowest, highest)
        if found:
            threshold, ties = found
        else:
            threshold, ties = _threshold(scores, kept, lowest, highest)
            _keep_above(scores, masks, threshold, ties)
    # (An accelerator may flush the smallest numbers to zero.)
    is_zero = abs(threshold) < np.finfo(_dtype(scores)).tiny
    if zeros is not None and is_zero and ties:
        zeros.update(_count_zeros(scores, masks))
    return masks


def _count_zeros(
    scores: Mapping[str, Scores], masks: Mapping[str, PackedMask]
) -> Zeros:
    """Counts the zeros of each weight, where the threshold is zero."""
    zeros = {}
    for path, score in scores.items():
        start = kept = equal = 0
        for chunk in chunks(score):
            zero = chunk == 0
            bits = masks[path].bits[start // 8 :]
            equal += int(np.count_nonzero(zero))
            here = zero & np.unpackbits(bits, count=zero.size)
            kept += int(np.count_nonzero(here))
            start += chunk.size
        zeros[path] = kept, equal
    return zeros


def _keep_in_one_pass(
    scores: Mapping[str, Scores],
    masks: Mapping[str, PackedMask],
    kept: int,
    lowest: float,
    highest: float,
) -> tuple[float, int] | None:
    """Sets the masks, if the threshold is one of few scores from `lowest` to `highest`.

    Returns the threshold, and how many scores that equal it are kept; None if it is
    elsewhere. Raises a ValueError if a score is NaN or infinite.
    """
    near = []  # (bits of the mask, positions, scores) inside the range
    wanted, room = kept, _MOST_NEAR
    for path, score in scores.items():
        bits, start = masks[path].bits, 0
        for chunk in chunks(score):
            _check_chunk(chunk, path, score)
            above = chunk > highest
            wanted -= int(np.count_nonzero(above))
            _pack(above, bits, start)
            inside = np.flatnonzero(np.not_equal(chunk >= lowest, above, out=above))
            room -= inside.size
            if room < 0:
                return None
            near.append((bits, inside + start, chunk[inside]))
            start += chunk.size
    values = np.concatenate([values for *_, values in near])
    if not 0 <= wanted <= values.size:
        return None
    if not wanted:
        return highest, 0
    threshold = np.partition(values, values.size - wanted)[values.size - wanted]
    ties = left = wanted - int(np.count_nonzero(values > threshold))
    for bits, positions, values in near:
        keep, left = _above(values, threshold, left)
        positions = positions[keep]
        one = (128 >> (positions & 7)).astype(np.uint8)
        np.bitwise_or.at(bits, positions >> 3, one)
    return threshold, ties


def _keep_above(
    scores: Mapping[str, Scores],
    masks: Mapping[str, PackedMask],
    threshold: float,
    ties: int,
) -> None:
    """Sets the masks of scores above the threshold, and of `ties` that equal it."""
    products = _on_accelerator(scores)
    for path, score in scores.items():
        start = 0
        there = products.get(path)
        for chunk in there.chunks_on_accelerator() if there else chunks(score):
            keep, ties = _above(chunk, threshold, ties)
            _pack(keep, masks[path].bits, start)
            start += keep.size


def _above(values: Any, threshold: float, ties: int) -> tuple[np.ndarray, int]:
    """Returns which values are above the threshold, or among its first `ties`.

    Also returns how many ties are left. Without this rule, a network with many equal
    scores (zeros, above all) would keep more or fewer than k.
    """
    keep = np.array(_backend.on_host(values > threshold))
    if ties:
        first = np.flatnonzero(_backend.on_host(values == threshold))[:ties]
        keep[first] = True
        ties -= first.size
    return keep, ties


def _pack(keep: np.ndarray, bits: np.ndarray, start: int) -> None:
    """Writes a chunk of a mask, which starts at a multiple of eight, as bits."""
    packed = np.packbits(keep)
    bits[start // 8 : start // 8 + packed.size] = packed


def _likely_range(scores: Mapping[str, Scores], kept: int) -> tuple[float, float]:
    """Returns the range in which the threshold should be."""
    total = sum(score.size for score in scores.values())
    sampled = min(max(_FEWEST_SAMPLED, total >> 8), _MOST_SAMPLED)
    step = max(4, total // sampled)
    # A step that divides the width of a weight would sample only a few units.
    while math.gcd(step, 2 * 3 * 5 * 7) > 1:
        step += 1
    drawn = np.concatenate([sample(score, step) for score in scores.values()])
    removed = 1 - kept / total
    # Five standard deviations on each side, and one score for rounding.
    margin = 5 * math.sqrt(len(drawn) * removed * (1 - removed)) + 1
    first = int(len(drawn) * removed - margin)
    last = int(len(drawn) * removed + margin)
    drawn.partition(np.clip([first, last], 0, len(drawn) - 1))
    lowest = drawn[first] if first >= 0 else -np.inf
    highest = drawn[last] if last < len(drawn) else np.inf
    return lowest, highest


def _threshold(
    scores: Mapping[str, Scores], kept: int, lowest: float, highest: float
) -> tuple[float, int]:
    """Returns the `kept`-th largest score, and how many scores that equal it to keep.

    The search begins between `lowest` and `highest`.
    """
    total = sum(score.size for score in scores.values())
    bins = max(_FEWEST_BINS, min(_MOST_BINS, total >> 7))
    low, high = map(int, _sort_keys(np.array([lowest, highest], _dtype(scores))))
    while True:
        shift = max(0, (high - low).bit_length() - bins.bit_length() + 1)
        above, histogram = _count(scores, low, high, shift)
        wanted = kept - above  # scores in the range, from the top
        if not 0 < wanted <= histogram.sum():
            low, high = _all_keys(scores)  # the sample was not like the rest
            continue
        from_the_top = histogram[::-1].cumsum()
        position = int(np.searchsorted(from_the_top, wanted))
        chosen = len(histogram) - 1 - position
        low += chosen << shift
        if shift == 0:
            ties = wanted - int(from_the_top[position] - histogram[chosen])
            return _score_of(low, _dtype(scores)), ties
        high = min(high, low + (1 << shift) - 1)


def _count(
    scores: Mapping[str, Scores], low: int, high: int, shift: int
) -> tuple[int, np.ndarray]:
    """Counts the sort keys above `high`, with a histogram of those from `low` to it.

    A bin holds 2^shift keys. Raises a ValueError if a score is NaN or infinite.
    """
    above, histogram = 0, np.zeros(((high - low) >> shift) + 1, np.int64)
    lowest, highest = (_score_of(key, _dtype(scores)) for key in (low, high))
    for path, score in scores.items():
        for chunk in chunks(score):
            _check_chunk(chunk, path, score)
            # Floats are compared first, so that only few keys have to be computed.
            outside = chunk > highest
            above += int(np.count_nonzero(outside))
            outside |= chunk < lowest
            keys = _sort_keys(chunk.compress(np.logical_not(outside, out=outside)))
            bins = ((keys - keys.dtype.type(low)) >> shift).astype(np.intp)
            if 8 * bins.size > histogram.size:
                histogram += np.bincount(bins, minlength=histogram.size)
            else:
                np.add.at(histogram, bins, 1)
    return above, histogram


def _on_accelerator(scores: Mapping[str, Scores]) -> dict[str, Product]:
    """Returns the scores if a GPU or a TPU holds them all, else an empty dict."""
    products = {path: s for path, s in scores.items() if isinstance(s, Product)}
    there = len(products) == len(scores) and all(
        product.on_accelerator for product in products.values()
    )
    return products if there else {}


def _check_chunk(chunk: np.ndarray, path: str, scores: Scores) -> None:
    """Runs `check_finite` on all scores of a weight if a chunk gives reason to."""
    # (Both are NaN if any score of the chunk is.)
    if not (np.isfinite(chunk.min()) and np.isfinite(chunk.max())):
        check_finite(path, scores)


def _dtype(scores: Mapping[str, Scores]) -> np.dtype:
    return next(iter(scores.values())).dtype


def _sort_keys(values: np.ndarray) -> np.ndarray:
    """Returns unsigned integers that sort as the floats do."""
    # Adding 0 turns -0.0 into 0.0, so that the two tie.
    bits = (values + values.dtype.type(0)).view(f"u{values.dtype.itemsize}")
    sign = _sign(bits.dtype)
    # A negative float sorts by its bits in reverse, below every non-negative one.
    return np.where(bits & sign, ~bits, bits | sign)


def _score_of(key: int, dtype: np.dtype) -> float:
    """Returns the float that has a sort key."""
    keys = np.array([key], f"u{dtype.itemsize}")
    sign = _sign(keys.dtype)
    return np.where(keys & sign, keys ^ sign, ~keys).view(dtype)[0]


def _sign(unsigned: np.dtype) -> np.unsignedinteger:
    return unsigned.type(1 << (8 * unsigned.itemsize - 1))


def _all_keys(scores: Mapping[str, Scores]) -> tuple[int, int]:
    """Returns the sort keys of the smallest and the largest float."""
    limits = np.finfo(_dtype(scores))
    low, high = _sort_keys(np.array([limits.min, limits.max], _dtype(scores)))
    return int(low), int(high)


def _threshold_on_accelerator(
    scores: Mapping[str, Product], kept: int
) -> tuple[float, int]:
    """Computes `_threshold` on the accelerator, so that no score is moved to the host.

    The threshold is the largest float that at least `kept` scores reach; its bits are
    found from the highest to the lowest, by one count each: an accelerator sums faster
    than it sorts into bins. Where it flushes subnormal numbers to zero, such scores
    tie.
    """
    zero = int(_sort_keys(np.zeros(1, _dtype(scores)))[0])
    everywhere = [score.chunks_on_accelerator for score in scores.values()]

    def count(holds: Callable) -> int:
        counts = [
            keras.ops.sum(keras.ops.cast(holds(chunk), "float32"))
            for chunks_of_one in everywhere
            for chunk in chunks_of_one()
        ]
        return int(_backend.on_host(keras.ops.stack(counts)).sum(dtype=np.float64))

    if count(keras.ops.isfinite) < sum(score.size for score in scores.values()):
        for path, score in scores.items():
            check_finite(path, score)
    key = zero  # none is negative
    for bit in reversed(range(8 * _dtype(scores).itemsize - 1)):
        higher = _score_of(key | 1 << bit, _dtype(scores))
        # (No score reaches NaN.)
        if count(lambda chunk, at=higher: keras.ops.greater_equal(chunk, at)) >= kept:
            key |= 1 << bit
    threshold = _score_of(key, _dtype(scores))
    return threshold, kept - count(lambda chunk: keras.ops.greater(chunk, threshold))
