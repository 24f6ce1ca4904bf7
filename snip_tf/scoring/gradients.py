"""The derivatives of what is minimized, averaged over mini-batches."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.scoring.data_loss import Adjustment
from snip_tf.scoring.examples import Batch, as_tensors, example_count
from snip_tf.scoring.forward import Derivative, LossAt, Pass, Tensors
from snip_tf.scoring.objective import Objective, Part, make_scored
from snip_tf.scoring.precision import computing_in
from snip_tf.scoring.replicas import run_on_devices
from snip_tf.scoring.unreached import unreached
from snip_tf.weights import values_of, weights_by_path


def gradient(loss_at: LossAt, values: Tensors, what: str) -> tuple[Any, Tensors]:
    """Returns the loss and its gradient with respect to each value; a `Derivative`.

    Raises:
        ValueError: if the loss does not depend on one of the values.
    """
    with naming_alternatives("a gradient", "'magnitude' and 'random' need none"):
        loss, _, found = _backend.differentiate(lambda at: (loss_at(at), None), values)
    missing = [path for path, g in found.items() if g is None]
    if missing:
        raise unreached(missing, list(found), what)
    return loss, {path: g for path, g in found.items() if g is not None}


@contextlib.contextmanager
def naming_alternatives(what: str, alternatives: str) -> Iterator[None]:
    """Has the error for an operation without a gradient say which criteria work."""
    try:
        yield
    except _backend.NO_DERIVATIVE as error:
        raise ValueError(
            f"Expected operations that have {what}. Received: one that has none "
            f"({error}). Use another operation or criterion: {alternatives}."
        ) from error


def mean_derivative(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    batches: Iterable[Batch],
    derivative: Derivative = gradient,
    *,
    objective: Objective | None = None,
    training: bool = False,
    masks: Mapping[str, np.ndarray] | None = None,
    adjust: Adjustment | None = None,
    revives: bool = False,
) -> Tensors:
    """Averages a derivative of what `fit` minimizes, without penalties on weights.

    Computed at the current weights. In inference mode several mini-batches give the
    derivative of one larger batch (in training mode BatchNorm uses the statistics of
    each): sums over the examples are added up, and means, as Keras' losses are by
    default, are averaged with their signs, each weighted by its number of examples.
    What may be either (`add_loss`, `compute_loss`, an objective, a function that
    returns one number) counts as a mean.

    The model runs under a `keras.StatelessScope`: what a forward pass changes
    (BatchNorm statistics, seed states) is caught there and dropped.

    Args:
        model: a built `keras.Model`.
        weights: `{weight path: variable}` to differentiate by.
        batches: tuples `(x, y, sample_weight)`; for an objective, `x` is all that the
            data yields.
        derivative: what is computed; default, the gradient.
        objective: what is minimized; None is what `fit` minimizes.
        training: the mode of the forward pass.
        masks: `{weight path: bool array}`; the weights are multiplied by them, and the
            derivatives are with respect to the products.
        adjust: changes the output before it is passed to the loss.
        revives: whether connections that the model's own masks remove get derivatives,
            too, as if each came back with the value zero.

    Returns:
        `{weight path: tensor}` of the weights' shapes, on the device that computed
        them.

    Raises:
        ValueError: if there is no loss, labels are out of range, the loss is not
            finite, it does not depend on one of the weights, or the loss of several
            batches cannot be put together.
    """
    scored = make_scored(model, objective or Objective(), training, adjust)
    run = Pass(model, weights, scored, masks or {}, derivative, revives=revives)
    return _mean(run, batches)


def mean_loss(
    model: keras.Model,
    batches: Iterable[Batch],
    objective: Objective,
    training: bool = False,
) -> float:
    """Returns what `fit` minimizes, without penalties on weights, as `mean_derivative`.

    Args:
        model, batches, objective, training: as there.
    """

    def as_derivative(loss_at: LossAt, values: Tensors, what: str) -> tuple:
        loss = loss_at(values)
        return loss, {what: loss}

    scored = make_scored(model, objective, training, None)
    [loss] = _mean(Pass(model, {}, scored, {}, as_derivative), batches).values()
    return float(_backend.as_array(loss))


def _mean(run: Pass, batches: Iterable[Batch]) -> Tensors:
    mean: Tensors = {}
    examples = 0
    batches, total = _counted(batches, run.scored.sums)
    for batch in batches:
        size = example_count(batch)
        examples += size
        derivatives = _on_batch(run, batch, Part(total))
        if not mean:
            mean = derivatives
            continue
        for path in mean:  # each one is freed before the next
            change = derivatives.pop(path) - mean[path]
            mean[path] += change * (size / examples)
    return mean


def _counted(
    batches: Iterable[Batch], always: bool
) -> tuple[Iterable[Batch], int | None]:
    """Returns the batches, and their number of examples if there is one or `always`."""
    batches = iter(batches)
    first = list(batches) if always else list(itertools.islice(batches, 2))
    total = sum(map(example_count, first)) if always or len(first) == 1 else None
    return itertools.chain(first, batches), total


def _on_batch(run: Pass, batch: Batch, part: Part) -> Tensors:
    with computing_in("float32", run.model):
        loss, derivatives = run_on_devices(run, as_tensors(batch), part)
    if not math.isfinite(loss := float(_backend.as_array(loss))):
        raise _not_finite(run.model, loss, run.scored.what)
    return derivatives


def _not_finite(model: keras.Model, loss: float, what: str) -> ValueError:
    bad = [
        path
        for path, weight in weights_by_path(model).items()
        if not np.isfinite(values_of(weight)).all()
    ]
    where = f"the weights {', '.join(bad)}" if bad else "the data"
    return ValueError(
        f"Expected a finite {what} on the mini-batch. Received: {what}={loss}. Look "
        f"for NaN or infinity in {where}, and check that the {what} fits the model's "
        f"outputs (logits or probabilities)."
    )
