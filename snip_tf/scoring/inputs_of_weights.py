"""How large the inputs are that each connection of a network multiplies."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf._keras.operations import CONVOLUTIONS, watching
from snip_tf.scoring.calling import OfOutputs
from snip_tf.scoring.examples import Batch, as_tensors
from snip_tf.scoring.forward import LossAt, Pass, Tensors
from snip_tf.scoring.objective import Part
from snip_tf.scoring.precision import computing_in


def input_squares(
    model: keras.Model,
    weights: Mapping[str, keras.Variable],
    batches: Iterable[Batch],
    training: bool = False,
) -> dict[str, np.ndarray]:
    """Returns the sum of squares of what each connection multiplies.

    Summed over all examples, and over all positions where a weight is used more than
    once, as in a convolution. Found in one forward pass for each mini-batch, whatever
    the layers: a weight is recognized where `keras.ops` multiplies by it.

    Args:
        model: a built `keras.Model`, which is left unchanged.
        weights: `{weight path: variable}`.
        batches: `(x, y, sample_weight)`, of which only `x` is read.
        training: the mode of the forward pass.

    Returns:
        `{weight path: float64 array}` that broadcasts to the weight's shape, with an
        entry for each input, in the usual layers; without weights whose inputs were not
        seen.
    """
    squares = _Squares(weights)
    outputs = OfOutputs(model, "output", lambda outputs: 0.0, training)
    run = Pass(model, weights, outputs, {}, _evaluated)
    with computing_in("float32", model), watching(squares.see, squares.see_part):
        for batch in batches:
            run(as_tensors(batch), Part(None))
            squares.forget_parts()
    return squares.found


def _evaluated(loss_at: LossAt, values: Tensors, what: str) -> tuple[Any, Tensors]:
    """Runs the model, a `Derivative` without derivatives."""
    del what
    return loss_at(values), {}


class _Squares:
    """Adds up squares while operations run.

    Args:
        weights: `{weight path: variable}`.

    Attributes:
        found: `{weight path: float64 array}` that broadcasts to the weight.
    """

    def __init__(self, weights: Mapping[str, keras.Variable]):
        self.found: dict[str, np.ndarray] = {}
        self._weights = dict(weights)
        self._paths = {id(weight): path for path, weight in weights.items()}
        # With the tensor, whose id could otherwise be used again.
        self._parts: dict[int, tuple[Any, str, Any]] = {}

    def forget_parts(self) -> None:
        """Forgets the parts of weights that one forward pass has used."""
        self._parts = {}

    def see_part(self, part: Any, of: Any, index: Any) -> None:
        """Remembers that a tensor is a part of a weight."""
        if (path := self._path_of(of)) is not None:
            self._parts[id(part)] = part, path, index

    def see(self, name: str, operation: Callable, args: tuple, kwargs: dict) -> None:
        """Adds the squares of an operation's inputs, if it multiplies by a weight."""
        first = 1 if name == "einsum" else 0
        for position in (first + 1, first):
            if position >= len(args):
                continue
            weight = args[position]
            path, index = self._path_of(weight), ...
            if path is None and id(weight) in self._parts:
                _, path, index = self._parts[id(weight)]
            if path is None:
                continue
            squares = _squares(name, operation, args, kwargs, position)
            if squares is not None:
                self._add(path, index, squares, tuple(weight.shape))
            return

    def _path_of(self, operand: Any) -> str | None:
        if isinstance(operand, keras.Variable):
            return self._paths.get(id(operand))
        if not keras.ops.is_tensor(operand) or len(operand.shape) < 2:
            return None
        shape = tuple(operand.shape)
        for path, weight in self._weights.items():
            if tuple(weight.shape) == shape and weight.value is operand:
                return path
        return None

    def _add(self, path: str, index: Any, squares: np.ndarray, shape: tuple) -> None:
        whole = tuple(self._weights[path].shape)
        if index is ...:
            self.found[path] = self.found.get(path, 0.0) + squares
            return
        # Only a part of the outputs sees these inputs.
        added = np.zeros(whole)
        added[index] = np.broadcast_to(squares, shape)
        self.found[path] = self.found.get(path, 0.0) + added


