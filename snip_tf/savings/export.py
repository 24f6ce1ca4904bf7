"""export: a pruned model to a file that is smaller for it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from snip_tf.checks import check_built, has_call, list_of
from snip_tf.files import check_folder, whole_file, whole_folder
from snip_tf.masking.copying import copy_unmasked
from snip_tf.masking.masked_weights import all_masks
from snip_tf.masking.pruned_model import strip_pruning
from snip_tf.savings.litert import convert
from snip_tf.savings.serving import notes_on_inputs, write_saved_model
from snip_tf.savings.sparse_format import save_sparse
from snip_tf.weights import layer_tree


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str = "keras",
    *,
    int8: bool = False,
    print_fn: Callable[[str], Any] = print,
) -> None:
    """Writes a model to a file in which its zeros cost next to nothing.

    Masks are left out: the file is of the plain model. `snip_tf.compact` it first, and
    what is dead is left out, too.

    Args:
        model: a built `keras.Model`, pruned or not. It is left as it is.
        path: where to write. What exists is replaced once all is written.
        format: `"keras"`, what `keras.models.load_model` reads, compressed;
            `"litert"`, for the LiteRT interpreter (`pip install ai-edge-litert`), with
            sparse tensors where there are zeros enough; with recurrent layers for one
            example at a time;
            `"saved_model"`, a folder for TensorFlow Serving, whose zeros stay as they
            are;
            `"sparse"`, the smallest, what `snip_tf.load_sparse` reads.
            `"keras"` and `"sparse"` keep the model's configuration, so that each of its
            layers needs a `get_config`; the others need none.
        int8: bool, with `format="litert"`: weights of eight bits. LiteRT runs layers
            that are both sparse and of eight bits only without its default delegates:
            `Interpreter(path, experimental_op_resolver_type=`
            `OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)`.
        print_fn: called with a line that says how many bytes the file takes, and what
            part that is of the plain model's weights, or with `format="keras"` of the
            file that Keras writes of it; then with a line for each thing to know of the
            file, such as that LiteRT runs it with TensorFlow's operations only.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built, the format is unknown, `path` lacks the suffix
            of its format or has that of another, `int8` is given with another format, a
            SavedModel would replace what is not part of one, a layer has no
            configuration that the format needs, or the converter to LiteRT fails on
            one.
        OSError: if it cannot be written, as on a full disk.

    Example:

    >>> import keras, snip_tf, tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> path = tempfile.mkdtemp() + "/model.keras"
    >>> snip_tf.export(model, path, print_fn=lambda line: None)
    >>> keras.models.load_model(path).count_params()
    6
    """
    check_built(model)
    _check_format(format, int8)
    path = Path(path)
    _check_ending(path, format)
    check_folder(path)
    if format == "saved_model":
        _check_replaceable(path)
    if format in ("saved_model", "litert"):
        _check_has_call(model, format)
    plain = strip_pruning(model) if all_masks(model) else copy_unmasked(model)
    before, what = _bytes_of(plain.weights), "the weights of the plain model take"
    notes: list[str] = []
    with _errors_of(path):
        if format == "keras":
            before = _save_compressed(plain, path)
            what = "Keras writes of the plain model"
        elif format == "sparse":
            with _asked_for_configurations(plain, format):
                save_sparse(plain, path)
        elif format == "litert":
            content, notes = convert(plain, int8)
            with whole_file(path) as partial:
                partial.write_bytes(content)
        else:
            with whole_folder(path) as partial:
                write_saved_model(plain, partial)
            notes = notes_on_inputs(plain)
    after = _size(path)
    ratio = after / max(before, 1)
    print_fn(f"{path.name}: {after:,} bytes, {ratio:.3f} of the {before:,} that {what}")
    for note in notes:
        print_fn(note)


FORMATS = ("keras", "litert", "saved_model", "sparse")
_ENDINGS = {"keras": ".keras", "litert": ".tflite"}
# What others call these formats.
_ALSO_CALLED = {
    "tflite": "litert",
    "lite": "litert",
    "tf": "saved_model",
    "tf_saved_model": "saved_model",
    "savedmodel": "saved_model",
}


def _check_format(format: str, int8: bool) -> None:
    if format not in FORMATS:
        meant = _ALSO_CALLED.get(str(format).lower())
        raise ValueError(
            f"Expected `format` to be one of {', '.join(map(repr, FORMATS))}. "
            f"Received: format={format!r}"
            + (f". Did you mean format={meant!r}?" if meant else "")
        )
    if int8 and format != "litert":
        raise ValueError(
            f"Expected format='litert' with `int8`; the other formats keep the types "
            f"of the weights. Received: format={format!r}"
        )


def _check_ending(path: Path, format: str) -> None:
    """Raises unless readers will take the file for what it is."""
    own = _ENDINGS.get(format)
    ends_as = [f for f, ending in _ENDINGS.items() if path.name.endswith(ending)]
    if ends_as == ([format] if own else []):
        return
    expected = f"that ends in {own!r}" if own else f"without {path.suffix!r}"
    advice = f". Did you mean format={ends_as[0]!r}?" if ends_as else ""
    raise ValueError(
        f"Expected a path {expected} with format={format!r}. "
        f"Received: path={os.fspath(path)!r}{advice}"
    )


def _bytes_of(weights: list[keras.Variable]) -> int:
    arrays = map(keras.ops.convert_to_numpy, weights)
    return sum(array.nbytes for array in arrays)


def _save_compressed(model: keras.Model, path: Path) -> int:
    """Writes what Keras does, compressed; returns the bytes that Keras takes.

    Keras stores the parts of its archives as they are; zip can do better.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "plain.keras"
        with _asked_for_configurations(model, "keras"):
            model.save(saved)
        with (
            whole_file(path) as partial,
            zipfile.ZipFile(saved) as plain,
            zipfile.ZipFile(
                partial, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=9
            ) as compressed,
        ):
            for part in plain.infolist():
                compressed.writestr(part.filename, plain.read(part))
        return saved.stat().st_size


