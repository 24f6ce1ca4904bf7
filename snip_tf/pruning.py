"""prune_model: batches -> scores -> masks -> masked model."""

from __future__ import annotations

import functools
import itertools
import numbers
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import criteria
from snip_tf.checks import (
    check_built,
    check_count,
    check_model,
    check_seed,
    is_built,
    visible,
)
from snip_tf.criteria import CRITERIA
from snip_tf.criteria.snip import snip
from snip_tf.masking.compiling import strategy_scope
from snip_tf.masking.copying import copy_unmasked
from snip_tf.masking.masked_weights import check_not_low_rank
from snip_tf.masking.masks import PackedMask
from snip_tf.masking.pruned_model import apply_masks, masked_copy
from snip_tf.network import Network
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
from snip_tf.selecting import structure
from snip_tf.selecting.allocation import Scope, check_scope, check_sparsity
from snip_tf.selecting.selection import Selection, warn_of_zeros
from snip_tf.structured.units import BUDGETS, unit_masks
from snip_tf.weights import Patterns, prunable_weights, weights_by_path

Scores = dict[str, np.ndarray]


def prune_model(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    sparsity: float | None = None,
    batch_size: int | None = None,
    batches: int = 1,
    micro_batch_size: int | None = None,
    examples_per_class: int | None = None,
    loss: Any = None,
    objective: Callable[[keras.Model, Any, bool], Any] | None = None,
    criterion: str | Callable = "snip",
    scope: Scope = "global",
    min_kept: float = 0,
    on_collapse: str = "warn",
    pattern: str = "weights",
    budget: str = "units",
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
            removed, 0 <= sparsity < 1, exact to one weight. Write 0.95 for 95 %.
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
        scope: `"global"` ranks all connections together; `"layer"` gives every weight
            the same sparsity, each exact to one connection (so that the total may be
            off by half a connection for each weight); `"erk"` (Erdos-Renyi kernels)
            keeps of each weight a fraction in proportion to the sum over the product of
            its dimensions; or `{path pattern: sparsity}`: the weights that a glob
            pattern matches are ranked together, with a sparsity of their own; a weight
            belongs to the first pattern that matches, and the rest makes up for the
            total. Where there is no rest, theirs is the total, from which `sparsity`
            may differ by 0.001.
        min_kept: int or float, the number, or below 1 the fraction, of connections that
            each weight keeps at least; the others give them, the total stays exact.
        on_collapse: if nothing is kept of a weight: `"warn"`, `"raise"`, or `"keep"`
            the best connection of each weight in any case.
        pattern: `"weights"`, connections by themselves; `"N:M"`, such as `"2:4"`: of
            each M in a row along the input axis, N are kept (`sparsity` is 1 - N / M);
            `"IxO"`, such as `"4x4"`: blocks of inputs by outputs, ranked by the sum of
            their scores (`sparsity` is of blocks); or `"units"`, whole units (filters,
            dense and recurrent units), ranked over the whole network by

                |dL/dc|  at c = 1,  of a gate c on all that the unit gives to others.

            What is added up is one unit; each layer keeps its best; the inputs and the
            outputs of the model stay. `snip_tf.compact` then makes the network smaller,
            and its training faster. For Sequential and Functional models.
        budget: what `sparsity` is a fraction of, with `pattern="units"`: of the
            `"units"`, exactly; or of the kernels' `"parameters"` or the
            `"multiply_adds"`, at least. Then units count by what they cost, and go in
            blocks of eight, which is what makes a processor faster.
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
            NaN; if budgets cannot be met together, a pattern does not divide a weight
            (which is named), or a layer is cut off, with `on_collapse="raise"`.

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
    check_sparsity(sparsity)
    check_scope(scope)
    check_seed(seed)
    _check_one_of("on_collapse", on_collapse, ("warn", "raise", "keep"))
    loss = loss_or_objective(loss, objective)
    criterion = criteria.get(criterion)
    if hasattr(criterion, "with_seed"):
        criterion = criterion.with_seed(seed)
    if pattern == "units":
        _check_units(budget, criterion, scope, min_kept)
    elif budget != "units":
        raise ValueError(
            f'Expected pattern="units" with a `budget`; of single weights, `sparsity` '
            f"is of their number. Received: pattern={pattern!r}, budget={budget!r}"
        )
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
    if pattern == "units":
        data = read() if data is None else data
        gradients = mean_gradients(
            scored, its_weights, data, loss=loss, training=training
        )
        return apply_masks(
            model, unit_masks(model, weights, gradients, sparsity, budget)
        )
    selection = Selection(
        {path: tuple(weight.shape) for path, weight in weights.items()},
        sparsity,
        scope,
        min_kept or (1 if on_collapse == "keep" else 0),
        structure.parse(pattern, model, weights),
        {p: m for p, m in Network(model).masks.items() if p in weights},
    )
    # Only now, so that what is wrong with an argument is said before any is read.
    data = read() if data is None else data
    score = functools.partial(
        criterion, scored, its_weights, loss=loss, training=training
    )
    masks = _masks(score, criterion, weights, data, selection)
    warn_of_zeros(selection.zeros, stacklevel=3)
    _check_collapse(masks, on_collapse, by_position=bool(selection.zeros))
    others = {p: m for p, m in Network(model).masks.items() if p not in masks}
    unpacked = ((path, mask.unpack()) for path, mask in masks.items())
    return masked_copy(Network(model), itertools.chain(unpacked, others.items()))


def _to_score(
    model: keras.Model, weights: Mapping[str, keras.Variable], criterion: Callable
) -> tuple[keras.Model, Mapping[str, keras.Variable]]:
    """The model; or a copy, if scoring changes layers, which other threads may call."""
    changes = getattr(criterion, "changes_layers", None)
    if changes is None:
        changes = getattr(criterion, "needs_data", True) and is_changed(model)
    if not changes:
        return model, weights
    copied = masked_copy(Network(model), Network(model).masks.items())
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
    check_count("steps", steps)
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


def _check_one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"Expected `{name}` to be one of {', '.join(map(repr, known))}. "
            f"Received: {name}={value!r}"
        )


def _check_units(budget: str, criterion: Any, scope: Scope, min_kept: float) -> None:
    _check_one_of("budget", budget, BUDGETS)
    if criterion is not snip or scope != "global" or min_kept:
        raise ValueError(
            f'Expected criterion="snip", scope="global" and min_kept=0 with '
            f'pattern="units". Received: criterion={_name(criterion)}, '
            f"scope={scope!r}, min_kept={min_kept}"
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


def _check_collapse(
    masks: Mapping[str, PackedMask], on_collapse: str, by_position: bool
) -> None:
    cut = [path for path, mask in masks.items() if not mask.bits.any()]
    if not cut:
        return
    # (Where zeros are kept by their position, a lower sparsity would keep more.)
    advice = "Exclude them" if by_position else "Lower the sparsity, exclude them"
    words = (
        f"Pruning kept nothing of {', '.join(map(visible, cut))}: nothing passes "
        f"through these weights any more. {advice}, or set `min_kept`."
    )
    if on_collapse == "raise":
        raise ValueError(words)
    warnings.warn(words, stacklevel=3)
