"""Reads the arguments that the public scoring functions have in common."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.checks import check_bool, check_count, check_seed
from snip_tf.criteria import CRITERIA, Criterion, ScoringContext, get
from snip_tf.masking.pruned_model import masked_copy
from snip_tf.network import Network, check_model, is_built
from snip_tf.scoring.batches import make_batches
from snip_tf.scoring.building import build_on
from snip_tf.scoring.calling import check_order
from snip_tf.scoring.examples import Batch
from snip_tf.scoring.objective import Objective, read_objective
from snip_tf.scoring.precision import is_changed
from snip_tf.weights import Patterns

Verbose = Literal["auto", 0, 1]


class Scoring:
    """A model to score, the criterion and the data.

    Checks all arguments, and reads data only if the model has to be built on it.

    Args:
        model, criterion: as in `snip_tf.prune_model`, as are the parts of the tuples.
        data: `(x, y, sample_weight)`.
        choice: `(include, exclude)`; None for the weights that have masks.
        goal: `(loss, objective, training)`.
        sampling: `(batch_size, batches, seed)`.

    Attributes:
        criterion: what scores the model.
        objective: what is minimized.
        network: the model, built, read once.
        weights: `{weight path: keras.Variable}`, those to score.
    """

    def __init__(
        self,
        model: keras.Model,
        data: tuple[Any, Any, Any],
        criterion: str | Callable[[ScoringContext], Mapping[str, Any]],
        *,
        choice: tuple[Patterns | None, Patterns | None] | None,
        goal: tuple[Any, Callable[[keras.Model, Any, bool], Any] | None, bool],
        sampling: tuple[int | None, int, int | None],
    ):
        loss, objective, self._training = goal
        batch_size, batches, self._seed = sampling
        _check_options(self._training, batch_size, batches, self._seed)
        self._model = model
        self.criterion = get(criterion)
        if self.criterion.steps is not None:
            check_count("steps", self.criterion.steps)
        self.objective = read_objective(loss, objective)
        if self.criterion.needs_data:
            check_data(data[0], self.criterion)
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "batches": batches,
            "seed": self._seed,
        }
        self._read = functools.partial(self._batches_of, *data, **options)
        self._batches: Iterator[Batch] | None = iter(()) if data[0] is None else None
        if self._batches is None and not is_built(model):
            self._batches = self._read()
        self.network = Network(model)
        self.weights = self._chosen(choice)

    def _chosen(
        self, choice: tuple[Patterns | None, Patterns | None] | None
    ) -> dict[str, keras.Variable]:
        if choice is not None:
            return self.network.prunable(*choice)
        return {
            path: self.network.weights[path] for path in self.network.mask_variables
        }

    def _batches_of(
        self, *data: Any, measured: bool = False, **options: Any
    ) -> Iterator[Batch]:
        """Returns the batches; reads the first, and builds the model on it."""
        needed = measured or self.criterion.needs_data
        objective = self.objective if needed else Objective()
        as_yielded = objective.function is not None
        batches = make_batches(*data, as_yielded=as_yielded, **options)
        first = next(batches)
        if not as_yielded:
            check_order(self._model, *first[:2])
        if not is_built(self._model):
            build_on(self._model, first, objective)
        return itertools.chain([first], batches)

    @functools.cached_property
    def context(self) -> ScoringContext:
        """Reads the data, and returns what the criterion receives."""
        batches = self._read() if self._batches is None else self._batches
        model, weights = self._to_score()
        return ScoringContext(
            model=model,
            weights=weights,
            batches=batches if self.criterion.steps is None else list(batches),
            objective=self.objective,
            training=self._training,
            seed=self._seed,
        )

    def _to_score(self) -> tuple[keras.Model, Mapping[str, keras.Variable]]:
        """Returns the model, or a copy if scoring changes layers."""
        changes = self.criterion.needs_data and is_changed(self._model)
        if not changes and not self.criterion.changes_layers:
            return self._model, self.weights
        copied = masked_copy(self.network, self.network.masks.items())
        return copied.model, {path: copied.weights[path] for path in self.weights}

    def kept_batches(self) -> list[Batch]:
        """Reads the data, for the criterion and for others; returns the batches."""
        unread = self._read(measured=True) if self._batches is None else self._batches
        batches = list(unread)
        self._batches = iter(batches)
        return batches

    def masks_before(self) -> dict[str, np.ndarray]:
        """Returns the masks that the first step of an iterative criterion receives."""
        if self.criterion.steps is None:
            return {}
        return {
            path: self.network.masks.get(path, np.ones(weight.shape, bool))
            for path, weight in self.weights.items()
        }

    def scores(self, masks: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
        """Returns the criterion's scores.

        Args:
            masks: what the previous step of an iterative criterion kept.

        Raises:
            TypeError: if they are not a dict.
            ValueError: if they are not one array of the right shape for each weight.
        """
        context = self.context
        if masks:
            context = dataclasses.replace(context, masks=masks)
        scores = self.criterion(context)
        check_scores(scores, self.weights)
        return {path: scores[path] for path in self.weights}


def check_arguments(
    model: Any, x: Any, y: Any, sample_weight: Any, or_sparsity: bool = False
) -> None:
    """Raises a TypeError if a positional argument is misplaced.

    Args:
        model, x, y, sample_weight: what was received.
        or_sparsity: whether a number may have been meant as the sparsity.
    """
    if isinstance(x, keras.Model) and not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected `model` first, then the data. Received: the model {x.name!r} as "
            f"`x`, and {type(model).__name__} as `model`"
        )
    check_model(model)
    for name, value in {"x": x, "y": y, "sample_weight": sample_weight}.items():
        if isinstance(value, numbers.Real):
            number = float(value)
            share = number / 100 if 1 < number < 100 else number
            advice = f"; write sparsity={share:g}" if or_sparsity else ""
            raise TypeError(
                f"Expected `{name}` to be data as `Model.fit` takes it. "
                f"Received: {name}={value!r} of type {type(value).__name__}{advice}"
            )


def check_verbose(verbose: Any) -> None:
    """Raises unless `verbose` is "auto", 0 or 1."""
    received = f"Expected `verbose` to be 'auto', 0 or 1. Received: verbose={verbose!r}"
    if not isinstance(verbose, (str, int)):
        raise TypeError(f"{received} of type {type(verbose).__name__}")
    if verbose not in ("auto", 0, 1):
        raise ValueError(received)


def _check_options(training: Any, batch_size: Any, batches: Any, seed: Any) -> None:
    """Raises unless each is valid, also where no data is read."""
    check_bool("training", training)
    check_count("batches", batches)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    check_seed(seed)


def check_data(x: Any, criterion: Criterion) -> None:
    """Raises a ValueError if there is no data, for a criterion that needs some."""
    if x is None:
        without = [name for name, known in CRITERIA.items() if not known.needs_data]
        raise ValueError(
            f"Expected data to score on, as `x`. Received: x=None with the criterion "
            f"{criterion}. Criteria without data: {', '.join(without)}"
        )


def check_scores(scores: Any, weights: Mapping[str, keras.Variable]) -> None:
    """Raises unless each weight has scores of its shape."""
    expected = (
        f"Expected the criterion to return {{weight path: scores}} for exactly the "
        f"weights it was given: {', '.join(weights)}. Received: "
    )
    if not isinstance(scores, Mapping):
        raise TypeError(f"{expected}{type(scores).__name__}")
    if scores.keys() != weights.keys():
        raise ValueError(f"{expected}{list(scores)}")
    for path, score in scores.items():
        if np.shape(score) != tuple(weights[path].shape):
            raise ValueError(
                f"Expected scores of the shape of the weight, "
                f"{tuple(weights[path].shape)}. Received: scores for {path!r} of shape "
                f"{np.shape(score)}"
            )


def check_not_all_zero(scores: Mapping[str, Any]) -> None:
    """Raises a ValueError if all scores are zero."""
    # The smallest weight first: it is the quickest to read, and usually suffices.
    smallest_first = sorted(scores.values(), key=lambda score: math.prod(score.shape))
    if not any(np.any(_backend.on_host(score)) for score in smallest_first):
        raise ValueError(
            "Expected a score that is not zero. Received: scores that are zero for "
            "every prunable weight, which cannot be ranked. Is a layer "
            "initialized with zeros, are its activations all zero on this data, or "
            "does the loss not depend on it?"
        )
