"""export: writes a pruned model to a small file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras

from snip_tf import _backend
from snip_tf.checks import check_callable, check_count, check_one_of, check_path
from snip_tf.files import check_folder, whole_file, whole_folder
from snip_tf.masking.copying import plain_copy
from snip_tf.network import Network, has_call
from snip_tf.savings.configurations import named_configurations
from snip_tf.savings.keras_archive import save_compressed
from snip_tf.savings.litert import convert
from snip_tf.savings.saved_model import (
    check_replaceable,
    notes_on_inputs,
    write_saved_model,
)
from snip_tf.savings.sparse_format import save_sparse

Format = Literal["keras", "litert", "saved_model", "sparse"]
FORMATS = ("keras", "litert", "saved_model", "sparse")


class ExportSizes(NamedTuple):
    """The sizes before and after `snip_tf.export`, in bytes.

    Attributes:
        before: of the plain model's weights, or with `format="keras"` of the file that
            Keras writes of it.
        after: of the file or folder written.
    """

    before: int
    after: int


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: Format = "keras",
    *,
    int8: Literal[False, "weights"] = False,
    batch_size: int = 1,
    print_fn: Callable[[str], Any] = print,
) -> ExportSizes:
    """Writes a model to a file in which its zeros cost next to nothing.

    The file holds the plain model, without masks. Call `snip_tf.compact` first to
    remove dead units as well.

    Args:
        model: a built `keras.Model`, pruned or not. It is left unchanged.
        path: where to write. An existing file is replaced after all is written.
        format: `"keras"`, for `keras.models.load_model`, compressed;
            `"litert"`, for the LiteRT interpreter (`pip install ai-edge-litert`), with
            sparse tensors where enough is zero;
            `"saved_model"`, a folder for TensorFlow Serving, in which zeros take as
            much space as other numbers;
            `"sparse"`, for `snip_tf.load_sparse`, the smallest.
            `"keras"` and `"sparse"` store the model's configuration, so each of its
            layers needs a `get_config`; the others need none, but Keras on TensorFlow.
        int8: `"weights"`, with `format="litert"`: weights of eight bits. LiteRT runs
            layers that are both sparse and eight-bit only without its default
            delegates: `Interpreter(path, experimental_op_resolver_type=`
            `OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)`.
        batch_size: int, with `format="litert"`: the number of examples that recurrent
            layers run on at a time. Models without them take any number.
        print_fn: called with a line that states the bytes before and after, then with a
            line for each note on the file, such as the layers that need TensorFlow's
            operations in LiteRT.

    Returns:
        `ExportSizes(before, after)`, in bytes: `before` of the plain model's weights,
        or with `format="keras"` of the file that Keras writes of it.

    Raises:
        TypeError: if `model` is not a Keras model, or another argument is of the wrong
            kind.
        ValueError: if the model is not built, the format or `int8` is unknown, `path`
            lacks the suffix of its format or has that of another, `int8` or
            `batch_size` is given with a format other than LiteRT's, a SavedModel would
            replace other files, a layer lacks the configuration that the format needs,
            or the LiteRT converter fails.
        OSError: if it cannot be written, as on a full disk.

    Example:

    >>> import keras, snip_tf, tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> path = tempfile.mkdtemp() + "/model.keras"
    >>> sizes = snip_tf.export(model, path, print_fn=lambda line: None)
    >>> sizes.after < sizes.before
    True
    >>> keras.models.load_model(path).count_params()
    6
    """
    network = Network(model)
    check_path(path)
    check_callable("print_fn", print_fn)
    path = Path(path)
    _check_format(format, int8, batch_size)
    _check_path(path, format)
    if format in ("saved_model", "litert"):
        _check_has_call(model, format)
    plain = plain_copy(network)
    with _named_disk_errors(path):
        before, notes = _write(plain, path, format, bool(int8), batch_size)
    sizes = ExportSizes(before, _size(path))
    for line in (_line(path, format, sizes), *notes):
        print_fn(line)
    return sizes


def _write(
    plain: keras.Model, path: Path, format: Format, int8: bool, batch_size: int
) -> tuple[int, list[str]]:
    """Writes a plain model; returns its bytes before, and notes on the file."""
    if format == "keras":
        return save_compressed(plain, path), []
    notes: list[str] = []
    if format == "sparse":
        with named_configurations(plain, format):
            save_sparse(plain, path)
    elif format == "litert":
        content, notes = convert(plain, int8, batch_size)
        with whole_file(path) as partial:
            partial.write_bytes(content)
    else:
        with whole_folder(path) as partial:
            write_saved_model(plain, partial)
        notes = notes_on_inputs(plain)
    return _bytes_of(plain.weights), notes


def _line(path: Path, format: Format, sizes: ExportSizes) -> str:
    what = "the weights of the plain model take"
    if format == "keras":
        what = "Keras writes of the plain model"
    ratio = sizes.after / max(sizes.before, 1)
    return (
        f"{path.name}: {sizes.after:,} bytes, {ratio:.3f} of the {sizes.before:,} that "
        f"{what}"
    )


_SUFFIXES = {"keras": ".keras", "litert": ".tflite"}
# Other names for these formats.
_ALSO_CALLED = {
    "tflite": "litert",
    "lite": "litert",
    "tf": "saved_model",
    "tf_saved_model": "saved_model",
    "savedmodel": "saved_model",
}


def _check_format(format: str, int8: Any, batch_size: int) -> None:
    if meant := _ALSO_CALLED.get(str(format).lower()):
        raise ValueError(
            f"Expected `format` to be one of {', '.join(map(repr, FORMATS))}. "
            f"Received: format={format!r}. Did you mean format={meant!r}?"
        )
    check_one_of("format", format, FORMATS)
    if format in ("litert", "saved_model") and format not in _backend.EXPORTS:
        raise ValueError(
            f"Expected format='keras' or 'sparse' where Keras runs on "
            f"{_backend.NAME}. Received: format={format!r}, which TensorFlow makes. "
            f"Save the model as a .keras file, and export it in a process with the "
            f"environment variable KERAS_BACKEND=tensorflow."
        )
    check_count("batch_size", batch_size)
    if int8 is not False and int8 != "weights":
        raise ValueError(
            f"Expected `int8` to be False or 'weights'. Received: int8={int8!r}"
        )
    if format != "litert" and int8:
        raise ValueError(
            f"Expected format='litert' with `int8`; the other formats keep the types "
            f"of the weights. Received: format={format!r}"
        )
    if format != "litert" and batch_size != 1:
        raise ValueError(
            f"Expected format='litert' with `batch_size`; the other formats take any "
            f"number of examples. Received: format={format!r}, batch_size={batch_size}"
        )


def _check_path(path: Path, format: Format) -> None:
    """Raises unless a path is writable and has the suffix that readers expect."""
    _check_suffix(path, format)
    check_folder(path)
    if format == "saved_model":
        check_replaceable(path)


def _check_suffix(path: Path, format: Format) -> None:
    own = _SUFFIXES.get(format)
    ends_as = [f for f, suffix in _SUFFIXES.items() if path.name.endswith(suffix)]
    if ends_as == ([format] if own else []):
        return
    expected = f"that ends in {own!r}" if own else f"without {path.suffix!r}"
    advice = f". Did you mean format={ends_as[0]!r}?" if ends_as else ""
    raise ValueError(
        f"Expected a path {expected} with format={format!r}. "
        f"Received: path={os.fspath(path)!r}{advice}"
    )


def _check_has_call(model: keras.Model, format: Format) -> None:
    """Raises if the model has no `call`."""
    if not has_call(model):
        raise ValueError(
            f"Expected a model with a `call`, which is what format={format!r} writes. "
            f"Received: model={model.name!r} of class {type(model).__name__}, which "
            f"has none. Export its parts separately, or use 'keras' or 'sparse'."
        )


@contextlib.contextmanager
def _named_disk_errors(path: Path) -> Iterator[None]:
    """Makes disk errors name the user's path, not a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _bytes_of(weights: list[keras.Variable]) -> int:
    arrays = map(keras.ops.convert_to_numpy, weights)
    return sum(array.nbytes for array in arrays)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return path.stat().st_size
