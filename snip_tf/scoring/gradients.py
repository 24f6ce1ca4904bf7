"""The gradients of what is scored: the only file that differentiates."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import functools
import glob
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from snip_tf._keras import is_traced_for_one_call
from snip_tf.masking.compiling import strategy_of
from snip_tf.masking.inlining import functions_inlined, inlined
from snip_tf.scoring.batches import Batch
from snip_tf.scoring.calling import call_model
from snip_tf.scoring.data_loss import logits
from snip_tf.scoring.examples import example_count, fed, take
from snip_tf.scoring.objective import Part, Scored, as_tensors, make_scored
from snip_tf.scoring.precision import (
    computing_in,
    moments_in_full,
    rows_as_tensors,
    without_shifts,
)
from snip_tf.scoring.reductions import NotDivisible
from snip_tf.weights import is_stateful, layer_tree, weights_by_path

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
    """dL/dw of what `fit` minimizes, without penalties on weights.

    At the current weights, over several mini-batches the gradient of one larger batch,
    in inference mode (in training mode BatchNorm's statistics are those of each
    batch): sums over the examples are added up, and means, as Keras' losses are by
    default, are averaged with their signs, each weighed by its number of examples. So
    is what may be either: `add_loss`, `compute_loss`, an objective, a function that
    returns one number.

    The model runs under a `keras.StatelessScope`: what a forward pass changes
    (BatchNorm statistics, seed states) is caught there and dropped.

    Args:
        model: a built `keras.Model`.
        weights: `{weight path: variable}` to differentiate by.
        batches: tuples `(x, y, sample_weight)`; for an objective, with all of what the
            data yields instead of `x`.
        loss: what `Model.compile` takes as `loss`, or an `Objective`. None takes what
            `fit` minimizes.
        training: the mode of the forward pass.
        masks: `{weight path: bool array}`; the weights are multiplied by them, and the
            gradients are those by the products.
        temperature: of a cross-entropy, the logits are divided by it; with several
            outputs it is not used, with a warning.

    Returns:
        `{weight path: tensor}` of the weights' shapes, where they were computed.

    Raises:
        ValueError: if there is no loss, labels are out of range, the loss is not
            finite, it does not depend on one of the weights, or it is none that pieces
            add up to and there are several batches.
    """
    scored = make_scored(model, loss, training, temperature)
    derivative = functools.partial(_gradients, what=scored.what)
    return _mean(_Pass(model, weights, scored, masks or {}, derivative), batches)


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
    """H v, the Hessian of the loss by the weights times a vector, averaged.

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

    scored = make_scored(model, loss, training, temperature)

    def product(loss_at: Callable, values: Tensors) -> tuple[tf.Tensor, Tensors]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss, gradients = _gradients(loss_at, values, what=scored.what)
            along = [
                tf.reduce_sum(gradients[path] * tf.cast(v, gradients[path].dtype))
                for path, v in direction.items()
            ]
            inner = tf.add_n(along)
        # Zero of a weight that the loss is linear in, together with all others.
        zero = tf.UnconnectedGradients.ZERO
        with _saying_what_lacks("a second derivative", _FIRST_ORDER):
            products = tape.gradient(inner, values, unconnected_gradients=zero)
        # Dense where it was of some rows only, as of sparse inputs.
        return loss, {path: tf.convert_to_tensor(p) for path, p in products.items()}

    def in_full(loss_at: Callable, values: Tensors) -> tuple[tf.Tensor, Tensors]:
        # In the thread of a replica, if there are some, which alone sees it.
        with moments_in_full(), rows_as_tensors():
            return product(loss_at, values)

    products = _mean(_Pass(model, weights, scored, {}, in_full), batches)
    _check_second_derivatives(products, direction)
    return products


_FIRST_ORDER = "'snip', 'iterative_snip' and 'force' need only a first one"


def _check_second_derivatives(products: Tensors, direction: Mapping) -> None:
    """Raises if they are not finite though the first derivatives are."""
    bad = [path for path, product in products.items() if not _is_finite(product)]
    if bad and all(map(_is_finite, direction.values())):
        raise ValueError(
            f"Expected a finite second derivative, which the criterion 'grasp' needs. "
            f"Received: NaN or infinity in that by {', '.join(bad)}, though the loss "
            f"and its first derivative are finite. Some operations have none, such as "
            f"the loss CTC. Use another criterion: {_FIRST_ORDER}."
        )


def _is_finite(tensor: Any) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))


