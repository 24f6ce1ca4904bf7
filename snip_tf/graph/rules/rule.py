"""How a call passes features on, and how it is made smaller.

A feature is one entry of a tensor's last axis: a unit of a dense layer, or a filter of
a convolution, at all positions. An array with one entry per feature describes a tensor:
the feature's value if it is the same for every input, else NaN; or whether it is kept.
A tensor with only a batch axis has one feature.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.graph import Node, carry_masks, tensors

# The group number of each feature of a tensor; None if each is a group by itself.
Groups = list[np.ndarray | None]
# By axis of a weight: the tensor, and the features of it, to which its entries belong.
Axes = dict[int, tuple[Literal["input", "output"], np.ndarray]]

# A layer gets a gather of the features that it reads if its input would otherwise be
# larger by at least this fraction: moving features is cheaper than multiplying by
# zeros, but not free.
_WORTH_A_GATHER = 1 / 8

# Activations whose value at one position depends only on the argument at that position.
_ELEMENTWISE = [
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softplus",
    "softsign",
    "sparse_plus",
    "squareplus",
    "tanh",
    "tanh_shrink",
    "threshold",
]


@dataclasses.dataclass(frozen=True)
class Use:
    """How a call multiplies by a weight.

    Attributes:
        weight: the variable.
        positions: how many times each of its numbers is multiplied, for one example.
        axes: for each axis whose entries belong to features: whether to those of the
            first input or of the output, and to which.
        read: the axis along which features are multiplied and summed, if there is one.
    """

    weight: keras.Variable
    positions: int
    axes: Axes
    read: int | None = None


class Rule:
    """How one call passes features on, and how it is made smaller.

    The defaults are right for any call: nothing is known of its outputs, each of them
    needs all inputs, and the operation stays unchanged. A rule for a family of layers
    overrides what it knows better. No method leaves anything behind for another.

    To compact a network, `structured/plan.py` asks for `constants` from the first call
    to the last, for `kept` and `needed` from the last to the first, and for
    `raise_to_minimum` from the first to the last. Then it makes each call again:
    `smaller`, `call`, `fill`.

    Args:
        node: the call.
        tolerance: the largest magnitude of a weight that counts as zero.
        hidden_masks: whether any tensor may have a mask that the graph does not show.
    """

    analysed: ClassVar[bool] = True

    def __init__(
        self, node: Node, tolerance: float = 0.0, hidden_masks: bool = False
    ) -> None:
        self.node = node
        self.operation: Any = node.operation
        self.tolerance = tolerance
        self.inputs = node.inputs()
        self.outputs = tensors(node.outputs)
        # A mask passed as an argument need not be attached to the inputs.
        masks = tensors(node.kwargs.get("mask"))
        self.has_masks = hidden_masks or (carry_masks(self.inputs) and not masks)

    @classmethod
    def accepts(cls, node: Node) -> bool:
        """Returns whether the rule holds for a call of a class that it is listed for.

        The call has one output, and at least one input, which has features.
        """
        return len(node.inputs()) == 1

    def worth_a_gather(self, given: np.ndarray, needed: np.ndarray) -> bool:
        """Returns whether to gather the needed features, rather than take all of them.

        Nothing is gathered from a tensor with a mask: `keras.ops.take` drops the mask,
        which an attention after it, or the loss, may need.
        """
        if self.has_masks:
            return False
        return bool(needed.sum() <= (1 - _WORTH_A_GATHER) * given.sum())

    def constants(self, inputs: Arrays) -> Arrays:
        """Returns the constants among the outputs, given those among the inputs."""
        del inputs
        return [unknown(output) for output in self.outputs]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        """Returns which features of the outputs are kept if these are needed.

        Args:
            needed: for each output, the features that are read.
            constants: for each input, what is constant.
        """
        del constants
        return [np.full_like(need, need.any()) for need in needed]

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        """Returns which features of the inputs the kept ones of the outputs need."""
        any_kept = any(keep.any() for keep in kept)
        return [np.full(known.shape, any_kept) for known in constants]

    def raise_to_minimum(
        self, given: Arrays, kept: Arrays, constants: Arrays
    ) -> Arrays:
        """Returns `kept`, with more features where dropping them would cost a gather.

        Args:
            given: for each input, the features that exist.
            kept: for each output, the features to keep at least.
            constants: for each input, what is constant.
        """
        del given, constants
        return kept

    def coupled(self) -> tuple[Groups, Groups]:
        """Returns the groups of input and output features to be removed together.

        Features with the same number form a group; None stands for a tensor whose
        features can each be removed alone. By default all are one group.
        """
        return (
            [np.zeros(feature_count(tensor), int) for tensor in self.inputs],
            [np.zeros(feature_count(tensor), int) for tensor in self.outputs],
        )

    def uses(self) -> list[Use]:
        """Returns the kernels that the call multiplies by."""
        return []

    def reads(self, edit: Edit) -> Arrays:
        """Returns which features of its inputs the smaller operation takes."""
        return edit.inputs

    def smaller(self, edit: Edit) -> keras.Operation:
        """Returns the operation for the kept features; a new one is not built."""
        return edit.copy(self.operation)

    def call(self, operation: Any, inputs: list[Any], edit: Edit) -> Any:
        """Calls the smaller operation on new tensors (None where one was removed)."""
        picked = [
            edit.gathered(tensor, given, read)
            for tensor, given, read in zip(
                inputs, edit.inputs, self.reads(edit), strict=True
            )
        ]
        args, kwargs = self.node.arguments_with(picked)
        return operation(*args, **kwargs)

    def fill(self, operation: Any, edit: Edit) -> None:
        """Assigns the weights of the smaller operation, after it was called."""


def is_elementwise(activation: Any) -> bool:
    """Returns whether a function is known to work on each number by itself."""
    # (By identity: a user's callable may not be hashable. Older versions of Keras lack
    # some of the functions.)
    known = (getattr(keras.activations, name, None) for name in _ELEMENTWISE)
    return activation is not None and any(activation is each for each in known)


def feature_count(tensor: keras.KerasTensor) -> int:
    """Returns the size of the last axis, or 1 if there is only a batch axis."""
    return (tensor.shape[-1] or 1) if len(tensor.shape) > 1 else 1


def unknown(tensor: keras.KerasTensor) -> np.ndarray:
    """Returns the constants of a tensor without known ones: all NaN."""
    return np.full(feature_count(tensor), np.nan)


def positions(tensor: keras.KerasTensor) -> int:
    """Returns the number of positions at which a tensor has features, for one example.

    An axis of unknown size counts as one position.
    """
    return known_product(tensor.shape[1:-1])


def known_product(sizes: Sequence[int | None]) -> int:
    """Returns the product of sizes; an unknown one counts as 1."""
    return math.prod(size or 1 for size in sizes)


def as_tensor(value: np.ndarray, dtype: str) -> Any:
    """Returns a constant in double precision for a double dtype, else in single."""
    precision = "float64" if dtype == "float64" else "float32"
    return keras.ops.convert_to_tensor(value, precision)


def on_constants(node: Node, constants: Arrays) -> np.ndarray:
    """Returns the outputs of a call on constant features; NaN for unknown ones."""
    inputs = node.inputs()
    dummies = [
        np.nan_to_num(known).reshape((1,) * (len(tensor.shape) - 1) + (-1,))
        for known, tensor in zip(constants, inputs, strict=True)
    ]
    given = [as_tensor(dummy, inputs[0].dtype) for dummy in dummies]
    args, kwargs = node.arguments_with(given)
    value = keras.ops.convert_to_numpy(node.operation(*args, **kwargs)).reshape(-1)
    return np.where(np.isnan(np.array(constants)).any(axis=0), np.nan, value)
