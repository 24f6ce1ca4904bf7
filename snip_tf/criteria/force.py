"""FORCE: foresight connection sensitivity (de Jorge et al., ICLR 2021)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from snip_tf.criteria.iterative_snip import IterativeSnip


@dataclasses.dataclass(frozen=True)
class Force(IterativeSnip):
    """The sensitivity of each connection in the pruned network, removed ones included.

    As iterative SNIP, with the gradients of the pruned network and the original
    weights,

        s_j = |w_j * dL(c * w)/d(c * w)_j|,   c the mask of the step before

    but over all connections, so that a removed one comes back where it would now matter
    more than one that was kept.

    Args:
        steps: int, T; the paper uses 60 where it compares methods.

    Example:

    >>> import snip_tf
    >>> snip_tf.criteria.Force(steps=20)
    Force(steps=20)

    Reference: https://arxiv.org/abs/2006.09081
    """

    revives: ClassVar[bool] = True
