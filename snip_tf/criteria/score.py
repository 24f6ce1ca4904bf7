"""score and connection_sensitivity: how a criterion rates each connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf.criteria.base import ScoringContext
from snip_tf.criteria.reading import (
    Scoring,
    Verbose,
    check_arguments,
    check_not_all_zero,
    check_verbose,
)
from snip_tf.selecting.scores import as_floats, check_finite
from snip_tf.weights import Patterns

Scores = dict[str, np.ndarray]


def score(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    criterion: str | Callable[[ScoringContext], Mapping[str, Any]] = "snip",
    loss: Any = None,
    objective: Callable[[keras.Model, Any, bool], Any] | None = None,
    training: bool = False,
    batch_size: int | None = None,
    batches: int = 1,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    seed: int | None = None,
    verbose: Verbose = "auto",
) -> Scores:
    """Returns the scores by which a criterion would prune.

    For an iterative criterion these are the scores of its first step, on the whole
    network.

    Args:
        model: `keras.Model`. It is left unchanged; if it is not built, it is built on
            the first batch.
        x, y, sample_weight, criterion, loss, objective, training, batch_size, batches,
        include, exclude, seed:
            as in `prune_model`.
        verbose: "auto", 0 or 1, as in `prune_model`; one step shows no progress bar.

    Returns:
        `{weight path: float32 array of the weight's shape}`, in the model's order, for
        `select_masks`. If any score is beyond the range of float32, as SynFlow's may
        be, all are divided by the largest.

    Raises:
        TypeError, ValueError: as `prune_model`.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
    >>> scores = snip_tf.score(model, criterion="synflow")
    >>> masks = snip_tf.select_masks(scores, sparsity=0.75)
    >>> int(masks["out/kernel"].sum())
    8
    """
    check_verbose(verbose)
    check_arguments(model, x, y, sample_weight)
    scoring = Scoring(
        model,
        (x, y, sample_weight),
        criterion,
        choice=(include, exclude),
        goal=(loss, objective, training),
        sampling=(batch_size, batches, seed),
    )
    return _float32_scores(scoring)


def _float32_scores(scoring: Scoring) -> Scores:
    scores = as_floats(scoring.scores(scoring.masks_before()))
    arrays = {path: np.asarray(score) for path, score in scores.items()}
    for path, array in arrays.items():
        check_finite(path, array)
    largest = max(float(np.abs(array).max(initial=0)) for array in arrays.values())
    if largest > float(np.finfo(np.float32).max):
        arrays = {path: array / largest for path, array in arrays.items()}
    return {path: array.astype(np.float32) for path, array in arrays.items()}


def connection_sensitivity(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    loss: Any = None,
    objective: Callable[[keras.Model, Any, bool], Any] | None = None,
    training: bool = False,
    batch_size: int | None = None,
    batches: int = 1,
    seed: int | None = None,
) -> Scores:
    """Returns the connection sensitivity of every prunable weight.

        s_j = |g_j| / sum_k |g_k|,   g = dL(c * w; D) / dc  at c = 1  =  w * dL/dw

    Args:
        model: `keras.Model`. It is left unchanged; if it is not built, it is built on
            the first batch.
        x, y, sample_weight, include, exclude, loss, objective, training, batch_size,
        batches, seed:
            as in `prune_model`.

    Returns:
        `{weight path: float32 array of the weight's shape}`, in the model's order;
        non-negative, summing to 1 over all weights.

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
    check_arguments(model, x, y, sample_weight)
    scoring = Scoring(
        model,
        (x, y, sample_weight),
        "snip",
        choice=(include, exclude),
        goal=(loss, objective, training),
        sampling=(batch_size, batches, seed),
    )
    arrays = _float32_scores(scoring)
    check_not_all_zero(arrays)
    # Summed in float64: float32 would lose digits over millions of small terms.
    total = sum(float(array.sum(dtype=np.float64)) for array in arrays.values())
    return {path: (a / total).astype(np.float32) for path, a in arrays.items()}
