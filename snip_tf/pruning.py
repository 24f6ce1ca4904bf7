"""prune_model: batches -> scores -> masks -> masked model."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras

from snip_tf import criteria
from snip_tf.checks import visible
from snip_tf.criteria import ScoringContext
from snip_tf.criteria.reading import (
    Scoring,
    Verbose,
    check_arguments,
    check_not_all_zero,
    check_verbose,
)
from snip_tf.masking.masked_weights import check_not_low_rank
from snip_tf.masking.masks import PackedMask
from snip_tf.masking.pruned_model import apply_masks, masked_copy
from snip_tf.selecting import structure
from snip_tf.selecting.allocation import Scope, check_scope, check_sparsity
from snip_tf.selecting.selection import Selection, warn_of_zeros
from snip_tf.structured.units import BUDGETS, unit_masks
from snip_tf.weights import Patterns


def prune_model(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    sparsity: float | None = None,
    criterion: str | Callable[[ScoringContext], Mapping[str, Any]] = "snip",
    scope: Scope = "global",
    min_kept: float = 0,
    on_collapse: str = "warn",
    pattern: str = "weights",
    budget: str = "units",
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    loss: Any = None,
    objective: Callable[[keras.Model, Any, bool], Any] | None = None,
    training: bool = False,
    batch_size: int | None = None,
    batches: int = 1,
    seed: int | None = None,
    verbose: Verbose = "auto",
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
    one, the replicas share each mini-batch (see `batches` for when that is the
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
        criterion: `"snip"`; `"iterative_snip"` or `"force"`, SNIP in many steps;
            `"grasp"`, `"synflow"`, `"magnitude"`, `"random"`; one of them with settings
            of your own, such as `snip_tf.criteria.Force(steps=20)`; or a function of
            one `snip_tf.criteria.ScoringContext` that returns
            `{weight path: scores}`. The largest scores are kept.
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
        training: bool, the mode of the forward pass while scoring. In training mode
            BatchNorm uses the batch's statistics, which chooses other weights, and in
            deep layers fewer.
        batch_size: int, examples in a mini-batch of array data; default 128.
        batches: int, mini-batches to score on; g is averaged over them with its sign.
            In inference mode `batches=4` of 8 examples is one mini-batch of 32 in
            pieces, for where it does not fit in memory as a whole: means, as Keras'
            losses are by default, are weighted by their examples, and sums are added.
            What may be either (`add_loss`, `compute_loss`, an objective, a function
            that returns one number) is taken for a mean, so it must not compare
            examples. Refused where that would be wrong: masked timesteps beside other
            terms, the reduction "mean_with_sample_weight", the losses Circle, Dice and
            Tversky. A dataset is scored in the pieces in which it is batched.
        seed: int, 0 or more: which examples of array data are drawn, and the scores of
            `criterion="random"`. None draws with NumPy's global generator.
        verbose: "auto", 0 or 1: shows the progress of an iterative criterion, or not.

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
    check_arguments(model, x, y, sample_weight, or_sparsity=True)
    check_sparsity(sparsity)
    check_scope(scope)
    check_verbose(verbose)
    _check_one_of("on_collapse", on_collapse, ("warn", "raise", "keep"))
    _check_units(pattern, budget, criterion, scope, min_kept)
    scoring = Scoring(
        model,
        (x, y, sample_weight),
        criterion=criterion,
        include=include,
        exclude=exclude,
        loss=loss,
        objective=objective,
        training=training,
        batch_size=batch_size,
        batches=batches,
        seed=seed,
    )
    check_not_low_rank(scoring.weights)
    if pattern == "units":
        gradients = scoring.context.gradients()
        return apply_masks(
            model, unit_masks(model, scoring.weights, gradients, sparsity, budget)
        )
    selection = Selection(
        {path: tuple(weight.shape) for path, weight in scoring.weights.items()},
        sparsity,
        scope,
        min_kept or (1 if on_collapse == "keep" else 0),
        structure.parse(pattern, model, scoring.weights),
        {p: m for p, m in scoring.network.masks.items() if p in scoring.weights},
    )
    masks = _masks(scoring, selection, verbose)
    warn_of_zeros(selection.zeros, stacklevel=3)
    _check_collapse(masks, on_collapse, by_position=bool(selection.zeros))
    others = {p: m for p, m in scoring.network.masks.items() if p not in masks}
    unpacked = ((path, mask.unpack()) for path, mask in masks.items())
    masks_of_all = itertools.chain(unpacked, others.items())
    return masked_copy(scoring.network, masks_of_all).model


def _masks(
    scoring: Scoring, selection: Selection, verbose: Verbose
) -> dict[str, PackedMask]:
    """The masks that the scores choose, in one step or in those of the criterion."""
    steps = scoring.criterion.steps
    if steps is None:
        scores = scoring.scores()
        check_not_all_zero(scores)
        return selection.masks(scores)
    bar = keras.utils.Progbar(steps, unit_name="step") if verbose else None
    left = selection.all()
    for step in range(1, steps + 1):
        scores = scoring.scores({path: m.unpack() for path, m in left.items()})
        if step == 1:
            check_not_all_zero(scores)
        among = None if scoring.criterion.revives else left
        left = selection.masks(scores, step / steps, among)
        if bar is not None:
            bar.update(step)
    return left


def _check_one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"Expected `{name}` to be one of {', '.join(map(repr, known))}. "
            f"Received: {name}={value!r}"
        )


def _check_units(
    pattern: str, budget: str, criterion: Any, scope: Scope, min_kept: float
) -> None:
    if pattern != "units":
        if budget != "units":
            raise ValueError(
                f'Expected pattern="units" with a `budget`; of single weights, '
                f"`sparsity` is of their number. Received: pattern={pattern!r}, "
                f"budget={budget!r}"
            )
        return
    _check_one_of("budget", budget, BUDGETS)
    if criteria.get(criterion) != criteria.Snip() or scope != "global" or min_kept:
        raise ValueError(
            f'Expected criterion="snip", scope="global" and min_kept=0 with '
            f'pattern="units". Received: criterion={criterion}, '
            f"scope={scope!r}, min_kept={min_kept}"
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
