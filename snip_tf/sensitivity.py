"""The gradients of the data loss: the only file that differentiates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from snip_tf.batches import Batch, example_count

# loss(y, y_pred, sample_weight) -> scalar tensor
DataLoss = Callable[[Any, Any, Any], tf.Tensor]


def mean_gradients(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    batches: Iterable[Batch],
    *,
    loss: Any = None,
    training: bool = False,
) -> dict[str, np.ndarray]:
    """dL/dw of the data loss at the current weights, averaged over mini-batches.

    The mean keeps the signs and weighs each batch by its number of examples, so that
    several batches give the gradient of one larger batch (in inference mode; with
    `training=True`, BatchNorm's statistics are those of each batch).

    The model runs under a `keras.StatelessScope`: what a forward pass changes
    (BatchNorm statistics, seed states) is caught there and dropped.

    Args:
        model: a built `keras.Model`.
        weights: `{weight path: variable}` to differentiate by.
        batches: tuples `(x, y, sample_weight)`.
        loss: what `Model.compile` takes as `loss`. None takes the compiled one.
            Regularization losses are never part of it.
        training: the mode of the forward pass.

    Returns:
        `{weight path: array}` of the weights' shapes and types.

    Raises:
        ValueError: if there is no loss, labels are out of range, the loss is not
            finite, or it does not depend on one of the weights.
    """
    data_loss = _data_loss(model, loss)
    total: dict[str, np.ndarray] = {}
    examples = 0
    for batch in batches:
        size = example_count(batch)
        gradients = _gradients(model, weights, batch, data_loss, training)
        for path, gradient in gradients.items():
            gradient *= size
            total[path] = total[path] + gradient if path in total else gradient
        examples += size
    for gradient in total.values():
        gradient /= examples
    return total


def _gradients(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    batch: Batch,
    data_loss: DataLoss,
    training: bool,
) -> dict[str, np.ndarray]:
    x, y, sample_weight = batch
    # Eager, not traced: for one batch a trace costs more than it saves.
    values = {path: variable.value for path, variable in weights.items()}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        with keras.StatelessScope():
            y_pred = model(x, training=training)
        loss = data_loss(y, y_pred, sample_weight)
    if not np.isfinite(loss):
        raise ValueError(
            f"Expected a finite loss on the mini-batch. Received: loss={float(loss)}. "
            f"Look for NaN or infinity in the data or the weights, and check that the "
            f"loss fits the model's outputs (logits or probabilities)."
        )
    gradients = tape.gradient(loss, values)
    for path, gradient in gradients.items():
        if gradient is None:
            raise ValueError(
                f"Expected the loss to depend on every prunable weight. "
                f"Received: a loss that does not depend on {path!r}. "
                f"Leave it out with exclude={path!r}."
            )
    return {
        path: tf.convert_to_tensor(gradient).numpy()
        for path, gradient in gradients.items()
    }


def _data_loss(model: keras.Model, loss: Any) -> DataLoss:
    """The loss of the data alone, with no regularization term."""
    loss_weights = None
    if loss is None:
        if not model.compiled or model.loss is None:
            raise ValueError(
                f"Expected a compiled model, or a `loss`. Received: loss=None with "
                f"model {model.name!r}, which is "
                f"{'compiled without a loss' if model.compiled else 'not compiled'}. "
                f"Call model.compile(loss=...) first, or pass loss=..."
            )
        loss = model.loss
        loss_weights = model.get_compile_config().get("loss_weights")
    one_output = not keras.tree.is_nested(getattr(model, "output", None))
    if isinstance(loss, keras.losses.Loss) and one_output and loss_weights is None:
        compute = loss
    else:
        compute = _as_compiled(model, loss, loss_weights)

    def data_loss(y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
        if y is None:
            raise ValueError(
                "Expected targets to compute the loss with. Received: y=None"
            )
        _check_labels(loss, y, y_pred)
        return compute(y, y_pred, sample_weight)

    return data_loss


def _as_compiled(model: keras.Model, loss: Any, loss_weights: Any) -> Callable:
    """What `compile` makes of names, functions, and losses of several outputs.

    A model without layers has no regularizers, so that its `compute_loss` is the loss
    of the data alone.
    """
    judge = keras.Model(name="data_loss")
    judge.output_names = getattr(model, "output_names", None)
    judge.compile(optimizer=None, loss=loss, loss_weights=loss_weights)
    return functools.partial(judge.compute_loss, None)


def _check_labels(loss: Any, y: Any, y_pred: Any) -> None:
    """Integer labels must name one of the outputs: a GPU would just return NaN."""
    name = getattr(loss, "__name__", None) or (
        loss if isinstance(loss, str) else type(loss).__name__
    )
    if name not in ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"):
        return
    for labels, logits in zip(
        keras.tree.flatten(y), keras.tree.flatten(y_pred), strict=False
    ):
        labels, classes = np.asarray(labels), logits.shape[-1]
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(
                f"Expected labels from 0 to {classes - 1}, since the model has "
                f"{classes} outputs. Received: labels from {labels.min()} to "
                f"{labels.max()}"
            )
