"""Names the weights that a loss does not depend on, and how to leave them out."""

from __future__ import annotations

import fnmatch
import glob
import itertools


def unreached(missing: list[str], paths: list[str], what: str) -> ValueError:
    """Returns the error that names the weights without a gradient."""
    hidden = (
        "(A layer wrapped by `keras.remat` or `tf.recompute_grad` before the call "
        "hides its weights: write keras.remat(...) in `call`. The module of a "
        "TorchModuleWrapper reads parameters of its own, which cannot be scored.)"
    )
    if len(missing) == len(paths):
        return ValueError(
            f"Expected the {what} to depend on every prunable weight. Received: one "
            f"that depends on none of {_some(paths)}. Compute it with the model that "
            "is passed, by operations that have a gradient (not with `predict`, "
            f"`numpy()`, `stop_gradient` or an argmax). {hidden}"
        )
    article = "an" if what[0] in "aeiou" else "a"
    return ValueError(
        f"Expected the {what} to depend on every prunable weight. Received: {article} "
        f"{what} that does not depend on {_some(missing)}. Leave them out with "
        f"exclude={_patterns_of(missing, paths)}. {hidden}"
    )


def _patterns_of(missing: list[str], paths: list[str]) -> list[str]:
    """Returns the fewest glob patterns that match the missing paths and no others."""
    others = set(paths) - set(missing)
    patterns: list[str] = []
    for path in missing:
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
            continue
        parents = itertools.accumulate(path.split("/")[:-1], "{}/{}".format)
        for folder in (f"{parent}/" for parent in parents):
            alone = sum(other.startswith(folder) for other in missing) == 1
            if not alone and not any(other.startswith(folder) for other in others):
                patterns.append(glob.escape(folder) + "*")
                break
        else:
            patterns.append(glob.escape(path))
    return patterns


def _some(paths: list[str], most: int = 12) -> str:
    """Returns the first paths, and how many more there are."""
    rest = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(map(repr, paths[:most])) + rest
