"""Selection group by group, in plain Python: slow, and nothing of the library."""

import fnmatch
import fractions
import math

import numpy as np


def select(scores, sparsity, scope="global", structure="weights"):
    """The masks of the largest scores.

    Args:
        scores: `{weight path: array}` of whole numbers, so that sums are exact.
        sparsity: a number, or `{pattern: number}`.
        scope: "global", "layer", "unit" or "erk".
        structure: "weights", "N:M" or "IxO".
    """
    masks = {path: np.ones(score.shape, bool) for path, score in scores.items()}
    if not isinstance(sparsity, dict):
        sparsity = {"*": sparsity}
    rest = dict(scores)
    for pattern, fraction in sparsity.items():
        own = {p: s for p, s in rest.items() if fnmatch.fnmatchcase(p, pattern)}
        rest = {p: s for p, s in rest.items() if p not in own}
        groups = [g for p, s in own.items() for g in groups_of(p, s, structure)]
        for members, kept in parts_of(groups, own, fraction, scope, structure):
            best = sorted(members, key=lambda group: -group["score"])
            for group in best[kept:]:
                masks[group["path"]].flat[group["entries"]] = False
    return masks


def groups_of(path, score, structure):
    """Each group of a weight: its entries, its score, its output, its row of M."""
    numbers = np.arange(score.size).reshape(score.shape)
    inputs = outputs = 1
    if "x" in structure:
        inputs, outputs = map(int, structure.split("x"))
    rows, columns = (1, *score.shape)[-2:]
    numbers = numbers.reshape(-1, rows, columns)
    found = []
    for place in range(len(numbers)):
        for row in range(0, rows, inputs):
            for column in range(0, columns, outputs):
                block = numbers[place, row : row + inputs, column : column + outputs]
                entries = block.ravel().tolist()
                m = int(structure.split(":")[1]) if ":" in structure else 1
                found.append(
                    {
                        "path": path,
                        "entries": entries,
                        "score": sum(float(score.flat[e]) for e in entries),
                        "output": (path, column),
                        "row": (path, place, row // m, column),
                    }
                )
    return found


def parts_of(groups, scores, sparsity, scope, structure):
    """Which groups are ranked together, and how many of them are kept."""
    kept = round((1 - float(sparsity)) * len(groups))
    if ":" in structure:
        n = int(structure.split(":")[0])
        return [(members, n) for members in divided(groups, "row").values()]
    if scope == "global":
        return [(groups, kept)]
    parts = divided(groups, "output" if scope == "unit" else "path")
    sizes = {name: len(members) for name, members in parts.items()}
    if scope == "erk":
        counts = erdos_renyi(sizes, scores, kept)
    else:
        counts = floors_and_ceilings(sizes, sparsity, kept)
    return [(parts[name], counts[name]) for name in parts]


def divided(groups, by):
    parts = {}
    for group in groups:
        parts.setdefault(group[by], []).append(group)
    return parts


def floors_and_ceilings(sizes, sparsity, kept):
    shares = {
        name: (1 - fractions.Fraction(str(float(sparsity)))) * size
        for name, size in sizes.items()
    }
    counts = {name: math.floor(share) for name, share in shares.items()}
    # Outputs come weight by weight, in their order.
    for name in sorted(shares, key=lambda n: (list(_paths(shares)).index(_path(n)), n)):
        if sum(counts.values()) < kept:
            counts[name] = math.ceil(shares[name])
    return counts


def _path(name):
    return name if isinstance(name, str) else name[0]


def _paths(names):
    return dict.fromkeys(map(_path, names))


def erdos_renyi(sizes, scores, kept):
    """Counts whose densities are in proportion to sum / product, by bisection."""
    raw = {path: sum(scores[path].shape) / scores[path].size for path in sizes}
    low, high = 0.0, 1e9

    def wanted(scale):
        return {path: min(1, scale * raw[path]) * sizes[path] for path in sizes}

    for _ in range(200):
        middle = (low + high) / 2
        if sum(wanted(middle).values()) > kept:
            high = middle
        else:
            low = middle
    exact = wanted(low)
    counts = {path: math.floor(exact[path] + 1e-6) for path in sizes}
    remainder = sorted(sizes, key=lambda path: counts[path] - exact[path])
    for path in remainder[: kept - sum(counts.values())]:
        counts[path] += 1
    return counts
