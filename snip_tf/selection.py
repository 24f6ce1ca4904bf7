"""Scores to masks: exactly the k largest of all scores, without sorting them."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Mapping

import numpy as np

# Scores are read in pieces of this many and bits: what is made of a piece, and a
# histogram of its digits, then stay in the processor's cache, and no memory is asked
# for anew.
_CHUNK = 1 << 14
_DIGIT_BITS = 11
SCOPES = ("global", "layer")


def select_masks(
    scores: Mapping[str, np.ndarray], sparsity: float, scope: str = "global"
) -> dict[str, np.ndarray]:
    """Keeps the connections with the largest scores.

    Of the m scores, exactly k = round((1 - sparsity) * m) are kept: those with the
    largest values. Equal scores are kept in order, earlier weight first, then lower
    flat index, so that the choice never depends on the machine.

    The threshold is found by a radix select: a float's bits, read as an integer (after
    flipping them for negative numbers), sort as the floats do, so a histogram of the
    highest 11 bits over all weights, then one of the next 11 bits inside the chosen
    bin, and so on, give the k-th largest value. Nothing is concatenated, nothing is
    sorted.

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
    return round((1 - sparsity) * sum(array.size for array in arrays.values()))


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
    arrays = {path: array.astype(common, copy=False) for path, array in arrays.items()}
    for path, array in arrays.items():
        for chunk in _chunks(array):
            check_finite(path, chunk)
    return arrays


def check_finite(path: str, scores: np.ndarray) -> None:
    """Raises a ValueError that names the weight if a score is NaN or infinite."""
    finite = np.isfinite(scores)
    if not finite.all():
        bad = scores[~finite]
        raise ValueError(
            f"Expected finite scores. Received: {bad.size} of the scores of {path!r} "
            f"are NaN or infinite (the first is {bad.flat[0]}). Look for NaN or "
            f"infinity in the data, the weights or the loss."
        )


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]


def _sort_keys(arrays: Mapping[str, np.ndarray]) -> Callable:
    """A function from floats to unsigned integers that sort as the floats do."""
    if any(np.signbit(chunk).any() for a in arrays.values() for chunk in _chunks(a)):
        return _keys_of_signed
    return lambda chunk: chunk.view(f"u{chunk.dtype.itemsize}")


def _keys_of_signed(chunk: np.ndarray) -> np.ndarray:
    unsigned = np.dtype(f"u{chunk.dtype.itemsize}")
    sign = unsigned.type(1 << (8 * chunk.dtype.itemsize - 1))
    # Adding 0 turns -0.0 into 0.0, so that the two tie.
    bits = (chunk + chunk.dtype.type(0)).view(unsigned)
    # A negative float sorts by its bits in reverse, below every non-negative one.
    return np.where(bits & sign, ~bits, bits | sign)


def _threshold(
    arrays: Mapping[str, np.ndarray], kept: int, sort_keys: Callable
) -> tuple[int, int]:
    """The sort key of the `kept`-th largest score, and how many of its ties to keep."""
    shift = 8 * next(iter(arrays.values())).dtype.itemsize
    prefix, remaining = 0, kept
    while shift:
        above = shift  # the bits from here up are known: `prefix`
        shift = max(0, shift - _DIGIT_BITS)
        bins = 1 << (above - shift)
        histogram = np.zeros(bins, np.int64)
        for array in arrays.values():
            for chunk in _chunks(array):
                keys = sort_keys(chunk)
                if above < 8 * keys.itemsize:
                    keys = keys[keys >> above == prefix]
                histogram += np.bincount((keys >> shift) & (bins - 1), minlength=bins)
        from_the_top = histogram[::-1].cumsum()
        position = int(np.searchsorted(from_the_top, remaining))
        digit = bins - 1 - position
        remaining -= int(from_the_top[position] - histogram[digit])
        prefix = prefix * bins + digit
    return prefix, remaining


def _keep_largest(arrays: Mapping[str, np.ndarray], kept: int) -> dict[str, np.ndarray]:
    if kept == 0:
        return {path: np.zeros(array.shape, bool) for path, array in arrays.items()}
    sort_keys = _sort_keys(arrays)
    threshold, ties_left = _threshold(arrays, kept, sort_keys)
    masks = {}
    for path, array in arrays.items():
        mask = np.empty(array.size, bool)
        for start, chunk in zip(
            range(0, array.size, _CHUNK), _chunks(array), strict=True
        ):
            keys = sort_keys(chunk)
            keep = keys > threshold
            if ties_left:
                # Ties go to the first met: without such a rule, a network with many
                # equal scores (zeros, above all) keeps more or fewer than k.
                ties = np.flatnonzero(keys == threshold)[:ties_left]
                keep[ties] = True
                ties_left -= ties.size
            mask[start : start + chunk.size] = keep
        masks[path] = mask.reshape(array.shape)
    return masks
