"""Chooses the same number of examples of each class."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from snip_tf.checks import check_count, check_seed
from snip_tf.scoring.arrays import are_arrays, as_arrays, rows_of, shuffled
from snip_tf.scoring.datasets import check_yields_batches, reading, unpacked
from snip_tf.scoring.examples import Batch, is_text, join
from snip_tf.scoring.targets import PAIRS, TEXT_TARGETS

# Reading a dataset stops after this many unused examples in a row.
_PATIENCE = 100_000


def sample_per_class(
    x: Any, y: Any = None, n: int = 1, seed: int | None = None
) -> tuple[Any, Any]:
    """Chooses `n` examples of each class, to score on.

    Args:
        x: the inputs, a nest of arrays with the examples along axis 0; or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches
            `(inputs, targets)`.
        y: the targets, whole numbers or one-hot vectors; None where `x` yields them.
        n: int, 1 or more: how many examples of each class.
        seed: int, 0 or more: which examples of arrays are drawn. None draws with
            NumPy's global generator. Of a dataset the first of each class are taken; it
            is read to its end, or until 100,000 examples in a row were of no use, or,
            with one-hot vectors, until all classes are complete.

    Returns:
        `(x, y)`, arrays of the chosen examples. (Weights of the examples can come
        along with the inputs: `(x, weight), y = sample_per_class((x, weight), y, n)`.)

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a class has fewer examples (of one-hot vectors, also one that has
            none), there are no targets that tell the class of each example, or the data
            yields weights, too.

    Example:

    >>> import numpy as np, snip_tf
    >>> x, y = np.random.rand(100, 8), np.arange(100) % 4
    >>> x, y = snip_tf.sample_per_class(x, y, n=5, seed=0)
    >>> x.shape, np.bincount(y).tolist()
    ((20, 8), [5, 5, 5, 5])
    """
    check_count("n", n)
    check_seed(seed)
    if are_arrays(x):
        chosen_x, chosen_y, _ = _drawn((x, y, None), n, seed)
        return chosen_x, chosen_y
    check_yields_batches(x)
    if y is not None:
        advice = f". To take {y} of each class, write n={y}" if type(y) is int else ""
        raise ValueError(
            f"Expected no `y` where `x` yields the targets. Received: y of type "
            f"{type(y).__name__} beside x of type {type(x).__name__}{advice}"
        )
    return _first(x, n)


def _drawn(data: Batch, n: int, seed: int | None) -> Batch:
    arrays = as_arrays(data)
    labels = _labels(arrays[1])
    order = shuffled(len(labels), seed)
    classes = _columns(arrays[1]) or np.unique(labels)
    found = {label: order[labels[order] == label][:n] for label in classes}
    _check_enough({label: len(rows) for label, rows in found.items()}, n)
    return rows_of(arrays, np.concatenate(list(found.values())))


def _first(source: Any, n: int) -> tuple[Any, Any]:
    """Returns the first examples of each class."""
    taken = []
    counts: collections.Counter[Any] = collections.Counter()
    useless = 0
    with reading(source) as batches:
        for x, y, sample_weight in map(unpacked, batches):
            _check_without_weights(sample_weight)
            arrays = as_arrays((x, y, None))
            labels, classes = _labels(arrays[1]).tolist(), _columns(arrays[1])
            counts.update(dict.fromkeys(classes, 0))
            rows = _still_wanted(labels, counts, n)
            useless = 0 if rows else useless + len(arrays[1])
            if rows:
                taken.append(rows_of(arrays, np.array(rows))[:2])
            if useless > _PATIENCE or _all_complete(classes, counts, n):
                break
    if not taken:
        raise ValueError(
            "Expected at least one mini-batch. Received: an empty data set"
        )
    _check_enough(counts, n)
    return keras.tree.map_structure(lambda *leaves: join(leaves), *taken)


def _still_wanted(
    labels: list[Any], counts: collections.Counter[Any], n: int
) -> list[int]:
    """Returns the rows of classes that are incomplete, and counts all rows."""
    rows = []
    for row, label in enumerate(labels):
        counts[label] += 1
        if counts[label] <= n:
            rows.append(row)
    return rows


def _all_complete(
    classes: Sequence[int], counts: collections.Counter[Any], n: int
) -> bool:
    """Returns whether all classes are known, and none lacks an example."""
    return bool(classes) and all(counts[label] >= n for label in classes)


def _check_without_weights(sample_weight: Any) -> None:
    if sample_weight is not None:
        raise ValueError(
            "Expected data that yields (inputs, targets). Received: batches with "
            "weights of the examples, too. Leave them out, as with "
            "data.map(lambda x, y, weight: (x, y))."
        )


def _labels(y: Any) -> np.ndarray:
    """Returns the class of each example, from labels or one-hot vectors."""
    if is_text(y):
        raise ValueError(TEXT_TARGETS)
    if isinstance(y, np.ndarray) and y.dtype.kind in "biuf":
        if _is_one_hot(y):
            return y.argmax(axis=1)
        if y.size == len(y) and np.array_equal(y, np.floor(y)):
            return y.reshape(-1)
    kind = "no targets. " + PAIRS if y is None else f"targets of {type(y).__name__}"
    if isinstance(y, np.ndarray):
        kind = f"targets of shape {y.shape} and dtype {y.dtype}"
    raise ValueError(
        f"Expected targets that give the class of each example, whole numbers or "
        f"one-hot vectors. Received: {kind}"
    )


def _columns(y: np.ndarray) -> Sequence[int]:
    """Returns all classes, of one-hot vectors; of labels nobody knows how many."""
    return range(y.shape[1]) if _is_one_hot(y) else ()


def _is_one_hot(y: np.ndarray) -> bool:
    """Returns whether rows are one-hot, or smoothed, rather than numbers or tokens."""
    if y.ndim != 2 or y.shape[1] == 1:
        return False
    return bool((y >= 0).all()) and np.allclose(y.sum(axis=1), 1, atol=1e-3)


def _check_enough(counts: dict[Any, int], n: int) -> None:
    short = [
        f"{count} of class {label}" for label, count in counts.items() if count < n
    ]
    if short:
        raise ValueError(
            f"Expected at least n={n} examples of each class. Received: "
            f"{', '.join(short)}"
        )
