"""Whatever `Model.fit` takes, as an iterator of (x, y, sample_weight) mini-batches."""

from __future__ import annotations

import collections
import contextlib
import itertools
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf.scoring.examples import (
    as_rows,
    count,
    example_count,
    fed,
    is_array,
    is_distributed,
    is_text,
    join,
    take,
)
from snip_tf.weights import is_stateful

DEFAULT_BATCH_SIZE = 128
# Of an endless data set, so many examples that are of no use are read in a row.
_PATIENCE = 100_000

# What to do about data without targets.
PAIRS = (
    "Arrays go in `x` and `y`. Each element of a dataset must be a pair (inputs, "
    "targets): of dicts, "
    'data.map(lambda d: (d["image"], d["label"])), or as_supervised=True in '
    "`tensorflow_datasets.load`."
)

# What to do about targets that are no numbers.
TEXT_TARGETS = (
    "Expected targets that are numbers. Received: targets of text. Number the classes, "
    "as with classes, y = numpy.unique(y, return_inverse=True) or "
    "keras.layers.StringLookup."
)

_CLASS_WEIGHT = (
    "Expected `sample_weight` to be an array, or one for each output. Received: a dict "
    "of numbers, which look like weights of classes. Give each example that of its "
    "class: numpy.vectorize(class_weight.get)(y)."
)

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
    examples_per_class: int | None = None,
    classes: int | None = None,
    as_yielded: bool = False,
    seed: int | None = None,
) -> Iterator[Batch]:
    """The mini-batches to score on.

    Array data is drawn at random without replacement, unless the batches asked for use
    all of it: then it is taken in order. A dataset or generator gives its first
        batches.

    Args:
        x: a nest (dict, list, tuple) of arrays with the examples along axis 0 (NumPy,
            tensors, sparse and ragged ones, SciPy matrices, pandas), or a
            `tf.data.Dataset`, `keras.utils.PyDataset`, or generator of batches.
        y: targets: a nest of arrays. None where `x` yields them.
        sample_weight: array, or nest of arrays. None where `x` yields them.
        batch_size: examples in a mini-batch of array data; default 128.
        batches: how many mini-batches.
        micro_batch_size: cuts each mini-batch into pieces of at most so many examples.
        examples_per_class: one mini-batch of so many examples of each class, drawn at
            random from array data, the first ones of a dataset or generator.
        classes: how many classes there are; None where only the labels tell.
        as_yielded: whether all that the data yields is to be `x` of the batches, as it
            is: of arrays `x`, `(x, y)` or `(x, y, sample_weight)`.
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
            *(x, y, sample_weight),
            batch_size=batch_size,
            batches=batches,
            examples_per_class=examples_per_class,
            classes=classes,
            as_yielded=as_yielded,
            seed=seed,
        )
        return (piece for batch in whole for piece in _pieces(batch, micro_batch_size))
    if examples_per_class is not None:
        _check_count("examples_per_class", examples_per_class)
        if batch_size is not None or batches != 1:
            raise ValueError(
                f"Expected no `batch_size` and no `batches` with `examples_per_class`, "
                f"which makes one mini-batch of as many examples as that is. "
                f"Received: batch_size={batch_size}, batches={batches}"
            )
        if not _are_arrays(x):
            make_batches(x, y, sample_weight)  # raises unless it is data
            batch = _first_of_each_class(x, examples_per_class, classes)
        else:
            data = (x, y, sample_weight)
            batch = _drawn_of_each_class(data, examples_per_class, seed, classes)
        return iter([_as_yielded(batch) if as_yielded else batch])
    if _are_arrays(x):
        if batch_size is None:
            batch_size = DEFAULT_BATCH_SIZE
        _check_count("batch_size", batch_size)
        drawn = _from_arrays((x, y, sample_weight), batch_size, batches, seed)
        return map(_as_yielded, drawn) if as_yielded else drawn
    if not hasattr(x, "__iter__") and not isinstance(x, keras.utils.PyDataset):
        raise _wrong_kind(x)
    if isinstance(x, (str, bytes, list, tuple, Mapping)):
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
    return _from_iterable(x, batches, as_yielded)


def _pieces(batch: Batch, size: int) -> Iterator[Batch]:
    """As few pieces of at most `size` examples as there can be, as equal as can be."""
    count = example_count(batch)
    pieces = -(-count // size)
    for piece in range(pieces):
        yield _rows(
            batch, slice(piece * count // pieces, (piece + 1) * count // pieces)
        )


def _rows(batch: Batch, rows: slice | np.ndarray) -> Batch:
    """Some of the examples, as a model takes them."""
    some = keras.tree.map_structure(lambda leaf: take(leaf, rows), batch)
    return tuple(map(fed, some))


def ones_for(model: keras.Model, batches: Iterable[Batch]) -> Any:
    """Ones for one example of what the model takes, or as many as it has states for."""
    whole = is_stateful(model)

    def one(shape: tuple[int | None, ...], dtype: Any) -> Any:
        if None in shape[1:]:
            raise ValueError(
                f"Expected inputs of a known shape where no data is given. Received: "
                f"{model.name!r}, which takes inputs of shape {tuple(shape)}. Pass a "
                f"mini-batch as `x`."
            )
        return keras.ops.ones([(whole and shape[0]) or 1, *shape[1:]], dtype)

    for x, _, _ in batches:
        return keras.tree.map_structure(lambda a: one(tuple(a.shape), a.dtype), x)
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            f"Expected a Sequential or Functional model where no data is given, since "
            f"the shape of an input is not known otherwise. Received: "
            f"{model.name!r} of class {type(model).__name__}. Pass a mini-batch as `x`."
        )
    if isinstance(model, keras.Sequential):
        [inputs] = inputs
    else:
        inputs = model.input
    return keras.tree.map_structure(lambda t: one(t.shape, t.dtype), inputs)


def _are_arrays(x: Any) -> bool:
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    return bool(leaves) and all(map(is_array, leaves))


def _from_arrays(
    data: Batch, batch_size: int, batches: int, seed: int | None
) -> Iterator[Batch]:
    arrays = _as_arrays(data)
    length = _common_length(arrays)
    available = -(-length // batch_size)
    if batches > available:
        raise ValueError(
            f"Expected enough examples for batches={batches} of "
            f"batch_size={batch_size}. Received: {length} examples, which make "
            f"{available}"
        )
    wanted = min(length, batches * batch_size)
    order = np.arange(length) if wanted == length else _shuffled(length, seed)[:wanted]

    return (
        _rows(arrays, order[start : start + batch_size])
        for start in range(0, wanted, batch_size)
    )


def _as_arrays(data: Batch) -> Batch:
    arrays = keras.tree.map_structure(as_rows, data)
    if _common_length(arrays) == 0:
        raise ValueError("Expected at least one example. Received: x with 0 examples")
    return arrays


def _shuffled(length: int, seed: int | None) -> np.ndarray:
    if seed is None:
        return np.random.permutation(length)
    return np.random.default_rng(seed).permutation(length)


def _drawn_of_each_class(
    data: Batch, each: int, seed: int | None, classes: int | None
) -> Batch:
    arrays = _as_arrays(data)
    labels = _labels(arrays[1])
    order = _shuffled(len(labels), seed)
    found = {label: order[labels[order] == label][:each] for label in np.unique(labels)}
    _check_enough({label: len(rows) for label, rows in found.items()}, each, classes)
    return _rows(arrays, np.concatenate(list(found.values())))


def _first_of_each_class(source: Any, each: int, classes: int | None) -> Batch:
    """The first examples of each class; reads on until there are enough of all."""
    taken, counts = [], collections.Counter()
    with _reading(source) as batches:
        useless = 0
        for batch in map(_unpacked, batches):
            arrays = _as_arrays(batch)
            rows = []
            for row, label in enumerate(_labels(arrays[1]).tolist()):
                counts[label] += 1
                if counts[label] <= each:
                    rows.append(row)
            useless += len(arrays[1])
            if rows:
                taken.append(_rows(arrays, np.array(rows)))
                useless = 0
            if len(counts) == classes and min(counts.values()) >= each:
                break
            if useless > _PATIENCE:
                break
    if not taken:
        raise ValueError(
            "Expected at least one mini-batch. Received: an empty data set"
        )
    _check_enough(counts, each, classes)
    return keras.tree.map_structure(lambda *leaves: join(leaves), *taken)


def _labels(y: Any) -> np.ndarray:
    """The class of each example, of labels or one-hot vectors."""
    if is_text(y):
        raise ValueError(TEXT_TARGETS)
    if isinstance(y, np.ndarray) and y.dtype.kind in "biuf":
        if y.ndim == 2 and y.shape[1] > 1:
            # One-hot, or smoothed; not numbers to be predicted, nor tokens.
            if (y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=1e-3):
                return y.argmax(axis=1)
        elif y.size == len(y) and np.array_equal(y, np.floor(y)):
            return y.reshape(-1)
    kind = "no targets. " + PAIRS if y is None else f"targets of {type(y).__name__}"
    if isinstance(y, np.ndarray):
        kind = f"targets of shape {y.shape} and dtype {y.dtype}"
    raise ValueError(
        f"Expected targets that tell the class of each example, whole numbers or "
        f"one-hot vectors, with `examples_per_class`. Received: {kind}"
    )


def _check_enough(counts: dict[Any, int], each: int, classes: int | None) -> None:
    short = {label: count for label, count in counts.items() if count < each}
    if short:
        raise ValueError(
            f"Expected at least examples_per_class={each} examples of each class. "
            f"Received: "
            + ", ".join(f"{count} of class {label}" for label, count in short.items())
        )
    if classes is not None and len(counts) < classes:
        raise ValueError(
            f"Expected examples of each of the {classes} classes that the model has "
            f"outputs for. Received: examples of {len(counts)} classes"
        )


def _common_length(data: Batch) -> int:
    lengths = {}
    for name, nest in zip(("x", "y", "sample_weight"), data, strict=True):
        leaves = [leaf for leaf in keras.tree.flatten(nest) if leaf is not None]
        for position, leaf in enumerate(leaves):
            label = name if len(leaves) == 1 else f"{name}[{position}]"
            if len(leaf.shape) == 0:
                if name == "y" and is_text(leaf):  # a list of strings, each a leaf
                    raise ValueError(TEXT_TARGETS)
                if name == "sample_weight" and isinstance(nest, Mapping):
                    raise ValueError(_CLASS_WEIGHT)
                raise ValueError(
                    f"Expected arrays with the examples along axis 0. "
                    f"Received: {label} of shape (). Wrap plain Python lists in "
                    f"numpy.asarray; call `.batch(...)` on a dataset of single ones."
                )
            lengths[label] = count(leaf)
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{label} has {n}" for label, n in lengths.items())
        raise ValueError(
            f"Expected the same number of examples in all arrays. Received: {listing}"
        )
    return next(iter(lengths.values()))


def _from_iterable(source: Any, batches: int, as_yielded: bool) -> Iterator[Batch]:
    taken = 0
    with _reading(source) as data:
        for batch in itertools.islice(data, batches):
            taken += 1
            batch = (batch, None, None) if as_yielded else _unpacked(batch)
            batch = tuple(map(fed, batch))
            _check_batch(batch, as_yielded)
            yield batch
    if taken < batches:
        raise ValueError(
            f"Expected at least batches={batches} mini-batches. Received: a data set "
            f"that ended after {taken}" + (" (it is empty)" if taken == 0 else "")
        )


@contextlib.contextmanager
def _reading(source: Any) -> Iterator[Iterator[Any]]:
    """The batches in order, as in an epoch of `fit` that does not shuffle.

    What Keras calls before and after each pass is called here, too: a PyDataset may
    choose its examples, or open its files, in `on_epoch_begin`.
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


