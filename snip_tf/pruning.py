"""prune_model: batches -> scores -> masks -> masked model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from snip_tf import criteria
from snip_tf.criteria import ScoringContext
from snip_tf.criteria.reading import (
    Scoring,
    Verbose,
    check_arguments,
    check_not_all_zero,
    check_verbose,
)
from snip_tf.masking.masks import PackedMask
from snip_tf.masking.pruned_model import masked_copy
from snip_tf.selecting import structures
from snip_tf.selecting.allocation import Scope, Sparsity
from snip_tf.selecting.kernels import kernels_of
from snip_tf.selecting.selection import Selection
from snip_tf.selecting.structures import check_request
from snip_tf.selecting.structures.base import Structure
from snip_tf.selecting.structures.units import Units
from snip_tf.structured.units import NetworkUnits
from snip_tf.weights import Patterns


def prune_model(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    sparsity: Sparsity | None = None,
    criterion: str | Callable[[ScoringContext], Mapping[str, Any]] = "snip",
    structure: str | Structure | Units = "weights",
    scope: Scope = "global",
    min_kept: float = 0,
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
    freed before the model is copied. In float32 the copy takes 1.25 times the memory of
    the model, since a mask adds one byte to the four of each weight.

    Replicas: in the scope of a `tf.distribute.Strategy`, or on a model that was made in
    one, the replicas share each mini-batch (see `batches` for when that is the
    same as one device). On several machines all must call this,
    with the same data and `seed`; all get the same masks.

    Args:
        model: `keras.Model` of any kind, best with its initial weights. It is left
            unchanged (weights, BatchNorm statistics, seeds, optimizer); if it is not
            built, it is built on the first batch. If it is already pruned, what was
            removed stays removed, and `sparsity` must not be lower than before.
        x: the data to score on, as `Model.fit` takes it: an array or a nest of arrays,
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator. Not needed by the
            criteria `"synflow"`, `"magnitude"` and `"random"`.
        y: the targets, where `x` does not yield them.
        sample_weight: weights of the examples, where `x` does not yield them.
        sparsity: float, always needed: the fraction of the prunable weights that is
            removed, 0 <= sparsity < 1, exact to one weight. Write 0.95 for 95 %. Or
            `{path pattern: float}`: a weight belongs to the first glob pattern that
            matches it, and `scope` ranks within each pattern, which is met exactly;
            what no pattern matches is left whole (`"*"` stands for the rest).
        criterion: `"snip"`; `"iterative_snip"` or `"force"`, SNIP in many steps;
            `"grasp"`, `"synflow"`, `"magnitude"`, `"random"`; one of them with other
            settings, such as `snip_tf.criteria.Force(steps=20)`; or a function of one
            `snip_tf.criteria.ScoringContext` that returns `{weight path: scores}`. The
            connections with the largest scores are kept.
        structure: what is kept or removed as a whole: `"weights"`, each connection by
            itself; `"2:4"` (N:M), N of each M successive connections along the input
            axis (`sparsity` is 1 - N / M); `"4x4"`, blocks of inputs by outputs, ranked
            by the sum of their scores (`sparsity` is the fraction of blocks);
            `"units"`, filters, dense and recurrent units, see `snip_tf.Units`. Or one
            of these with settings, such as `snip_tf.Units(cost="multiply_adds")`.
        scope: what is ranked together: `"global"`, all connections; `"layer"`, those of
            each weight; `"unit"`, those of each output of a weight (an index of its
            last axis; of a query kernel of attention, of its axes (heads, dim));
            `"erk"` (Erdos-Renyi kernels), those of each weight, which keeps a fraction
            proportional to the sum of its dimensions divided by their product. With
            `"layer"` and `"unit"` each keeps its share, rounded up or down: the first
            ones are rounded up until the total is exact.
        min_kept: int or float, the number, or below 1 the fraction, of connections that
            each weight keeps at least, at the expense of the others; the total stays
            exact. With `min_kept=1` no weight is removed as a whole; without, a
            `snip_tf.CollapseWarning` names those that are.
        include: weights to prune besides the kernels: a glob pattern on weight paths, a
            layer, a list of them, or a callable `(path, variable) -> bool`.
        exclude: weights to leave alone, in the same forms.
        loss: what `Model.compile` takes as `loss`. Default, what `fit` minimizes: the
            compiled loss, or an overridden `compute_loss` (called as in training). In
            any case, what layers give to `add_loss` and activity regularizers count,
            and regularizers of weights do not.
        objective: for what no loss on outputs can express (GANs, contrastive learning,
            reinforcement learning, a custom `train_step`): a callable `(model, batch,
            training) -> scalar`, instead of a loss. `batch` is what the data yields, as
            tensors: `x`, `(x, y)` or `(x, y, sample_weight)`, which need not be inputs
            of the model. Nothing else is minimized: to count what layers add, sum
            `model.losses`, which leave out the penalties on weights there.
        training: bool, the mode of the forward pass while scoring. In training mode
            BatchNorm uses the batch's statistics, which selects different weights, and
            fewer in deep layers.
        batch_size: int, examples in a mini-batch of array data; default 128.
        batches: int, mini-batches to score on; g is averaged over them with its sign.
            In inference mode `batches=4` of 8 examples equals one mini-batch of 32,
            processed in pieces that fit in memory: means, as Keras' losses are by
            default, are weighted by their number of examples, and sums are added. What
            may be either (`add_loss`, `compute_loss`, an objective, a function that
            returns one number) is assumed to be a mean, so it must not compare
            examples. More than one is refused where that would be wrong: masked
            timesteps next to other terms, the reduction "mean_with_sample_weight", the
            losses Circle, Dice and Tversky. A dataset is scored batch by batch, as it
            yields them.
        seed: int, 0 or more: which examples of array data are drawn, and the scores of
            `criterion="random"`. None draws with NumPy's global generator.
        verbose: "auto", 0 or 1: shows the progress of an iterative criterion, or not.

    Returns:
        A new `keras.Model`, compiled as `model` is.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an argument has a bad value; if there is nothing prunable, no
            loss (or an unknown one, in a `train_step`), too little data, a weight that
            the loss does not depend on, a label without an output of the model, or a
            score that is NaN; if `sparsity`, `structure`, `scope` and `min_kept` cannot
            be met together, or the structure does not divide a weight (the error names
            it).

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
    groups = structures.get(structure)
    sparsity = check_request(groups, sparsity, scope, min_kept)
    check_verbose(verbose)
    if isinstance(groups, Units):
        _check_of_units(criterion)
        criterion = _OfUnits()
    scoring = Scoring(
        model,
        (x, y, sample_weight),
        criterion,
        choice=(include, exclude),
        goal=(loss, objective, training),
        sampling=(batch_size, batches, seed),
    )
    network = scoring.network
    if isinstance(groups, Units):
        groups = NetworkUnits(groups, model, scoring.weights)
    selection = Selection(
        kernels_of(network.owners, scoring.weights),
        sparsity,
        scope,
        min_kept,
        groups,
        {p: m for p, m in network.masks.items() if p in scoring.weights},
    )
    masks = _masks(scoring, selection, verbose)
    selection.warn_of_zeros(stacklevel=3)
    selection.warn_of_collapse(masks, stacklevel=3)
    others = {p: m for p, m in network.masks.items() if p not in masks}
    unpacked = ((path, mask.unpack()) for path, mask in masks.items())
    masks_of_all = itertools.chain(unpacked, others.items())
    return masked_copy(scoring.network, masks_of_all).model


def _masks(
    scoring: Scoring, selection: Selection, verbose: Verbose
) -> dict[str, PackedMask]:
    """Returns the masks that the scores select, in one or several steps."""
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


class _OfUnits(criteria.Criterion):
    """Scores units by SNIP of a gate on each; `NetworkUnits` derives it from these."""

    def __call__(self, context: ScoringContext) -> Mapping[str, Any]:
        return context.gradients()

    def __repr__(self) -> str:
        return repr(criteria.Snip())


def _check_of_units(criterion: Any) -> None:
    """Raises a ValueError unless units can be ranked by a criterion."""
    if criteria.get(criterion) != criteria.Snip():
        raise ValueError(
            f"Expected criterion='snip' with structure='units', which are ranked by "
            f"the sensitivity of a gate on each. "
            f"Received: criterion={criteria.get(criterion)}"
        )
