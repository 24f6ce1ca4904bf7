"""Calls a model, with errors that say on which inputs and where it fails."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend


class OfOutputs:
    """What a function makes of a model's outputs, as a `Scored` without a loss.

    Args:
        model: the model to call.
        what: the name of the result in errors.
        of: called with the list of outputs.
        training: the mode of the forward pass.
    """

    sums = False
    whole = True

    def __init__(
        self,
        model: keras.Model,
        what: str,
        of: Callable[[list[Any]], Any],
        training: bool = False,
    ):
        self.what = what
        self._model, self._of, self._training = model, of, training

    def __call__(self, batch: Any, added: list[Any], part: Any) -> Any:
        """Returns the result for the inputs of a mini-batch."""
        del added, part
        outputs = call_model(self._model, batch[0], self._training)
        return self._of(keras.tree.flatten(outputs))


def call_model(model: keras.Model, x: Any, training: bool = False) -> Any:
    """Returns the outputs of a model.

    Raises:
        ValueError: if it fails; names the layer and the shapes of the inputs.
    """
    try:
        return model(x, training=training)
    except _backend.OUT_OF_MEMORY:
        raise
    except Exception as error:  # whatever the code of the user's layers raises
        layer = _where(error)
        place = f" in layer {layer.name!r} ({type(layer).__name__})" if layer else ""
        raise ValueError(
            f"Expected the model to run on the mini-batch. Received: inputs of shape "
            f"{shapes(x)}, on which {model.name!r} fails{place}. "
            f"{_advice(model, x, str(error))}The error: {error}"
        ) from error


def check_order(model: keras.Model, x: Any, y: Any) -> None:
    """Raises a ValueError if `y` fits the model's only input and `x` does not."""
    inputs, arrays = getattr(model, "inputs", None) or [], [x, y]
    if len(inputs) != 1 or not all(hasattr(array, "shape") for array in arrays):
        return
    wanted, first, second = map(_without_ones, [inputs[0], *arrays])
    if _fits(second, wanted) and not _fits(first, wanted):
        raise ValueError(
            f"Expected inputs of shape {tuple(inputs[0].shape)} as `x`, and their "
            f"targets as `y`. Received: x of shape {shapes(x)} and y of shape "
            f"{shapes(y)}, which are probably in the wrong order"
        )


def _without_ones(array: Any) -> tuple[int | None, ...]:
    """Returns a shape without trailing axes of length 1, which Keras adds and drops."""
    shape = tuple(array.shape)
    while shape[1:] and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _fits(shape: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or size == given for given, size in zip(shape, wanted, strict=True)
    )


def _advice(model: keras.Model, x: Any, error: str) -> str:
    """Returns advice for inputs on which a model fails, where there is any."""
    inputs = getattr(model, "inputs", None) or []
    arrays = keras.tree.flatten(x)
    if isinstance(x, Mapping):
        names = [tensor.name for tensor in inputs]
        if not inputs or not set(x) <= set(names):
            return _advice_on_names(names, x)
        arrays = [x.get(name) for name in names]
    advice = (
        "The first axis must be that of the examples: call `.batch(...)` on a dataset "
        "of single ones{}. "
    )
    if inputs and len(inputs) == len(arrays):
        lacking = any(map(_is_one_example, arrays, inputs))
        return advice.format("") if lacking else ""
    # If the model does not know its inputs, only Keras' message tells.
    words = re.search(r"expected (?:min_)?ndim=(\d+), found ndim=(\d+)", error)
    if words is None:
        return ""
    expected, found = map(int, words.groups())
    if expected != found + 1 or found != len(getattr(arrays[0], "shape", ())):
        return ""
    images = ", and the last of images that of channels: x[..., None]"
    return advice.format(images if expected > 3 else "")


def _is_one_example(array: Any, wanted: keras.KerasTensor) -> bool:
    """Returns whether an array lacks the batch axis."""
    return _fits(tuple(getattr(array, "shape", ())), tuple(wanted.shape[1:]))


# Usual names of targets in data sets.
_TARGETS = ("label", "labels", "target", "targets", "y", "class")


def _advice_on_names(names: list[str], x: Mapping[str, Any]) -> str:
    """Returns advice for named inputs that the model does not have."""
    takes = f"The model takes {', '.join(map(repr, names))}. " if names else ""
    if len(x) <= max(1, len(names)) and not set(x) & set(_TARGETS):
        return takes  # too few to include targets
    target = next((name for name in x if name in _TARGETS), list(x)[-1])
    first = repr(next((name for name in x if name != target), target))
    return (
        f"{takes if names[1:] else ''}If {', '.join(map(repr, x))} hold the targets, "
        f"too, each element of a dataset must be a pair (inputs, targets): "
        f"data.map(lambda d: (d[{first}], d[{target!r}])), or as_supervised=True in "
        f"`tensorflow_datasets.load`. "
    )


def _where(error: Exception) -> keras.Layer | None:
    """Returns the innermost layer whose code an exception came through, if any."""
    layer, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, keras.Layer) and not isinstance(owner, keras.Model):
            layer = owner
        trace = trace.tb_next
    return layer


def shapes(nest: Any) -> Any:
    """Returns the shapes of the arrays in a nest, for an error message."""
    leaves = [leaf for leaf in keras.tree.flatten(nest) if leaf is not None]
    shapes = [tuple(getattr(leaf, "shape", np.shape(leaf))) for leaf in leaves]
    return shapes[0] if len(shapes) == 1 else shapes


def warn_caller(words: str) -> None:
    """Warns at the line outside this package that led to the call."""
    level, frame = 1, sys._getframe()
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(words, stacklevel=level)
