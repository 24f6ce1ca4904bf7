"""The loss of the data alone, whichever way it was given."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from snip_tf.batches import PAIRS, example_count
from snip_tf.compiling import compile_arguments
from snip_tf.examples import is_text

# loss(y, y_pred, sample_weight) -> scalar tensor
DataLoss = Callable[[Any, Any, Any], tf.Tensor]


def make_data_loss(model: keras.Model, loss: Any, temperature: float) -> DataLoss:
    """The loss of the data alone, with no regularization term.

    Args:
        model: what computes the outputs.
        loss: what `Model.compile` takes as `loss`. None takes the compiled one.
        temperature: the logits of a cross-entropy are divided by it, if that is one of
            Keras' own, of a single output; else it is not used, with a warning.

    Raises:
        ValueError: if there is no loss.
    """
    loss_weights = None
    if loss is None:
        arguments = compile_arguments(model)
        loss, loss_weights = arguments.get("loss"), arguments.get("loss_weights")
        if loss is None:
            raise ValueError(
                f"Expected a compiled model, or a `loss`. Received: loss=None with "
                f"model {model.name!r}, which is "
                f"{'compiled without a loss' if arguments else 'not compiled'}. "
                f"Call model.compile(loss=...) first, or pass loss=..."
            )
    only = _only(loss)

    @functools.cache
    def judge() -> keras.Model:
        # Understands all that `compile` does: names, functions, several outputs. It has
        # no layers, so no regularizers: its `compute_loss` is that of the data alone.
        judge = keras.Model(name="data_loss")
        judge.output_names = getattr(model, "output_names", None)
        judge.compile(optimizer=None, loss=loss, loss_weights=loss_weights)
        return judge

    def data_loss(y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
        if y is None:
            raise ValueError(
                f"Expected targets to compute the loss with. Received: y=None. {PAIRS}"
            )
        _check_targets(loss, y, y_pred)
        if any(map(keras.tree.is_nested, (y, y_pred, sample_weight))):
            if temperature != 1:
                _warn_not_used(temperature, f"{model.name!r} has several outputs")
            return judge().compute_loss(None, y, y_pred, sample_weight)
        _check_labels(only, y, y_pred)
        if temperature != 1:
            y_pred = _tempered(only, y_pred, temperature)
        if isinstance(loss, keras.losses.Loss) and loss_weights is None:
            return loss(y, y_pred, sample_weight)
        return judge().compute_loss(None, y, y_pred, sample_weight)

    def mean_of_sum(y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
        total = data_loss(y, y_pred, sample_weight)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return total / (example_count((y, None, None)) * replicas)

    # So that a sum, too, can be averaged over batches and replicas: scores are compared
    # with each other only.
    reductions = {getattr(part, "reduction", None) for part in keras.tree.flatten(loss)}
    return mean_of_sum if reductions == {"sum"} else data_loss


def logits(outputs: Any) -> Any:
    """What a softmax or a sigmoid was computed from; anything else as it is.

    Keras keeps this for its losses, by a private name.
    """
    return getattr(outputs, "_keras_logits", outputs)


def _only(loss: Any) -> Any:
    """The loss, a function or an object, that one output has; as it is for several."""
    leaves = keras.tree.flatten(loss)
    if len(leaves) != 1:
        return loss
    [only] = leaves
    return keras.losses.get(only) if isinstance(only, str) else only


def _name_of(loss: Any) -> str:
    """The name of a function, or of the class of an object, in Keras' snake case."""
    name = getattr(loss, "__name__", None) or type(loss).__name__
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _tempered(loss: Any, y_pred: tf.Tensor, temperature: float) -> tf.Tensor:
    """Outputs whose logits are divided, if the loss is a cross-entropy."""
    from_logits = getattr(loss, "from_logits", False)
    if isinstance(loss, functools.partial):
        from_logits = loss.keywords.get("from_logits", False)
        loss = loss.func
    # A function of one's own may take anything.
    if not (getattr(loss, "__module__", None) or "").startswith("keras."):
        _warn_not_used(
            temperature, f"the loss {_name_of(loss)!r} is none of Keras' own"
        )
        return y_pred
    name = _name_of(loss)
    if not name.endswith(("crossentropy", "cross_entropy")):
        return y_pred
    if getattr(loss, "axis", -1) not in (-1, len(y_pred.shape) - 1):
        _warn_not_used(temperature, "the classes are not along the last axis")
        return y_pred
    if from_logits:
        return logits(y_pred) / temperature
    binary, known = name.startswith("binary"), logits(y_pred)
    if known is y_pred:
        # Away from 0 and 1 as much as in the losses of Keras.
        least = keras.config.epsilon()
        y_pred = keras.ops.clip(y_pred, least, 1 - least)
        known = keras.ops.log(y_pred)
        known -= keras.ops.log1p(-y_pred) if binary else 0
    activation = keras.ops.sigmoid if binary else keras.ops.softmax
    return activation(known / temperature)


