"""What a criterion is, and what it receives."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from snip_tf.scoring.data_loss import Adjustment
from snip_tf.scoring.examples import Batch
from snip_tf.scoring.forward import Derivative, Tensors
from snip_tf.scoring.gradients import gradient, mean_derivative
from snip_tf.scoring.objective import Objective


@dataclasses.dataclass(frozen=True)
class ScoringContext:
    """All that a criterion may look at: the only argument of each.

    Attributes:
        model: a built `keras.Model`, which the criterion leaves unchanged.
        weights: `{weight path: keras.Variable}`, those to score, in the model's order.
        batches: the mini-batches `(x, y, sample_weight)`; with an `objective=`, the
            first of the three is all that the data yields. An iterator, which can be
            read once; a list for an iterative criterion. Empty without data.
        objective: what is minimized: the arguments `loss` and `objective` of
            `prune_model` in one, for `gradients` to use.
        training: bool, the mode of the forward pass.
        masks: `{weight path: bool array}`, what the previous step of an iterative
            criterion kept; empty for any other.
        seed: int or None, for a criterion that draws at random.
    """

    model: keras.Model
    weights: Mapping[str, keras.Variable]
    batches: Iterable[Batch] = ()
    objective: Objective = dataclasses.field(default_factory=Objective)
    training: bool = False
    masks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seed: int | None = None

    def gradients(
        self, adjust: Adjustment | None = None, revives: bool = False
    ) -> Tensors:
        """Returns `{weight path: dL/dw}`, averaged over the mini-batches with its sign.

        L is what `fit` minimizes, without penalties on weights; the weights are
        multiplied by `masks`, and the gradients are with respect to the products.

        Args:
            adjust: changes the model's output before it is passed to the loss.
            revives: whether connections that the model's own masks remove get a
                gradient, too, as if each came back with the value zero.
        """
        return self.mean(gradient, adjust, revives)

    def mean(
        self,
        derivative: Derivative,
        adjust: Adjustment | None = None,
        revives: bool = False,
    ) -> Tensors:
        """Returns any derivative of L, averaged like `gradients`."""
        return mean_derivative(
            self.model,
            self.weights,
            self.batches,
            derivative,
            objective=self.objective,
            training=self.training,
            masks=self.masks,
            adjust=adjust,
            revives=revives,
        )


class Criterion(abc.ABC):
    """What makes a connection worth keeping: the largest scores are kept.

    A subclass has a `__call__`, and sets what differs from these defaults. A callable
    of another class, such as a function, may have these attributes as well.

    Attributes:
        needs_data: bool; if False, the criterion may receive no batches.
        steps: int, T, of an iterative criterion: it is called this many times, with the
            `masks` of the step before. After step t the fraction kept is keep^(t / T).
        revives: bool, whether what a step removed may come back in a later one.
        changes_layers: bool, whether it changes layers while it computes; it is then
            given a copy of the model.
    """

    needs_data: ClassVar[bool] = True
    steps: int | None = None
    revives: ClassVar[bool] = False
    changes_layers: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, context: ScoringContext) -> Mapping[str, Any]:
        """Returns `{weight path: scores}`, arrays of the weights' shapes."""


def take_attributes(criterion: Criterion, of: Any) -> None:
    """Gives a criterion the attributes of another, or of a callable that has some."""
    for name in ("needs_data", "steps", "revives", "changes_layers"):
        if hasattr(of, name):
            # Past the class, which may be a frozen one.
            object.__setattr__(criterion, name, getattr(of, name))
