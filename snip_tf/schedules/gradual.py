"""GradualPruning: a sparsity that grows while training (Zhu & Gupta, 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import criteria
from snip_tf.checks import check_number
from snip_tf.criteria import ScoringContext
from snip_tf.criteria.reading import Scoring, check_data
from snip_tf.network import Network
from snip_tf.schedules.base import Schedule, seed_of
from snip_tf.selecting import structures
from snip_tf.selecting.allocation import Scope, Sparsity
from snip_tf.selecting.kernels import kernels_of
from snip_tf.selecting.selection import Selection
from snip_tf.selecting.structures.base import Structure
from snip_tf.selecting.structures.n_of_m import NOfM
from snip_tf.selecting.structures.units import Units


class GradualPruning(Schedule):
    """Prunes a model more and more while it trains.

    At the steps t = `begin_step`, every `frequency` from there, and `end_step`, the
    sparsity becomes

        s(t) = s_final + (s_initial - s_final) * (1 - (t - begin) / (end - begin))^power

    so that most is removed early, while much is left to choose from. The connections
    with the lowest scores go, and stay away; they are zero in the weights and in the
    state of the optimizer. As networks that train while they are pruned recover, this
    usually ends more accurate than pruning at the start, for the cost of training the
    dense network.

    A callback for `fit`, on a pruned model. A dense network begins with masks that keep
    everything: `snip_tf.prune_model(model, sparsity=0.0, criterion="magnitude")`. In a
    loop of one's own call `set_model(pruned)` once, then `step()` after each step.

    Args:
        sparsity: float, the final fraction that is removed of the weights that have
            masks, exact to one weight; or `{path pattern: float}`, see `prune_model`.
        end_step: int, the step (the optimizer's `iterations`) of the last update, from
            which on the sparsity is final. Let a quarter of the training follow it.
        begin_step: int, the step of the first update.
        frequency: int, steps between updates.
        initial_sparsity: float, the sparsity at `begin_step`.
        power: float, the exponent; 3 is usual, 1 is linear.
        criterion: as in `prune_model`: scores the model as it is at the time. One that
            is iterative takes one of its steps.
        scope, min_kept: as in `prune_model`.
        structure: as in `prune_model`, but for `"units"`. N:M keeps of each M the next
            whole number above (1 - s) * M until it reaches N.
        x, y, sample_weight, loss, objective, batch_size, batches: as in `prune_model`,
            for a criterion that needs data. Mini-batches of arrays are drawn anew for
            each update.
        seed: int, 0 or more: what is drawn follows from it and the step. None draws
            with NumPy's global generator.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an argument has a bad value, the schedule ends before it begins,
            or the criterion needs data. When training begins: if the model has no
            masks, is pruned to more than `sparsity` already, or has another schedule.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model.compile("adam", "mse")
    >>> pruned = snip_tf.prune_model(model, sparsity=0.0, criterion="magnitude")
    >>> x, y = np.random.rand(64, 8), np.random.rand(64, 4)
    >>> schedule = snip_tf.GradualPruning(0.75, end_step=15, frequency=5)
    >>> data = {"x": x, "y": y, "batch_size": 16, "verbose": 0}
    >>> history = pruned.fit(**data, epochs=5, callbacks=[schedule])
    >>> snip_tf.sparsity(pruned)
    0.75

    Reference: Zhu & Gupta, "To prune, or not to prune: exploring the efficacy of
    pruning for model compression", 2017, https://arxiv.org/abs/1710.01878
    """

    def __init__(
        self,
        sparsity: Sparsity,
        *,
        end_step: int,
        begin_step: int = 0,
        frequency: int = 100,
        initial_sparsity: float = 0.0,
        power: float = 3,
        criterion: str | Callable[[ScoringContext], Mapping[str, Any]] = "magnitude",
        scope: Scope = "global",
        structure: str | Structure = "weights",
        min_kept: float = 0,
        x: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        loss: Any = None,
        objective: Callable[[keras.Model, Any, bool], Any] | None = None,
        batch_size: int | None = None,
        batches: int = 1,
        seed: int | None = None,
    ):
        if end_step is None:
            raise TypeError(
                "Expected `end_step` to be a step, from which on the sparsity is "
                "final. Received: end_step=None"
            )
        super().__init__(frequency, end_step, seed, begin_step)
        self._end_step = end_step
        self._structure = _structure(structure)
        self._sparsity = structures.check_request(
            self._structure, sparsity, scope, min_kept
        )
        check_number("initial_sparsity", initial_sparsity, least=0, below=1)
        lowest = min(_numbers(self._sparsity))
        if initial_sparsity > lowest:
            raise ValueError(
                f"Expected `initial_sparsity` to be at most the final one, {lowest:g}. "
                f"Received: initial_sparsity={initial_sparsity}"
            )
        check_number("power", power, above=0)
        self._initial, self._power = float(initial_sparsity), float(power)
        self._scope, self._min_kept = scope, min_kept
        self._criterion = criteria.get(criterion)
        if self._criterion.needs_data:
            check_data(x, self._criterion)
        self._data = x, y, sample_weight
        self._goal = loss, objective, False
        self._sampling = batch_size, batches

    def sparsity_at(self, step: int) -> Sparsity:
        """Returns s(t): the sparsity after a step.

        Args:
            step: int, t.

        Returns:
            A float; or `{path pattern: float}`, if `sparsity` is. With N:M what is kept
            of each M is rounded up.

        Example:

        >>> import snip_tf
        >>> snip_tf.GradualPruning(0.8, end_step=1000).sparsity_at(500)
        0.7000000000000001
        """
        due = self._last_due(step)
        if due is None:
            return self._initial
        first, last = self._first, self._end_step
        left = (1 - (due - first) / (last - first)) ** self._power if due < last else 0
        if isinstance(self._sparsity, Mapping):
            finals = self._sparsity.items()
            return {pattern: self._between(final, left) for pattern, final in finals}
        return self._between(self._sparsity, left)

    def _between(self, final: float, left: float) -> float:
        return final + (self._initial - final) * left

    def _check(self, network: Network) -> None:
        """Raises a ValueError if the model is pruned to more already."""
        self._selection(network, self._sparsity)
        self._scoring(0)  # which checks its arguments

    def _made_before(self, network: Network, step: int, executed: int) -> int:
        """Returns a step before the last update that is due by then."""
        # To repeat an update changes nothing.
        due = self._last_due(step)
        return step if due is None else due - 1

    def _describe_end(self, step: int) -> str:
        """Returns the sparsity that is reached if training ends at a step."""
        return f"at a sparsity of {self.sparsity_at(step)} instead of {self._sparsity}"

    def _new_masks(self, network: Network, step: int) -> dict[str, np.ndarray]:
        """Returns the masks that have the sparsity of a step."""
        is_last = step == self._end_step
        sparsity = self._sparsity if is_last else self.sparsity_at(step)
        selection = self._selection(network, sparsity, at_most=not is_last)
        if selection is None:
            return {}
        scoring = self._scoring(step)
        masks = selection.masks(scoring.scores(scoring.masks_before()))
        if is_last:
            selection.warn_of_zeros(stacklevel=5)
            selection.warn_of_collapse(masks, stacklevel=5)
        return {path: mask.unpack() for path, mask in masks.items()}

    def _scoring(self, step: int) -> Scoring:
        return Scoring(
            self.model,
            self._data,
            self._criterion,
            choice=None,
            goal=self._goal,
            sampling=(*self._sampling, seed_of(self._seed, step)),
        )

    def _selection(
        self, network: Network, sparsity: Sparsity, at_most: bool = False
    ) -> Selection | None:
        """Returns what selects the masks of a sparsity; None if all is kept."""
        structure = self._structure
        if at_most and isinstance(structure, NOfM):
            fraction = min(_numbers(sparsity))
            kept = max(structure.n, math.ceil((1 - fraction) * structure.m - 1e-9))
            if kept == structure.m:
                return None
            structure, sparsity = NOfM(kept, structure.m), 1 - kept / structure.m
        masked = {path: network.weights[path] for path in network.mask_variables}
        return Selection(
            kernels_of(network.owners, masked),
            sparsity,
            self._scope,
            self._min_kept,
            structure,
            network.masks,
            at_most=at_most,
        )


def _numbers(sparsity: Sparsity) -> list[float]:
    return list(sparsity.values()) if isinstance(sparsity, Mapping) else [sparsity]


def _structure(structure: str | Structure) -> Structure:
    """Returns the structure; raises a ValueError for units."""
    found = structures.get(structure)
    if isinstance(found, Units):
        raise ValueError(
            f"Expected a structure of connections, which can be removed a few at a "
            f"time. Received: structure={structure!r}. Remove units at the start: "
            f"snip_tf.prune_model(model, ..., structure={structure!r})."
        )
    return found