def _warn_not_used(temperature: float, why: str) -> None:
    warnings.warn(
        f"The temperature of {temperature:g} is not used: {why}.", stacklevel=4
    )


def _check_labels(loss: Any, y: Any, y_pred: tf.Tensor) -> None:
    """Integer labels must name one of the outputs: a GPU would just return NaN."""
    if not tf.executing_eagerly():
        return  # a TPU's step, in which labels have no values yet
    if _name_of(loss) != "sparse_categorical_crossentropy":
        return
    labels, classes = np.asarray(y), y_pred.shape[-1]
    labels = labels[labels != getattr(loss, "ignore_class", None)]
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        binary = " With one output use the loss 'binary_crossentropy'."
        raise ValueError(
            f"Expected labels from 0 to {classes - 1}, since the model has {classes} "
            f"outputs. Received: labels from {labels.min()} to {labels.max()}"
            f"{'.' + binary if classes == 1 else ''}"
        )


def _check_targets(loss: Any, y: Any, y_pred: Any) -> None:
    """Raises a ValueError that says what to do about targets of another kind."""
    for leaf in keras.tree.flatten(y):
        if is_text(leaf):
            raise ValueError(
                "Expected targets that are numbers. Received: targets of text. Number "
                "the classes, as with classes, y = numpy.unique(y, return_inverse=True)"
                " or keras.layers.StringLookup."
            )
    nests = [nest for nest in (loss, y, y_pred) if keras.tree.is_nested(nest)]
    if len({isinstance(nest, dict) for nest in nests}) > 1:
        return  # some by name and some by position
    losses, targets, outputs = map(keras.tree.flatten, (loss, y, y_pred))
    losses = losses * len(outputs) if len(losses) == 1 else losses
    if len(losses) == len(targets) == len(outputs):
        for one in zip(losses, targets, outputs, strict=True):
            _check_one_hot(*one)


def _check_one_hot(loss: Any, y: Any, y_pred: Any) -> None:
    loss, kinds = keras.losses.get(loss), keras.losses
    given, wanted = tuple(np.shape(y)), tuple(y_pred.shape)
    if len(wanted) < 2 or wanted[-1] in (None, 1):
        return
    received = f"Received: targets of shape {given} for outputs of shape {wanted}"
    if given == wanted and _is_one_of(loss, kinds.SparseCategoricalCrossentropy):
        raise ValueError(
            f"Expected labels, the number of the class for each example, with the "
            f"loss {_name_of(loss)!r}. {received}, which look one-hot. Use the loss "
            f"'categorical_crossentropy', or y.argmax(-1) as targets."
        )
    for_each = (
        kinds.CategoricalCrossentropy,
        kinds.CategoricalFocalCrossentropy,
        kinds.BinaryCrossentropy,
        kinds.BinaryFocalCrossentropy,
    )
    if given in (wanted[:-1], (*wanted[:-1], 1)) and _is_one_of(loss, *for_each):
        raise ValueError(
            f"Expected a target for each output, such as one-hot ones, with the loss "
            f"{_name_of(loss)!r}. {received}, which look like labels. Use the loss "
            f"'sparse_categorical_crossentropy', or "
            f"keras.utils.to_categorical(y, {wanted[-1]}) as targets."
        )


def _is_one_of(loss: Any, *kinds: type) -> bool:
    """Whether a loss is of these classes of Keras', or the function of one."""
    names = {
        re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower() for kind in kinds
    }
    functions = [getattr(keras.losses, name) for name in names]
    return isinstance(loss, kinds) or any(loss is function for function in functions)
