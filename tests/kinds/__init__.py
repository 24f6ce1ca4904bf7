"""Small models of every kind, with data to train them on.

Each function of `KINDS` makes a compiled model, its inputs and its targets.
"""

from tests.kinds import builtin, custom, own_step
from tests.kinds.making import (
    EXAMPLES,
    KINDS,
    activity_is_a_mean,
    classifier,
    compiled,
    kind,
    labels,
    normal,
)

__all__ = [
    "EXAMPLES",
    "KINDS",
    "activity_is_a_mean",
    "builtin",
    "classifier",
    "compiled",
    "custom",
    "kind",
    "labels",
    "normal",
    "own_step",
]
