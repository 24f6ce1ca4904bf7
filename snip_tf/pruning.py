"""prune_model: batches -> scores -> masks -> masked model."""

from __future__ import annotations

import functools
import itertools
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import criteria
from snip_tf.checks import check_seed, check_steps
from snip_tf.criteria import CRITERIA
from snip_tf.criteria.snip import snip
from snip_tf.masking.compiling import strategy_scope
from snip_tf.masking.copying import copy_unmasked
from snip_tf.masking.masked_weights import check_not_low_rank
from snip_tf.masking.masks import PackedMask
from snip_tf.masking.pruned_model import current_masks, masked_copy
from snip_tf.scoring.batches import Batch, make_batches
from snip_tf.scoring.calling import check_order
from snip_tf.scoring.gradients import mean_gradients
from snip_tf.scoring.objective import (
    Objective,
    build,
    build_in_place,
    loss_or_objective,
)
from snip_tf.scoring.precision import is_changed
from snip_tf.scoring.scores import check_finite
from snip_tf.selecting import structures
from snip_tf.selecting.allocation import Scope, Sparsity
from snip_tf.selecting.kernels import kernels_of
from snip_tf.selecting.selection import Selection
from snip_tf.selecting.structures import check_asked
from snip_tf.selecting.structures.base import Structure
from snip_tf.selecting.structures.units import Units
from snip_tf.structured.units import NetworkUnits
from snip_tf.weights import (
    Patterns,
    check_built,
    check_model,
    is_built,
    layer_tree,
    prunable_weights,
    weights_by_path,
)

Scores = dict[str, np.ndarray]