def _check_batch(batch: Batch, as_yielded: bool) -> None:
    if not _are_arrays(batch[0]):
        raise _wrong_kind(batch[0])
    leaves = [leaf for leaf in keras.tree.flatten(batch[0]) if leaf is not None]
    if not as_yielded and any(len(leaf.shape) == 0 for leaf in leaves):
        raise ValueError(
            "Expected batches with the examples along axis 0. Received: an input of "
            "shape (). Call `.batch(...)` on a dataset of single examples."
        )
    if example_count(batch) == 0:
        raise ValueError("Expected non-empty batches. Received: one of 0 examples")


def _unpacked(batch: Any) -> Batch:
    """(x, y, sample_weight) of what a data set yields."""
    if isinstance(batch, (list, tuple)) and not 1 <= len(batch) <= 3:
        raise ValueError(
            f"Expected each batch to be (inputs, targets), (inputs, targets, weights) "
            f"or inputs alone. Received: a {type(batch).__name__} of {len(batch)}. "
            f"Several inputs go together, as in ((first, second), targets)."
        )
    return keras.utils.unpack_x_y_sample_weight(batch)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"Expected `{name}` to be an integer. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
        )
    if value < 1:
        raise ValueError(f"Expected `{name}` to be at least 1. Received: {value}")


