"""Writes a SavedModel of what `predict` computes, for TensorFlow Serving."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from snip_tf._keras import input_signature
from snip_tf.checks import list_of
from snip_tf.savings.quiet import quiet
from snip_tf.weights import layer_tree


def write_saved_model(
    model: keras.Model, folder: str | os.PathLike, batch_size: int | None = None
) -> Any:
    """Writes a model as `model.export` does, in inference mode and silently.

    (`model.export` uses the default of `training` in each layer's `call`, which may be
    True.)

    Args:
        model: a built model, a copy that nothing else uses.
        folder: the new SavedModel.
        batch_size: the only batch size that it takes; None for any.

    Returns:
        The `tf.function` that it was traced from.

    Raises:
        ValueError: if the inputs of the model are not known.
        OSError: if it cannot be written, as on a full disk.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    traced = archive.add_endpoint(
        "serve",
        functools.partial(model.__call__, training=False),
        input_signature=_signature(model, batch_size),
    )
    with quiet(), _errors_of_the_disk(folder):
        archive.write_out(os.fspath(folder), verbose=False)
    return traced


def notes_on_inputs(model: keras.Model) -> list[str]:
    """Returns notes on the types that an exported model takes.

    Keras remembers the shapes on which a subclassed model was called, not the types.
    """
    if isinstance(model, keras.Sequential) or hasattr(model, "inputs"):
        return []
    others = [layer for layer in layer_tree(model) if isinstance(layer, _OF_TOKENS)]
    if not others:
        return []
    names = list_of([f"{each.name} ({type(each).__name__})" for each in others])
    return [
        f"It takes {model.input_dtype}, since Keras does not record the types on which "
        f"{model.name!r} was called. For the integers or text that {names} may need, "
        "export `keras.Model(inputs, model(inputs))` with `inputs = "
        "keras.Input(shape, dtype=...)`."
    ]


# Layers that are rarely called on floating-point numbers.
_OF_TOKENS = (
    keras.layers.Embedding,
    keras.layers.Hashing,
    keras.layers.HashedCrossing,
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
    keras.layers.CategoryEncoding,
)


# What TensorFlow, or Keras 2, writes into the folder of a SavedModel.
_PARTS = {
    "assets",
    "assets.extra",
    "fingerprint.pb",
    "keras_metadata.pb",
    "saved_model.pb",
    "variables",
}


def check_replaceable(path: Path) -> None:
    """Raises if a SavedModel at `path` would replace other files."""
    if not path.exists():
        return
    found = sorted(part.name for part in path.iterdir()) if path.is_dir() else []
    others = [name for name in found if name not in _PARTS]
    if path.is_dir() and not others and ("saved_model.pb" in found or not found):
        return
    what = f"holds something else: {list_of(others or found)}" if found else "is a file"
    raise ValueError(
        f"Expected `path` to be new, an empty folder, or a SavedModel to replace. "
        f"Received: path={os.fspath(path)!r}, which {what}. Name another path."
    )


@contextlib.contextmanager
def _errors_of_the_disk(folder: str | os.PathLike) -> Iterator[None]:
    """Turns TensorFlow's error on a full disk into Python's."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        # It has the message of the operating system, not the number.
        codes = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
        of_disk = [code for code in codes if os.strerror(code) in error.message]
        code = of_disk[0] if of_disk else errno.EIO
        raise OSError(code, os.strerror(code), os.fspath(folder)) from error


def _signature(model: keras.Model, batch_size: int | None) -> list[Any]:
    """Returns a specification of each argument of the model's `call`."""
    if isinstance(model, keras.Sequential) and not hasattr(model, "inputs"):
        raise ValueError(
            f"Expected a model whose inputs are known. Received: the Sequential model "
            f"{model.name!r}, which has a layer that has only run on arrays. Begin "
            f"it with a `keras.Input`, and give that layer a `compute_output_shape`."
        )
    signature = input_signature(model)
    _check_arguments(model, len(signature))
    if batch_size is None:
        return signature

    def fixed(spec: Any) -> keras.InputSpec:
        shape = (batch_size, *spec.shape[1:])
        return keras.InputSpec(shape=shape, dtype=spec.dtype, name=spec.name)

    return keras.tree.map_structure(fixed, signature)


def _check_arguments(model: keras.Model, known: int) -> None:
    """Raises if a model's `call` needs more arguments than are known."""
    parameters = inspect.signature(model.call).parameters.values()
    needed = [p.name for p in parameters if _is_needed(p)]
    if len(needed) > known:
        raise ValueError(
            f"Expected a model whose `call` takes one argument (a tensor, or a list or "
            f"dict of tensors), since Keras records only the shape of the first. "
            f"Received: model={model.name!r} of class {type(model).__name__}, whose "
            f"`call` needs {', '.join(needed)}. Give it one argument that holds them, "
            f"or write a `build` of the arguments "
            f"{', '.join(f'{name}_shape' for name in needed)}, which Keras keeps."
        )


def _is_needed(parameter: inspect.Parameter) -> bool:
    listed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    optional = parameter.default is not inspect.Parameter.empty
    return not (optional or parameter.kind in listed or parameter.name == "training")
