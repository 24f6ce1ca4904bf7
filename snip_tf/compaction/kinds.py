"""How each kind of layer passes features on, and how it is made smaller.

A feature is one entry of a tensor's last axis: a unit of a dense layer, a filter of a
convolution, at all its positions. What is known of a tensor is an array with a number
for each feature: its value where that is the same for every input, else NaN; or whether
it is kept. A tensor without a last axis beside that of the batch has one feature.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from snip_tf.compaction.graph import Node, is_tensor, tensors
from snip_tf.weights import why_not_prunable

layers = keras.layers
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
}
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
        return [Use(kernel, _positions(self.outputs[0]), {}) for kernel in kernels]

    def smaller(self, change: Change) -> keras.Operation:
        """The operation that does the same with what is kept, before it is built."""
        return change.copy(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:
        """Calls it on new tensors in the place of the old; None where one is gone."""
        del change
        args, kwargs = _in_place(self.node, inputs)
        return operation(*args, **kwargs)

    def fill(self, operation: Any, change: Change) -> None:
        """Gives it its weights, once it is built."""


class Change:
    """What becomes of one call.

    Attributes:
        inputs, outputs: which features of each are kept.
        constants: what is constant of the inputs.
        copy: makes a copy of an operation as it is.
    """

    def __init__(
        self, inputs: Arrays, outputs: Arrays, constants: Arrays, copy: Callable
    ):
        self.inputs = inputs
        self.outputs = outputs
        self.constants = constants
        self.copy = copy

    def like(self, operation: keras.Operation, **changes: Any) -> keras.Operation:
        """A new one with these settings and those of the old, not built."""
        return type(operation).from_config({**operation.get_config(), **changes})

    def all_kept(self) -> bool:
        """Whether every feature stays."""
        return all(keep.all() for keep in self.inputs + self.outputs)


class Matrix(Kind):
    """Outputs that are sums of products of the inputs: dense layers, convolutions."""

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        layer = self.operation
        self._read = _nonzero(self.weight(), tolerance)  # (inputs, outputs)
        self._by_unit = layer.activation in _ELEMENTWISE

    def weight(self) -> np.ndarray:
        """The kernel, with inputs and outputs as its last axes."""
        kernel = keras.ops.convert_to_numpy(self.operation.kernel)
        if isinstance(self.operation, _TRANSPOSED):
            kernel = kernel.swapaxes(-1, -2)
        return kernel

    def _passes_constants(self) -> bool:
        """Whether a constant input gives a constant output, at the border too."""
        if isinstance(self.operation, layers.Dense):
            return True
        if isinstance(self.operation, _TRANSPOSED):
            return False
        return self.operation.padding == "valid" or {*self.operation.kernel_size} == {1}

    def _foldable(self, constants: Arrays) -> np.ndarray:
        """Which inputs are constants that the bias can stand for."""
        known = constants[0]
        return ~np.isnan(known) if self._passes_constants() else known == 0

    def _bias(self, folded: np.ndarray, constants: Arrays) -> np.ndarray:
        """The bias with these inputs in it, in double precision."""
        bias = getattr(self.operation, "bias", None)
        sums = self.weight().astype(np.float64)
        sums = sums.sum(axis=tuple(range(sums.ndim - 2)))
        bias = 0 if bias is None else keras.ops.convert_to_numpy(bias)
        return bias + np.where(folded, constants[0], 0) @ sums

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        foldable = self._foldable(inputs)
        constant = ~self._read[~foldable].any(axis=0)
        if not (self._by_unit and constant.any()):
            return [np.full(constant.shape, np.nan)]
        value = self._bias(foldable, inputs)
        value = keras.ops.convert_to_numpy(
            self.operation.activation(keras.ops.convert_to_tensor(value, "float32"))
        )
        return [np.where(constant, value, np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        return needed if self._by_unit else super().kept(needed)

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        read = self._read[:, kept[0]].any(axis=1) & ~self._foldable(constants)
        if kept[0].any() and not read.any():
            read[0] = True  # there is no layer without an input
        return [read]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        if self._by_unit:
            return [None], [None]
        return [None], [np.zeros(feature_count(self.outputs[0]), int)]

    def uses(self) -> list[Use]:  # noqa: D102
        transposed = isinstance(self.operation, _TRANSPOSED)
        read, written = (-1, -2) if transposed else (-2, -1)
        inputs, outputs = map(np.arange, self._read.shape)
        where = self.inputs[0] if transposed else self.outputs[0]
        axes = {read: ("input", inputs), written: ("output", outputs)}
        return [Use(self.operation.kernel, _positions(where), axes, read)]

    def _rows(self, change: Change) -> np.ndarray:
        """The inputs that the new layer multiplies."""
        [given] = change.inputs
        [needed] = self.needed(change.outputs, change.constants)
        return needed if _worth_a_gather(given, needed) else given

    def _has_fold(self, change: Change) -> bool:
        folded = ~self._rows(change) & (change.constants[0] != 0)
        return bool((folded & self._foldable(change.constants)).any())

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept() and self._rows(change).all():
            return change.copy(self.operation)
        layer = self.operation
        bias = layer.use_bias or self._has_fold(change)
        size = "units" if isinstance(layer, layers.Dense) else "filters"
        return change.like(layer, use_bias=bias, **{size: int(change.outputs[0].sum())})

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        rows = self._rows(change)
        inputs = [_gathered(inputs[0], change.inputs[0], rows), *inputs[1:]]
        return super().call(operation, inputs, change)

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        rows, [columns] = self._rows(change), change.outputs
        kernel = self.weight()[..., rows, :][..., columns]
        if isinstance(operation, _TRANSPOSED):
            kernel = kernel.swapaxes(-1, -2)
        operation.kernel.assign(kernel)
        self._fill_bias(operation, rows, change)

    def _fill_bias(self, operation: Any, rows: np.ndarray, change: Change) -> None:
        if operation.use_bias:
            folded = ~rows & self._foldable(change.constants)
            bias = self._bias(folded, change.constants)
            operation.bias.assign(bias[change.outputs[0]])


class Separable(Matrix):
    """A depthwise convolution, then a pointwise one."""

    def weight(self) -> np.ndarray:  # noqa: D102
        depthwise = keras.ops.convert_to_numpy(self.operation.depthwise_kernel)
        pointwise = keras.ops.convert_to_numpy(self.operation.pointwise_kernel)
        inputs, multiplier = depthwise.shape[-2:]
        pointwise = pointwise.reshape(inputs, multiplier, -1)
        return np.einsum("...im,imo->...io", depthwise, pointwise)

    def uses(self) -> list[Use]:  # noqa: D102
        layer, positions = self.operation, _positions(self.outputs[0])
        inputs, outputs = map(np.arange, self._read.shape)
        by_input = {-2: ("input", inputs)}
        by_both = {
            -2: ("input", np.repeat(inputs, layer.depth_multiplier)),
            -1: ("output", outputs),
        }
        return [
            Use(layer.depthwise_kernel, positions, by_input, read=-2),
            Use(layer.pointwise_kernel, positions, by_both),
        ]

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        rows, [columns] = self._rows(change), change.outputs
        old = self.operation
        depthwise = keras.ops.convert_to_numpy(old.depthwise_kernel)[..., rows, :]
        operation.depthwise_kernel.assign(depthwise)
        pointwise = keras.ops.convert_to_numpy(old.pointwise_kernel)
        rows_of_all = np.repeat(rows, old.depth_multiplier)
        operation.pointwise_kernel.assign(pointwise[..., rows_of_all, :][..., columns])
        self._fill_bias(operation, rows, change)


class Depthwise(Kind):
    """A convolution of each input by itself; the outputs of an input stay together."""

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        self._kernel = keras.ops.convert_to_numpy(self.operation.kernel)
        self._multiplier = self._kernel.shape[-1]
        self._by_unit = self.operation.activation in _ELEMENTWISE

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        layer = self.operation
        if not self._by_unit:
            return super().constants(inputs)
        known = np.repeat(inputs[0], self._multiplier)
        kernel = self._kernel.reshape(*self._kernel.shape[:-2], -1)
        cut = ~_nonzero(kernel, self.tolerance, units=1)
        exact = layer.padding == "valid" or {*layer.kernel_size} == {1}
        constant = cut | (~np.isnan(known) if exact else known == 0)
        sums = kernel.sum(axis=tuple(range(kernel.ndim - 1)), dtype=np.float64)
        value = np.where(cut | np.isnan(known), 0, known * sums)
        if layer.bias is not None:
            value = value + keras.ops.convert_to_numpy(layer.bias)
        value = layer.activation(keras.ops.convert_to_tensor(value, "float32"))
        return [np.where(constant, keras.ops.convert_to_numpy(value), np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        if not self._by_unit:
            return super().kept(needed)
        return [np.repeat(self._inputs_of(needed[0]), self._multiplier)]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        if not self._by_unit:
            return super().ties()
        inputs = np.arange(self._kernel.shape[-2])
        return [inputs], [np.repeat(inputs, self._multiplier)]

    def uses(self) -> list[Use]:  # noqa: D102
        axes = {-2: ("input", np.arange(self._kernel.shape[-2]))}
        return [Use(self.operation.kernel, _positions(self.outputs[0]), axes)]

    def _inputs_of(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.reshape(-1, self._multiplier).any(axis=1)

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        del constants
        return [self._inputs_of(kept[0])]

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:  # noqa: D102
        if _worth_a_gather(given[0], self._inputs_of(kept[0])):
            return kept
        return [np.repeat(given[0], self._multiplier)]

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept():
            return change.copy(self.operation)
        return change.like(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        rows = self._inputs_of(change.outputs[0])
        inputs = [_gathered(inputs[0], change.inputs[0], rows)]
        return super().call(operation, inputs, change)

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        rows = self._inputs_of(change.outputs[0])
        operation.kernel.assign(self._kernel[..., rows, :])
        if operation.bias is not None:
            bias = keras.ops.convert_to_numpy(self.operation.bias)
            operation.bias.assign(bias[change.outputs[0]])


class EachByItself(Kind):
    """Features that are handed on one by one, each to the same place.

    Args:
        node, tolerance: as of `Kind`.
        constant: what becomes of a constant: `"applied"`, what the operation makes of
            it; `"same"`; or `"zero"`, only a zero stays one.
    """

    analysed = True

    def __init__(self, node: Node, tolerance: float, constant: str):
        super().__init__(node, tolerance)
        self._constant = constant

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        [known] = inputs
        if self._constant == "applied":
            return [_applied(self.node, inputs)]
        return (
            [np.where(known == 0, known, np.nan)]
            if self._constant == "zero"
            else [known]
        )

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        return needed

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        del constants
        return kept

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        features = np.arange(feature_count(self.outputs[0]))
        return [features], [features]

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:  # noqa: D102
        return kept if _worth_a_gather(given[0], kept[0]) else given

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept() or not isinstance(self.operation, keras.Layer):
            return change.copy(self.operation)
        if isinstance(self.operation, layers.Reshape):
            return _reshaped(self.operation, change)
        return change.like(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        inputs = [_gathered(inputs[0], change.inputs[0], change.outputs[0])]
        return super().call(operation, inputs, change)

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        for new, old in zip(operation.weights, self.operation.weights, strict=True):
            if old.shape != new.shape:
                value = keras.ops.convert_to_numpy(old)
                new.assign(value[..., change.outputs[0]])
            else:
                new.assign(old)


class Merge(Kind):
    """Tensors of the same features, which are combined one by one."""

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        self._name = type(self.operation).__name__

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        merged = _applied(self.node, inputs)
        if self._name == "Multiply":
            merged = np.where((np.array(inputs) == 0).any(axis=0), 0, merged)
        return [merged]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        return needed

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        self._summands = self._not_only_zeros(kept[0], constants)
        return [kept[0] & summand for summand in self._summands]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        features = np.arange(feature_count(self.outputs[0]))
        return [features] * len(self.inputs), [features]

    def _not_only_zeros(self, kept: np.ndarray, constants: Arrays) -> list[bool]:
        """Which inputs of a sum it cannot do without."""
        if self._name != "Add":
            return [True] * len(constants)
        summands = [bool((known[kept] != 0).any()) for known in constants]
        whole = [tensor.shape == self.outputs[0].shape for tensor in self.inputs]
        if any(s and w for s, w in zip(summands, whole, strict=True)):
            return summands
        return [True] * len(constants)

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:  # noqa: D102
        first, *others = given
        same = all(self._summands) and all(np.array_equal(first, o) for o in others)
        return [first] if same and not _worth_a_gather(first, kept[0]) else kept

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        return change.like(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        left = [
            _gathered(tensor, given, change.outputs[0])
            for tensor, given, summand in zip(
                inputs, change.inputs, self._summands, strict=True
            )
            if summand
        ]
        if len(left) == 1:
            return left[0]
        if len(left) < len(inputs):
            return operation(left)  # a layer takes any number
        return super().call(operation, left, change)


class Concatenate(Kind):
    """Tensors beside each other along the last axis."""

    analysed = True

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        return [np.concatenate(inputs)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        return needed

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        ends = np.cumsum([known.size for known in constants])
        return np.split(kept[0], ends[:-1])

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        features = np.arange(feature_count(self.outputs[0]))
        ends = np.cumsum([feature_count(tensor) for tensor in self.inputs])
        return np.split(features, ends[:-1]), [features]

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:  # noqa: D102
        del kept
        return [np.concatenate(given)]

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        return change.like(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        del change
        left = [tensor for tensor in inputs if tensor is not None]
        return left[0] if len(left) == 1 else operation(left)


class Padded(Kind):
    """Zeros around a tensor (`keras.ops.pad`), new features among them."""

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        before, _ = self.operation.pad_width[-1]
        self._own = slice(before, before + feature_count(self.inputs[0]))
        self._features = feature_count(self.outputs[0])

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        constants = np.zeros(self._features)
        # What is constant and not zero is not so at the border.
        constants[self._own] = np.where(inputs[0] == 0, 0, np.nan)
        return [constants]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        if needed[0].any() and not needed[0][self._own].any():
            needed = [needed[0].copy()]
            needed[0][self._own.start] = True  # there is no tensor without a feature
        return needed

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        del constants
        return [kept[0][self._own]]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        features = np.arange(self._features)
        return [features[self._own]], [features]

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:  # noqa: D102
        if _worth_a_gather(given[0], kept[0][self._own]):
            return kept
        kept = [kept[0].copy()]
        kept[0][self._own] = given[0]
        return kept

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        [kept] = change.outputs
        around = (kept[: self._own.start].sum(), kept[self._own.stop :].sum())
        widths = [*self.operation.pad_width[:-1], [int(width) for width in around]]
        return change.like(self.operation, pad_width=widths)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        wanted = change.outputs[0][self._own]
        inputs = [_gathered(inputs[0], change.inputs[0], wanted)]
        return super().call(operation, inputs, change)


class Rearranged(Kind):
    """Flatten, and Reshape from or to a flat tensor: a feature becomes several.

    One axis is flat: there feature i is at the positions i, i + n, i + 2n, ... of the
    n features of the other tensor.
    """

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        [before], [after] = self.inputs, self.outputs
        self._in, self._out = feature_count(before), feature_count(after)

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        [known] = inputs
        if self._out >= self._in:
            return [np.tile(known, self._out // self._in)]
        places = known.reshape(-1, self._out)
        return [np.where((places == places[0]).all(axis=0), places[0], np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        return [self._spread(self._features(needed[0]), self._out)]

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        del constants
        return [self._spread(self._features(kept[0]), self._in)]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        features = np.arange(min(self._in, self._out))
        return [self._spread(features, self._in)], [self._spread(features, self._out)]

    def _features(self, keep: np.ndarray) -> np.ndarray:
        """Which features are kept at any position."""
        return keep.reshape(-1, min(self._in, self._out)).any(axis=0)

    def _spread(self, features: np.ndarray, size: int) -> np.ndarray:
        return np.tile(features, size // features.size)

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:  # noqa: D102
        [wanted] = self.needed(kept, [])
        if _worth_a_gather(given[0], wanted):
            return kept
        # Those at all positions stay, even where only some are given.
        return self.kept([self._spread(self._features(given[0]), self._out)])

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept() or isinstance(self.operation, layers.Flatten):
            return change.like(self.operation)
        return _reshaped(self.operation, change)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        [wanted] = self.needed(change.outputs, [])
        inputs = [_gathered(inputs[0], change.inputs[0], wanted)]
        return super().call(operation, inputs, change)


class Lookup(Kind):
    """An embedding, whose columns are features."""

    analysed = True

    def _table(self) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.operation.embeddings)

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        table = self._table()
        table = np.where(np.abs(table) > self.tolerance, table, 0)
        return [np.where((table == table[0]).all(axis=0), table[0], np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        return needed

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        return [np.zeros(feature_count(self.inputs[0]), int)], [None]

    def uses(self) -> list[Use]:  # noqa: D102
        return []  # it looks up, and does not multiply

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept():
            return change.copy(self.operation)
        return change.like(self.operation, output_dim=int(change.outputs[0].sum()))

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        operation.embeddings.assign(self._table()[:, change.outputs[0]])


class Recurrent(Kind):
    """A recurrent layer, or two in a `Bidirectional` whose units are taken as pairs.

    Its state makes a unit constant only if that stays at zero, where it starts: nothing
    but zeros enters what it remembers next.
    """

    analysed = True

    def __init__(self, node: Node, tolerance: float):
        super().__init__(node, tolerance)
        layer = self.operation
        self._layers = (
            [layer.forward_layer, layer.backward_layer]
            if isinstance(layer, layers.Bidirectional)
            else [layer]
        )
        self._beside = (
            len(self._layers)
            if len(self._layers) > 1 and layer.merge_mode == "concat"
            else 1
        )
        self._cells = [_Cell(layer.cell, tolerance) for layer in self._layers]
        self._units = self._cells[0].units

    def _at_zero(self, inputs: Arrays) -> np.ndarray:
        """The units that stay at zero, of each cell."""
        return np.array([cell.at_zero(inputs[0]) for cell in self._cells])

    def constants(self, inputs: Arrays) -> Arrays:  # noqa: D102
        zero = self._at_zero(inputs)
        self._zero = zero
        merged = zero.ravel() if self._beside > 1 else zero.all(axis=0)
        return [np.where(merged, 0, np.nan)]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        units = needed[0].reshape(self._beside, -1).any(axis=0)
        while True:
            read = np.array(
                [
                    cell.recurrent[:, units & ~zero].any(axis=1) & ~zero
                    for cell, zero in zip(self._cells, self._zero, strict=True)
                ]
            ).any(axis=0)
            if not (read & ~units).any():
                return [np.tile(units, self._beside)]
            units = units | read

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        units = kept[0][: self._units]
        read = np.array(
            [
                cell.inputs[:, units & ~zero].any(axis=1)
                for cell, zero in zip(self._cells, self._zero, strict=True)
            ]
        ).any(axis=0)
        read &= np.isnan(constants[0])
        if units.any() and not read.any():
            read[0] = True  # there is no layer without an input
        return [read, *(np.full(c.shape, units.any()) for c in constants[1:])]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        masks = [np.zeros(feature_count(tensor), int) for tensor in self.inputs[1:]]
        return [None, *masks], [np.tile(np.arange(self._units), self._beside)]

    def uses(self) -> list[Use]:  # noqa: D102
        steps = self.inputs[0].shape[1] or 1
        units = np.arange(self._units)
        uses = []
        for layer in self._layers:
            cell = layer.cell
            into = ("output", np.tile(units, cell.kernel.shape[-1] // self._units))
            inputs = ("input", np.arange(cell.kernel.shape[0]))
            uses += [
                Use(cell.kernel, steps, {0: inputs, 1: into}, read=0),
                Use(cell.recurrent_kernel, steps, {0: ("output", units), 1: into}, 0),
            ]
        return uses

    def _rows(self, change: Change) -> np.ndarray:
        [needed, *_] = self.needed(change.outputs, change.constants)
        given = change.inputs[0]
        return needed if _worth_a_gather(given, needed) else given

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        rows = self._rows(change)
        if change.all_kept() and rows.all():
            return change.copy(self.operation)
        units = int(change.outputs[0][: self._units].sum())
        folded = ~rows & (np.nan_to_num(change.constants[0]) != 0)

        def resized(config: dict[str, Any]) -> dict[str, Any]:
            bias = config["use_bias"] or bool(folded.any())
            return {**config, "units": units, "use_bias": bias}

        config = self.operation.get_config()
        if len(self._layers) == 1:
            return change.like(self.operation, **resized(config))
        both = {
            # Without the shapes that Keras would build it for.
            name: {
                **config[name],
                "config": resized(config[name]["config"]),
                "build_config": None,
            }
            for name in ("layer", "backward_layer")
        }
        return change.like(self.operation, **both)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        rows = self._rows(change)
        inputs = [_gathered(inputs[0], change.inputs[0], rows), *inputs[1:]]
        return super().call(operation, inputs, change)

    def fill(self, operation: Any, change: Change) -> None:  # noqa: D102
        units, rows = change.outputs[0][: self._units], self._rows(change)
        new = (
            [operation.forward_layer, operation.backward_layer]
            if len(self._layers) > 1
            else [operation]
        )
        for layer, cell in zip(new, self._cells, strict=True):
            cell.fill(layer.cell, rows, units, np.where(rows, 0, change.constants[0]))


class _Cell:
    """The weights of a recurrent cell, unit by unit.

    Attributes:
        inputs, recurrent: whether an input, or a unit, is read by a unit.
    """

    def __init__(self, cell: Any, tolerance: float):
        self._cell = cell
        self._tolerance = tolerance
        self.units = cell.units
        self.inputs = self._gates(cell.kernel, tolerance).any(axis=1)
        self.recurrent = self._gates(cell.recurrent_kernel, tolerance).any(axis=1)

    def _gates(self, kernel: Any, tolerance: float) -> np.ndarray:
        kernel = np.abs(keras.ops.convert_to_numpy(kernel)) > tolerance
        return kernel.reshape(kernel.shape[0], -1, self.units)

    def at_zero(self, constants: np.ndarray) -> np.ndarray:
        """The units whose state stays at zero, whatever the gates are."""
        # The activation of what is remembered is the third of GRU's and LSTM's parts.
        cell = self._cell
        part = 0 if isinstance(cell, layers.SimpleRNNCell) else 2
        at_zero = cell.activation(keras.ops.zeros((1,)))
        if cell.activation not in _ELEMENTWISE or float(at_zero[0]) != 0:
            return np.zeros(self.units, bool)
        kernel = keras.ops.convert_to_numpy(cell.kernel)
        kernel = kernel.reshape(len(kernel), -1, self.units)[:, part]
        read = np.abs(kernel) > self._tolerance
        known = np.where(np.isnan(constants), 0, constants)
        zero = ~read[np.isnan(constants)].any(axis=0) & (known @ kernel == 0)
        if cell.use_bias:
            bias = keras.ops.convert_to_numpy(cell.bias)
            bias = bias.reshape(-1, bias.shape[-1] // self.units, self.units)[:, part]
            zero &= (bias == 0).all(axis=0)
        recurrent = self._gates(cell.recurrent_kernel, self._tolerance)[:, part]
        while True:
            still = zero & ~recurrent[~zero].any(axis=0)
            if (still == zero).all():
                return zero
            zero = still

    def fill(
        self, new: Any, rows: np.ndarray, units: np.ndarray, folded: np.ndarray
    ) -> None:
        """Gives a smaller cell the weights of what is kept.

        Args:
            new: the cell.
            rows, units: the inputs and units that it has.
            folded: constants of inputs that its bias has to stand for.
        """

        def of_units(array: np.ndarray) -> np.ndarray:
            gates = array.reshape(*array.shape[:-1], -1, self.units)[..., units]
            return gates.reshape(*array.shape[:-1], -1)

        cell = self._cell
        kernel = keras.ops.convert_to_numpy(cell.kernel)
        new.kernel.assign(of_units(kernel[rows]))
        recurrent = keras.ops.convert_to_numpy(cell.recurrent_kernel)
        new.recurrent_kernel.assign(of_units(recurrent[units]))
        if not new.use_bias:
            return
        bias = keras.ops.convert_to_numpy(cell.bias) if cell.use_bias else None
        more = np.nan_to_num(folded) @ kernel.astype(np.float64)
        if len(new.bias.shape) == 2:  # a GRU's, for inputs and for units
            more = np.stack([more, np.zeros_like(more)])
        new.bias.assign(of_units(more if bias is None else bias + more))


_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, *_TRANSPOSED)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_RECURRENT = (layers.SimpleRNN, layers.GRU, layers.LSTM)
_MERGES = (layers.Add, layers.Subtract, layers.Multiply, layers.Average)
_MERGES += (layers.Maximum, layers.Minimum)
# Operations of `keras.ops`, for whose classes Keras has no public names.
_MERGING_OPERATIONS = {"Add", "Subtract", "Multiply", "Maximum", "Minimum"}
_ELEMENTWISE_OPERATIONS = {"Relu", "Relu6", "Sigmoid", "Silu", "Tanh", "Gelu", "Elu"}
_ELEMENTWISE_OPERATIONS |= {"HardSigmoid", "HardSilu", "LeakyRelu", "Softplus"}
_HANDED_ON = {
    **dict.fromkeys(
        (
            *(layers.ReLU, layers.LeakyReLU, layers.ELU, layers.BatchNormalization),
            *(layers.Activation, layers.Rescaling),
        ),
        "applied",
    ),
    **dict.fromkeys(
        (
            *(layers.Identity, layers.ActivityRegularization, layers.Dropout),
            *(layers.SpatialDropout1D, layers.SpatialDropout2D),
            *(layers.SpatialDropout3D, layers.GaussianNoise, layers.GaussianDropout),
            *(layers.AlphaDropout, layers.MaxPooling1D, layers.MaxPooling2D),
            *(layers.MaxPooling3D, layers.AveragePooling1D, layers.AveragePooling2D),
            *(layers.AveragePooling3D, layers.GlobalMaxPooling1D),
            *(layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
            *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
            *(layers.GlobalAveragePooling3D, layers.Cropping1D, layers.Cropping2D),
            *(layers.Cropping3D, layers.RepeatVector, layers.UpSampling1D),
        ),
        "same",
    ),
    **dict.fromkeys(
        (
            *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
            *(layers.UpSampling2D, layers.UpSampling3D),
        ),
        "zero",
    ),
}


def kind_of(node: Node, tolerance: float, shared: set[int]) -> Kind:
    """How a call passes features on.

    Args:
        node: the call.
        tolerance: the largest magnitude of a weight that counts as zero.
        shared: ids of layers whose weights are used more than once; these stay as
            they are.
    """
    unanalysed = id(node.operation) in shared or bool(node.kwargs.get("training"))
    make = None if unanalysed else _known_kind(node)
    return (make or Kind)(node, tolerance)


def _known_kind(node: Node) -> Callable[[Node, float], Kind] | None:
    """The kind of a call, if it is one that is known to pass features on."""
    operation, inputs, outputs = node.operation, node.inputs(), tensors(node.outputs)
    # A subclass may compute something else, so only the very classes are known.
    cls = type(operation)
    if len(outputs) != 1 or not inputs or len(inputs[0].shape) < 2:
        return None
    if getattr(operation, "data_format", "channels_last") != "channels_last":
        return None
    if getattr(operation, "quantization_mode", None) or getattr(
        operation, "lora_enabled", False
    ):
        return None
    if cls in _RECURRENT or cls is layers.Bidirectional:
        return Recurrent if _is_plain_recurrence(node) else None
    same_features = {feature_count(tensor) for tensor in (*inputs, *outputs)}
    if cls in _MERGES and len(same_features) == 1:
        return Merge
    if cls is layers.Concatenate:
        return Concatenate if operation.axis in (-1, len(inputs[0].shape) - 1) else None
    name = cls.__name__ if cls.__module__.startswith("keras.src.ops.") else ""
    if name in _MERGING_OPERATIONS and len(same_features) == 1:
        return Merge if len(inputs) == 2 else _applied_to_each(node)
    if len(inputs) > 1:
        return None
    if name == "Pad" and operation.mode == "constant" and not tensors(node.kwargs):
        full = len(operation.pad_width) == len(inputs[0].shape)
        return Padded if full and not _other_arguments(node) else None
    if name in _ELEMENTWISE_OPERATIONS:
        return _applied_to_each(node)
    if cls is layers.Dense or (cls in _CONVOLUTIONS and _groups(operation) == 1):
        return Matrix
    if cls in _SEPARABLE:
        return Separable
    if cls in _DEPTHWISE:
        return Depthwise
    if cls is layers.Embedding:
        return Lookup
    if cls in (layers.Flatten, layers.Reshape):
        return _rearranging(inputs[0], outputs[0])
    if cls is layers.Activation and operation.activation not in _ELEMENTWISE:
        return None
    if cls is layers.Rescaling and np.ndim(operation.scale) + np.ndim(operation.offset):
        return None
    if cls is layers.BatchNormalization and operation.axis not in (
        *(-1, len(inputs[0].shape) - 1),
    ):
        return None
    if cls in _HANDED_ON and len(same_features) == 1:
        return functools.partial(EachByItself, constant=_HANDED_ON[cls])
    return None


def _applied_to_each(node: Node) -> Callable[[Node, float], Kind] | None:
    """Of an operation on one tensor and on numbers."""
    if all(isinstance(a, (int, float, str, bool)) for a in _other_arguments(node)):
        return functools.partial(EachByItself, constant="applied")
    return None


def _other_arguments(node: Node) -> list[Any]:
    """What a call is given beside tensors; None is nothing."""
    leaves = keras.tree.flatten((node.args, node.kwargs))
    return [leaf for leaf in leaves if not is_tensor(leaf) and leaf is not None]


def _rearranging(before: Any, after: Any) -> Callable[[Node, float], Kind] | None:
    if None in (*before.shape[1:], *after.shape[1:]):
        return None
    if feature_count(before) == feature_count(after):
        return functools.partial(EachByItself, constant="same")
    return Rearranged if 2 in (len(before.shape), len(after.shape)) else None


def _reshaped(layer: keras.Layer, change: Change) -> keras.Layer:
    """A Reshape to as many features as are kept."""
    target = layer.get_config()["target_shape"]
    kept = int(change.outputs[0].sum())
    return change.like(layer, target_shape=(*target[:-1], kept))


def _groups(layer: keras.Layer) -> int:
    return getattr(layer, "groups", 1)


def _is_plain_recurrence(node: Node) -> bool:
    """Whether nothing but a sequence, and a mask perhaps, goes in and only it out."""
    layer = node.operation
    parts = (
        [layer.forward_layer, layer.backward_layer]
        if isinstance(layer, layers.Bidirectional)
        else [layer]
    )
    masks = tensors(node.kwargs.get("mask"))
    return (
        len(node.inputs()) == 1 + len(masks)
        and all(type(part) in _RECURRENT for part in parts)
        and not any(part.stateful or part.return_state for part in parts)
    )


def _positions(tensor: keras.KerasTensor) -> int:
    """At how many places a tensor has features, for one example; 1 where unknown."""
    return math.prod(size or 1 for size in tensor.shape[1:-1])


def _nonzero(kernel: np.ndarray, tolerance: float, units: int = 2) -> np.ndarray:
    """Whether a kernel connects an input and an output at any of its positions."""
    return (np.abs(kernel) > tolerance).any(axis=tuple(range(kernel.ndim - units)))


def _worth_a_gather(given: np.ndarray, needed: np.ndarray) -> bool:
    return needed.sum() <= (1 - _WORTH_A_GATHER) * given.sum()


def _gathered(tensor: Any, given: np.ndarray, wanted: np.ndarray) -> Any:
    """The wanted features of a tensor that has the given ones."""
    if np.array_equal(given, wanted):
        return tensor
    positions = np.flatnonzero(wanted[given]).astype(np.int32)
    return keras.ops.take(tensor, positions, axis=-1)


def _in_place(node: Node, inputs: Sequence[Any]) -> tuple[Any, Any]:
    """The arguments of a call, on other tensors."""
    given = iter(inputs)
    return keras.tree.map_structure(
        lambda leaf: next(given) if is_tensor(leaf) else leaf, (node.args, node.kwargs)
    )


def _applied(node: Node, constants: Arrays) -> np.ndarray:
    """What an operation makes of constant features."""
    dummies = [
        np.nan_to_num(known).reshape((1,) * (len(tensor.shape) - 1) + (-1,))
        for known, tensor in zip(constants, node.inputs(), strict=True)
    ]
    dummies = [keras.ops.convert_to_tensor(dummy, "float32") for dummy in dummies]
    args, kwargs = _in_place(node, dummies)
    value = keras.ops.convert_to_numpy(node.operation(*args, **kwargs)).reshape(-1)
    unknown_one = np.isnan(np.array(constants)).any(axis=0)
    return np.where(unknown_one, np.nan, value)
