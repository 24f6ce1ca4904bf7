"""The gradients of the data loss: the only file that differentiates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from snip_tf.batches import Batch, example_count
from snip_tf.calling import call_model, shapes
from snip_tf.compiling import inlined, strategy_of
from snip_tf.data_loss import DataLoss, logits, make_data_loss
from snip_tf.examples import fed, take
from snip_tf.numerics import computing_in, moments_in_full, without_shifts
from snip_tf.weights import layer_tree, weights_by_path

_HALF = (tf.float16, tf.bfloat16)

Tensors = dict[str, tf.Tensor]
# What is computed of the loss and the values that it depends on.
Derivative = Callable[[Callable[[Tensors], tf.Tensor], Tensors], tuple]


def mean_gradients(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    batches: Iterable[Batch],
    *,
    loss: Any = None,
    training: bool = False,
    masks: Mapping[str, np.ndarray] | None = None,
    temperature: float = 1.0,
) -> Tensors:
    """dL/dw of the data loss at the current weights, averaged over mini-batches.

    The mean keeps the signs and weighs each batch by its number of examples, so that
    several batches give the gradient of one larger batch: in inference mode (in
    training mode BatchNorm's statistics are those of each batch), and for a loss that
    is a mean over the examples, as Keras' losses are by default. A sum is made a mean.

    The model runs under a `keras.StatelessScope`: what a forward pass changes
    (BatchNorm statistics, seed states) is caught there and dropped.

    Args:
        model: a built `keras.Model`.
        weights: `{weight path: variable}` to differentiate by.
        batches: tuples `(x, y, sample_weight)`.
        loss: what `Model.compile` takes as `loss`. None takes the compiled one.
            Regularization losses are never part of it.
        training: the mode of the forward pass.
        masks: `{weight path: bool array}`; the weights are multiplied by them, and the
            gradients are those by the products.
        temperature: of a cross-entropy, the logits are divided by it; with several
            outputs it is not used, with a warning.

    Returns:
        `{weight path: tensor}` of the weights' shapes, where they were computed.

    Raises:
        ValueError: if there is no loss, labels are out of range, the loss is not
            finite, or it does not depend on one of the weights.
    """
    data_loss = make_data_loss(model, loss, temperature)
    run = _Pass(model, weights, data_loss, training, masks or {}, _gradients)
    return _mean(run, batches)


def mean_hessian_products(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    batches: Iterable[Batch],
    direction: Mapping[str, tf.Tensor],
    *,
    loss: Any = None,
    training: bool = False,
    temperature: float = 1.0,
) -> Tensors:
    """H v, the Hessian of the data loss by the weights times a vector, averaged.

    Exact, as the gradient of the inner product of v and the gradient:

        (H v)_j = d(sum_k v_k * dL/dw_k) / dw_j

    in about twice the time and the memory of a gradient, whatever the number of
    weights. The mean over batches is that of `mean_gradients`.

    Args:
        direction: `{weight path: tensor}`, v, of the shapes of the weights.
        others: as in `mean_gradients`.

    Returns:
        `{weight path: tensor}` of the weights' shapes.
    """

    def product(loss_at: Callable, values: Tensors) -> tuple[tf.Tensor, Tensors]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss, gradients = _gradients(loss_at, values)
            along = [
                tf.reduce_sum(gradients[path] * tf.cast(v, gradients[path].dtype))
                for path, v in direction.items()
            ]
            inner = tf.add_n(along)
        # Zero of a weight that the loss is linear in, together with all others.
        zero = tf.UnconnectedGradients.ZERO
        products = tape.gradient(inner, values, unconnected_gradients=zero)
        # Dense where it was of some rows only, as of sparse inputs.
        return loss, {path: tf.convert_to_tensor(p) for path, p in products.items()}

    data_loss = make_data_loss(model, loss, temperature)
    with moments_in_full():
        return _mean(_Pass(model, weights, data_loss, training, {}, product), batches)


def flow(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    x: Any,
    masks: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """w * dR/dw of R, the sum of the outputs with the magnitude of every variable.

    In float64, as R is a sum over all paths through the network, and grows with their
    number; in float32 if a layer computes in nothing else. A softmax or a sigmoid at
    the end is left out, which would bound it, and so are the shifts of Rescaling and of
    normalization, which could make it negative. Where nothing flows through a weight,
    an activation may be saturated: then smaller inputs are tried, which without biases
    make R smaller in proportion, and change no order.

    Args:
        model: a built `keras.Model`, run in inference mode.
        weights: `{weight path: variable}` to score.
        x: the inputs.
        masks: `{weight path: bool array}` that the weights are multiplied by.

    Returns:
        `{weight path: float64 array}` of the weights' shapes.

    Raises:
        ValueError: if R is not finite.
    """
    best: dict[str, np.ndarray] = {}
    for scale in _INPUT_SCALES:
        scores = _flow_of(model, weights, _scaled(x, scale), masks)
        if not best or _alive(scores) > _alive(best):
            best = scores
        if _alive(best) == len(weights):
            break
    return best


# Powers of two, by which floats are multiplied exactly.
_INPUT_SCALES = (1.0, 2.0**-100, 2.0**-400)


def _alive(scores: Mapping[str, np.ndarray]) -> int:
    """Of how many weights a score is not zero."""
    return sum(bool(score.any()) for score in scores.values())


def _scaled(x: Any, scale: float) -> Any:
    def scaled(array: Any) -> Any:
        array = np.asarray(array)
        is_float = (
            np.can_cast(array.dtype, np.float64) and array.dtype.kind not in "iub"
        )
        return array.astype(np.float64) * scale if is_float else array

    return keras.tree.map_structure(scaled, x)


def _flow_of(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    x: Any,
    masks: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    def total(y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
        del y, sample_weight
        outputs = map(logits, keras.tree.flatten(y_pred))
        return tf.add_n([tf.reduce_sum(tf.cast(y, tf.float64)) for y in outputs])

    subtracted = {
        id(layer.moving_mean)
        for layer in layer_tree(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    }

    def flow_in(dtype: str) -> tuple[tf.Tensor, Tensors]:
        def value(variable: keras.Variable) -> tf.Tensor:
            value = tf.abs(tf.cast(_plain(variable), dtype))
            return tf.zeros_like(value) if id(variable) in subtracted else value

        run = _Pass(model, weights, total, False, masks, _gradients, value)
        with inlined(model), computing_in(dtype, model), without_shifts(model):
            return run((x, None, None))

    try:
        flow, gradients = flow_in("float64")
    except ValueError:  # a layer with constants of its own in float32, say
        flow, gradients = flow_in("float32")
    if not np.isfinite(flow):
        raise ValueError(
            f"Expected a finite flow through the network. Received: {float(flow)} with "
            f"ones for an input. With so many layers, or so large weights, SynFlow "
            f"cannot score them."
        )
    scores = {}
    for path, gradient in gradients.items():
        weight = np.abs(np.asarray(weights[path], np.float64))
        scores[path] = weight * masks.get(path, True) * gradient.numpy()
    return scores


def _mean(run: _Pass, batches: Iterable[Batch]) -> Tensors:
    mean: Tensors = {}
    examples = 0
    for batch in batches:
        size = example_count(batch)
        examples += size
        derivatives = _on_batch(run, batch)
        if not mean:
            mean = derivatives
            continue
        for path in mean:  # each one is gone before the next is looked at
            change = derivatives.pop(path) - mean[path]
            mean[path] += change * (size / examples)
    return mean


def _on_batch(run: _Pass, batch: Batch) -> Tensors:
    model = run.model
    strategy = strategy_of(model)
    with inlined(model), computing_in("float32", model):
        if strategy.num_replicas_in_sync > 1 and not _is_stateful(model):
            loss, derivatives = _over_replicas(strategy, run, batch)
        else:
            loss, derivatives = run(batch)
    if not np.isfinite(loss):
        raise _not_finite(model, float(loss))
    return derivatives


def _is_stateful(model: keras.Model) -> bool:
    """Whether a layer keeps a state for each example, so that no batch can be cut."""
    return any(getattr(layer, "stateful", False) for layer in layer_tree(model))


@dataclasses.dataclass(frozen=True)
class _Pass:
    """The loss on a mini-batch, and what `derivative` gives of it."""

    model: keras.Model
    weights: Mapping[str, keras.Variable]
    loss: DataLoss
    training: bool
    masks: Mapping[str, np.ndarray]
    derivative: Derivative
    value: Callable[[keras.Variable], tf.Tensor] = lambda variable: _plain(variable)

    def __call__(self, batch: Batch) -> tuple[tf.Tensor, Tensors]:
        x, y, sample_weight = batch
        known = {id(weight) for weight in self.weights.values()}
        others = [v for v in self.model.variables if id(v) not in known]

        def loss_at(values: Tensors) -> tf.Tensor:
            with keras.StatelessScope() as scope:
                # Every variable has its value by the scope, so that the variables
                # themselves, which may be mirrored over replicas, take no part.
                for path, weight in self.weights.items():
                    scope.add_update((weight, values[path]))
                for variable in others:
                    is_float = variable.dtype.startswith(("float", "bfloat"))
                    value = self.value if is_float else tf.convert_to_tensor
                    scope.add_update((variable, value(variable)))
                y_pred = call_model(self.model, x, self.training)
            return _loss_of(self.loss, y, y_pred, sample_weight)

        values = {}
        for path, weight in self.weights.items():
            values[path] = self.value(weight)
            if path in self.masks:
                values[path] *= tf.cast(self.masks[path], values[path].dtype)
        return self.derivative(loss_at, values)


def _gradients(loss_at: Callable, values: Tensors) -> tuple[tf.Tensor, Tensors]:
    # Eager, not traced: for one batch a trace costs more than it saves.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        loss = loss_at(values)
    gradients = tape.gradient(loss, values)
    for path, gradient in gradients.items():
        if gradient is None:
            raise ValueError(
                f"Expected the loss to depend on every prunable weight. "
                f"Received: a loss that does not depend on {path!r}. "
                f"Leave it out with exclude={path!r}. (What runs in `keras.remat` or "
                f"`tf.recompute_grad` hides its weights: use a `keras.RematScope`.)"
            )
    # Dense where it was of some rows only.
    return loss, {path: tf.convert_to_tensor(g) for path, g in gradients.items()}


def _over_replicas(
    strategy: tf.distribute.Strategy,
    run: _Pass,
    batch: Batch,
) -> tuple[tf.Tensor, Tensors]:
    """`run` on a mini-batch that is split over the replicas of a strategy.

    The gradients are added up with their signs, over all machines, so that every one
    has the same to select by; absolute values could not be.
    """
    count, replicas = example_count(batch), strategy.num_replicas_in_sync
    if count < replicas:
        raise ValueError(
            f"Expected a mini-batch of at least one example for each of the "
            f"{replicas} replicas. Received: {count} examples. Raise batch_size or "
            f"micro_batch_size, or prune outside the strategy, a model built outside."
        )
    leaves = keras.tree.flatten(batch)
    given = [position for position, leaf in enumerate(leaves) if leaf is not None]

    def share(context: tf.distribute.ValueContext) -> list[tf.Tensor]:
        replica = context.replica_id_in_sync_group
        first, last = (r * count // replicas for r in (replica, replica + 1))
        parts = fed([take(leaves[i], slice(first, last)) for i in given])
        arrays = [p if tf.is_tensor(p) else tf.convert_to_tensor(p) for p in parts]
        # Keras divides the mean over a replica's share by the number of replicas, so
        # the sum is the mean over all, if the shares are equal; else each by its size.
        return [tf.constant((last - first) * replicas / count), *arrays]

    def on_replica(weight: tf.Tensor, *arrays: tf.Tensor) -> tuple[tf.Tensor, ...]:
        own: list[Any] = [None] * len(leaves)
        for position, array in zip(given, arrays, strict=True):
            own[position] = array
        loss, gradients = run(keras.tree.pack_sequence_as(batch, own))
        weighed = {p: g * tf.cast(weight, g.dtype) for p, g in gradients.items()}
        return loss * tf.cast(weight, loss.dtype), weighed

    shares = strategy.experimental_distribute_values_from_function(share)
    loss, gradients = strategy.run(on_replica, args=tuple(shares))

    def add_up(value: Any) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    return add_up(loss), {path: add_up(gradients.pop(path)) for path in list(gradients)}


def _loss_of(data_loss: DataLoss, y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
    try:
        loss = data_loss(y, y_pred, sample_weight)
    except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
        if str(error).startswith("Expected"):
            raise  # in our words already
        raise ValueError(
            f"Expected targets and a loss that fit the outputs of the model. Received: "
            f"targets of shape {shapes(y)} for outputs of shape {shapes(y_pred)}. "
            f"The error: {error}"
        ) from error
    if len(loss.shape):
        raise ValueError(
            f"Expected a loss that is one number for the mini-batch. Received: a loss "
            f"of shape {tuple(loss.shape)}. Reduce it: the losses of Keras do with "
            f"reduction='sum_over_batch_size', their default."
        )
    return loss


def _plain(variable: keras.Variable) -> tf.Tensor:
    """The value, in float32 if it is stored in half precision."""
    value = tf.convert_to_tensor(variable)
    return tf.cast(value, tf.float32) if value.dtype in _HALF else value


def _not_finite(model: keras.Model, loss: float) -> ValueError:
    bad = [
        path
        for path, weight in weights_by_path(model).items()
        if not np.isfinite(np.asarray(weight, np.float64)).all()
    ]
    where = f"the weights {', '.join(bad)}" if bad else "the data"
    return ValueError(
        f"Expected a finite loss on the mini-batch. Received: loss={loss}. Look for "
        f"NaN or infinity in {where}, and check that the loss fits the model's outputs "
        f"(logits or probabilities)."
    )
