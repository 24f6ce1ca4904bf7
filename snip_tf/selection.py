"""Scores to masks: exactly the k largest of all scores, without sorting them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Mapping

import numpy as np

# Scores are read in pieces of this many: what is made of a piece then stays in the
# processor's cache.
_CHUNK = 1 << 16
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
    arrays = _as_floats(scores)
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


def _as_floats(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The scores as flat-readable float arrays of one type, checked to be finite."""
    if not isinstance(scores, Mapping) or not scores:
        raise ValueError(
            "Expected `scores` to be a dict {weight path: array} with at least one "
            f"entry. Received: scores={scores!r}"
        )
    arrays = {path: np.asarray(score) for path, score in scores.items()}
    for path, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise TypeError(
                f"Expected scores to be arrays of real numbers. "
                f"Received: scores[{path!r}] of dtype {array.dtype}"
            )
    # One type for all, since the bits of a float32 and a float64 do not compare.
    common = np.result_type(*arrays.values())
    if common.kind != "f":
        common = np.dtype(np.float64)
    return {path: np.asarray(a, common, order="C") for path, a in arrays.items()}


def check_finite(path: str, scores: np.ndarray) -> None:
    """Raises a ValueError that names the weight if a score is NaN or infinite."""
    bad = [chunk[~np.isfinite(chunk)] for chunk in _chunks(scores)]
    bad = np.concatenate([np.empty(0), *bad])
    if bad.size:
        raise ValueError(
            f"Expected finite scores. Received: {bad.size} of the scores of {path!r} "
            f"are NaN or infinite (the first is {bad[0]}). Look for NaN or "
            f"infinity in the data, the weights or the loss."
        )


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]


def _sort_keys(arrays: Mapping[str, np.ndarray]) -> Callable:
    """A function from floats to unsigned integers that sort as the floats do.

    Raises a ValueError if a score is NaN or infinite.
    """
    infinity = _bits(np.array(np.inf, next(iter(arrays.values())).dtype))
    negative = False
    for path, array in arrays.items():
        # The bits of negative numbers, infinities and NaN are those beyond.
        if array.size and _largest_bits(array) >= infinity:
            check_finite(path, array)
            negative = True
    return _keys_of_signed if negative else _bits


def _largest_bits(array: np.ndarray) -> int:
    return max(int(_bits(chunk).max()) for chunk in _chunks(array))


def _bits(chunk: np.ndarray) -> np.ndarray:
    return chunk.view(f"u{chunk.dtype.itemsize}")


def _keys_of_signed(chunk: np.ndarray) -> np.ndarray:
    # Adding 0 turns -0.0 into 0.0, so that the two tie.
    bits = _bits(chunk + chunk.dtype.type(0))
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    # A negative float sorts by its bits in reverse, below every non-negative one.
    return np.where(bits & sign, ~bits, bits | sign)


def _threshold(
    arrays: Mapping[str, np.ndarray], kept: int, sort_keys: Callable
) -> tuple[int, int]:
    """The sort key of the `kept`-th largest score, and how many of its ties to keep."""
    total = sum(array.size for array in arrays.values())
    bins = max(_FEWEST_BINS, min(_MOST_BINS, total >> 7))
    low, high = _likely_range(arrays, kept, sort_keys)
    while True:
        shift = max(0, (high - low).bit_length() - bins.bit_length() + 1)
        above, histogram = _count(arrays, low, high, shift, sort_keys)
        wanted = kept - above  # of those in the range, from the top
        if not 0 < wanted <= histogram.sum():
            # The sample was not like the rest.
            low, high = 0, (1 << 8 * next(iter(arrays.values())).itemsize) - 1
            continue
        from_the_top = histogram[::-1].cumsum()
        position = int(np.searchsorted(from_the_top, wanted))
        chosen = len(histogram) - 1 - position
        low += chosen << shift
        if shift == 0:
            return low, wanted - int(from_the_top[position] - histogram[chosen])
        high = min(high, low + (1 << shift) - 1)


def _likely_range(
    arrays: Mapping[str, np.ndarray], kept: int, sort_keys: Callable
) -> tuple[int, int]:
    """The smallest and the largest sort key that the threshold should have."""
    total = sum(array.size for array in arrays.values())
    step = max(4, total // _SAMPLE)
    sample = [sort_keys(array.reshape(-1)[::step]) for array in arrays.values()]
    sample = np.sort(np.concatenate(sample))
    removed = 1 - kept / total
    # Six standard deviations to each side; one more for rounding.
    margin = 6 * math.sqrt(len(sample) * removed * (1 - removed)) + 1
    first = int(len(sample) * removed - margin)
    last = int(len(sample) * removed + margin)
    low = int(sample[first]) if first >= 0 else 0
    high = (1 << 8 * sample.itemsize) - 1
    return low, int(sample[last]) if last < len(sample) else high


def _count(
    arrays: Mapping[str, np.ndarray],
    low: int,
    high: int,
    shift: int,
    sort_keys: Callable,
) -> tuple[int, np.ndarray]:
    """How many sort keys are above `high`, and a histogram of those in the range.

    A bin is of 2^shift keys.
    """
    above, histogram = 0, np.zeros(((high - low) >> shift) + 1, np.int64)
    for array in arrays.values():
        for chunk in _chunks(array):
            keys = sort_keys(chunk)
            above += np.count_nonzero(keys > high)
            # What is below wraps around, and so is beyond the range too.
            keys = keys - keys.dtype.type(low)
            bins = (keys[keys <= high - low] >> shift).astype(np.intp)
            if 8 * bins.size > histogram.size:
                histogram += np.bincount(bins, minlength=histogram.size)
            else:
                np.add.at(histogram, bins, 1)
    return above, histogram


def _keep_largest(arrays: Mapping[str, np.ndarray], kept: int) -> dict[str, np.ndarray]:
    sort_keys = _sort_keys(arrays)
    if kept == 0:
        return {path: np.zeros(array.shape, bool) for path, array in arrays.items()}
    threshold, ties_left = _threshold(arrays, kept, sort_keys)
    masks = {}
    for path, array in arrays.items():
        mask = np.empty(array.size, bool)
        for start, chunk in zip(
            range(0, array.size, _CHUNK), _chunks(array), strict=True
        ):
            keys = sort_keys(chunk)
            keep = np.greater(keys, threshold, out=mask[start : start + chunk.size])
            if ties_left:
                # Ties go to the first met: without such a rule, a network with many
                # equal scores (zeros, above all) keeps more or fewer than k.
                ties = np.flatnonzero(keys == threshold)[:ties_left]
                keep[ties] = True
                ties_left -= ties.size
        masks[path] = mask.reshape(array.shape)
    return masks
