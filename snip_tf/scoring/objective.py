"""What is scored: what `fit` minimizes, without penalties on weights."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras

from snip_tf import _backend
from snip_tf.checks import check_signature
from snip_tf.masking.compiling import compile_arguments
from snip_tf.masking.inlining import functions_inlined
from snip_tf.network import has_call
from snip_tf.scoring.calling import call_model, shapes, warn_caller
from snip_tf.scoring.data_loss import Adjustment, DataLoss
from snip_tf.scoring.examples import Batch, example_count
from snip_tf.scoring.precision import without_penalties
from snip_tf.scoring.reductions import NotDivisible
from snip_tf.scoring.targets import check_names, check_outputs

_EXAMPLE = (
    "objective=lambda model, batch, training: ... (one number, computed with the "
    "model on a mini-batch)"
)
_AS_KERAS = "the losses of Keras do with reduction='sum_over_batch_size', their default"


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimized; without arguments, what `fit` minimizes as compiled.

    Args:
        loss: what `Model.compile` takes as `loss`, instead of the compiled one.
        function: `(model, batch, training) -> scalar`, instead of all losses.
    """

    loss: Any = None
    function: Callable[[keras.Model, Any, bool], Any] | None = None


def read_objective(loss: Any, objective: Any) -> Objective:
    """Returns what is minimized, given the caller's `loss` and `objective`.

    Raises:
        TypeError: if `objective` is not a function, or takes other arguments.
        ValueError: if both are given, or the loss is an unknown name.
    """
    if objective is None:
        check_names(loss)
        return Objective(loss)
    if not callable(objective) or isinstance(objective, keras.losses.Loss):
        raise TypeError(
            f"Expected `objective` to be a function of (model, batch, training) that "
            f"returns one number; what `compile` takes is a `loss`. Received: "
            f"objective={objective!r} of type {type(objective).__name__}"
        )
    check_signature("objective", objective, ("model", "batch", "training"))
    if loss is not None:
        raise ValueError(
            f"Expected a `loss` or an `objective`, not both: an objective is all that "
            f"is minimized. Received: loss={loss!r}, objective={objective!r}"
        )
    return Objective(function=objective)


def check_has_call(model: keras.Model) -> None:
    """Raises a ValueError if a model has no `call`, and so no outputs."""
    if not has_call(model):
        raise ValueError(
            f"Expected a model with a `call`, or an `objective` that calls its parts. "
            f"Received: model={model.name!r} of class {type(model).__name__}, which "
            f"has no `call`. Pass {_EXAMPLE}."
        )


def _overrides(model: keras.Model, name: str) -> bool:
    """Returns whether a method is the model's own, not that of `keras.Model`."""
    method = getattr(model, name)
    return getattr(method, "__func__", method) is not getattr(keras.Model, name)


@dataclasses.dataclass(frozen=True)
class Part:
    """Which part of all scored examples a mini-batch is.

    Args:
        total: the number of examples in all mini-batches; None where it is not needed.
        shared: whether it is a replica's share.
    """

    total: int | None
    shared: bool = False


class Scored(Protocol):
    """A number for a mini-batch, whose derivatives are the scores.

    Attributes:
        what: its name in errors.
        sums: whether it needs to know the number of all examples.
        whole: whether replicas cannot share a mini-batch.
    """

    what: str
    sums: bool
    whole: bool

    def __call__(self, batch: Batch, added: list[Any], part: Part) -> Any:
        """Returns the value on a mini-batch.

        Args:
            batch: the mini-batch, tensors.
            added: what layers gave to `add_loss`; filled while the model is called.
            part: which part of all examples the mini-batch is.
        """


