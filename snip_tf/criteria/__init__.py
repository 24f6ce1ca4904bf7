"""What makes a connection worth keeping: one file for each criterion.

A criterion is a callable `(model, weights, batches, *, loss, training)` that returns
`{weight path: scores}`, an array of the weight's shape for each of `weights`; the
connections with the largest scores are kept. `loss` is what the user gave, or None for
what `fit` minimizes; an `objective=` comes as a `loss` that the criteria here take in
turn, with batches of which the first element is all that the data yields. Attributes
change how a criterion is called:

- `needs_data = False`: `batches` may be empty.
- `steps`: an iterative criterion is called this many times, with one more argument,
  `masks`: `{weight path: bool array}`, what was kept in the step before. After step t
  of T the fraction kept is keep^(t / T). What was removed stays removed, unless the
  criterion has `revives = True`.
- `changes_layers = True`: it is given a copy of the model, whose layers it may change
  while it computes.
- `with_seed(seed)`: returns the criterion to use with the `seed` of `prune_model`.

Example:

>>> import keras, numpy as np, snip_tf
>>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
>>> def largest_columns(model, weights, batches, *, loss, training):
...     return {p: np.abs(w).sum(0) + np.abs(w) for p, w in weights.items()}
>>> x, y = np.random.rand(32, 8), np.random.rand(32, 4)
>>> pruned = snip_tf.prune_model(
...     model, x, y, sparsity=0.75, loss="mse", criterion=largest_columns
... )
>>> snip_tf.sparsity(pruned)
0.75
"""

from __future__ import annotations

from collections.abc import Callable

from snip_tf.criteria.force import Force
from snip_tf.criteria.grasp import Grasp
from snip_tf.criteria.iterative_snip import IterativeSnip
from snip_tf.criteria.magnitude import magnitude
from snip_tf.criteria.random import Random
from snip_tf.criteria.snip import snip
from snip_tf.criteria.synflow import SynFlow
from snip_tf.scoring.calling import check_signature

CRITERIA: dict[str, Callable] = {
    "snip": snip,
    "iterative_snip": IterativeSnip(),
    "force": Force(),
    "grasp": Grasp(),
    "synflow": SynFlow(),
    "magnitude": magnitude,
    "random": Random(),
}


def get(criterion: str | Callable) -> Callable:
    """The criterion of that name, or the callable itself."""
    if isinstance(criterion, type):
        raise TypeError(
            f"Expected `criterion` to be a name or a callable. Received: the class "
            f"{criterion.__name__}; write {criterion.__name__}()"
        )
    if callable(criterion):
        named = ("loss", "training")
        if getattr(criterion, "steps", None) is not None:
            named = (*named, "masks")
        check_signature("criterion", criterion, ("model", "weights", "batches"), named)
        return criterion
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        raise ValueError(
            f"Expected `criterion` to be one of {', '.join(map(repr, CRITERIA))} or a "
            f"callable. Received: criterion={criterion!r}"
        )
    return CRITERIA[criterion]
