"""What makes a connection worth keeping: one file per criterion.

A criterion is a function of one `ScoringContext` that returns `{weight path: scores}`,
an array of the weight's shape for each of `context.weights`; the connections with the
largest scores are kept. A criterion that needs no data, has several steps, lets removed
connections come back or changes layers while it computes is a subclass of `Criterion`
that declares it, or any callable with its attributes. All can be passed to
`snip_tf.prune_model(criterion=...)` and `snip_tf.score`.

Example: a function, and a class with a setting.

>>> import keras, numpy as np, snip_tf
>>> def taylor(context):
...     gradients = context.gradients()
...     return {p: (gradients[p] * w) ** 2 for p, w in context.weights.items()}
>>> class Power(snip_tf.criteria.Criterion):
...     needs_data = False
...     def __init__(self, exponent):
...         self.exponent = exponent
...     def __call__(self, context):
...         weights = context.weights.items()
...         return {p: np.abs(w.numpy()) ** self.exponent for p, w in weights}
>>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
>>> x, y = np.random.rand(32, 8), np.random.rand(32, 4)
>>> options = {"sparsity": 0.75, "loss": "mse"}
>>> pruned = snip_tf.prune_model(model, x, y, criterion=taylor, **options)
>>> snip_tf.sparsity(pruned)
0.75
>>> pruned = snip_tf.prune_model(model, sparsity=0.75, criterion=Power(2))
>>> snip_tf.sparsity(pruned)
0.75
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from snip_tf.checks import check_signature
from snip_tf.criteria.base import Criterion, ScoringContext, take_attributes
from snip_tf.criteria.force import Force
from snip_tf.criteria.grasp import Grasp
from snip_tf.criteria.iterative_snip import IterativeSnip
from snip_tf.criteria.magnitude import Magnitude
from snip_tf.criteria.ntk_sap import NtkSap
from snip_tf.criteria.random import Random
from snip_tf.criteria.snip import Snip
from snip_tf.criteria.synflow import SynFlow
from snip_tf.criteria.wanda import Wanda

__all__ = [
    "CRITERIA",
    "Criterion",
    "Force",
    "Grasp",
    "IterativeSnip",
    "Magnitude",
    "NtkSap",
    "Random",
    "ScoringContext",
    "Snip",
    "SynFlow",
    "Wanda",
    "get",
]

CRITERIA: dict[str, Criterion] = {
    "snip": Snip(),
    "iterative_snip": IterativeSnip(),
    "force": Force(),
    "grasp": Grasp(),
    "synflow": SynFlow(),
    "magnitude": Magnitude(),
    "random": Random(),
    "wanda": Wanda(),
    "ntk_sap": NtkSap(),
}


def get(criterion: str | Callable[[ScoringContext], Mapping[str, Any]]) -> Criterion:
    """Returns the criterion with that name, or wraps a function as one.

    Raises:
        TypeError: if it is neither a name nor a callable, is a class, or is a function
            of other arguments.
        ValueError: if there is no criterion with that name.
    """
    if isinstance(criterion, type):
        raise TypeError(
            f"Expected `criterion` to be a name or a callable. Received: the class "
            f"{criterion.__name__}; write {criterion.__name__}()"
        )
    if callable(criterion):
        check_signature("criterion", criterion, ["context"])
        return criterion if isinstance(criterion, Criterion) else _OfFunction(criterion)
    expected = (
        f"Expected `criterion` to be one of {', '.join(map(repr, CRITERIA))} or a "
        f"callable. Received: criterion={criterion!r}"
    )
    if not isinstance(criterion, str):
        raise TypeError(f"{expected} of type {type(criterion).__name__}")
    if criterion not in CRITERIA:
        raise ValueError(expected)
    return CRITERIA[criterion]


@dataclasses.dataclass(frozen=True)
class _OfFunction(Criterion):
    """A function as a criterion, with the defaults of one but for its attributes."""

    function: Callable[[ScoringContext], Mapping[str, Any]]

    def __post_init__(self):
        take_attributes(self, self.function)

    def __call__(self, context: ScoringContext) -> Mapping[str, Any]:
        return self.function(context)

    def __repr__(self) -> str:
        # The `repr` of a function would show an address.
        return getattr(self.function, "__name__", repr(self.function))