class FitLoss:
    """What `fit` minimizes, without penalties on weights; a `Scored`.

    The compiled loss, or an overridden `compute_loss`, or the `loss` given; and what
    layers give to `add_loss` in a call, activity regularizers among them.

    Args:
        model: what is scored.
        loss: what `Model.compile` takes as `loss`; None takes what `fit` does.
        training: the mode of the forward pass.
        adjust: as in `DataLoss`.

    Raises:
        ValueError: if it cannot be known what is minimized.
    """

    what = "loss"

    def __init__(
        self,
        model: keras.Model,
        loss: Any,
        training: bool,
        adjust: Adjustment | None = None,
    ):
        check_has_call(model)
        self._model, self._training = model, training
        self._given = loss
        self._own = self.whole = loss is None and _overrides(model, "compute_loss")
        self._data_loss = None if self._own else self._on_outputs(adjust)
        if self._own and adjust is not None:
            adjust.is_not_used("the loss is that of `compute_loss`")
        if self._given is None and _overrides(model, "train_step"):
            self._check_step()
        self.sums = self._data_loss is not None and self._data_loss.sums

    def _on_outputs(self, adjust: Adjustment | None) -> DataLoss | None:
        """Returns the loss given or compiled; None if layers add all of it."""
        if self._given is not None:
            return DataLoss(self._model, self._given, None, adjust)
        arguments = compile_arguments(self._model)
        if not arguments:
            raise _no_loss(
                self._model,
                "not compiled",
                "compile it as for `fit` (without a loss, if layers give all of it "
                "to `add_loss`)",
            )
        loss, weights = arguments.get("loss"), arguments.get("loss_weights")
        return None if loss is None else DataLoss(self._model, loss, weights, adjust)

    def _check_step(self) -> None:
        model = self._model
        own = f"{model.name!r} of class {type(model).__name__} has a `train_step`"
        if not self._own and self._data_loss is None:
            raise ValueError(
                "Expected to know what is minimized, which cannot be read from a "
                f"`train_step`. Received: loss=None and objective=None, and {own} of "
                f"its own and no compiled loss. Pass {_EXAMPLE}, or loss=..."
            )
        used, right = "the compiled loss", " If that is right, pass it as loss=...."
        if self._own:
            used, right = "`compute_loss`", ""
        warn_caller(
            f"{own} of its own, which may minimize something else: connections are "
            f"scored with {used}.{right} To say what it minimizes, pass {_EXAMPLE}."
        )

    def __call__(self, batch: Batch, added: list[Any], part: Part) -> Any:
        """Returns the value on a mini-batch."""
        x, y, sample_weight = batch
        y_pred = call_model(self._model, x, self._training)
        if self._own:
            return self._compute_loss(x, y, y_pred, sample_weight)
        if added and part.shared:
            raise NotDivisible("layers add losses for a whole mini-batch")
        floatx = keras.config.floatx()
        terms = [keras.ops.sum(keras.ops.cast(loss, floatx)) for loss in added]
        if self._data_loss is not None:
            terms.append(self._judged(self._data_loss, batch, y_pred, added, part))
        if not terms:
            raise _no_loss(
                self._model,
                "compiled without a loss, and has no layer that calls `add_loss`",
                "call model.compile(loss=...) first",
            )
        return functools.reduce(operator.add, terms)

    def _judged(
        self,
        data_loss: DataLoss,
        batch: Batch,
        y_pred: Any,
        added: list[Any],
        part: Part,
    ) -> Any:
        _, y, sample_weight = batch
        check_outputs(self._given, y_pred)
        count, factor = example_count(batch), 1.0
        if self.sums and part.total is not None:
            # So that the mean over pieces, weighted by their examples, is their sum.
            factor = part.total / (count * _backend.replica_count())
        with _fitting("a loss that fit", y, y_pred, sample_weight):
            loss = data_loss(y, y_pred, sample_weight, factor)
        # A loss may have another dtype, and is added to others, as in `fit`.
        loss = keras.ops.cast(_scalar(loss, "a loss", _AS_KERAS), keras.config.floatx())
        if part.shared or part.total != count:
            loss *= data_loss.weight_of_piece(y_pred, sample_weight, not added)
        return loss

    def _compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        compute_loss = self._model.compute_loss
        # As in training, whatever the mode of the forward pass: that is what `fit`
        # minimizes. (Older versions of Keras do not pass this argument.)
        known = "training" in inspect.signature(compute_loss).parameters
        options = {"training": True} if known else {}
        fitting = _fitting("a `compute_loss` that fit", y, y_pred, sample_weight)
        with without_penalties(self._model), fitting:
            loss = compute_loss(x, y, y_pred, sample_weight, **options)
        return _scalar(loss, "what `compute_loss` returns", "keras.ops.mean does")


class CallersObjective:
    """A number that the caller computes; a `Scored`."""

    what = "objective"
    sums = False
    whole = True

    def __init__(
        self,
        model: keras.Model,
        function: Callable[[keras.Model, Any, bool], Any],
        training: bool,
        adjust: Adjustment | None = None,
    ):
        if adjust is not None:
            adjust.is_not_used("an objective does not show its logits")
        self._model, self._training = model, training
        self._function = function

    def __call__(self, batch: Batch, added: list[Any], part: Part) -> Any:
        """Returns the value on a mini-batch."""
        del added, part
        with functions_inlined(), without_penalties(self._model):
            value = self._function(self._model, batch[0], self._training)
        return _scalar(value, "what the objective returns", "keras.ops.mean does")


def make_scored(
    model: keras.Model,
    objective: Objective,
    training: bool,
    adjust: Adjustment | None = None,
) -> Scored:
    """Returns what is differentiated."""
    if objective.function is not None:
        return CallersObjective(model, objective.function, training, adjust)
    return FitLoss(model, objective.loss, training, adjust)


def _no_loss(model: keras.Model, state: str, advice: str) -> ValueError:
    return ValueError(
        f"Expected a compiled model, or a `loss`. Received: loss=None with model "
        f"{model.name!r}, which is {state}. To score it, {advice}, or pass loss=..., "
        f"or {_EXAMPLE}."
    )


@contextlib.contextmanager
def _fitting(what: str, y: Any, y_pred: Any, sample_weight: Any) -> Iterator[None]:
    """Adds to errors of a loss the shapes of its targets and outputs."""
    try:
        yield
    except _backend.OPERATION_ERRORS as error:
        if str(error).startswith("Expected"):
            raise  # already in our own words
        weights = ""
        if isinstance(sample_weight, dict):
            named = ", ".join(map(repr, sample_weight))
            weights = f", with weights for {named} (each output with a loss needs some)"
        raise ValueError(
            f"Expected targets and {what} the outputs of the model. Received: targets "
            f"of shape {shapes(y)} for outputs of shape {shapes(y_pred)}{weights}. The "
            f"error: {error}"
        ) from error


def _scalar(value: Any, what: str, how: str) -> Any:
    """Returns a loss, which must be one number, as a tensor."""
    expected = f"Expected {what} to be one number for the mini-batch. Received: "
    if value is None:
        raise ValueError(f"{expected}None. Return it at the end of the function.")
    try:
        value = keras.ops.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{expected}{value!r} of type {type(value).__name__}"
        ) from error
    dtype = keras.backend.standardize_dtype(value.dtype)
    if not dtype.startswith(("float", "bfloat", "int", "uint")):
        raise TypeError(f"{expected}a tensor of dtype {dtype}")
    if len(value.shape):
        raise ValueError(
            f"{expected}a loss of shape {tuple(value.shape)}. Reduce it: {how}."
        )
    return value
