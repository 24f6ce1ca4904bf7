"""A loss on outputs, as `Model.compile` takes it."""

from __future__ import annotations

import functools
import re
import sys
import types
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from snip_tf._keras import logits_of, loss_settings, mask_on, put_mask_on
from snip_tf.checks import near_misses
from snip_tf.scoring.batches import PAIRS, TEXT_TARGETS
from snip_tf.scoring.examples import is_text
from snip_tf.scoring.reductions import NotDivisible, Sum, as_part, left_out


class DataLoss:
    """The loss of targets and outputs, with no other term: `(y, y_pred, weight)`.

    Args:
        model: what computes the outputs.
        loss: what `Model.compile` takes as `loss`.
        loss_weights: what it takes as `loss_weights`.
        temperature: the logits of a cross-entropy are divided by it, if that is one of
            Keras' own, of a single output; else it is not used, with a warning.

    Attributes:
        sums: whether a part of it is a sum over the examples, not a mean.
    """

    def __init__(
        self, model: keras.Model, loss: Any, loss_weights: Any, temperature: float
    ):
        self._model, self._temperature = model, temperature
        self._given, self._only = loss, _only(loss)
        self._plain = loss_weights is None
        self._leaves = keras.tree.flatten(loss)
        self._loss = keras.tree.map_structure(as_part, loss)
        self._loss_weights = loss_weights
        self._parts = keras.tree.flatten(self._loss)
        self._sums = [part for part in self._parts if isinstance(part, Sum)]
        self.sums = bool(self._sums)

    def __call__(
        self, y: Any, y_pred: Any, sample_weight: Any, factor: float = 1.0
    ) -> tf.Tensor:
        """The loss of a mini-batch, in which sums are multiplied by `factor`."""
        if y is None:
            raise ValueError(
                f"Expected targets to compute the loss with. Received: y=None. {PAIRS}"
            )
        for part in self._sums:
            part.factor = factor
        names = getattr(self._model, "output_names", None)
        targets, outputs = keras.tree.flatten(y), keras.tree.flatten(y_pred)
        _check_count(self._given, len(outputs))
        _check_targets(self._given, y, y_pred, names)
        if len(targets) == len(outputs) == 1:
            y_pred = self._of_one_output(*targets, y_pred, *outputs)
        elif self._temperature != 1:
            why = f"{self._model.name!r} has several outputs"
            warn_not_used(self._temperature, why)
        nested = any(map(keras.tree.is_nested, (y, y_pred, sample_weight)))
        if isinstance(self._loss, keras.losses.Loss) and self._plain and not nested:
            return self._loss(y, y_pred, sample_weight)
        return self._judge.compute_loss(None, y, y_pred, sample_weight)

    def _of_one_output(self, y: Any, y_pred: Any, output: Any) -> Any:
        """`y_pred`, the output or a nest of it alone, in which it is tempered."""
        self._only = _chosen_by_shapes(self._only, y, output)
        _check_labels(self._only, y, output)
        if self._temperature == 1:
            return y_pred
        output = _tempered(self._only, output, self._temperature)
        return keras.tree.pack_sequence_as(y_pred, [output])

    @functools.cached_property
    def _judge(self) -> keras.Model:
        # Understands all that `compile` does: names, functions, several outputs. It has
        # no layers, so no regularizers: its `compute_loss` is that of the data alone.
        judge = keras.Model(name="data_loss")
        judge.output_names = getattr(self._model, "output_names", None)
        judge.compile(optimizer=None, loss=self._loss, loss_weights=self._loss_weights)
        return judge

    def weight_of_piece(self, y_pred: Any, sample_weight: Any, alone: bool) -> Any:
        """What makes the mean of a piece one that can be weighed by its examples.

        Args:
            y_pred: the outputs for the piece, of which the loss was just computed.
            sample_weight: its weights.
            alone: whether the loss has no terms beside this one.

        Returns:
            A number to multiply the loss by, 1 if its divisor is that of the examples.

        Raises:
            NotDivisible: if there is none.
        """
        outputs = keras.tree.flatten(y_pred)
        timesteps = [m for m in map(mask_on, outputs) if m is not None]
        targets = [m for m in map(left_out, self._parts) if m is not None]
        masks = timesteps + targets
        self._check_divisible(bool(masks) or sample_weight is not None)
        if not masks or getattr(self._only, "reduction", None) == "sum":
            return 1.0
        if len(outputs) > 1 or not alone or built_in(self._only) is None:
            raise NotDivisible(
                "timesteps are masked" if timesteps else "the loss leaves out targets"
            )
        counted = functools.reduce(tf.logical_and, masks)
        valid = tf.cast(tf.math.count_nonzero(counted), tf.float32)
        return valid / tf.cast(tf.shape(counted)[0], tf.float32)

    def _check_divisible(self, weighed: bool) -> None:
        for part in self._leaves:
            if (
                weighed
                and getattr(part, "reduction", None) == "mean_with_sample_weight"
            ):
                raise NotDivisible(
                    "the reduction 'mean_with_sample_weight' divides by the weights"
                )
            found = built_in(part)
            if found is not None and _mixes_examples(*found):
                raise NotDivisible(f"{_name_of(part)!r} compares examples")


