"""How each kind of layer passes features on, and how it is made smaller.

A feature is one entry of a tensor's last axis: a unit of a dense layer, a filter of a
convolution, at all its positions. What is known of a tensor is an array with a number
for each feature: its value where that is the same for every input, else NaN; or whether
it is kept. A tensor without a last axis beside that of the batch has one feature.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from snip_tf._keras import operation_of
from snip_tf.graph.graph import Names, Node, carry_masks, is_tensor, tensors
from snip_tf.weights import why_not_prunable

Arrays = list[np.ndarray]

# Of these the value at one place depends on the argument at that place alone.
_ELEMENTWISE = {
    getattr(keras.activations, name)
    for name in (
        *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid"),
        *("hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish"),
        *("relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus"),
        *("softsign", "sparse_plus", "squareplus", "tanh", "tanh_shrink", "threshold"),
    )
    if hasattr(keras.activations, name)  # older Keras lacks some
}


def is_elementwise(activation: Any) -> bool:
    """Whether a function is known to work on each number by itself."""
    return any(activation is function for function in _ELEMENTWISE)


# A layer is given a gather of the features that it reads where it is given at least so
# much more: to move them costs less than to multiply by zeros, but not nothing.
_WORTH_A_GATHER = 1 / 8


def feature_count(tensor: keras.KerasTensor) -> int:
    """The size of the last axis, or 1 if there is none beside that of the batch."""
    return (tensor.shape[-1] or 1) if len(tensor.shape) > 1 else 1


def unknown(tensor: keras.KerasTensor) -> np.ndarray:
    """That no feature is known to be constant."""
    return np.full(feature_count(tensor), np.nan)


@dataclasses.dataclass(frozen=True)
class Use:
    """How a call multiplies by a weight.

    Attributes:
        weight: the variable.
        positions: how often each of its numbers is multiplied, for one example.
        axes: for an axis along which its numbers belong to features: whether these are
            of the first input or of the output, and which feature each entry is of.
        read: the axis along which a feature is multiplied and added up with others, if
            there is one.
    """

    weight: keras.Variable
    positions: int
    axes: dict[int, tuple[str, np.ndarray]]
    read: int | None = None


class Kind:
    """A call that cannot be analysed: it needs all of its inputs, and stays as it is.

    Args:
        node: the call.
        tolerance: the largest magnitude of a weight that counts as zero.
    """

    analysed = False

    def __init__(self, node: Node, tolerance: float):
        self.node = node
        self.operation = node.operation
        self.tolerance = tolerance
        self.inputs = node.inputs()
        self.outputs = tensors(node.outputs)
        given = tensors(node.kwargs.get("mask"))  # which need not be on the inputs
        self.has_masks = carry_masks(self.inputs) and not given

    def worth_a_gather(self, given: np.ndarray, needed: np.ndarray) -> bool:
        """Whether to pick the needed features from the given, or to take them all.

        From a tensor with a mask none are picked: `keras.ops.take` drops the mask,
        which an attention after it, or the loss, would do without.
        """
        if self.has_masks:
            return False
        return needed.sum() <= (1 - _WORTH_A_GATHER) * given.sum()

    def constants(self, inputs: Arrays) -> Arrays:
        """The features of the outputs that are constant, by those of the inputs."""
        del inputs
        return [unknown(output) for output in self.outputs]

    def kept(self, needed: Arrays) -> Arrays:
        """The features of the outputs that have to stay for some to be there."""
        return [np.full_like(need, need.any()) for need in needed]

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        """The features of the inputs that the kept ones of the outputs need."""
        any_kept = any(keep.any() for keep in kept)
        return [np.full(value.shape, any_kept) for value in constants]

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:
        """What is kept of the outputs in the end, by what there is of the inputs.

        No less than `kept`; more, where to leave it out would cost a gather.
        """
        del given
        return kept

    def ties(self) -> tuple[list[np.ndarray | None], list[np.ndarray | None]]:
        """Which features go only together, those of the inputs, then of the outputs.

        Features of one number are tied; None stands for a tensor whose features come
        and go by themselves. Here all are tied into one.
        """
        return (
            [np.zeros(feature_count(tensor), int) for tensor in self.inputs],
            [np.zeros(feature_count(tensor), int) for tensor in self.outputs],
        )

    def uses(self) -> list[Use]:
        """The kernels that it multiplies by."""
        kernels = [
            weight
            for weight in getattr(self.operation, "weights", [])
            if why_not_prunable(weight.path, weight) is None
        ]
        if not kernels:
            return []
        shapes = (tuple(t.shape) for t in (self.inputs[0], self.outputs[0]))
        times = _times_multiplied(self.operation, *shapes)
        return [Use(kernel, times, {}) for kernel in kernels]

    def smaller(self, change: Change) -> keras.Operation:
        """The operation that does the same with what is kept, before it is built."""
        return change.copy(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:
        """Calls it on new tensors instead of the old; None where one is gone."""
        del change
        args, kwargs = in_place(self.node, inputs)
        return operation(*args, **kwargs)

    def fill(self, operation: Any, change: Change) -> None:
        """Gives it its weights, once it is built."""


class Change:
    """What becomes of one call.

    Attributes:
        inputs, outputs: which features of each are kept.
        constants: what is constant of the inputs.
        copy: makes a copy of an operation as it is.
        names: of the operations of the new model.
    """

    def __init__(
        self,
        inputs: Arrays,
        outputs: Arrays,
        constants: Arrays,
        copy: Callable,
        names: Names,
    ):
        self.inputs = inputs
        self.outputs = outputs
        self.constants = constants
        self.copy = copy
        self.names = names

    def like(self, operation: keras.Operation, **changes: Any) -> keras.Operation:
        """A new one with these settings and those of the old, not built."""
        return like(operation, self.copy, **changes)

    def gathered(self, tensor: Any, given: np.ndarray, wanted: np.ndarray) -> Any:
        """The wanted features of a tensor that has the given ones."""
        if np.array_equal(given, wanted):
            return tensor
        positions = np.flatnonzero(wanted[given]).astype(np.int32)
        picked = keras.ops.take(tensor, positions, axis=-1)
        # Keras names it, by what there is in this process, not in this model.
        operation_of(picked).name = self.names.new("take")
        return picked

    def all_kept(self) -> bool:
        """Whether every feature stays."""
        return all(keep.all() for keep in self.inputs + self.outputs)


def like(operation: Any, copy: Callable, **changes: Any) -> Any:
    """A new operation with these settings and those of the old, not built.

    Regularizers, initializers, constraints and activations are handed over as they are,
    since those of a user's may have no configuration, or one that Keras does not read.

    Args:
        operation: a layer of Keras' own, or an operation of `keras.ops`.
        copy: makes a copy of what holds state, such as a layer that is an activation.
        changes: settings.
    """
    attributes = dict(vars(operation))
    if isinstance(operation, keras.layers.RNN):
        attributes = {**vars(operation.cell), **attributes}
    config = _without_objects(operation).get_config()
    objects = {
        name: value
        for name, value in attributes.items()
        if name.endswith(tuple(_NEUTRAL)) and value is not None
    }
    for name, value in objects.items():
        if name in config or name == "activity_regularizer":
            config[name] = copy(value)
    return type(operation).from_config({**config, **changes})


# How the names of these settings end, and what stands for them in a configuration.
_NEUTRAL = {
    "activation": keras.activations.linear,
    **dict.fromkeys(("constraint", "initializer", "regularizer")),
}


def _without_objects(layer: Any) -> Any:
    """A stand-in that has the attributes of a layer, but none of these objects."""
    stand_in = object.__new__(type(layer))
    for name, value in vars(layer).items():
        ends = [end for end in _NEUTRAL if name.endswith(end)]
        vars(stand_in)[name] = _NEUTRAL[ends[0]] if ends else value
    if isinstance(layer, keras.layers.RNN):
        vars(stand_in)["cell"] = _without_objects(layer.cell)
    return stand_in


def positions(tensor: keras.KerasTensor) -> int:
    """At how many places a tensor has features, for one example; 1 where unknown."""
    return _known(tensor.shape[1:-1])


def _known(sizes: Sequence[int | None]) -> int:
    return math.prod(size or 1 for size in sizes)


def _times_multiplied(layer: Any, given: tuple, made: tuple) -> int:
    """How often a layer multiplies each number of its kernels, for one example.

    Args:
        layer: of any class; one of Keras' own, or it is taken to multiply once for each
            place of its output.
        given, made: the shapes of its input and its output.
    """
    layers = keras.layers
    if isinstance(layer, layers.TimeDistributed):
        of_one = ((shape[0], *shape[2:]) for shape in (given, made))
        return _known(given[1:2]) * _times_multiplied(layer.layer, *of_one)
    if isinstance(layer, layers.Bidirectional):
        return _times_multiplied(layer.forward_layer, given, made)
    if isinstance(layer, layers.RNN):
        convolved = isinstance(
            layer, (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
        )
        rank = len(layer.kernel_size) if convolved else 0
        return _known(given[1:2]) * _known(made[-1 - rank : -1])
    if isinstance(layer, layers.EinsumDense) and "." not in layer.equation:
        names, kernel = layer.equation.split("->")[0].split(",")
        sizes = zip(names[1:], given[1:], strict=True)
        return _known([size for name, size in sizes if name not in kernel])
    if getattr(layer, "data_format", None) == "channels_first":
        return _known(made[2:])
    return _known(made[1:-1])


def nonzero(kernel: np.ndarray, tolerance: float, units: int = 2) -> np.ndarray:
    """Whether a kernel connects an input and an output at any of its positions."""
    return (np.abs(kernel) > tolerance).any(axis=tuple(range(kernel.ndim - units)))


def in_place(node: Node, inputs: Sequence[Any]) -> tuple[Any, Any]:
    """The arguments of a call, on other tensors."""
    given = iter(inputs)
    return keras.tree.map_structure(
        lambda leaf: next(given) if is_tensor(leaf) else leaf, (node.args, node.kwargs)
    )


def as_tensor(value: np.ndarray, dtype: str) -> Any:
    """A constant, in single precision unless its layer is in double precision."""
    precision = "float64" if dtype == "float64" else "float32"
    return keras.ops.convert_to_tensor(value, precision)


def applied(node: Node, constants: Arrays) -> np.ndarray:
    """What an operation makes of constant features."""
    dummies = [
        np.nan_to_num(known).reshape((1,) * (len(tensor.shape) - 1) + (-1,))
        for known, tensor in zip(constants, node.inputs(), strict=True)
    ]
    dummies = [as_tensor(dummy, node.inputs()[0].dtype) for dummy in dummies]
    args, kwargs = in_place(node, dummies)
    value = keras.ops.convert_to_numpy(node.operation(*args, **kwargs)).reshape(-1)
    unknown_one = np.isnan(np.array(constants)).any(axis=0)
    return np.where(unknown_one, np.nan, value)
