"""Takes, joins and counts examples along axis 0 of any array that `fit` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from snip_tf import _backend

# (x, y, sample_weight); x may be any nest of arrays, y and sample_weight may be None.
Batch = tuple[Any, Any, Any]

# Tensors of TensorFlow that NumPy cannot represent.
_RAGGED_OR_SPARSE = _backend.RAGGED + _backend.SPARSE


def is_array(leaf: Any) -> bool:
    """Returns whether a leaf of a nest is an array of some kind."""
    return hasattr(leaf, "shape")


def as_rows(leaf: Any) -> Any:
    """Returns the array in a form from which rows can be taken."""
    if leaf is None or isinstance(leaf, _RAGGED_OR_SPARSE):
        return leaf
    if hasattr(leaf, "tocsr"):  # a SciPy matrix: it stays sparse
        return leaf.tocsr()
    if hasattr(leaf, "iloc"):  # pandas
        return _of_table(leaf)
    if hasattr(leaf, "detach"):  # PyTorch
        leaf = leaf.detach().cpu()
    return np.asarray(leaf)


def _of_table(table: Any) -> np.ndarray:
    """Returns the numbers of a DataFrame or a Series, as `fit` takes them."""
    array = table.to_numpy()
    if array.dtype == object and not is_text(array):
        # Columns of several types, such as numbers and booleans.
        array = table.astype(keras.config.floatx()).to_numpy()
    return array[:, np.newaxis] if array.ndim == 1 else array


def take(leaf: Any, rows: slice | np.ndarray) -> Any:
    """Returns some rows, each at most once; a number for all rows is unchanged."""
    if leaf is None or not len(leaf.shape):
        return leaf
    if isinstance(leaf, _backend.SPARSE):
        return _take_sparse(leaf, rows)
    if isinstance(leaf, _backend.RAGGED) and not isinstance(rows, slice):
        import tensorflow as tf

        return tf.gather(leaf, rows)
    return leaf[rows]


def _take_sparse(tensor: Any, rows: slice | np.ndarray) -> Any:
    import tensorflow as tf

    count, *others = (int(size) for size in tensor.dense_shape)
    rows = np.arange(count)[rows]
    position = np.full(count, -1)  # of each row among those taken
    position[rows] = np.arange(len(rows))
    indices = np.array(tensor.indices)
    indices[:, 0] = position[indices[:, 0]]
    taken = np.flatnonzero(indices[:, 0] >= 0)
    part = tf.SparseTensor(
        indices[taken], tf.gather(tensor.values, taken), [len(rows), *others]
    )
    return tf.sparse.reorder(part)


def join(leaves: Sequence[Any]) -> Any:
    """Concatenates arrays that `fed` returned."""
    if leaves[0] is None:
        return None
    if isinstance(leaves[0], _RAGGED_OR_SPARSE):
        import tensorflow as tf

        ragged = isinstance(leaves[0], _backend.RAGGED)
        return tf.concat(leaves, 0) if ragged else tf.sparse.concat(0, list(leaves))
    are_tensors = keras.ops.is_tensor(leaves[0])
    return keras.ops.concatenate(leaves) if are_tensors else np.concatenate(leaves)


def fed(nest: Any) -> Any:
    """Returns arrays as a model takes them: text and SciPy matrices as tensors."""
    nest = keras.tree.map_structure(_fed, nest)
    if not any(map(keras.ops.is_tensor, keras.tree.flatten(nest))):
        return nest
    return keras.tree.map_structure(_as_tensor, nest)  # Keras refuses arrays beside


def _as_tensor(leaf: Any) -> Any:
    dense = is_array(leaf) and not isinstance(leaf, _RAGGED_OR_SPARSE)
    return keras.ops.convert_to_tensor(leaf) if dense else leaf


def _fed(leaf: Any) -> Any:
    if not is_array(leaf) or keras.ops.is_tensor(leaf):
        return leaf
    rows = as_rows(leaf)
    if hasattr(rows, "tocsr") or is_text(rows):
        return _backend.constant(rows)
    return rows


def as_tensors(batch: Batch) -> Batch:
    """Returns a mini-batch as tensors, as a training step gets it.

    Array data is cast as in `Model.fit`, floats to Keras' default type; tensors stay as
    they are.
    """

    def as_tensor(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray) or leaf.dtype.kind in "OSUmM":
            return leaf  # objects, text and dates are no tensors
        is_float = keras.backend.is_float_dtype(leaf.dtype.name)
        return _backend.constant(leaf, keras.config.floatx() if is_float else None)

    return keras.tree.map_structure(as_tensor, batch)


def example_count(batch: Any) -> int:
    """Returns the number of examples in a mini-batch `(x, y, sample_weight)`."""
    leaves = [leaf for leaf in keras.tree.flatten(batch[0]) if leaf is not None]
    # The batch of an objective may also hold numbers for the batch as a whole.
    return next((count(leaf) for leaf in leaves if len(leaf.shape)), 1)


def count(leaf: Any) -> int:
    """Returns the number of rows."""
    return int(leaf.nrows() if isinstance(leaf, _backend.RAGGED) else leaf.shape[0])


def is_distributed(leaf: Any) -> bool:
    """Returns whether a leaf is a per-replica value of a strategy."""
    return isinstance(leaf, _backend.DISTRIBUTED)


def is_text(array: Any) -> bool:
    """Returns whether an array or a tensor holds strings."""
    if not isinstance(array, np.ndarray):
        return keras.ops.is_tensor(array) and _dtype(array) == "string"
    if array.dtype == object:
        return array.size > 0 and all(isinstance(v, (str, bytes)) for v in array.flat)
    return array.dtype.kind in "SUT"


def _dtype(tensor: Any) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)