def _squares(
    name: str, operation: Callable, args: tuple, kwargs: dict, position: int
) -> np.ndarray | None:
    """Returns the squares of the inputs of one operation, which broadcast to a weight.

    None if it is of a form that is not known.
    """
    if name in CONVOLUTIONS:
        return _of_convolution(name, operation, args, kwargs) if position else None
    x, weight = args[1 - position], args[position]
    if name == "einsum":
        if len(args) != 3:
            return None
        x, terms = args[3 - position], _terms(args[0], *args[1:])
        return _of_product(x, terms[2 - position], terms[position - 1])
    ranks = [len(operand.shape) for operand in (x, weight)]
    if (name == "dot" and ranks[1] != 2) or min(ranks) < 1 or ranks[1] < 2:
        return None
    if name == "tensordot":
        terms = _terms_of_tensordot(args, kwargs)
    else:
        terms = _terms_of_matmul([len(operand.shape) for operand in args[:2]])
    return _of_product(x, terms[1 - position], terms[position])


def _of_product(x: Any, of_x: str, of_weight: str) -> np.ndarray:
    """Sums squares over all axes that the weight lacks, in float64."""
    array = _backend.on_host(keras.ops.convert_to_tensor(x, sparse=False))
    shared = "".join(letter for letter in of_weight if letter in of_x)
    sums = np.einsum(f"{of_x},{of_x}->{shared}", array, array, dtype=np.float64)
    sides = dict(zip(shared, sums.shape, strict=True))
    return sums.reshape([sides.get(letter, 1) for letter in of_weight])


def _terms(equation: str, *operands: Any) -> list[str]:
    """Returns the letters of each operand, with some for an ellipsis."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    found = []
    for term, operand in zip(terms, operands, strict=True):
        missing = len(operand.shape) - len(term.replace("...", ""))
        # Broadcasting aligns the last of them.
        letters = "".join(reversed(unused[:missing]))
        found.append(term.replace("...", letters))
    return found


def _terms_of_matmul(ranks: list[int]) -> list[str]:
    """Returns the letters of both operands of `matmul`."""
    batch = "abcdefgh"
    first = "k" if ranks[0] == 1 else "mk"
    second = "k" if ranks[1] == 1 else "kn"
    return [
        batch[len(batch) - (rank - len(term)) :] + term
        for rank, term in zip(ranks, (first, second), strict=True)
    ]


def _terms_of_tensordot(args: tuple, kwargs: dict) -> list[str]:
    axes = kwargs.get("axes", args[2] if len(args) > 2 else 2)
    ranks = [len(operand.shape) for operand in args[:2]]
    if isinstance(axes, int):
        axes = list(range(ranks[0] - axes, ranks[0])), list(range(axes))
    pairs = [[axis] if isinstance(axis, int) else list(axis) for axis in axes]
    terms = [list("abcdefgh"[: ranks[0]]), list("stuvwxyz"[: ranks[1]])]
    for letter, (one, other) in zip("klmnopqr", zip(*pairs, strict=True), strict=False):
        terms[0][one] = terms[1][other] = letter
    return ["".join(term) for term in terms]


def _of_convolution(
    name: str, operation: Callable, args: tuple, kwargs: dict
) -> np.ndarray:
    """Returns the derivatives of the sum of the outputs, with squared inputs.

    These are the sums of what each connection multiplies, whatever the strides, the
    padding and the groups.
    """
    x, kernel, *rest = args
    squared = keras.ops.square(keras.ops.convert_to_tensor(x))
    zeros = keras.ops.zeros(kernel.shape, squared.dtype)

    def total(at: Tensors) -> tuple[Any, None]:
        return keras.ops.sum(operation(squared, at["kernel"], *rest, **kwargs)), None

    _, _, found = _backend.differentiate(total, {"kernel": zeros})
    sums = _backend.on_host(found["kernel"]).astype(np.float64)
    outputs = -2 if name == "conv_transpose" else -1
    one = np.take(sums, [0], axis=outputs)
    # The outputs of one group have the same inputs.
    return one if np.array_equal(np.broadcast_to(one, sums.shape), sums) else sums