def prune_model(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    sparsity: Sparsity | None = None,
    batch_size: int | None = None,
    batches: int = 1,
    micro_batch_size: int | None = None,
    examples_per_class: int | None = None,
    loss: Any = None,
    objective: Callable[[keras.Model, Any, bool], Any] | None = None,
    criterion: str | Callable = "snip",
    structure: str | Structure | Units = "weights",
    scope: Scope = "global",
    min_kept: float = 0,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    training: bool = False,
    seed: int | None = None,
) -> keras.Model:
    """Removes connections from a model before it is trained, in a single shot.

    The connection sensitivity of weight j on the mini-batch D is

        s_j = |g_j| / sum_k |g_k|,   g = dL(c * w; D) / dc  at c = 1  =  w * dL/dw

    and the k = round((1 - sparsity) * m) of the m prunable weights with the largest s
    are kept, over the whole network together. Then train the returned model as any
    other: the removed weights are exactly zero and stay so.

    Scores are computed in float32 whatever the model computes in.

    Memory above the model's own: a forward and a backward pass, whose gradients are
    gone before the copy of the model is made; in float32 the copy takes 1.25 times what
    the model does, as a mask is a byte for each of four.

    Replicas: in the scope of a `tf.distribute.Strategy`, or on a model that was made in
    one, the replicas share each mini-batch (see `micro_batch_size` for when that is the
    same as one device). On several machines all must call this,
    with the same data and `seed`; all get the same masks.

    Args:
        model: `keras.Model` of any kind, best with its initial weights. It is left as
            it is (weights, BatchNorm statistics, seeds, optimizer); if it is not built,
            it is built on the first batch. If it is pruned already, what was removed
            stays removed and `sparsity` must not be lower than before.
        x: the data to score on, as `Model.fit` takes it: an array or a nest of arrays,
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator. Not needed by the
            criteria `"synflow"`, `"magnitude"` and `"random"`.
        y: the targets, where `x` does not yield them.
        sample_weight: weights of the examples, where `x` does not yield them.
        sparsity: float, always needed: the fraction of the prunable weights that is
            removed, 0 <= sparsity < 1, exact to one weight. Write 0.95 for 95 %. Or
            `{path pattern: float}`: a weight belongs to the first glob pattern that
            matches, each pattern is exact, and what is ranked together is ranked within
            it; what none matches is left whole (`"*"` matches the rest).
        batch_size: int, examples in a mini-batch of array data; default 128.
        batches: int, mini-batches to score on; g is averaged over them with its sign.
        micro_batch_size: int, runs each mini-batch in pieces of at most this many
            examples, where it does not fit in memory as a whole. In inference mode the
            scores are those of the whole, as they are of several `batches`: means, as
            Keras' losses are by default, are weighed by their examples, and sums are
            added. What may be either (`add_loss`, `compute_loss`, an objective, a
            function that returns one number) is taken for a mean, so it must not
            compare examples. Refused where that would be wrong: masked timesteps
            beside other terms, the reduction "mean_with_sample_weight", the losses
            Circle, Dice and Tversky.
        examples_per_class: int, scores on one mini-batch of so many examples of each
            class, instead of `batch_size` and `batches`; targets are labels or
            one-hot. Of arrays they are drawn, of a dataset they are the first.
        loss: what `Model.compile` takes as `loss`. Default, what `fit` minimizes: the
            compiled loss, or an overridden `compute_loss` (called as in training). In
            any case, what layers give to `add_loss` and activity regularizers count,
            and regularizers of weights do not.
        objective: for what no loss on outputs can say (GANs, contrastive learning,
            reinforcement, a `train_step` of one's own): a callable
            `(model, batch, training) -> scalar`, instead of a loss. `batch` is what the
            data yields, as tensors: `x`, `(x, y)` or `(x, y, sample_weight)`, which
            need not be inputs of the model. It is all that is minimized: to count what
            layers add, sum `model.losses`, which lack the penalties on weights there.
        criterion: `"snip"`; `"iterative_snip"` or `"force"`, SNIP in many steps;
            `"grasp"`, `"synflow"`, `"magnitude"`, `"random"`; one of them with settings
            of your own, such as `snip_tf.criteria.Force(steps=20)`; or a callable
            `(model, weights, batches, *, loss, training) -> {weight path: scores}`
            (see `snip_tf.criteria`). The largest scores are kept.
        structure: what is kept or removed as a whole: `"weights"`, connections by
            themselves; `"2:4"` (N:M): of each M in a row along the input axis, N are
            kept (`sparsity` is 1 - N / M); `"4x4"`: blocks of inputs by outputs, ranked
            by the sum of their scores (`sparsity` is of blocks); `"units"`: whole units
            (filters, dense and recurrent units), see `snip_tf.Units`; or a value such
            as `snip_tf.Units(cost="multiply_adds")`, `snip_tf.NOfM(2, 4)` or
            `snip_tf.Blocks(4, 4)`.
        scope: what is ranked together: `"global"`, all connections; `"layer"`, those of
            each weight; `"unit"`, those of each output of a weight (an index of its
            last axis, of the axes (heads, dim) of a query kernel of attention); or
            `"erk"` (Erdos-Renyi kernels), those of each weight, of which it keeps a
            fraction in proportion to the sum over the product of its dimensions. With
            `"layer"` and `"unit"` each keeps the floor or the ceiling of its share, the
            first the ceiling, so that the total is exact.
        min_kept: int or float, the number, or below 1 the fraction, of connections that
            each weight keeps at least; the others give them, the total stays exact.
            `min_kept=1` lets no weight go as a whole, of which a
            `snip_tf.CollapseWarning` tells otherwise.
        include: weights to prune beside the kernels: a glob pattern on weight paths, a
            layer, a list of them, or a callable `(path, variable) -> bool`.
        exclude: weights to leave alone, in the same forms.
        training: bool, the mode of the forward pass while scoring. In training mode
            BatchNorm uses the batch's statistics, which chooses other weights, and in
            deep layers fewer.
        seed: int, 0 or more: which examples of array data are drawn, and the scores of
            `criterion="random"`. None draws with NumPy's global generator.

    Returns:
        A new `keras.Model`, compiled as `model` is.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an argument has a bad value, there is nothing prunable, no loss
            (or nobody can know it, in a `train_step`), weights that it does not reach,
            too little data, labels that are no output of the model, or a score that is
            NaN; if `sparsity`, `structure`, `scope` and `min_kept` cannot be met
            together, or the structure does not divide a weight (which is named).

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.random.rand(32, 8), np.random.randint(4, size=32)
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> pruned = snip_tf.prune_model(model, x, y, sparsity=0.75, loss=loss)
    >>> snip_tf.sparsity(pruned)
    0.75

    Reference: Lee, Ajanthan & Torr, "SNIP: Single-shot Network Pruning based on
    Connection Sensitivity", ICLR 2019, https://arxiv.org/abs/1810.02340
    """
    _check_model_and_data(model, x, y, sample_weight, or_sparsity=True)
    groups = structures.get(structure)
    sparsity = check_asked(groups, sparsity, scope, min_kept)
    check_seed(seed)
    loss = loss_or_objective(loss, objective)
    criterion = criteria.get(criterion)
    if hasattr(criterion, "with_seed"):
        criterion = criterion.with_seed(seed)
    if isinstance(groups, Units):
        _check_units(criterion)
        criterion = mean_gradients  # of which the scores of units are made
    needs_data = getattr(criterion, "needs_data", True)
    if needs_data:
        _check_data(x, criterion)
    read = functools.partial(
        _batches,
        *(model, loss if needs_data else None, x, y, sample_weight),
        batch_size=batch_size,
        batches=batches,
        micro_batch_size=micro_batch_size,
        examples_per_class=examples_per_class,
        seed=seed,
    )
    data: Iterator[Batch] | None = iter(()) if x is None else None
    if data is None and not is_built(model):
        data = read()
    check_built(model)
    weights = prunable_weights(model, include, exclude)
    check_not_low_rank(weights)
    scored, its_weights = _to_score(model, weights, criterion)
    earlier = {p: m for p, m in current_masks(model).items() if p in weights}
    if isinstance(groups, Units):
        groups = NetworkUnits(groups, model, weights)
    selection = Selection(
        kernels_of(layer_tree(model), weights),
        sparsity,
        scope,
        min_kept,
        groups,
        earlier,
    )
    # Only now, so that what is wrong with an argument is said before any is read.
    data = read() if data is None else data
    score = functools.partial(
        criterion, scored, its_weights, loss=loss, training=training
    )
    masks = _masks(score, criterion, weights, data, selection)
    selection.warn_of_zeros(stacklevel=3)
    selection.warn_of_collapse(masks, stacklevel=3)
    others = {p: m for p, m in current_masks(model).items() if p not in masks}
    unpacked = ((path, mask.unpack()) for path, mask in masks.items())
    return masked_copy(model, itertools.chain(unpacked, others.items()))


