"""Scores to masks: exactly the k largest of all scores, without sorting them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping

import keras
import numpy as np

from snip_tf.scores import Product, Scores, as_floats, check_finite, chunks, sample

# The range of the threshold is guessed from a sample of about this many scores.
_SAMPLE = 1 << 18
# A histogram has as many bins as one pass over so large a network is worth (4 MB).
_FEWEST_BINS, _MOST_BINS = 1 << 12, 1 << 19
SCOPES = ("global", "layer")


def select_masks(
    scores: Mapping[str, np.ndarray], sparsity: float, scope: str = "global"
) -> dict[str, np.ndarray]:
    """Keeps the connections with the largest scores.

    Of the m scores, exactly k = round((1 - sparsity) * m) are kept: those with the
    largest values. Equal scores are kept in order, earlier weight first, then lower
    flat index, so that the choice never depends on the machine.

    The threshold is found by a radix select: a float's bits, read as an integer (after
    flipping them for negative numbers), sort as the floats do, so a histogram of these
    integers over all weights, then one inside the chosen bin, and so on until a bin is
    one value, give the k-th largest. The first histogram is of the range in which a
    sample says that the threshold lies, and of all values where it does not. Nothing is
    concatenated, and beside the masks there is no memory that grows with the scores.

    Args:
        scores: `{weight path: array of floats}`, of any shapes.
        sparsity: the fraction removed, 0 <= sparsity < 1.
        scope: `"global"` ranks all scores together; `"layer"` removes the same fraction
            from each weight by itself.

    Returns:
        `{weight path: bool array}` of the same shapes; True is kept.

    Raises:
        TypeError: if `sparsity` is not a number, or scores are not arrays of numbers.
        ValueError: if `sparsity` is outside [0, 1), `scope` is unknown, `scores` is
            empty, or a score is NaN or infinite (the weight is named).

    Example:

    >>> import numpy as np, snip_tf
    >>> scores = {"a": np.array([3.0, 1.0]), "b": np.array([2.0, 0.5])}
    >>> snip_tf.select_masks(scores, sparsity=0.5)
    {'a': array([ True, False]), 'b': array([ True, False])}
    """
    check_sparsity(sparsity)
    check_scope(scope)
    arrays = as_floats(scores)
    if scope == "global":
        return _keep_largest(arrays, kept_count(arrays, sparsity))
    masks = {}
    for path, array in arrays.items():
        one = {path: array}
        masks.update(_keep_largest(one, kept_count(one, sparsity)))
    return masks


def kept_count(arrays: Mapping[str, np.ndarray], sparsity: float) -> int:
    """k = round((1 - sparsity) * m), the number of connections kept of m."""
    # In double precision, whichever number `sparsity` is.
    return round((1 - float(sparsity)) * sum(array.size for array in arrays.values()))


def check_sparsity(sparsity: float) -> None:
    """Raises unless `sparsity` is a number with 0 <= sparsity < 1."""
    expected = (
        "Expected `sparsity` to be a number with 0 <= sparsity < 1, the fraction "
    )
    expected += "of the prunable weights that is removed. "
    if isinstance(sparsity, (bool, np.bool_)) or not isinstance(sparsity, numbers.Real):
        raise TypeError(
            f"{expected}Received: sparsity={sparsity!r} of type "
            f"{type(sparsity).__name__}"
        )
    if not 0 <= sparsity < 1:  # also catches NaN
        hint = ""
        if 1 < sparsity < 100:
            hint = f". For {sparsity:g} % write sparsity={sparsity / 100:g}"
        elif sparsity == 1:
            hint = ". That would remove every weight"
        raise ValueError(f"{expected}Received: sparsity={sparsity!r}{hint}")


def check_scope(scope: str) -> None:
    """Raises a ValueError unless `scope` is one of `SCOPES`."""
    if scope not in SCOPES:
        raise ValueError(
            f"Expected `scope` to be one of {', '.join(map(repr, SCOPES))}. "
            f"Received: scope={scope!r}"
        )


def _threshold(scores: Mapping[str, Scores], kept: int) -> tuple[float, int]:
    """The `kept`-th largest score, and how many of those that equal it to keep."""
    total = sum(score.size for score in scores.values())
    bins = max(_FEWEST_BINS, min(_MOST_BINS, total >> 7))
    dtype = next(iter(scores.values())).dtype
    infinity = int(_bits(np.array(np.inf, dtype)))
    everything = 0, (1 << 8 * dtype.itemsize) - 1
    sort_keys = _bits  # of floats that are not negative
    low, high = _likely_range(scores, kept)
    while True:
        shift = max(0, (high - low).bit_length() - bins.bit_length() + 1)
        above, histogram, largest = _count(scores, low, high, shift, sort_keys)
        if sort_keys is _bits and largest >= infinity:
            # The bits of negative numbers, infinities and NaN are those beyond.
            for path, score in scores.items():
                check_finite(path, score)
            sort_keys, (low, high) = _keys_of_signed, everything
            continue
        wanted = kept - above  # of those in the range, from the top
        if not 0 < wanted <= histogram.sum():
            low, high = everything  # the sample was not like the rest
            continue
        from_the_top = histogram[::-1].cumsum()
        position = int(np.searchsorted(from_the_top, wanted))
        chosen = len(histogram) - 1 - position
        low += chosen << shift
        if shift == 0:
            ties = wanted - int(from_the_top[position] - histogram[chosen])
            return _score_of(low, dtype, signed=sort_keys is _keys_of_signed), ties
        high = min(high, low + (1 << shift) - 1)


def _likely_range(scores: Mapping[str, Scores], kept: int) -> tuple[int, int]:
    """The smallest and the largest bits that the threshold should have."""
    total = sum(score.size for score in scores.values())
    step = max(4, total // _SAMPLE)
    drawn = np.concatenate([sample(score, step) for score in scores.values()])
    drawn = np.sort(_bits(drawn))
    removed = 1 - kept / total
    # Six standard deviations to each side; one more for rounding.
    margin = 6 * math.sqrt(len(drawn) * removed * (1 - removed)) + 1
    first = int(len(drawn) * removed - margin)
    last = int(len(drawn) * removed + margin)
    low = int(drawn[first]) if first >= 0 else 0
    high = (1 << 8 * drawn.itemsize) - 1
    return low, int(drawn[last]) if last < len(drawn) else high


def _count(
    scores: Mapping[str, Scores],
    low: int,
    high: int,
    shift: int,
    sort_keys: Callable,
) -> tuple[int, np.ndarray, int]:
    """How many sort keys are above `high`, a histogram of those up to it, the largest.

    A bin is of 2^shift keys, the first from `low` on.
    """
    above, largest = 0, 0
    histogram = np.zeros(((high - low) >> shift) + 1, np.int64)
    for score in scores.values():
        for chunk in chunks(score):
            keys = sort_keys(chunk)
            largest = max(largest, int(keys.max()))
            above += np.count_nonzero(keys > high)
            # What is below wraps around, and so is beyond the range too.
            keys = keys - keys.dtype.type(low)
            bins = (keys[keys <= high - low] >> shift).astype(np.intp)
            if 8 * bins.size > histogram.size:
                histogram += np.bincount(bins, minlength=histogram.size)
            else:
                np.add.at(histogram, bins, 1)
    return above, histogram, largest


def _bits(chunk: np.ndarray) -> np.ndarray:
    return chunk.view(f"u{chunk.dtype.itemsize}")


def _keys_of_signed(chunk: np.ndarray) -> np.ndarray:
    """Unsigned integers that sort as the floats do."""
    # Adding 0 turns -0.0 into 0.0, so that the two tie.
    bits = _bits(chunk + chunk.dtype.type(0))
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    # A negative float sorts by its bits in reverse, below every non-negative one.
    return np.where(bits & sign, ~bits, bits | sign)


def _score_of(key: int, dtype: np.dtype, signed: bool = False) -> float:
    """The float that has a sort key."""
    bits = np.array(key, f"u{dtype.itemsize}")
    if signed:
        sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
        bits = bits ^ sign if bits & sign else ~bits
    return np.asarray(bits).view(dtype)[()]


def _threshold_on_accelerator(
    scores: Mapping[str, Product], kept: int
) -> tuple[float, int]:
    """`_threshold` where the scores are, so that none has to come to the host.

    The threshold is the largest float that at least `kept` scores reach; its bits are
    found from the highest to the lowest, by a count each. An accelerator adds up more
    readily than it sorts into bins.
    """
    dtype = next(iter(scores.values())).dtype
    everywhere = [score.chunks_on_accelerator for score in scores.values()]

    def count(holds: Callable) -> int:
        counts = [
            keras.ops.sum(keras.ops.cast(holds(chunk), "float32"))
            for chunks_of_one in everywhere
            for chunk in chunks_of_one()
        ]
        return int(np.asarray(keras.ops.stack(counts)).sum(dtype=np.float64))

    if count(keras.ops.isfinite) < sum(score.size for score in scores.values()):
        for path, score in scores.items():
            check_finite(path, score)
    key = 0
    for bit in reversed(range(8 * dtype.itemsize - 1)):
        higher = _score_of(key | 1 << bit, dtype)
        # (Nothing reaches what is not a number.)
        if count(lambda chunk, at=higher: keras.ops.greater_equal(chunk, at)) >= kept:
            key |= 1 << bit
    threshold = _score_of(key, dtype)
    return threshold, kept - count(lambda chunk: keras.ops.greater(chunk, threshold))


def _keep_largest(scores: Mapping[str, Scores], kept: int) -> dict[str, np.ndarray]:
    if kept == 0:
        for path, score in scores.items():
            check_finite(path, score)
        return {path: np.zeros(score.shape, bool) for path, score in scores.items()}
    there = all(isinstance(s, Product) and s.on_accelerator for s in scores.values())
    find = _threshold_on_accelerator if there else _threshold
    threshold, ties_left = find(scores, kept)
    masks = {}
    for path, score in scores.items():
        mask, start = np.empty(score.size, bool), 0
        for chunk in score.chunks_on_accelerator() if there else chunks(score):
            keep = mask[start : start + len(chunk)]
            keep[:] = chunk > threshold
            if ties_left:
                # Ties go to the first met: without such a rule, a network with many
                # equal scores (zeros, above all) keeps more or fewer than k.
                ties = np.flatnonzero(chunk == threshold)[:ties_left]
                keep[ties] = True
                ties_left -= ties.size
            start += len(chunk)
        masks[path] = mask.reshape(score.shape)
    return masks