def check_names(loss: Any) -> None:
    """Raises if what is given is no loss, or a name that Keras does not know."""
    for part in keras.tree.flatten(loss):
        if part is not None and not callable(part) and not isinstance(part, str):
            raise TypeError(
                f"Expected `loss` to be a loss of Keras, or its name, or a function "
                f"(y_true, y_pred), or a nest of them. Received: {part!r} of type "
                f"{type(part).__name__}"
            )
        if not isinstance(part, str) or _names_by_shapes(part):
            continue
        try:
            keras.losses.get(part)
        except ValueError as error:
            tools = (keras.losses.get, keras.losses.serialize, keras.losses.deserialize)
            known = {f.__name__ for f in _functions_of_keras() if f not in tools}
            near = near_misses(part, sorted({*known, "mse", "mae"}), "losses of Keras")
            raise ValueError(
                f"Expected `loss` to be a loss of Keras, by its name, or a function. "
                f"Received: {part!r}, which names none. {near}"
            ) from error


def check_outputs(loss: Any, y_pred: Any) -> None:
    """Raises if a function of the caller's is to judge several outputs.

    `compile` calls it for each output in turn, which is not what somebody means who
    writes one function for the outputs of his model: nobody can know which it is.
    """
    count = len(keras.tree.flatten(y_pred))
    if count == 1 or not callable(loss) or built_in(loss) is not None:
        return
    name, each = _name_of(loss), ", ".join(["loss"] * count)
    raise ValueError(
        f"Expected a loss for each output of a model that has several outputs. "
        f"Received: the one function loss={name} for {count} outputs. If it is a loss "
        f"of one output, write loss=[{each}] (or a dict); if it is one of all outputs "
        f"together, pass objective=lambda model, batch, training: "
        f"{name}(batch[1], model(batch[0], training=training))."
    )


def logits(outputs: Any) -> Any:
    """What a softmax or a sigmoid was computed from; anything else as it is.

    Keras keeps this for its losses, by a private name.
    """
    return logits_of(outputs)


def built_in(loss: Any) -> tuple[types.FunctionType, dict[str, Any]] | None:
    """The function of Keras that a loss is, and its settings; None for any other.

    By the function itself: a name says nothing, as anybody may use it.
    """
    if isinstance(loss, (str, type)) and not _names_by_shapes(loss):
        loss = keras.losses.get(loss)
    settings: dict[str, Any] = {}
    if isinstance(loss, functools.partial):
        loss, settings = loss.func, loss.keywords
    elif isinstance(loss, keras.losses.Loss):
        # A subclass may only set other defaults, but one with a `call` is another loss.
        wrapper = keras.losses.MeanSquaredError
        if (type(loss).call, type(loss).__call__) != (wrapper.call, wrapper.__call__):
            return None
        loss, settings = loss.fn, loss_settings(loss)
    known = any(loss is function for function in _functions_of_keras())
    return (loss, settings) if known else None


def _names_by_shapes(loss: Any) -> bool:
    """Whether it is a name of which Keras makes a loss when it sees the outputs."""
    return isinstance(loss, str) and loss.lower() in ("crossentropy", "ce")


def _chosen_by_shapes(loss: Any, y: Any, y_pred: Any) -> Any:
    """The function that Keras takes for such a name; any other loss as it is."""
    if not _names_by_shapes(loss):
        return loss
    if y_pred.shape[-1] == 1:
        return keras.losses.binary_crossentropy
    if len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1:
        return keras.losses.sparse_categorical_crossentropy
    return keras.losses.categorical_crossentropy


@functools.cache
def _functions_of_keras() -> tuple[types.FunctionType, ...]:
    functions = vars(keras.losses).values()
    return tuple(f for f in functions if isinstance(f, types.FunctionType))


def _mixes_examples(function: types.FunctionType, settings: dict[str, Any]) -> bool:
    """Whether what it gives is no mean over the examples."""
    if function is keras.losses.circle:
        return True
    axis = settings.get("axis")
    return function in (keras.losses.dice, keras.losses.tversky) and (
        axis is None or 0 in np.atleast_1d(axis)
    )


def _only(loss: Any) -> Any:
    """The loss, a function or an object, that one output has; as it is for several."""
    leaves = keras.tree.flatten(loss)
    return leaves[0] if len(leaves) == 1 else loss


