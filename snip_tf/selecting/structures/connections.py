"""Each connection by itself, as SNIP has it."""

from __future__ import annotations

import dataclasses

from snip_tf.selecting.structures.base import Structure


@dataclasses.dataclass(frozen=True)
class Connections(Structure):
    """Each connection is kept or removed by itself: `structure="weights"`."""

    def __str__(self) -> str:
        return "weights"