def _to_score(
    model: keras.Model, weights: Mapping[str, keras.Variable], criterion: Callable
) -> tuple[keras.Model, Mapping[str, keras.Variable]]:
    """The model; or a copy, if scoring changes layers, which other threads may call."""
    changes = getattr(criterion, "changes_layers", None)
    if changes is None:
        changes = getattr(criterion, "needs_data", True) and is_changed(model)
    if not changes:
        return model, weights
    copied = masked_copy(model, current_masks(model).items())
    by_path = weights_by_path(copied)
    return copied, {path: by_path[path] for path in weights}


def _masks(
    score: Callable[..., Any],
    criterion: Callable,
    weights: Mapping[str, keras.Variable],
    data: Iterator[Batch],
    selection: Selection,
) -> dict[str, PackedMask]:
    """The masks that the scores choose, in one step or in those of the criterion."""
    steps = getattr(criterion, "steps", None)
    if steps is None:
        scores = score(data)
        _check_scores(scores, weights)
        _check_not_all_zero(scores)
        return selection.masks(scores)
    check_steps(steps)
    batches, bar = list(data), keras.utils.Progbar(steps, unit_name="step")
    left = selection.all()
    for step in range(1, steps + 1):
        scores = score(batches, masks={path: m.unpack() for path, m in left.items()})
        _check_scores(scores, weights)
        if step == 1:
            _check_not_all_zero(scores)
        among = None if getattr(criterion, "revives", False) else left
        left = selection.masks(scores, step / steps, among)
        bar.update(step)
    return left


def connection_sensitivity(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    batches: int = 1,
    micro_batch_size: int | None = None,
    examples_per_class: int | None = None,
    loss: Any = None,
    objective: Callable[[keras.Model, Any, bool], Any] | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    training: bool = False,
    seed: int | None = None,
) -> Scores:
    """The connection sensitivity of every prunable weight.

        s_j = |g_j| / sum_k |g_k|,   g = dL(c * w; D) / dc  at c = 1  =  w * dL/dw

    Args:
        model: `keras.Model`. It is left as it is; if it is not built, it is built on
            the first batch.
        x, y, sample_weight, batch_size, batches, micro_batch_size, examples_per_class,
        loss, objective, include, exclude, training, seed:
            as in `prune_model`.

    Returns:
        `{weight path: float32 array of the weight's shape}`, in the model's order;
        non-negative, and 1 in sum over all of them.

    Raises:
        TypeError, ValueError: as `prune_model`; ValueError also if every score is zero.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
    >>> x, y = np.random.rand(32, 8), np.random.rand(32, 4)
    >>> scores = snip_tf.connection_sensitivity(model, x, y, loss="mse")
    >>> scores["out/kernel"].shape, round(float(scores["out/kernel"].sum()), 4)
    ((8, 4), 1.0)

    Reference: https://arxiv.org/abs/1810.02340
    """
    _check_model_and_data(model, x, y, sample_weight)
    check_seed(seed)
    loss = loss_or_objective(loss, objective)
    data = _batches(
        *(model, loss, x, y, sample_weight),
        batch_size=batch_size,
        batches=batches,
        micro_batch_size=micro_batch_size,
        examples_per_class=examples_per_class,
        seed=seed,
    )
    weights = prunable_weights(model, include, exclude)
    model, weights = _to_score(model, weights, snip)
    scores = snip(model, weights, data, loss=loss, training=training)
    arrays = {path: np.asarray(score) for path, score in scores.items()}
    for path, array in arrays.items():
        check_finite(path, array)
    _check_not_all_zero(arrays)
    # Summed in float64: millions of small terms would lose digits in float32.
    total = sum(float(array.sum(dtype=np.float64)) for array in arrays.values())
    return {path: (a / total).astype(np.float32) for path, a in arrays.items()}