def _name_of(loss: Any) -> str:
    """The name of a function, or of the class of an object, in Keras' snake case."""
    if isinstance(loss, str):
        return loss
    if isinstance(loss, functools.partial):
        return _name_of(loss.func)
    name = getattr(loss, "__name__", None) or type(loss).__name__
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _tempered(loss: Any, y_pred: tf.Tensor, temperature: float) -> tf.Tensor:
    """Outputs whose logits are divided, if the loss is a cross-entropy."""
    found = built_in(loss)
    if found is None:  # a function of one's own may take anything
        name = _name_of(loss)
        warn_not_used(temperature, f"the loss {name!r} is not a built-in Keras loss")
        return y_pred
    function, settings = found
    name = function.__name__
    if not name.endswith(("crossentropy", "cross_entropy")):
        return y_pred
    if settings.get("axis", -1) not in (-1, len(y_pred.shape) - 1):
        warn_not_used(temperature, "the classes are not along the last axis")
        return y_pred
    if settings.get("from_logits", False):
        tempered = logits(y_pred) / temperature
    else:
        binary, known = name.startswith("binary"), logits(y_pred)
        if known is y_pred:
            # Away from 0 and 1 as much as in the losses of Keras.
            least = keras.config.epsilon()
            y_pred_inside = keras.ops.clip(y_pred, least, 1 - least)
            known = keras.ops.log(y_pred_inside)
            known -= keras.ops.log1p(-y_pred_inside) if binary else 0
        activation = keras.ops.sigmoid if binary else keras.ops.softmax
        tempered = activation(known / temperature)
    if mask_on(y_pred) is not None:
        put_mask_on(tempered, mask_on(y_pred))
    return tempered


def warn_not_used(temperature: float, why: str) -> None:
    """Warns that a temperature has no place."""
    warn_caller(f"The temperature of {temperature:g} is not used: {why}.")


def warn_caller(words: str) -> None:
    """Warns at the line outside of this package from which it was called."""
    level, frame = 1, sys._getframe()
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(words, stacklevel=level)


def _check_labels(loss: Any, y: Any, y_pred: tf.Tensor) -> None:
    """Integer labels must name one of the outputs: a GPU would just return NaN."""
    if not tf.executing_eagerly():
        return  # a TPU's step, in which labels have no values yet
    function, settings = built_in(loss) or (None, {})
    if function is not keras.losses.sparse_categorical_crossentropy:
        return
    labels, classes = np.asarray(y), y_pred.shape[-1]
    labels = labels[labels != settings.get("ignore_class")]
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        binary = " With one output use the loss 'binary_crossentropy'."
        raise ValueError(
            f"Expected labels from 0 to {classes - 1}, since the model has {classes} "
            f"outputs. Received: labels from {labels.min()} to {labels.max()}"
            f"{'.' + binary if classes == 1 else ''}"
        )


def _check_count(loss: Any, outputs: int) -> None:
    """Raises a ValueError if a list has a loss too many, or too few."""
    count = len(keras.tree.flatten(loss))
    if isinstance(loss, (list, tuple)) and count not in (1, outputs):
        raise ValueError(
            f"Expected a loss for each output, None where it has none. Received: "
            f"{count} losses for {outputs} outputs"
        )


def _check_targets(loss: Any, y: Any, y_pred: Any, names: list[str] | None) -> None:
    """Raises a ValueError that says what to do about targets of another kind."""
    for leaf in keras.tree.flatten(y):
        if is_text(leaf):
            raise ValueError(TEXT_TARGETS)
    for one in _by_output(loss, y, y_pred, names):
        if not any(map(keras.tree.is_nested, one)):
            _check_one_hot(*one)
            if keras.tree.is_nested(y_pred):
                chosen = _chosen_by_shapes(*one)
                _check_labels(chosen, *one[1:])


def _by_output(loss: Any, y: Any, y_pred: Any, names: list[str] | None) -> list[tuple]:
    """The loss, the targets and the values of each output, where that can be told.

    Each of the three may be by name or by position, whatever the others are.
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
    """A loss, targets or values of outputs by the names of the outputs."""
    if isinstance(nest, dict):
        return nest
    if not keras.tree.is_nested(nest):  # one for all
        return dict.fromkeys(y_pred if isinstance(y_pred, dict) else names or (), nest)
    known = names and not isinstance(y_pred, dict) and len(nest) == len(names)
    return dict(zip(names, nest, strict=True)) if known else {}


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
    for_each = (
        keras.losses.categorical_crossentropy,
        keras.losses.categorical_focal_crossentropy,
        keras.losses.binary_crossentropy,
        keras.losses.binary_focal_crossentropy,
    )
    if given in (wanted[:-1], (*wanted[:-1], 1)) and function in for_each:
        raise ValueError(
            f"Expected a target for each output, such as one-hot ones, with the loss "
            f"{name!r}. {received}, which look like labels. Use the loss "
            f"'sparse_categorical_crossentropy', or "
            f"keras.utils.to_categorical(y, {wanted[-1]}) as targets."
        )
