"""Single connections, as in SNIP."""

from __future__ import annotations

import dataclasses

from snip_tf.selecting.structures.base import Structure


@dataclasses.dataclass(frozen=True)
class Connections(Structure):
    """Keeps or removes each connection by itself: `structure="weights"`."""

    def __str__(self) -> str:
        return "weights"
