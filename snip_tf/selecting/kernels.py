"""Which axes of a weight are its inputs and its outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import keras
import numpy as np

from snip_tf.weights import Owner

layers = keras.layers
# Layers whose kernels have the outputs before the inputs.
_TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
# Layers in which each output reads a single input.
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_OTHERWISE = (*_TRANSPOSED, *_DEPTHWISE, layers.EinsumDense)


class Rows(NamedTuple):
    """A view of an array as rows, each of which is ranked by itself.

    Attributes:
        across: the axes of the array whose indices identify a row.
        within: the axes of the entries of a row.
        length: how many successive entries make a row; None for all of them.
    """

    across: tuple[int, ...]
    within: tuple[int, ...]
    length: int | None = None

    def of(self, array: np.ndarray) -> np.ndarray:
        """Returns the rows of an array, as a matrix."""
        sides = (array.shape[axis] for axis in self.within)
        length = math.prod(sides) if self.length is None else self.length
        return array.transpose(self.across + self.within).reshape(-1, length)

    def array(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the array of this shape that has these rows."""
        order = self.across + self.within
        moved = rows.reshape([shape[axis] for axis in order])
        return moved.transpose(np.argsort(order))


class Kernel(NamedTuple):
    """The shape of a weight, and which of its axes are inputs and outputs.

    Attributes:
        shape: the shape of the weight.
        inputs: the axis along which inputs lie next to each other; None without one.
        outputs: the axes whose indices identify an output, in order.
    """

    shape: tuple[int, ...]
    inputs: int | None
    outputs: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of connections."""
        return math.prod(self.shape)

    @property
    def output_count(self) -> int:
        """The number of outputs."""
        return math.prod(self.shape[axis] for axis in self.outputs)

    def rows_of_outputs(self) -> Rows:
        """Returns one row for each output."""
        return Rows(self.outputs, self._axes_beside(self.outputs))

    def rows_of_inputs(self, length: int) -> Rows:
        """Returns one row for each `length` successive inputs of an output."""
        inputs = () if self.inputs is None else (self.inputs,)
        return Rows(self._axes_beside(inputs), inputs, length)

    def _axes_beside(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(self.shape)) if axis not in axes)


def plain_kernels(shapes: Mapping[str, Iterable[int]]) -> dict[str, Kernel]:
    """Returns the kernels of arrays without a known layer: the outputs come last."""
    return {path: _plain(tuple(shape)) for path, shape in shapes.items()}


def kernels_of(
    owners: Iterable[Owner], weights: Mapping[str, keras.Variable]
) -> dict[str, Kernel]:
    """Returns the kernels of some weights.

    In Keras the outputs come last, and the inputs before them, except in transposed
    convolutions; an `EinsumDense`, which attention is made of, defines it by its
    equation.

    Args:
        owners: the layers of the model, such as `Network.owners`.
        weights: `{weight path: variable}` of these layers.
    """
    otherwise = {
        id(weight): owner.layer
        for owner in owners
        if isinstance(owner.layer, _OTHERWISE)
        for weight in owner.weights.values()
    }
    return {p: _kernel(w, otherwise.get(id(w))) for p, w in weights.items()}


def _plain(shape: tuple[int, ...]) -> Kernel:
    rank = len(shape)
    return Kernel(shape, rank - 2 if rank > 1 else None, (rank - 1,) if rank else ())


def _kernel(weight: keras.Variable, owner: keras.Layer | None) -> Kernel:
    shape = tuple(weight.shape)
    rank = len(shape)
    if rank < 2:
        return _plain(shape)
    if isinstance(owner, _DEPTHWISE) or weight.name == "depthwise_kernel":
        return Kernel(shape, None, (rank - 1,))
    if isinstance(owner, _TRANSPOSED):
        return Kernel(shape, rank - 1, (rank - 2,))
    if isinstance(owner, layers.EinsumDense):
        return _of_equation(shape, owner.equation)
    return _plain(shape)


def _of_equation(shape: tuple[int, ...], equation: str) -> Kernel:
    """Returns the kernel cde of "abc,cde->abde", whose outputs are de."""
    _, letters, result = re.split(",|->", equation)
    if len(letters) != len(shape):  # a bias, with one entry per output
        return Kernel(shape, None, tuple(range(len(shape))))
    outputs = tuple(axis for axis, name in enumerate(letters) if name in result)
    inputs = [axis for axis in range(len(shape)) if axis not in outputs]
    return Kernel(shape, inputs[-1] if inputs else None, outputs)
