"""How many connections are kept, of which weights together."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from snip_tf.checks import near_misses
from snip_tf.weights import is_like

SCOPES = ("global", "layer", "erk")
Shapes = Mapping[str, Sequence[int]]
Scope = str | Mapping[str, float]


class Group(NamedTuple):
    """Weights whose connections are ranked together, and how many of them are kept."""

    paths: tuple[str, ...]
    kept: int


def groups(shapes: Shapes, sparsity: float, scope: Scope, area: int = 1) -> list[Group]:
    """Shares out the connections that are kept.

    Args:
        shapes: `{weight path: shape}` of all weights to prune.
        sparsity: the fraction removed of all.
        scope: as in `snip_tf.prune_model`.
        area: the number of connections in a block, if blocks are counted.

    Raises:
        TypeError, ValueError: if `sparsity` or `scope` is none, or a pattern matches
            nothing, or the rest cannot make up for what the patterns say.
    """
    check_sparsity(sparsity)
    check_scope(scope)
    sizes = {path: math.prod(shape) // area for path, shape in shapes.items()}
    kept = kept_count(sum(sizes.values()), sparsity)
    if isinstance(scope, Mapping):
        return _by_pattern(sizes, kept, sparsity, scope)
    if scope == "global":
        return [Group(tuple(sizes), kept)]
    if scope == "layer":
        each = {path: kept_count(size, sparsity) for path, size in sizes.items()}
    else:
        each = _erdos_renyi(shapes, sizes, kept)
    return [Group((path,), count) for path, count in each.items()]


def _erdos_renyi(shapes: Shapes, sizes: dict[str, int], kept: int) -> dict[str, int]:
    """Densities in proportion to the sum over the product of a weight's dimensions.

    A weight that would be more than dense is dense, and the others share the rest.

    Reference: Evci et al., "Rigging the lottery: making all tickets winners", ICML
    2020, https://arxiv.org/abs/1911.11134
    """
    whole: set[str] = set()
    while True:
        raw = {
            p: sum(shapes[p]) / math.prod(shapes[p]) for p in sizes if p not in whole
        }
        left = kept - sum(sizes[path] for path in whole)
        scale = left / max(1e-300, sum(raw[path] * sizes[path] for path in raw))
        more = {path for path in raw if scale * raw[path] > 1}
        if not more:
            break
        whole |= more
    wanted = {p: sizes[p] if p in whole else scale * raw[p] * sizes[p] for p in sizes}
    return _rounded(wanted, kept)


def _by_pattern(
    sizes: dict[str, int], kept: int, sparsity: float, scope: Mapping[str, float]
) -> list[Group]:
    rest, wanted, chosen = dict(sizes), {}, {}
    for pattern, own in scope.items():
        if not any(is_like(path, pattern) for path in sizes):
            raise ValueError(
                f"Expected each pattern of `scope` to match a weight that is pruned. "
                f"Received: {pattern!r}, which matches none. "
                f"{near_misses(pattern, list(sizes))}"
            )
        paths = [path for path in rest if is_like(path, pattern)]
        if not paths:
            raise ValueError(
                f"Expected each pattern of `scope` to match a weight that none before "
                f"it matches. Received: {pattern!r}, whose weights are all taken"
            )
        chosen[pattern] = tuple(paths)
        wanted[pattern] = (1 - float(own)) * sum(rest.pop(path) for path in paths)
    total, room = sum(sizes.values()), sum(rest.values())
    left = kept - sum(wanted.values())
    # Up to rounding: of the total to a whole number, or of a sparsity in decimals.
    slack = 0.5 if rest else max(0.5, 1e-3 * total)
    if not -slack <= left <= room + slack:
        most, least = (1 - (kept - left + more) / total for more in (0, room))
        reach = f"from {least:.4g} to {most:.4g}" if rest else f"{most:.4g}"
        raise ValueError(
            f"Expected a `sparsity` that the sparsities in `scope` leave possible: "
            f"{reach}. Received: sparsity={sparsity}, scope={dict(scope)}"
        )
    if rest:
        chosen[""], wanted[""] = tuple(rest), min(max(left, 0), room)
    else:
        kept = round(sum(wanted.values()))
    counts = _rounded(wanted, kept)
    return [Group(paths, counts[pattern]) for pattern, paths in chosen.items()]


def _rounded(wanted: dict[Any, float], total: int) -> dict[Any, int]:
    """Whole numbers near those wanted, with the given sum: largest remainders first."""
    counts = {name: math.floor(value + 1e-9) for name, value in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def floors(shapes: Shapes, min_kept: float, area: int = 1) -> dict[str, int]:
    """How many connections, or blocks of them, are kept of each weight at least.

    Raises:
        TypeError, ValueError: if `min_kept` is no count and no fraction.
    """
    expected = (
        "Expected `min_kept` to be a whole number of connections, or a fraction of "
        "each weight below 1. "
    )
    if isinstance(min_kept, bool) or not isinstance(min_kept, numbers.Real):
        raise TypeError(
            f"{expected}Received: min_kept={min_kept!r} of type "
            f"{type(min_kept).__name__}"
        )
    whole = isinstance(min_kept, numbers.Integral)
    if not (min_kept >= 0 and (whole or min_kept < 1)):
        raise ValueError(f"{expected}Received: min_kept={min_kept!r}")
    found = {}
    for path, shape in shapes.items():
        size = math.prod(shape)
        least = min(min_kept, size) if whole else math.ceil(min_kept * size - 1e-9)
        found[path] = max(-(-least // area), int(min_kept > 0))
    return found


def lifted(groups: list[Group], floors: Mapping[str, int]) -> list[Group]:
    """The same total, with each group at its floors; those above theirs give it.

    Where all together have too little, they stay as they are.
    """
    least = [sum(floors[path] for path in group.paths) for group in groups]
    short = sum(max(0, n - g.kept) for n, g in zip(least, groups, strict=True))
    over = [max(0, g.kept - n) for n, g in zip(least, groups, strict=True)]
    if not 0 < short <= sum(over):
        return groups
    total = sum(group.kept for group in groups)
    wanted = {
        number: max(n, g.kept) - short * over[number] / sum(over)
        for number, (n, g) in enumerate(zip(least, groups, strict=True))
    }
    counts = _rounded(wanted, total)
    return [group._replace(kept=counts[i]) for i, group in enumerate(groups)]


def kept_count(size: int, sparsity: float) -> int:
    """k = round((1 - sparsity) * m), the number of connections kept of m."""
    # In double precision, whichever number `sparsity` is.
    return round((1 - float(sparsity)) * size)


def check_sparsity(sparsity: Any, name: str = "sparsity") -> None:
    """Raises unless `sparsity` is a number with 0 <= sparsity < 1."""
    expected = (
        f"Expected `{name}` to be a number with 0 <= sparsity < 1, the fraction of the "
        f"prunable weights that is removed. "
    )
    if isinstance(sparsity, (bool, np.bool_)) or not isinstance(sparsity, numbers.Real):
        raise TypeError(
            f"{expected}Received: {name}={sparsity!r} of type {type(sparsity).__name__}"
        )
    if not 0 <= sparsity < 1:  # also catches NaN
        hint = ""
        if 1 < sparsity < 100:
            hint = f". For {sparsity:g} % write {name}={sparsity / 100:g}"
        elif sparsity in (1, 100):
            hint = ". That would remove every weight"
        raise ValueError(f"{expected}Received: {name}={sparsity!r}{hint}")


def check_scope(scope: Any) -> None:
    """Raises unless `scope` is one of `SCOPES`, or sparsities by pattern."""
    if isinstance(scope, Mapping):
        if not scope:
            raise ValueError(
                "Expected `scope` to have at least one {pattern: sparsity}. "
                "Received: scope={}"
            )
        for pattern, sparsity in scope.items():
            if not isinstance(pattern, str):
                raise TypeError(
                    f"Expected each pattern of `scope` to be a string. "
                    f"Received: {pattern!r} of type {type(pattern).__name__}"
                )
            check_sparsity(sparsity, f"scope[{pattern!r}]")
    elif not isinstance(scope, str) or scope not in SCOPES:
        raise ValueError(
            f"Expected `scope` to be one of {', '.join(map(repr, SCOPES))}, or a dict "
            f"{{path pattern: sparsity}}. Received: scope={scope!r}"
        )
