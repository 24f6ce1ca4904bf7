"""Connections that go together: N of each M, or blocks."""

from __future__ import annotations

import dataclasses
import glob
import math
import re
from collections.abc import Mapping

import keras
import numpy as np

from snip_tf.masking.masks import PackedMask
from snip_tf.scoring.scores import Scores, check_finite
from snip_tf.selecting.threshold import Zeros
from snip_tf.weights import layer_tree

layers = keras.layers
# Each of their outputs reads one input only.
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
# The kernels of these have their outputs before their inputs.
_TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)


@dataclasses.dataclass(frozen=True)
class NOfM:
    """Of each M connections in a row along the input axis, the N best are kept.

    Example: 2:4, what the sparse tensor cores of a GPU multiply by.
    """

    n: int
    m: int
    axes: Mapping[str, int]

    def keep(
        self, scores: Mapping[str, Scores], share: float, zeros: Zeros
    ) -> dict[str, PackedMask]:
        """The masks after a share of the steps: of each M, M * (N / M)^share.

        What is left to the order among zeros is written to `zeros`.
        """
        count = math.ceil(self.m * (self.n / self.m) ** share - 1e-9)
        masks = {}
        for path, score in scores.items():
            check_finite(path, score)
            groups = np.moveaxis(np.asarray(score), self.axes[path], -1)
            shape = groups.shape
            groups = groups.reshape(-1, self.m)
            # The first of equals is kept.
            best = np.argsort(-groups, axis=1, kind="stable")[:, :count]
            mask = np.zeros(groups.shape, bool)
            np.put_along_axis(mask, best, True, axis=1)
            kept, equal = ((m & (groups == 0)).sum(axis=1) for m in (mask, True))
            tied = (kept > 0) & (kept < equal)
            if tied.any():
                zeros[path] = int(kept[tied].sum()), int(equal[tied].sum())
            mask = np.moveaxis(mask.reshape(shape), -1, self.axes[path])
            masks[path] = PackedMask(np.packbits(mask), mask.shape)
        return masks


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Blocks of inputs by outputs are kept or removed as a whole.

    The score of a block is the sum over its connections.
    """

    inputs: int
    outputs: int
    sides: Mapping[str, Mapping[int, int]]

    @property
    def area(self) -> int:
        """The connections in a block."""
        return self.inputs * self.outputs

    def of_blocks(self, path: str, score: Scores) -> np.ndarray:
        """The scores of the blocks of a weight."""
        check_finite(path, score)
        score = np.asarray(score)
        for axis, size in self.sides[path].items():
            shape = list(score.shape)
            shape[axis : axis + 1] = [shape[axis] // size, size]
            score = score.reshape(shape).sum(axis + 1)
        return score

    def of_connections(self, path: str, mask: PackedMask) -> PackedMask:
        """The mask of a weight of that of its blocks."""
        array = mask.unpack()
        for axis, size in self.sides[path].items():
            array = array.repeat(size, axis)
        return PackedMask(np.packbits(array), array.shape)


def parse(
    pattern: str, model: keras.Model, weights: Mapping[str, keras.Variable]
) -> NOfM | Blocks | None:
    """What `pattern` says of the weights; None for connections by themselves.

    Args:
        pattern: `"weights"`, `"N:M"` or `"IxO"`.
        model: what owns the weights.
        weights: `{weight path: variable}` that are pruned.

    Raises:
        ValueError: if it is no pattern, or does not divide a weight.
    """
    if pattern == "weights":
        return None
    numbers = re.fullmatch(r"(\d+)([:x])(\d+)", str(pattern))
    first, second = (int(numbers[1]), int(numbers[3])) if numbers else (0, 0)
    axes = _axes(model, weights)
    if numbers and numbers[2] == ":" and 0 < first < second:
        inputs = {path: axis for path, (axis, _) in axes.items()}
        _check_divides(pattern, weights, {p: {a: second} for p, a in inputs.items()})
        return NOfM(first, second, inputs)
    if numbers and numbers[2] == "x" and first * second > 1:
        sides = {path: {i: first, o: second} for path, (i, o) in axes.items()}
        _check_divides(pattern, weights, sides)
        return Blocks(first, second, sides)
    raise ValueError(
        f"Expected `pattern` to be 'weights', 'units', 'N:M' with N below M such as "
        f"'2:4', or a block of inputs x outputs such as '4x4'. "
        f"Received: pattern={pattern!r}"
    )


def _axes(
    model: keras.Model, weights: Mapping[str, keras.Variable]
) -> dict[str, tuple[int | None, int | None]]:
    """The axes of a weight along which its inputs and its outputs are.

    None where it has no such axis. In Keras the outputs come last, and the inputs
    before them, but in transposed convolutions; an EinsumDense, of which attention is
    made, tells by its equation.
    """
    # (A layer comes after those that hold it.)
    owners = {id(v): layer for layer in layer_tree(model) for v in layer.weights}
    axes: dict[str, tuple[int | None, int | None]] = {}
    for path, weight in weights.items():
        layer, rank = owners.get(id(weight)), len(weight.shape)
        axes[path] = (rank - 2, rank - 1) if rank > 1 else (None, None)
        if isinstance(layer, _DEPTHWISE) or weight.name == "depthwise_kernel":
            axes[path] = (None, rank - 1)
        elif isinstance(layer, _TRANSPOSED) and rank > 1:
            axes[path] = (rank - 1, rank - 2)
        elif isinstance(layer, layers.EinsumDense) and rank > 1:
            kernel, outputs = re.fullmatch(r".*,(.*)->(.*)", layer.equation).groups()
            sides: tuple[list[int], list[int]] = ([], [])
            for axis, name in enumerate(kernel):
                sides[name in outputs].append(axis)
            inputs, others = (side[-1] if side else None for side in sides)
            axes[path] = (inputs, others)
    return axes


def _check_divides(
    pattern: str,
    weights: Mapping[str, keras.Variable],
    sides: Mapping[str, Mapping[int | None, int]],
) -> None:
    bad = {
        path: tuple(weights[path].shape)
        for path, sizes in sides.items()
        if any(a is None or weights[path].shape[a] % n for a, n in sizes.items())
    }
    if bad:
        raise ValueError(
            f"Expected weights whose inputs (and outputs) the pattern divides. "
            f"Received: pattern={pattern!r}, with "
            f"{', '.join(f'{path} of shape {shape}' for path, shape in bad.items())}. "
            f"To prune the rest, exclude={[glob.escape(path) for path in bad]}."
        )
