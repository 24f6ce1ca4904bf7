"""Scores as a selection reads them: in chunks, never all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend

# Scores are read in chunks of this size (a multiple of 8): on the host, so that a chunk
# and what is computed from it stay in the processor's cache; on an accelerator, so that
# launching the work costs little in comparison, and float32 counts a chunk exactly.
_CHUNK = 1 << 16
_CHUNK_ON_ACCELERATOR = 1 << 22


class Product:
    """|gradient * weight|, computed lazily in chunks, and never stored.

    An array would take as much memory as the weights, and writing and reading it would
    take longer than computing the product. `numpy.asarray` makes one nevertheless.

    Args:
        gradient: tensor of floats.
        weight: tensor or `keras.Variable` of the same shape.
    """

    def __init__(self, gradient: Any, weight: Any):
        self._device = str(gradient.device)
        if self.on_accelerator:
            self._factors = [keras.ops.reshape(f, (-1,)) for f in (gradient, weight)]
        else:
            self._factors = [
                _backend.as_array(factor).reshape(-1) for factor in (gradient, weight)
            ]
        self.shape = tuple(gradient.shape)
        self.size = int(np.prod(self.shape))
        self.dtype = np.dtype(keras.backend.standardize_dtype(gradient.dtype))

    @property
    def on_accelerator(self) -> bool:
        """Whether a GPU or a TPU holds the factors."""
        return "CPU" not in self._device.upper()

    def chunks(self) -> Iterator[np.ndarray]:
        """Yields the values in order, in an array that the next ones overwrite."""
        gradient, weight = map(_backend.on_host, self._factors)
        scratch = np.empty(min(_CHUNK, self.size), self.dtype)
        for start in range(0, self.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            values = scratch[: gradient[part].size]
            np.multiply(gradient[part], weight[part], out=values)
            yield np.abs(values, out=values)

    def chunks_on_accelerator(self) -> Iterator[Any]:
        """Yields the values in order, as tensors where the factors are."""
        for start in range(0, self.size, _CHUNK_ON_ACCELERATOR):
            gradient, weight = (
                factor[start : start + _CHUNK_ON_ACCELERATOR]
                for factor in self._factors
            )
            yield keras.ops.abs(keras.ops.multiply(gradient, weight))

    def sample(self, step: int) -> np.ndarray:
        """Returns every `step`-th value."""
        gradient, weight = (
            _backend.on_host(factor)[::step] for factor in self._factors
        )
        return np.abs(np.multiply(gradient, weight, dtype=self.dtype))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.empty(self.size, self.dtype)
        start = 0
        for values in self.chunks():
            array[start : start + values.size] = values
            start += values.size
        return array.reshape(self.shape).astype(dtype or self.dtype, copy=False)


Scores = np.ndarray | Product


def as_floats(scores: Mapping[str, Any]) -> dict[str, Scores]:
    """Returns the scores in one float type."""
    _check_dict(scores)
    arrays = {
        path: score if isinstance(score, Product) else _backend.on_host(score)
        for path, score in scores.items()
    }
    for path, array in arrays.items():
        if not _is_real(array.dtype):
            raise TypeError(
                f"Expected scores to be arrays of real numbers. "
                f"Received: scores[{path!r}] of dtype {array.dtype}"
            )
        _check_exact(path, array)
    common = _common_type(arrays)
    return {
        path: array
        if isinstance(array, Product) and array.dtype == common
        else np.asarray(array, common, order="C")
        for path, array in arrays.items()
    }


def _check_dict(scores: Any) -> None:
    """Raises unless scores are a dict by weight path that is not empty."""
    expected = (
        "Expected `scores` to be a dict {weight path: array} with at least one entry. "
    )
    if not isinstance(scores, Mapping):
        raise TypeError(f"{expected}Received: scores of type {type(scores).__name__}")
    if not scores:
        raise ValueError(f"{expected}Received: scores={{}}")
    for path in scores:
        if not isinstance(path, str):
            raise TypeError(
                f"{expected}Received: the key {path!r} of type {type(path).__name__}"
            )


def _is_real(dtype: np.dtype) -> bool:
    # (This also covers the floats of other libraries, such as bfloat16.)
    return np.can_cast(dtype, np.longdouble) and dtype != np.dtype(bool)


def _common_type(arrays: Mapping[str, Scores]) -> np.dtype:
    """Returns one type for all: bits of float32 and float64 cannot be compared."""
    common = np.result_type(*(array.dtype for array in arrays.values()))
    known = common in (np.float16, np.float32, np.float64)
    return common if known else np.dtype(np.float64)


def _check_exact(path: str, scores: Scores) -> None:
    """Raises a TypeError if rounding to float64 could make two scores equal."""
    if isinstance(scores, Product):  # always of floats
        return
    if scores.dtype.itemsize < 8 or scores.dtype == np.float64:
        return
    rounded: np.ndarray
    if scores.dtype.kind in "iu":
        rounded = (scores > 2**53) | (scores < -(2**53))
    else:
        with np.errstate(over="ignore"):
            rounded = (scores.astype(np.float64) != scores) & ~np.isnan(scores)
    if rounded.any():
        raise TypeError(
            "Expected scores that float64 holds exactly: floats of up to 64 bits, "
            "integers of up to 32 bits, or larger ones up to 2**53. Received: "
            f"scores[{path!r}] of dtype {scores.dtype} with {scores[rounded][0]}. Pass "
            f"their ranks over all weights (numpy.unique with return_inverse=True)."
        )


def chunks(scores: Scores) -> Iterator[np.ndarray]:
    """Returns the scores in order, in flat arrays that the next may overwrite."""
    if isinstance(scores, Product):
        return scores.chunks()
    flat = scores.reshape(-1)
    return (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))


def sample(scores: Scores, step: int) -> np.ndarray:
    """Returns every `step`-th score."""
    if isinstance(scores, Product):
        return scores.sample(step)
    return scores.reshape(-1)[::step]


def check_finite(path: str, scores: Scores) -> None:
    """Raises a ValueError that names the weight if a score is NaN or infinite."""
    found = [chunk[~np.isfinite(chunk)] for chunk in chunks(scores)]
    bad = np.concatenate([np.empty(0), *found])
    if bad.size:
        raise ValueError(
            f"Expected finite scores. Received: {bad.size} of the scores of {path!r} "
            f"are NaN or infinite (the first is {bad[0]}). Look for NaN or "
            f"infinity in the data, the weights or the loss; if there is none, for an "
            f"operation without a finite derivative, such as the square root or the "
            f"norm of zero (add a small number inside)."
        )
