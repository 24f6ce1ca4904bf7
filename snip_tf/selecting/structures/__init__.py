"""What is kept or removed as a whole: one file per structure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from snip_tf.checks import check_one_of
from snip_tf.selecting.allocation import (
    SCOPES,
    Scope,
    Sparsity,
    check_min_kept,
    check_sparsity,
)
from snip_tf.selecting.structures.base import Structure
from snip_tf.selecting.structures.blocks import Blocks
from snip_tf.selecting.structures.connections import Connections
from snip_tf.selecting.structures.n_of_m import NOfM
from snip_tf.selecting.structures.units import Units


def get(structure: str | Structure | Units) -> Structure | Units:
    """Returns the structure that a string stands for, or the value itself."""
    if isinstance(structure, (Structure, Units)):
        return structure
    if not isinstance(structure, str):
        name = structure.__name__ if isinstance(structure, type) else None
        advice = f" itself; write {name}(...)" if name else ""
        raise TypeError(
            f"Expected `structure` to be a string, or a value such as "
            f"snip_tf.NOfM(2, 4). Received: structure={structure!r} of type "
            f"{type(structure).__name__}{advice}"
        )
    if structure in ("weights", "units"):
        return Connections() if structure == "weights" else Units()
    numbers = re.fullmatch(r"(\d+)([:x])(\d+)", structure)
    first, second = (int(numbers[1]), int(numbers[3])) if numbers else (0, 0)
    if numbers and numbers[2] == ":" and 0 < first < second:
        return NOfM(first, second)
    if numbers and numbers[2] == "x" and first * second > 1:
        return Blocks(first, second)
    raise ValueError(
        f"Expected `structure` to be 'weights', 'units', 'N:M' with N below M such as "
        f"'2:4', or a block of inputs x outputs such as '4x4'. "
        f"Received: structure={structure!r}"
    )


def check_request(
    structure: Structure | Units,
    sparsity: Sparsity | None,
    scope: Scope,
    min_kept: float,
) -> Sparsity:
    """Raises unless all arguments are valid, and fit the structure and one another.

    One rule: whatever divides the number kept among parts (`scope`, patterns,
    `min_kept`) needs a structure whose groups lie within these parts
    (`Structure.divisions`).

    Returns:
        `sparsity`, which is not None.

    Raises:
        TypeError, ValueError: as `snip_tf.prune_model`.
    """
    sparsity = check_sparsity(sparsity)
    check_one_of("scope", scope, SCOPES)
    check_min_kept(min_kept)
    # By what divides: what is expected instead, and what was received.
    asked: dict[str, tuple[str, str]] = {}
    if scope != "global":
        asked[scope] = ("scope='global'", f"scope={scope!r}")
    if isinstance(sparsity, Mapping):
        asked["pattern"] = ("one number as `sparsity`", f"sparsity={dict(sparsity)}")
    if min_kept not in (0, structure.least):
        asked["minimum"] = ("no `min_kept`", f"min_kept={min_kept}")
    refused = [asked[name] for name in asked if name not in structure.divisions]
    if refused:
        expected, received = (", ".join(side) for side in zip(*refused, strict=True))
        raise ValueError(
            f"Expected {expected} with structure='{structure}', {structure.why}. "
            f"Received: {received}"
        )
    return sparsity