@contextlib.contextmanager
def _saying_what_lacks(what: str, others: str) -> Iterator[None]:
    """Has the error for an operation without a gradient say which criteria work."""
    try:
        yield
    except LookupError as error:
        raise ValueError(
            f"Expected operations that have {what}. Received: one that has none "
            f"({error}). Use another operation or criterion: {others}."
        ) from error


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
    subtracted = {
        id(layer.moving_mean)
        for layer in layer_tree(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    }

    def flow_in(dtype: str) -> tuple[tf.Tensor, Tensors]:
        def value(variable: keras.Variable) -> tf.Tensor:
            value = tf.abs(tf.cast(_plain(variable), dtype))
            return tf.zeros_like(value) if id(variable) in subtracted else value

        derivative = functools.partial(_gradients, what="flow")
        run = _Pass(model, weights, _Flow(model), masks, derivative, value)
        with computing_in(dtype, model), without_shifts(model):
            return run((x, None, None), Part(None))

    try:
        flow, gradients = flow_in("float64")
    except (TypeError, ValueError, tf.errors.OpError) as error:
        if not _is_of_double(error):
            raise
        # A layer with constants of its own in float32, say.
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


class _Flow:
    """R, as a `Scored`."""

    def __init__(self, model: keras.Model):
        self._model = model

    def __call__(self, batch: Batch, added: list[Any], part: Part) -> tf.Tensor:
        del added, part
        outputs = keras.tree.flatten(call_model(self._model, batch[0]))
        sums = [tf.reduce_sum(tf.cast(logits(y), tf.float64)) for y in outputs]
        return tf.add_n(sums)


def _is_of_double(error: Exception) -> bool:
    """Whether something cannot be computed in double precision.

    TensorFlow has no class of errors for it, but always names the type. (So does what
    Keras adds, about the arguments of the call.) But for grouped convolutions, whose
    gradients it has on processors in single precision alone.
    """
    words = str(error.__cause__ or error).partition("Arguments received by")[0]
    return re.search("double|float64|grouped conv", words, re.IGNORECASE) is not None


def _mean(run: _Pass, batches: Iterable[Batch]) -> Tensors:
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
        for path in mean:  # each one is gone before the next is looked at
            change = derivatives.pop(path) - mean[path]
            mean[path] += change * (size / examples)
    return mean


def _counted(
    batches: Iterable[Batch], always: bool
) -> tuple[Iterable[Batch], int | None]:
    """The batches and the number of examples in them, if there is one or `always`."""
    batches = iter(batches)
    first = list(batches) if always else list(itertools.islice(batches, 2))
    total = sum(map(example_count, first)) if always or len(first) == 1 else None
    return itertools.chain(first, batches), total


def _on_batch(run: _Pass, batch: Batch, part: Part) -> Tensors:
    model = run.model
    batch, strategy = as_tensors(batch), strategy_of(model)
    with computing_in("float32", model):
        loss, derivatives = _on_devices(strategy, run, batch, part)
    if not np.isfinite(loss):
        raise _not_finite(model, float(loss), run.scored.what)
    return derivatives


def _on_devices(
    strategy: tf.distribute.Strategy, run: _Pass, batch: Batch, part: Part
) -> tuple[tf.Tensor, Tensors]:
    """`run` on a mini-batch, shared by replicas where that gives the same."""
    if strategy.num_replicas_in_sync == 1:
        return run(batch, part)
    if not run.scored.whole and not is_stateful(run.model):
        with contextlib.suppress(NotDivisible):
            return _over_replicas(strategy, run, batch, part)
    # Another thread is in no strategy's scope, in which Keras would divide its losses,
    # but not those of others, by the number of replicas.
    with concurrent.futures.ThreadPoolExecutor(1) as alone:
        return alone.submit(run, batch, part).result()


@dataclasses.dataclass(frozen=True)
class _Pass:
    """The loss on a mini-batch, and what `derivative` gives of it."""

    model: keras.Model
    weights: Mapping[str, keras.Variable]
    scored: Scored | _Flow
    masks: Mapping[str, np.ndarray]
    derivative: Derivative
    value: Callable[[keras.Variable], tf.Tensor] = lambda variable: _plain(variable)

    def __call__(self, batch: Batch, part: Part) -> tuple[tf.Tensor, Tensors]:
        # In the thread of a replica, if there are some, which alone sees it.
        with inlined(self.model):
            try:
                return self._derived(batch, part, inlined=False)
            except _ReadByFunction:
                with functions_inlined():
                    return self._derived(batch, part, inlined=True)

    def _derived(
        self, batch: Batch, part: Part, inlined: bool
    ) -> tuple[tf.Tensor, Tensors]:
        known = {id(weight) for weight in self.weights.values()}
        others = [v for v in self.model.variables if id(v) not in known]
        own = {id(variable.value) for variable in self.model.variables}

        def loss_at(values: Tensors) -> tf.Tensor:
            # Every variable has its value by the scope, so that the variables
            # themselves, which may be mirrored over replicas, take no part.
            given = [(weight, values[path]) for path, weight in self.weights.items()]
            for variable in others:
                is_float = variable.dtype.startswith(("float", "bfloat"))
                value = self.value if is_float else tf.convert_to_tensor
                given.append((variable, value(variable)))
            # The inner tape records variables that are read past the scope.
            scope = _Scope(given, known)
            with scope, tf.GradientTape() as past_scope:
                loss = self.scored(batch, scope.losses, part)
            read = {id(variable) for variable in past_scope.watched_variables()}
            if read & own and not inlined:
                raise _ReadByFunction
            return loss

        values = {}
        for path, weight in self.weights.items():
            values[path] = self.value(weight)
            if path in self.masks:
                values[path] *= tf.cast(self.masks[path], values[path].dtype)
        return self.derivative(loss_at, values)


class _ReadByFunction(BaseException):  # past whoever catches an `Exception`
    """A `tf.function` reads weights, which neither has nor may keep a scope's values.

    One that was traced before reads the variables themselves; one that is traced now
    would keep the values for good.
    """


class _Scope(keras.StatelessScope):
    """Gives variables values, and a value assigned in it the gradient of a variable.

    Training differentiates by what a variable holds when it is read: what it was
    computed from, when it was assigned, is no part of that. In a scope of Keras' it
    would be.
    """

    def __init__(
        self, values: list[tuple[keras.Variable, tf.Tensor]], scored: set[int]
    ):
        super().__init__(collect_losses=True)
        self._scored, self._eager = scored, tf.executing_eagerly()
        for update in values:
            super().add_update(update)

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor | None:
        if self._eager and not tf.executing_eagerly() and not is_traced_for_one_call():
            raise _ReadByFunction
        return super().get_current_value(variable)

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        variable, value = update
        before = self.get_current_value(variable)
        value = tf.stop_gradient(value)
        if before is not None:  # which may be in another precision than the variable
            value = tf.cast(value, before.dtype)
        if id(variable) in self._scored:
            # To the last bit the new value, with the derivative of the one before.
            value += before - tf.stop_gradient(before)
        super().add_update((variable, value))


def _gradients(
    loss_at: Callable, values: Tensors, what: str
) -> tuple[tf.Tensor, Tensors]:
    # Eager, not traced: for one batch a trace costs more than it saves.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        loss = loss_at(values)
    with _saying_what_lacks("a gradient", "'magnitude' and 'random' need none"):
        gradients = tape.gradient(loss, values)
    missing = [path for path, gradient in gradients.items() if gradient is None]
    if missing:
        raise _unreached(missing, list(gradients), what)
    # Dense where it was of some rows only.
    return loss, {path: tf.convert_to_tensor(g) for path, g in gradients.items()}


def _unreached(missing: list[str], paths: list[str], what: str) -> ValueError:
    """The error that names the weights that have no gradient."""
    hidden = (
        "(What `keras.remat` or `tf.recompute_grad` was given before the call hides "
        "its weights: write keras.remat(...) in `call`.)"
    )
    if len(missing) == len(paths):
        return ValueError(
            f"Expected the {what} to depend on every prunable weight. Received: one "
            f"that depends on none of {_some(paths)}. Compute it with the model that "
            f"is given, by operations that have a gradient (not with `predict`, "
            f"`numpy()`, `stop_gradient` or an argmax). {hidden}"
        )
    article = "an" if what[0] in "aeiou" else "a"
    return ValueError(
        f"Expected the {what} to depend on every prunable weight. Received: {article} "
        f"{what} that does not depend on {_some(missing)}. Leave them out with "
        f"exclude={_patterns_of(missing, paths)}. {hidden}"
    )


def _patterns_of(missing: list[str], paths: list[str]) -> list[str]:
    """The fewest glob patterns that match some of the paths and none of the others."""
    others = set(paths) - set(missing)
    patterns: list[str] = []
    for path in missing:
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
            continue
        parents = itertools.accumulate(path.split("/")[:-1], "{}/{}".format)
        for folder in (f"{parent}/" for parent in parents):
            alone = sum(other.startswith(folder) for other in missing) == 1
            if not alone and not any(other.startswith(folder) for other in others):
                patterns.append(glob.escape(folder) + "*")
                break
        else:
            patterns.append(glob.escape(path))
    return patterns


def _some(paths: list[str], most: int = 12) -> str:
    """The first paths, and how many there are beside."""
    rest = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(map(repr, paths[:most])) + rest


def _over_replicas(
    strategy: tf.distribute.Strategy,
    run: _Pass,
    batch: Batch,
    part: Part,
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
        shared = dataclasses.replace(part, shared=True)
        loss, gradients = run(keras.tree.pack_sequence_as(batch, own), shared)
        weighed = {p: g * tf.cast(weight, g.dtype) for p, g in gradients.items()}
        return loss * tf.cast(weight, loss.dtype), weighed

    shares = strategy.experimental_distribute_values_from_function(share)
    loss, gradients = strategy.run(on_replica, args=tuple(shares))

    def add_up(value: Any) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    return add_up(loss), {path: add_up(gradients.pop(path)) for path in list(gradients)}


def _plain(variable: keras.Variable) -> tf.Tensor:
    """The value, in float32 if it is stored in half precision."""
    value = tf.convert_to_tensor(variable)
    return tf.cast(value, tf.float32) if value.dtype in _HALF else value


def _not_finite(model: keras.Model, loss: float, what: str) -> ValueError:
    bad = [
        path
        for path, weight in weights_by_path(model).items()
        if not np.isfinite(np.asarray(weight, np.float64)).all()
    ]
    where = f"the weights {', '.join(bad)}" if bad else "the data"
    return ValueError(
        f"Expected a finite {what} on the mini-batch. Received: {what}={loss}. Look "
        f"for NaN or infinity in {where}, and check that the {what} fits the model's "
        f"outputs (logits or probabilities)."
    )
