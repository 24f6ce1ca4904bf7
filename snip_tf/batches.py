"""Whatever `Model.fit` takes, as an iterator of (x, y, sample_weight) mini-batches."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

DEFAULT_BATCH_SIZE = 128

# (x, y, sample_weight); x may be any nest of arrays, y and sample_weight may be None.
Batch = tuple[Any, Any, Any]


def make_batches(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    batches: int = 1,
    micro_batch_size: int | None = None,
    seed: int | None = None,
) -> Iterator[Batch]:
    """The mini-batches to score on.

    Array data is drawn at random without replacement, unless the batches asked for use
    all of it: then it is taken in order. A dataset or generator gives its first
        batches.

    Args:
        x: a nest (dict, list, tuple) of arrays with the examples along axis 0, or a
            `tf.data.Dataset`, `keras.utils.PyDataset`, or generator of batches.
        y: targets: a nest of arrays. None where `x` yields them.
        sample_weight: array, or nest of arrays. None where `x` yields them.
        batch_size: examples in a mini-batch of array data; default 128.
        batches: how many mini-batches.
        micro_batch_size: cuts each mini-batch into pieces of at most so many examples.
        seed: which examples of array data are drawn. None draws with NumPy's global
            generator, which `keras.utils.set_random_seed` seeds.

    Returns:
        An iterator of `batches` tuples `(x, y, sample_weight)`, or of their pieces.

    Raises:
        TypeError: if `x`, or one of the sizes, is of the wrong kind.
        ValueError: if the arrays differ in length or are empty, if there is less data
            than asked for, or if `y` or `batch_size` comes with a dataset.
    """
    _check_count("batches", batches)
    if micro_batch_size is not None:
        _check_count("micro_batch_size", micro_batch_size)
        whole = make_batches(
            x, y, sample_weight, batch_size=batch_size, batches=batches, seed=seed
        )
        return (piece for batch in whole for piece in _pieces(batch, micro_batch_size))
    if _are_arrays(x):
        if batch_size is None:
            batch_size = DEFAULT_BATCH_SIZE
        _check_count("batch_size", batch_size)
        return _from_arrays((x, y, sample_weight), batch_size, batches, seed)
    if not hasattr(x, "__iter__") and not isinstance(x, keras.utils.PyDataset):
        raise _wrong_kind(x)
    if isinstance(x, (str, bytes, list, tuple, dict)):
        raise _wrong_kind(x)
    for name, value in [
        ("y", y),
        ("sample_weight", sample_weight),
        ("batch_size", batch_size),
    ]:
        if value is not None:
            raise ValueError(
                f"Expected no `{name}` where `x` yields whole batches, as in "
                f"`Model.fit`. Received: {name} of type {type(value).__name__} beside "
                f"x of type {type(x).__name__}"
            )
    return _from_iterable(x, batches)


def _pieces(batch: Batch, size: int) -> Iterator[Batch]:
    """As few pieces of at most `size` examples as there can be, as equal as can be."""
    count = example_count(batch)
    pieces = -(-count // size)
    for piece in range(pieces):
        yield _rows(
            batch, slice(piece * count // pieces, (piece + 1) * count // pieces)
        )


def _rows(batch: Batch, rows: Any) -> Batch:
    """Some of the examples."""
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else leaf[rows], batch
    )


def example_count(batch: Batch) -> int:
    """The number of examples in a mini-batch."""
    return int(keras.tree.flatten(batch[0])[0].shape[0])


def _are_arrays(x: Any) -> bool:
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(hasattr(leaf, "shape") for leaf in leaves)


def _from_arrays(
    data: Batch, batch_size: int, batches: int, seed: int | None
) -> Iterator[Batch]:
    arrays = keras.tree.map_structure(
        lambda leaf: None if leaf is None else np.asarray(leaf), data
    )
    count = _common_length(arrays)
    if count == 0:
        raise ValueError("Expected at least one example. Received: x with 0 examples")
    available = -(-count // batch_size)
    if batches > available:
        raise ValueError(
            f"Expected enough examples for batches={batches} of "
            f"batch_size={batch_size}. Received: {count} examples, which make "
            f"{available}"
        )
    wanted = min(count, batches * batch_size)
    if wanted == count:
        order = np.arange(count)
    elif seed is None:
        order = np.random.permutation(count)[:wanted]
    else:
        order = np.random.default_rng(seed).permutation(count)[:wanted]

    return (
        _rows(arrays, order[start : start + batch_size])
        for start in range(0, wanted, batch_size)
    )


def _common_length(data: Batch) -> int:
    lengths = {}
    for name, nest in zip(("x", "y", "sample_weight"), data, strict=True):
        leaves = [leaf for leaf in keras.tree.flatten(nest) if leaf is not None]
        for position, leaf in enumerate(leaves):
            label = name if len(leaves) == 1 else f"{name}[{position}]"
            if leaf.ndim == 0:
                raise ValueError(
                    f"Expected arrays with the examples along axis 0. "
                    f"Received: {label} of shape (). Wrap plain Python lists in "
                    f"numpy.asarray."
                )
            lengths[label] = len(leaf)
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{label} has {n}" for label, n in lengths.items())
        raise ValueError(
            f"Expected the same number of examples in all arrays. Received: {listing}"
        )
    return next(iter(lengths.values()))


def _from_iterable(source: Any, batches: int) -> Iterator[Batch]:
    taken = 0
    for batch in itertools.islice(_iterate(source), batches):
        taken += 1
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if not _are_arrays(x):
            raise _wrong_kind(x)
        if example_count((x, y, sample_weight)) == 0:
            raise ValueError("Expected non-empty batches. Received: one of 0 examples")
        yield x, y, sample_weight
    if taken < batches:
        raise ValueError(
            f"Expected at least batches={batches} mini-batches. Received: a data set "
            f"that ended after {taken}" + (" (it is empty)" if taken == 0 else "")
        )


def _iterate(source: Any) -> Iterator[Any]:
    if not isinstance(source, keras.utils.PyDataset):
        return iter(source)
    length = source.num_batches  # None is endless, as in `fit`
    positions = itertools.count() if length is None else range(length)
    return (source[index] for index in positions)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"Expected `{name}` to be an integer. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
        )
    if value < 1:
        raise ValueError(f"Expected `{name}` to be at least 1. Received: {value}")


def _wrong_kind(x: Any) -> TypeError:
    return TypeError(
        f"Expected data as `Model.fit` takes it: arrays, a nest of arrays, a "
        f"tf.data.Dataset, a keras.utils.PyDataset or a generator of batches. "
        f"Received: {type(x).__name__}. Wrap plain Python lists in numpy.asarray."
    )
