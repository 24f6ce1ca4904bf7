"""Private names of files: what Keras saves and loads, and the LiteRT converter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# The base class of anything that Keras saves and loads.
from keras.src.saving.keras_saveable import KerasSaveable


def converter_error() -> type[Exception]:
    """Returns the error that TensorFlow's LiteRT converter raises, which is not public.

    Raises:
        ImportError: if TensorFlow lacks the converter.
    """
    from tensorflow.lite.python.convert import ConverterError

    return ConverterError


def litert_schema() -> Any:
    """Returns readers of LiteRT files, generated from their public schema.

    `ai_edge_litert`, which has them too, need not be installed to write a file.
    """
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


class SavedPart(KerasSaveable):
    """An attribute of a layer that Keras saves, in a group of its own.

    It needs `save_own_variables` and `load_own_variables`.
    """

    def _obj_type(self) -> str:
        return "Loss"  # for which Keras skips the attributes of a loss


def paths_in(store: Any) -> Iterable[str]:
    """Returns all paths in the file that a store reads.

    Publicly, Keras shows a layer only its own part. This asks the HDF5 file of the
    store, or its index of several files; other kinds have no paths.
    """
    names = list(getattr(store, "sharding_config", {}).get("weight_map", {}))
    file = getattr(store, "h5_file", None)
    if file:
        file.visit(names.append)
    return names
