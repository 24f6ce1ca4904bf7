"""Checks of targets, and of the losses that compare outputs with them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.checks import near_misses
from snip_tf.scoring.examples import is_text
from snip_tf.scoring.losses import (
    built_in,
    chosen_by_shapes,
    functions_of_keras,
    name_of,
    names_by_shapes,
)

# What to do about data without targets.
PAIRS = (
    "Arrays go in `x` and `y`. Each element of a dataset must be a pair (inputs, "
    "targets): of dicts, "
    'data.map(lambda d: (d["image"], d["label"])), or as_supervised=True in '
    "`tensorflow_datasets.load`."
)

# What to do about targets that are not numbers.
TEXT_TARGETS = (
    "Expected targets that are numbers. Received: targets of text. Number the classes, "
    "as with classes, y = numpy.unique(y, return_inverse=True) or "
    "keras.layers.StringLookup."
)


def check_names(loss: Any) -> None:
    """Raises unless each loss is a Keras loss, the name of one, or a function."""
    for part in keras.tree.flatten(loss):
        if part is None or callable(part) or names_by_shapes(part):
            continue
        if not isinstance(part, str):
            raise TypeError(
                f"Expected `loss` to be a loss of Keras, or its name, or a function "
                f"(y_true, y_pred), or a nest of them. Received: {part!r} of type "
                f"{type(part).__name__}"
            )
        _check_name(part)


def _check_name(name: str) -> None:
    try:
        keras.losses.get(name)
    except ValueError as error:
        tools = (keras.losses.get, keras.losses.serialize, keras.losses.deserialize)
        known = {f.__name__ for f in functions_of_keras() if f not in tools}
        near = near_misses(name, sorted({*known, "mse", "mae"}), "losses of Keras")
        raise ValueError(
            f"Expected `loss` to be a loss of Keras, by its name, or a function. "
            f"Received: {name!r}, which names none. {near}"
        ) from error


def check_outputs(loss: Any, y_pred: Any) -> None:
    """Raises if a custom function is the loss of several outputs.

    `compile` calls it for each output in turn, but whoever writes one function for a
    model with several outputs may mean a loss of all of them.
    """
    count = len(keras.tree.flatten(y_pred))
    if count == 1 or not callable(loss) or built_in(loss) is not None:
        return
    name, each = name_of(loss), ", ".join(["loss"] * count)
    raise ValueError(
        f"Expected a loss for each output of a model that has several outputs. "
        f"Received: the one function loss={name} for {count} outputs. If it is a loss "
        f"of one output, write loss=[{each}] (or a dict); if it is one of all outputs "
        f"together, pass objective=lambda model, batch, training: "
        f"{name}(batch[1], model(batch[0], training=training))."
    )


def check_labels(loss: Any, y: Any, y_pred: Any) -> None:
    """Raises a ValueError unless integer labels each name one of the outputs.

    A GPU would just return NaN.
    """
    if not _backend.runs_eagerly():
        return  # traced for a TPU: labels have no values yet
    function, settings = built_in(loss) or (None, {})
    if function is not keras.losses.sparse_categorical_crossentropy:
        return
    labels, classes = _backend.on_host(y), y_pred.shape[-1]
    labels = labels[labels != settings.get("ignore_class")]
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        binary = " With one output use the loss 'binary_crossentropy'."
        raise ValueError(
            f"Expected labels from 0 to {classes - 1}, since the model has {classes} "
            f"outputs. Received: labels from {labels.min()} to {labels.max()}"
            f"{'.' + binary if classes == 1 else ''}"
        )


def _check_count(loss: Any, outputs: int) -> None:
    """Raises a ValueError if a list has too many losses, or too few."""
    count = len(keras.tree.flatten(loss))
    if isinstance(loss, (list, tuple)) and count not in (1, outputs):
        raise ValueError(
            f"Expected a loss for each output, None where it has none. Received: "
            f"{count} losses for {outputs} outputs"
        )


def check_targets(loss: Any, y: Any, y_pred: Any, names: list[str] | None) -> None:
    """Raises a ValueError if targets, losses and outputs do not fit together."""
    _check_count(loss, len(keras.tree.flatten(y_pred)))
    for leaf in keras.tree.flatten(y):
        if is_text(leaf):
            raise ValueError(TEXT_TARGETS)
    for one in _by_output(loss, y, y_pred, names):
        if not any(map(keras.tree.is_nested, one)):
            _check_one_hot(*one)
            if keras.tree.is_nested(y_pred):
                chosen = chosen_by_shapes(*one)
                check_labels(chosen, *one[1:])


def _by_output(loss: Any, y: Any, y_pred: Any, names: list[str] | None) -> list[tuple]:
    """Returns the loss, the targets and the values of each output, where known.

    Each of the three may be keyed by name or by position, independently of the others.
    """
    nests = (loss, y, y_pred)
    if any(isinstance(nest, dict) for nest in nests):
        named = [_by_name(nest, names, y_pred) for nest in nests]
        return [
            tuple(nest[name] for nest in named)
            for name in named[-1]
            if all(name in nest for nest in named)
        ]
    losses, targets, outputs = map(keras.tree.flatten, nests)
    losses = losses * len(outputs) if len(losses) == 1 else losses
    if len(losses) == len(targets) == len(outputs):
        return list(zip(losses, targets, outputs, strict=True))
    return []


def _by_name(nest: Any, names: list[str] | None, y_pred: Any) -> dict[str, Any]:
    """Returns a nest of losses, targets or values keyed by the names of the outputs."""
    if isinstance(nest, dict):
        return nest
    if not keras.tree.is_nested(nest):  # one for all
        return dict.fromkeys(y_pred if isinstance(y_pred, dict) else names or (), nest)
    if not names or isinstance(y_pred, dict) or len(nest) != len(names):
        return {}
    return dict(zip(names, nest, strict=True))


# Losses that take a target for each output.
_OF_EACH_OUTPUT = (
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
)


def _check_one_hot(loss: Any, y: Any, y_pred: Any) -> None:
    given, wanted = tuple(np.shape(y)), tuple(y_pred.shape)
    if len(wanted) < 2 or wanted[-1] in (None, 1):
        return
    function, _ = built_in(loss) or (None, {})
    name = getattr(function, "__name__", None)
    received = f"Received: targets of shape {given} for outputs of shape {wanted}"
    if given == wanted and function is keras.losses.sparse_categorical_crossentropy:
        raise ValueError(
            f"Expected labels, the number of the class for each example, with the "
            f"loss {name!r}. {received}, which look one-hot. Use the loss "
            f"'categorical_crossentropy', or y.argmax(-1) as targets."
        )
    if given in (wanted[:-1], (*wanted[:-1], 1)) and function in _OF_EACH_OUTPUT:
        raise ValueError(
            f"Expected a target for each output, such as one-hot ones, with the loss "
            f"{name!r}. {received}, which look like labels. Use the loss "
            f"'sparse_categorical_crossentropy', or "
            f"keras.utils.to_categorical(y, {wanted[-1]}) as targets."
        )
