"""The inputs of a model, read from arrays, tensors, dicts by name, or datasets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import scipy.sparse

from snip_tf.graph.graph import is_tensor, tensors

_Shape = tuple[int, ...]


class Inputs:
    """The inputs of a model.

    Args:
        own: the nest of `KerasTensor`s that the model takes.
    """

    def __init__(self, own: Any):
        self._own = own
        self._tensors = tensors(own)
        self._shapes = [tuple(tensor.shape) for tensor in self._tensors]

    def read(self, x: Any) -> Any:
        """Returns a batch in the model's nest, as arrays."""
        x = self._by_name(x) if isinstance(x, dict) else x
        if is_tensor(self._own):
            return _array(x, self._own)
        given = keras.tree.flatten(x)
        if len(given) != len(self._tensors):
            return x  # refused by `count`
        return keras.tree.pack_sequence_as(
            self._own, list(map(_array, given, self._tensors))
        )

    def _by_name(self, x: dict[str, Any]) -> Any:
        own = self._own
        if is_tensor(own) and len(x) == 1:
            return next(iter(x.values()))
        names = list(own) if isinstance(own, dict) else [t.name for t in self._tensors]
        if any(name not in x for name in names):
            raise ValueError(
                f"Expected inputs named {', '.join(map(repr, names))}. "
                f"Received: {', '.join(map(repr, x))}"
            )
        if isinstance(own, dict):
            return {name: x[name] for name in names}
        # In the order of the inputs.
        return keras.tree.pack_sequence_as(own, [x[name] for name in names])

    def count(self, x: Any) -> int:
        """Returns the number of examples; raises unless the model takes them."""
        given = [np.shape(x)] if is_tensor(self._own) else _shapes(x)
        fit = len(given) == len(self._shapes) and all(map(_fits, given, self._shapes))
        if not fit:
            raise ValueError(
                f"Expected one or more examples of shape {self._shapes}. Received: "
                f"inputs of shape {given}"
            )
        if len({shape[0] for shape in given}) > 1:
            raise ValueError(
                f"Expected the same number of examples of each input. Received: "
                f"inputs of shape {given}"
            )
        return given[0][0]

    def zeros(self, batch_size: int) -> Any:
        """Returns a batch of zeros, or of empty text."""
        if any(None in shape[1:] for shape in self._shapes):
            raise ValueError(
                "Expected no `batch_size` for a model that takes inputs of any size. "
                f"Received: batch_size={batch_size}, for inputs of shape "
                f"{self._shapes}. The fastest engine is found at the first call with "
                "each batch size."
            )

        def of_input(tensor: keras.KerasTensor) -> np.ndarray:
            shape = (batch_size, *tensor.shape[1:])
            if tensor.dtype == "string":
                return np.full(shape, "", object)
            return keras.ops.convert_to_numpy(keras.ops.zeros(shape, tensor.dtype))

        return keras.tree.map_structure(of_input, self._own)

    def batches(self, x: Any, batch_size: int | None) -> Iterator[Any]:
        """Returns the batches of arrays, or those that a dataset yields."""
        if not is_dataset(x):
            yield from self._pieces(self.read(x), batch_size or 32)
            return
        if batch_size is not None:
            raise ValueError(
                f"Expected no `batch_size` for a dataset, which yields batches. "
                f"Received: batch_size={batch_size!r}"
            )
        every = map(x.__getitem__, range(len(x))) if _is_sequence(x) else iter(x)
        for batch in every:
            inputs, *_ = keras.utils.unpack_x_y_sample_weight(batch)
            yield self.read(inputs)

    def _pieces(self, x: Any, batch_size: int) -> Iterator[Any]:
        x = keras.tree.map_structure(np.asarray, x)
        for start in range(0, self.count(x), batch_size):
            part = slice(start, start + batch_size)
            yield keras.tree.map_structure(lambda array, part=part: array[part], x)


def is_dataset(x: Any) -> bool:
    """Returns whether data yields batches."""
    return _is_sequence(x) or isinstance(x, Iterator) or hasattr(x, "element_spec")


def _is_sequence(x: Any) -> bool:
    return isinstance(x, keras.utils.PyDataset)


def filled_up(batch: Any, missing: int) -> Any:
    """Returns a batch, padded with copies of its last example."""
    if not missing:
        return batch
    return keras.tree.map_structure(
        lambda array: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]),
        keras.tree.map_structure(np.asarray, batch),
    )


def _array(x: Any, wanted: keras.KerasTensor) -> np.ndarray:
    """Returns an input as a dense NumPy array."""
    if scipy.sparse.issparse(x):
        x = x.toarray()
    elif keras.ops.is_tensor(x):
        x = keras.ops.convert_to_tensor(x, sparse=False)
    array = np.asarray(x)
    is_text = array.dtype.kind in "OSU"
    if is_text != (wanted.dtype == "string"):
        expected = "numbers" if is_text else "text"
        kind = "text" if array.dtype.kind in "SU" else f"a {type(x).__name__}"
        raise TypeError(
            f"Expected examples that are {expected}, as arrays or tensors. Received: "
            f"{kind if is_text else 'numbers'} for the input {wanted.name!r}"
        )
    return _of_rank(array, wanted.shape)


def _of_rank(array: np.ndarray, wanted: tuple[int | None, ...]) -> np.ndarray:
    """Returns the array in the wanted rank; like Keras, adds or drops a last axis."""
    more = array.ndim - len(wanted)
    if more == 1 and array.shape[-1] == 1:
        return array[..., 0]
    if more == -1 and array.ndim and wanted[-1] == 1:
        return array[..., None]
    return array


def _shapes(nest: Any) -> list[_Shape]:
    return [np.shape(array) for array in keras.tree.flatten(nest)]


def _fits(given: _Shape, wanted: tuple[int | None, ...]) -> bool:
    """Returns whether an array has the shape of an input and at least one example."""
    if len(given) != len(wanted) or not given[0]:
        return False
    return all(w in (None, g) for g, w in zip(given[1:], wanted[1:], strict=True))