def _wrong_kind(x: Any) -> TypeError:
    advice = "Wrap plain Python lists in numpy.asarray."
    inside = [leaf for leaf in keras.tree.flatten(x) if _is_data_set(leaf)]
    if isinstance(x, Mapping) and inside:
        first = next(key for key, value in x.items() if _is_data_set(value))
        advice = f"Pass one of the data sets that it holds, such as x=data[{first!r}]."
    elif inside:
        advice = "Pass the data set that it holds by itself."
    elif callable(x):
        advice = "Call it, and pass what it returns."
    elif any(map(is_distributed, keras.tree.flatten(x))):
        advice = "Pass the data set as it was before a strategy distributed it."
    return TypeError(
        f"Expected data as `Model.fit` takes it: arrays, a nest of arrays, a "
        f"tf.data.Dataset, a keras.utils.PyDataset or a generator of batches. "
        f"Received: {type(x).__name__}. {advice}"
    )


def _is_data_set(value: Any) -> bool:
    # (A tf.data.Dataset, of which this file need not know.)
    return isinstance(value, keras.utils.PyDataset) or hasattr(value, "element_spec")


def _as_yielded(batch: Batch) -> Batch:
    """A batch in which `x` is all that was given."""
    x, y, sample_weight = batch
    if sample_weight is not None:
        return (x, y, sample_weight), None, None
    return x if y is None else (x, y), None, None
