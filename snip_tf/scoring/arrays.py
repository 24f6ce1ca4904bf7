"""Array data: nests of arrays with the examples along axis 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf.scoring.examples import Batch, as_rows, count, fed, is_array, is_text, take
from snip_tf.scoring.targets import TEXT_TARGETS

_CLASS_WEIGHT = (
    "Expected `sample_weight` to be an array, or one for each output. Received: a dict "
    "of numbers, which look like class weights. Give each example that of its "
    "class: numpy.vectorize(class_weight.get)(y)."
)


def are_arrays(x: Any) -> bool:
    """Returns whether `x` is a nest of arrays; otherwise it must yield batches."""
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    return bool(leaves) and all(map(is_array, leaves))


def as_arrays(data: Batch) -> Batch:
    """Returns the data in a form from which rows can be taken.

    Raises:
        ValueError: if the arrays are empty or differ in length.
    """
    arrays = keras.tree.map_structure(as_rows, data)
    if common_length(arrays) == 0:
        raise ValueError("Expected at least one example. Received: x with 0 examples")
    return arrays


def draw_batches(
    data: Batch, batch_size: int, batches: int, seed: int | None
) -> Iterator[Batch]:
    """Draws mini-batches without replacement, or in order if they use all the data."""
    arrays = as_arrays(data)
    length = common_length(arrays)
    available = -(-length // batch_size)
    if batches > available:
        raise ValueError(
            f"Expected enough examples for batches={batches} of "
            f"batch_size={batch_size}. Received: {length} examples, which make "
            f"{available}"
        )
    wanted = min(length, batches * batch_size)
    order = np.arange(length) if wanted == length else shuffled(length, seed)[:wanted]
    starts = range(0, wanted, batch_size)
    return (rows_of(arrays, order[start : start + batch_size]) for start in starts)


def shuffled(length: int, seed: int | None) -> np.ndarray:
    """Returns the row numbers shuffled; seed None uses NumPy's global generator."""
    if seed is None:
        return np.random.permutation(length)
    return np.random.default_rng(seed).permutation(length)


def rows_of(arrays: Batch, rows: np.ndarray) -> Batch:
    """Returns the given rows of the examples, as a model takes them."""
    x, y, sample_weight = keras.tree.map_structure(
        lambda leaf: take(leaf, rows), arrays
    )
    return fed(x), fed(y), fed(sample_weight)


def common_length(data: Batch) -> int:
    """Returns the number of examples, which all arrays must share."""
    lengths = {}
    for name, nest in zip(("x", "y", "sample_weight"), data, strict=True):
        leaves = [leaf for leaf in keras.tree.flatten(nest) if leaf is not None]
        for position, leaf in enumerate(leaves):
            label = name if len(leaves) == 1 else f"{name}[{position}]"
            if len(leaf.shape) == 0:
                raise _without_examples(name, label, nest, leaf)
            lengths[label] = count(leaf)
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{label} has {n}" for label, n in lengths.items())
        raise ValueError(
            f"Expected the same number of examples in all arrays. Received: {listing}"
        )
    return next(iter(lengths.values()))


def _without_examples(name: str, label: str, nest: Any, leaf: Any) -> ValueError:
    """Returns the error for a single number instead of an array of examples."""
    if name == "y" and is_text(leaf):  # a list of strings, each a leaf
        return ValueError(TEXT_TARGETS)
    if name == "sample_weight" and isinstance(nest, Mapping):
        return ValueError(_CLASS_WEIGHT)
    return ValueError(
        f"Expected arrays with the examples along axis 0. Received: {label} of shape "
        f"(). Wrap plain Python lists in numpy.asarray; call `.batch(...)` on a "
        f"dataset of single ones."
    )