def _batches(
    model: keras.Model, loss: Any, *data: Any, **options: Any
) -> Iterator[Batch]:
    """The batches to score on: the first is read, and the model built on it."""
    if isinstance(loss, Objective):
        batches = make_batches(*data, as_yielded=True, **options)
        first = next(batches)
    else:
        batches = make_batches(*data, classes=_class_count(model), **options)
        first = next(batches)
        check_order(model, *first[:2])
    if not is_built(model):
        with strategy_scope(model):
            # If it fails, nothing is changed.
            build(copy_unmasked(model), first, loss)
            build_in_place(model, first, loss)
    return itertools.chain([first], batches)


def _class_count(model: keras.Model) -> int | None:
    """How many classes the model tells apart; None where it does not say."""
    shape = getattr(model, "output_shape", None) if model.built else None
    if not isinstance(shape, tuple) or not isinstance(shape[-1], int):
        return None
    return max(2, shape[-1])


def _check_model_and_data(
    model: Any, x: Any, y: Any, sample_weight: Any, or_sparsity: bool = False
) -> None:
    """Raises where the arguments that are given by position are in wrong places."""
    if isinstance(x, keras.Model) and not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected `model` first, then the data. Received: the model {x.name!r} as "
            f"`x`, and {type(model).__name__} as `model`"
        )
    check_model(model)
    data = {"x": x, "y": y, "sample_weight": sample_weight}
    for name, value in data.items():
        if isinstance(value, numbers.Real):
            share = value / 100 if 1 < value < 100 else value
            advice = f"; write sparsity={share:g}" if or_sparsity else ""
            raise TypeError(
                f"Expected `{name}` to be data as `Model.fit` takes it. "
                f"Received: {name}={value!r} of type {type(value).__name__}{advice}"
            )


def _check_units(criterion: Any) -> None:
    if criterion is not snip:
        raise ValueError(
            f"Expected criterion='snip' with structure='units', which are ranked by "
            f"the sensitivity of a gate on each. "
            f"Received: criterion={_name(criterion)!r}"
        )


def _check_data(x: Any, criterion: Any) -> None:
    if x is None:
        free = [n for n, c in CRITERIA.items() if not getattr(c, "needs_data", True)]
        raise ValueError(
            f"Expected data to score on, as `x`. Received: x=None with the criterion "
            f"{_name(criterion)}. Criteria without data: {', '.join(free)}"
        )


def _name(criterion: Any) -> Any:
    """As it is written: a function's own form would be an address."""
    return getattr(criterion, "__name__", criterion)


def _check_scores(scores: Any, weights: Mapping[str, keras.Variable]) -> None:
    if not isinstance(scores, Mapping) or scores.keys() != weights.keys():
        received = (
            list(scores) if isinstance(scores, Mapping) else type(scores).__name__
        )
        raise ValueError(
            f"Expected the criterion to return scores for exactly the weights it was "
            f"given: {', '.join(weights)}. Received: {received}"
        )
    for path, score in scores.items():
        if np.shape(score) != tuple(weights[path].shape):
            raise ValueError(
                f"Expected scores of the shape of the weight, "
                f"{tuple(weights[path].shape)}. Received: scores for {path!r} of shape "
                f"{np.shape(score)}"
            )


def _check_not_all_zero(scores: Mapping[str, Any]) -> None:
    # The smallest weight first, which is the quickest to read, and mostly is enough.
    if not any(map(np.any, sorted(scores.values(), key=np.size))):
        raise ValueError(
            "Expected a score that is not zero. Received: scores that are zero for "
            "every prunable weight, which leaves nothing to choose by. Is a layer "
            "initialized with zeros, are its activations all zero on this data, or "
            "does the loss not depend on it?"
        )
