"""Data that yields batches: `tf.data.Dataset`, `keras.utils.PyDataset`, generators."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from snip_tf.scoring.arrays import are_arrays
from snip_tf.scoring.examples import Batch, example_count, fed, is_distributed


def check_yields_batches(x: Any) -> None:
    """Raises a TypeError unless `x` is an iterable of batches."""
    is_iterable = hasattr(x, "__iter__") or isinstance(x, keras.utils.PyDataset)
    if not is_iterable or isinstance(x, (str, bytes, list, tuple, type, Mapping)):
        raise _wrong_kind(x)


def first_batches(source: Any, batches: int, as_yielded: bool) -> Iterator[Batch]:
    """Yields the first batches of the data.

    Args:
        source: an iterable of batches.
        batches: how many of them.
        as_yielded: whether `x` of each batch is all that it yields.

    Raises:
        ValueError: if there are fewer, or one of them is empty.
    """
    taken = 0
    with reading(source) as data:
        for batch in itertools.islice(data, batches):
            taken += 1
            x, y, sample_weight = (batch, None, None) if as_yielded else unpacked(batch)
            x, y, sample_weight = fed(x), fed(y), fed(sample_weight)
            _check_inputs(x, as_yielded)
            yield x, y, sample_weight
    if taken < batches:
        raise ValueError(
            f"Expected at least batches={batches} mini-batches. Received: a data set "
            f"that ended after {taken}" + (" (it is empty)" if taken == 0 else "")
        )


@contextlib.contextmanager
def reading(source: Any) -> Iterator[Iterator[Any]]:
    """Iterates over the batches as an epoch of `fit` without shuffling.

    The hooks that Keras calls before and after each pass are called here, too: a
    PyDataset may choose its examples, or open its files, in `on_epoch_begin`.
    """
    if not isinstance(source, keras.utils.PyDataset):
        yield iter(source)
        return
    source.on_epoch_begin()
    try:
        length = source.num_batches  # None is endless, as in `fit`
        positions = itertools.count() if length is None else range(length)
        yield (source[index] for index in positions)
    finally:
        source.on_epoch_end()


def unpacked(batch: Any) -> Batch:
    """Returns the `(x, y, sample_weight)` of what the data yields."""
    if isinstance(batch, (list, tuple)) and not 1 <= len(batch) <= 3:
        raise ValueError(
            f"Expected each batch to be (inputs, targets), (inputs, targets, weights) "
            f"or inputs alone. Received: a {type(batch).__name__} of {len(batch)}. "
            f"Several inputs go together, as in ((first, second), targets)."
        )
    return keras.utils.unpack_x_y_sample_weight(batch)


def _check_inputs(x: Any, as_yielded: bool) -> None:
    if not are_arrays(x):
        raise _wrong_kind(x)
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    if not as_yielded and any(len(leaf.shape) == 0 for leaf in leaves):
        raise ValueError(
            "Expected batches with the examples along axis 0. Received: an input of "
            "shape (). Call `.batch(...)` on a dataset of single examples."
        )
    if example_count((x, None, None)) == 0:
        raise ValueError("Expected non-empty batches. Received: one of 0 examples")


def _wrong_kind(x: Any) -> TypeError:
    return TypeError(
        f"Expected data as `Model.fit` takes it: arrays, a nest of arrays, a "
        f"tf.data.Dataset, a keras.utils.PyDataset or a generator of batches. "
        f"Received: {type(x).__name__}. {_advice(x)}"
    )


def _advice(x: Any) -> str:
    inside = [leaf for leaf in keras.tree.flatten(x) if _is_dataset(leaf)]
    if isinstance(x, Mapping) and inside:
        first = next(key for key, value in x.items() if _is_dataset(value))
        return f"Pass one of the data sets that it holds, such as x=data[{first!r}]."
    if inside:
        return "Pass the data set itself, not what holds it."
    if callable(x):
        return "Call it, and pass what it returns."
    if any(map(is_distributed, keras.tree.flatten(x))):
        return "Pass the data set as it was before a strategy distributed it."
    return "Wrap plain Python lists in numpy.asarray."


def _is_dataset(value: Any) -> bool:
    # (A tf.data.Dataset, which need not be imported to be recognized.)
    return isinstance(value, keras.utils.PyDataset) or hasattr(value, "element_spec")
