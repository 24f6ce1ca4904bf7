"""What makes a connection worth keeping: one file for each criterion.

A criterion is a callable `(model, weights, batches, *, loss, training)` that returns
`{weight path: scores}`, an array of the weight's shape for each of `weights`; the
connections with the largest scores are kept.
"""

from __future__ import annotations

from collections.abc import Callable

from snip_tf.criteria.snip import snip

CRITERIA: dict[str, Callable] = {
    "snip": snip,
}


def get(criterion: str | Callable) -> Callable:
    """The criterion of that name, or the callable itself."""
    if callable(criterion):
        return criterion
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        raise ValueError(
            f"Expected `criterion` to be one of {', '.join(map(repr, CRITERIA))} or a "
            f"callable. Received: criterion={criterion!r}"
        )
    return CRITERIA[criterion]