@contextlib.contextmanager
def _asked_for_configurations(model: keras.Model, format: str) -> Iterator[None]:
    """Says which part of a model has no configuration, if Keras fails to make one."""
    try:
        yield
    except (NotImplementedError, TypeError, ValueError) as error:
        parts = [part for part in layer_tree(model) if not _has_configuration(part)]
        if not parts:
            raise
        layer = parts[-1]  # the innermost, as those around it ask it for its own
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise ValueError(
            f"Expected a model of which Keras can make a configuration, which "
            f"format={format!r} keeps beside the weights. Received: "
            f"model={model.name!r}, in which {layer.name!r} of class "
            f"{type(layer).__name__} gives none ({reason}). Implement the `get_config` "
            f"that is missing, or use format='saved_model' or format='litert', which "
            f"need none."
        ) from error


def _has_configuration(layer: keras.Layer) -> bool:
    try:
        json.dumps(keras.saving.serialize_keras_object(layer))
    except (NotImplementedError, TypeError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Has errors of the disk name the user's path, not one that is written to first."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


# What TensorFlow, or Keras 2, writes into the folder of a SavedModel.
_SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "keras_metadata.pb"}
_SAVED_MODEL |= {"variables", "assets", "assets.extra"}


def _check_has_call(model: keras.Model, format: str) -> None:
    """Raises if there is nothing that the file could compute."""
    if not has_call(model):
        raise ValueError(
            f"Expected a model with a `call`, which is what format={format!r} writes. "
            f"Received: model={model.name!r} of class {type(model).__name__}, which "
            f"has none. Export its parts, each by itself, or as 'keras' or 'sparse'."
        )


def _check_replaceable(path: Path) -> None:
    """Raises if a SavedModel at `path` would remove what is not part of one."""
    if not path.exists():
        return
    found = sorted(part.name for part in path.iterdir()) if path.is_dir() else []
    others = [name for name in found if name not in _SAVED_MODEL]
    if path.is_dir() and not others and ("saved_model.pb" in found or not found):
        return
    what = f"holds something else: {list_of(others or found)}" if found else "is a file"
    raise ValueError(
        f"Expected `path` to be new, an empty folder, or a SavedModel to replace. "
        f"Received: path={os.fspath(path)!r}, which {what}. Name another path."
    )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return path.stat().st_size
