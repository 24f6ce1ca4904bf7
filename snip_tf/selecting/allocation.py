"""How many connections are kept, and which weights are ranked together."""

from __future__ import annotations

import dataclasses
import fractions
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from snip_tf.checks import near_misses
from snip_tf.selecting.kernels import Kernel, Rows
from snip_tf.weights import is_like

SCOPES = ("global", "layer", "unit", "erk")
Scope = Literal["global", "layer", "unit", "erk"]
Sparsity = float | Mapping[str, float]
Kernels = Mapping[str, Kernel]
Minimums = Mapping[str, int]  # what each weight keeps at least


class Share(NamedTuple):
    """Weights with a sparsity of their own.

    Attributes:
        paths: the weights, in the order of the model.
        sparsity: the fraction of them all that is removed.
    """

    paths: tuple[str, ...]
    sparsity: float


Shares = Iterable[Share]


class Part(NamedTuple):
    """Weights that are ranked together.

    Attributes:
        paths: the weights.
        kept: how many of their groups are kept, or what these may cost if the structure
            counts costs.
        sparsity: that of the share to which the part belongs.
        rows: set if each row of the part's single weight is ranked by itself; the first
            rows keep one more where the rows do not divide `kept`.
        at_most: whether a row, or the part, keeps fewer where fewer are left.
    """

    paths: tuple[str, ...]
    kept: int
    sparsity: float
    rows: Rows | None = None
    at_most: bool = False


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is kept, in total and of each part.

    Attributes:
        parts: the weights that are ranked together.
        minimums: `{weight path: int}`, how many groups each weight keeps at least.
        left: `{weight path: int}`, how many groups are left to choose from.
    """

    parts: list[Part]
    minimums: Mapping[str, int]
    left: Mapping[str, int]

    def left_of(self, part: Part) -> int:
        """Returns how many groups are left to choose from in a part."""
        return sum(self.left[path] for path in part.paths)

    def minimum_of(self, part: Part) -> int:
        """Returns how many groups a part has to keep."""
        return sum(self.minimums.get(path, 0) for path in part.paths)


def shares_by_pattern(paths: Iterable[str], sparsity: Sparsity) -> list[Share]:
    """Returns the shares; weights that no pattern matches are in none.

    Raises:
        ValueError: if a pattern matches nothing, or only what an earlier one matches.
    """
    rest = list(paths)
    if not isinstance(sparsity, Mapping):
        return [Share(tuple(rest), float(sparsity))]
    known, found = list(rest), []
    for pattern, own in sparsity.items():
        matched = tuple(path for path in rest if is_like(path, pattern))
        if not matched:
            _refuse_pattern(pattern, known)
        found.append(Share(matched, float(own)))
        rest = [path for path in rest if path not in matched]
    return found


def _refuse_pattern(pattern: str, known: list[str]) -> None:
    if any(is_like(path, pattern) for path in known):
        raise ValueError(
            "Expected each pattern of `sparsity` to match a weight that no earlier "
            f"one matches. Received: {pattern!r}, whose weights are all taken"
        )
    raise ValueError(
        f"Expected each pattern of `sparsity` to match a weight that is pruned. "
        f"Received: {pattern!r}, which matches none. {near_misses(pattern, known)}"
    )


def allocate(
    kernels: Kernels,
    sizes: Mapping[str, int],
    shares: Shares,
    scope: Scope,
    minimums: Minimums,
) -> list[Part]:
    """Divides what is kept among the weights.

    Args:
        kernels: `{weight path: kernel}`.
        sizes: `{weight path: int}`, the number of groups of each.
        shares: the sparsities of the weights, each of which is met exactly.
        scope: as in `snip_tf.prune_model`.
        minimums: `{weight path: int}`, how many groups each weight keeps at least, at
            the expense of others of the same sparsity.
    """
    parts = []
    for share in shares:
        own = {path: sizes[path] for path in share.paths}
        parts += raise_to_minimum(_divide(kernels, own, share, scope), minimums)
    return parts


def _divide(
    kernels: Kernels, sizes: dict[str, int], share: Share, scope: Scope
) -> list[Part]:
    kept = kept_count(sum(sizes.values()), share.sparsity)
    if scope == "global":
        return [Part(share.paths, kept, share.sparsity)]
    rows: dict[str, Rows | None] = dict.fromkeys(sizes)
    if scope == "erk":
        counts = _erdos_renyi(kernels, sizes, kept)
    elif scope == "layer":
        counts = _evenly(sizes, dict.fromkeys(sizes, 1), share.sparsity, kept)
    else:
        rows |= {path: kernels[path].rows_of_outputs() for path in sizes}
        outputs = {path: kernels[path].output_count for path in sizes}
        counts = _evenly(sizes, outputs, share.sparsity, kept)
    return [Part((p,), counts[p], share.sparsity, rows[p]) for p in sizes]


def _evenly(
    sizes: Mapping[str, int], rows: Mapping[str, int], sparsity: float, kept: int
) -> dict[str, int]:
    """Gives every row of every weight the same sparsity, and keeps `kept` in all.

    Each row keeps its share, rounded down or up: rows whose share is not a whole number
    are rounded up, in order, until the total is reached.

    Args:
        sizes: `{weight path: int}`, the number of groups.
        rows: `{weight path: int}`, the number of equal rows that these form.
        sparsity: the fraction removed.
        kept: the total.
    """
    # The decimal as written: 0.1 of 10 is 1, whatever 1 - 0.9 is in binary.
    density = 1 - fractions.Fraction(repr(sparsity))
    counts, fractional = {}, {}
    for path, size in sizes.items():
        share = density * size / max(rows[path], 1)
        counts[path] = math.floor(share) * rows[path]
        fractional[path] = 0 if share.denominator == 1 else rows[path]
    rest = kept - sum(counts.values())
    for path in sizes:
        more = min(rest, fractional[path])
        counts[path] += more
        rest -= more
    return counts


def _erdos_renyi(
    kernels: Kernels, sizes: Mapping[str, int], kept: int
) -> dict[str, int]:
    """Divides by density, proportional to (sum / product) of a weight's dimensions.

    A weight whose density would exceed 1 stays dense, and the others share the rest.

    Reference: Evci et al., "Rigging the lottery: making all tickets winners", ICML
    2020, https://arxiv.org/abs/1911.11134
    """
    raw = {p: sum(kernels[p].shape) / max(kernels[p].size, 1) for p in sizes}
    whole: set[str] = set()
    while True:
        left = kept - sum(sizes[path] for path in whole)
        weighed = sum(raw[path] * sizes[path] for path in sizes if path not in whole)
        scale = left / max(1e-300, weighed)
        more = {p for p in sizes if p not in whole and scale * raw[p] > 1}
        if not more:
            break
        whole |= more
    wanted = {p: sizes[p] if p in whole else scale * raw[p] * sizes[p] for p in sizes}
    return _rounded(wanted, kept)


def _rounded(wanted: Mapping[Any, float], total: int) -> dict[Any, int]:
    """Rounds numbers to the given sum: the largest remainders are rounded up first."""
    counts = {name: math.floor(value + 1e-9) for name, value in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def minimums_of(kernels: Kernels, min_kept: float, area: int = 1) -> dict[str, int]:
    """Returns how many groups of each weight are kept at least.

    Args:
        kernels: `{weight path: kernel}`.
        min_kept: the number of connections, or below 1 the fraction of them.
        area: the number of connections of a group.
    """
    found = {}
    for path, kernel in kernels.items():
        least = min(int(min_kept), kernel.size)
        if not isinstance(min_kept, numbers.Integral):
            least = math.ceil(min_kept * kernel.size - 1e-9)
        found[path] = max(-(-least // area), int(min_kept > 0))
    return found


def raise_to_minimum(parts: list[Part], minimums: Mapping[str, int]) -> list[Part]:
    """Raises each part to its minimum, at the expense of parts that exceed theirs.

    The total stays the same. Where it is too small for all, nothing changes.
    """
    least = [sum(minimums.get(path, 0) for path in part.paths) for part in parts]
    short = sum(max(0, n - p.kept) for n, p in zip(least, parts, strict=True))
    over = [max(0, p.kept - n) for n, p in zip(least, parts, strict=True)]
    if not 0 < short <= sum(over):
        return parts
    wanted = {
        number: max(n, part.kept) - short * over[number] / sum(over)
        for number, (n, part) in enumerate(zip(least, parts, strict=True))
    }
    counts = _rounded(wanted, sum(part.kept for part in parts))
    return [part._replace(kept=counts[i]) for i, part in enumerate(parts)]


def kept_count(size: float, sparsity: float) -> int:
    """Returns k = round((1 - sparsity) * m), the number of connections kept of m."""
    # In double precision, whatever the type of `sparsity`.
    return round((1 - float(sparsity)) * size)


def check_sparsity(sparsity: Any) -> Sparsity:
    """Raises unless `sparsity` is a fraction to remove, or `{pattern: fraction}`."""
    if not isinstance(sparsity, Mapping):
        return _checked_fraction(sparsity, "sparsity")
    if not sparsity:
        raise ValueError(
            "Expected `sparsity` to have at least one {path pattern: sparsity}. "
            "Received: sparsity={}"
        )
    for pattern, own in sparsity.items():
        if not isinstance(pattern, str):
            raise TypeError(
                f"Expected each pattern of `sparsity` to be a string. "
                f"Received: {pattern!r} of type {type(pattern).__name__}"
            )
        _checked_fraction(own, f"sparsity[{pattern!r}]")
    return sparsity


def _checked_fraction(sparsity: Any, name: str) -> float:
    expected = (
        f"Expected `{name}` to be a number with 0 <= sparsity < 1, the fraction of the "
        f"prunable weights that is removed. "
    )
    if isinstance(sparsity, (bool, np.bool_)) or not isinstance(sparsity, numbers.Real):
        raise TypeError(
            f"{expected}Received: {name}={sparsity!r} of type {type(sparsity).__name__}"
        )
    fraction = float(sparsity)
    if not 0 <= fraction < 1:  # also catches NaN
        hint = ""
        if 1 < fraction < 100:
            hint = f". For {fraction:g} % write {name}={fraction / 100:g}"
        elif fraction in (1, 100):
            hint = ". That would remove every weight"
        raise ValueError(f"{expected}Received: {name}={sparsity!r}{hint}")
    return fraction


def check_min_kept(min_kept: Any) -> None:
    """Raises unless `min_kept` is a count, or a fraction below 1."""
    expected = (
        "Expected `min_kept` to be a whole number of connections, or a fraction of "
        "each weight below 1. "
    )
    if isinstance(min_kept, bool) or not isinstance(min_kept, numbers.Real):
        raise TypeError(
            f"{expected}Received: min_kept={min_kept!r} of type "
            f"{type(min_kept).__name__}"
        )
    whole, number = isinstance(min_kept, numbers.Integral), float(min_kept)
    if not (number >= 0 and (whole or number < 1)):
        raise ValueError(f"{expected}Received: min_kept={min_kept!r}")
