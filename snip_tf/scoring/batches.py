"""Reads whatever `Model.fit` takes as (x, y, sample_weight) mini-batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from snip_tf.checks import check_count
from snip_tf.scoring.arrays import are_arrays, draw_batches
from snip_tf.scoring.datasets import check_yields_batches, first_batches
from snip_tf.scoring.examples import Batch

DEFAULT_BATCH_SIZE = 128


def make_batches(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    batches: int = 1,
    as_yielded: bool = False,
    seed: int | None = None,
) -> Iterator[Batch]:
    """Returns the mini-batches to score on.

    Array data is drawn at random without replacement, or taken in order if the batches
    use all of it. A dataset or generator gives its first batches, as it yields them.

    Args:
        x: a nest (dict, list, tuple) of arrays with the examples along axis 0 (NumPy,
            tensors, sparse and ragged ones, SciPy matrices, pandas), or a
            `tf.data.Dataset`, `keras.utils.PyDataset`, or generator of batches.
        y: targets: a nest of arrays. None where `x` yields them.
        sample_weight: array, or nest of arrays. None where `x` yields them.
        batch_size: int, examples in a mini-batch of array data; default 128.
        batches: int, how many mini-batches.
        as_yielded: bool, whether `x` of each batch is all that the data yields,
            unchanged: for arrays `x`, `(x, y)` or `(x, y, sample_weight)`.
        seed: int, which examples of array data are drawn. None draws with NumPy's
            global generator, which `keras.utils.set_random_seed` seeds.

    Returns:
        An iterator of `batches` tuples `(x, y, sample_weight)`.

    Raises:
        TypeError: if `x`, `batch_size` or `batches` is of the wrong kind.
        ValueError: if the arrays differ in length or are empty, if there is less data
            than asked for, or if `y` or `batch_size` comes with a dataset.
    """
    check_count("batches", batches)
    if are_arrays(x):
        size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
        check_count("batch_size", size)
        drawn = draw_batches((x, y, sample_weight), size, batches, seed)
        return map(_as_yielded, drawn) if as_yielded else drawn
    check_yields_batches(x)
    _check_alone(x, y=y, sample_weight=sample_weight, batch_size=batch_size)
    return first_batches(x, batches, as_yielded)


def _check_alone(x: Any, **others: Any) -> None:
    """Raises a ValueError if an argument is given that `x` itself yields."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"Expected no `{name}` where `x` yields whole batches, as in "
                f"`Model.fit`. Received: {name} of type {type(value).__name__} beside "
                f"x of type {type(x).__name__}"
            )


def _as_yielded(batch: Batch) -> Batch:
    """Returns a batch whose `x` is the whole batch."""
    x, y, sample_weight = batch
    if sample_weight is not None:
        return (x, y, sample_weight), None, None
    return x if y is None else (x, y), None, None
