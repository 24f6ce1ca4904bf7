"""What a loss sums over the examples of a piece, and what it divides by."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import keras

from snip_tf._keras import mask_on


class NotDivisible(ValueError):
    """Raised if the loss of a mini-batch does not follow from those of its pieces."""

    def __init__(self, why: str):
        super().__init__(
            f"Expected one mini-batch (batches=1), since {why}: the loss of the whole "
            f"does not follow from those of pieces. Received: several. Score on one "
            f"mini-batch, of more examples if need be."
        )


class Sum(keras.losses.Loss):
    """A loss that is a sum over the examples, times a factor."""

    def __init__(self, loss: keras.losses.Loss):
        super().__init__(name=loss.name, reduction="sum")
        self.loss, self.factor = loss, 1.0

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the sum of a piece."""
        return self.loss(y_true, y_pred, sample_weight) * self.factor


class Watched(keras.losses.Loss):
    """A loss reduced to a mean, which records its values before the reduction.

    Attributes:
        values: the values and the outputs of the last call.
    """

    def __init__(self, loss: keras.losses.Loss):
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss = loss
        self.values: tuple[Any, Any] | None = None

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the values of the examples."""
        values = self.loss.call(y_true, y_pred)
        self.values = values, y_pred
        return values


def watched_function(function: Callable[[Any, Any], Any]) -> Any:
    """Returns the function with an attribute `values`, as in `Watched`."""

    def call(y_true: Any, y_pred: Any) -> Any:
        values = function(y_true, y_pred)
        watched.values = values, y_pred
        return values

    watched: Any = functools.wraps(function)(call)
    watched.values = None
    return watched


def as_part(loss: Any) -> Any:
    """Returns a loss in a form that can be assembled from pieces."""
    if isinstance(loss, keras.losses.Loss):
        if loss.reduction == "sum":
            return Sum(loss)
        reduces_as_keras = type(loss).__call__ is keras.losses.Loss.__call__
        return Watched(loss) if reduces_as_keras else loss
    named = loss is None or isinstance(loss, (str, type))
    return loss if named else watched_function(loss)


def left_out(part: Any) -> Any:
    """Returns which values a loss counted in its last call, or None if all.

    A loss may leave out targets, as with `ignore_class`; Keras then divides by the
    number of the others.

    Raises:
        NotDivisible: if there are fewer values than outputs.
    """
    seen = getattr(part, "values", None)
    if seen is None:
        return None
    values, outputs = seen
    shape = getattr(values, "shape", ())
    if not len(shape) or None in (*shape, *outputs.shape):
        return None  # one number, assumed to be a mean
    per_example = itertools.accumulate(outputs.shape, operator.mul)
    if math.prod(shape) not in per_example:
        raise NotDivisible(
            f"the loss has values of shape {tuple(shape)} for outputs of shape "
            f"{tuple(outputs.shape)}"
        )
    return mask_on(values)
