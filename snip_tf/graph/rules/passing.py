"""Layers that hand features on, combine them or move them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from snip_tf.graph.graph import Node
from snip_tf.graph.rules.rule import (
    Arrays,
    Change,
    Kind,
    applied,
    feature_count,
)

layers = keras.layers


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
            return [applied(self.node, inputs)]
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
        return kept if self.worth_a_gather(given[0], kept[0]) else given

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept() or not isinstance(self.operation, keras.Layer):
            return change.copy(self.operation)
        if isinstance(self.operation, layers.Reshape):
            return _reshaped(self.operation, change)
        return change.like(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        inputs = [change.gathered(inputs[0], change.inputs[0], change.outputs[0])]
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
        merged = applied(self.node, inputs)
        if self._name == "Multiply":
            merged = np.where((np.array(inputs) == 0).any(axis=0), 0, merged)
        return [merged]

    def kept(self, needed: Arrays) -> Arrays:  # noqa: D102
        # Masks of all inputs go into that of the output.
        return super().kept(needed) if self.has_masks else needed

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:  # noqa: D102
        self._summands = self._not_only_zeros(kept[0], constants)
        return [kept[0] & summand for summand in self._summands]

    def ties(self) -> tuple[Any, Any]:  # noqa: D102
        features = np.arange(feature_count(self.outputs[0]))
        return [features] * len(self.inputs), [features]

    def _not_only_zeros(self, kept: np.ndarray, constants: Arrays) -> list[bool]:
        """Which inputs of a sum it cannot do without."""
        if self._name != "Add" or self.has_masks:
            return [True] * len(constants)
        summands = [bool((known[kept] != 0).any()) for known in constants]
        whole = [tensor.shape == self.outputs[0].shape for tensor in self.inputs]
        if any(s and w for s, w in zip(summands, whole, strict=True)):
            return summands
        return [True] * len(constants)

    def settled(self, given: Arrays, kept: Arrays) -> Arrays:  # noqa: D102
        first, *others = given
        same = all(self._summands) and all(np.array_equal(first, o) for o in others)
        return [first] if same and not self.worth_a_gather(first, kept[0]) else kept

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        return change.like(self.operation)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        left = [
            change.gathered(tensor, given, change.outputs[0])
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
        parts = np.split(kept[0].copy(), ends[:-1])
        if self.has_masks and kept[0].any():
            for part in parts:  # whose masks go into that of the output
                part[0] |= not part.any()
        return parts

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
        if self.worth_a_gather(given[0], kept[0][self._own]):
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
        inputs = [change.gathered(inputs[0], change.inputs[0], wanted)]
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
        if self.worth_a_gather(given[0], wanted):
            return kept
        # Those at all positions stay, even where only some are given.
        return self.kept([self._spread(self._features(given[0]), self._out)])

    def smaller(self, change: Change) -> keras.Operation:  # noqa: D102
        if change.all_kept() or isinstance(self.operation, layers.Flatten):
            return change.like(self.operation)
        return _reshaped(self.operation, change)

    def call(self, operation: Any, inputs: list[Any], change: Change) -> Any:  # noqa: D102
        [wanted] = self.needed(change.outputs, [])
        inputs = [change.gathered(inputs[0], change.inputs[0], wanted)]
        return super().call(operation, inputs, change)


def _reshaped(layer: keras.Layer, change: Change) -> keras.Layer:
    """A Reshape to as many features as are kept."""
    kept = int(change.outputs[0].sum())
    return change.like(layer, target_shape=(*layer.target_shape[:-1], kept))
