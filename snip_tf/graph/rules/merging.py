"""Layers and operations that combine several tensors, feature by feature."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.graph import Node
from snip_tf.graph.rules.elementwise import only_numbers_beside
from snip_tf.graph.rules.passing import same_features
from snip_tf.graph.rules.rule import Groups, Rule, feature_count, on_constants


class Merging(Rule):
    """Tensors with the same features, combined feature by feature, or with a number."""

    @classmethod
    def accepts(cls, node: Node) -> bool:
        return same_features(node) and only_numbers_beside(node)

    def constants(self, inputs: Arrays) -> Arrays:
        return [on_constants(self.node, inputs)]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        # The mask of the output combines those of all inputs.
        if self.has_masks and len(self.inputs) > 1:
            return super().kept(needed, constants)
        return needed

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        return [kept[0] & counts for counts in self.counts(kept[0], constants)]

    def counts(self, kept: np.ndarray, constants: Arrays) -> list[bool]:
        """Returns which of the inputs the kept features of the output depend on."""
        del kept
        return [True] * len(constants)

    def raise_to_minimum(
        self, given: Arrays, kept: Arrays, constants: Arrays
    ) -> Arrays:
        first, *others = given
        same = all(np.array_equal(first, other) for other in others)
        all_count = all(self.counts(kept[0], constants))
        if same and all_count and not self.worth_a_gather(first, kept[0]):
            return [first]
        return kept

    def coupled(self) -> tuple[Groups, Groups]:
        features = np.arange(feature_count(self.outputs[0]))
        return [features for _ in self.inputs], [features]

    def reads(self, edit: Edit) -> Arrays:
        return [edit.outputs[0]] * len(edit.inputs)

    def smaller(self, edit: Edit) -> keras.Operation:
        return edit.like(self.operation)


class Sum(Merging):
    """A sum, from which zero summands can be dropped."""

    def counts(self, kept: np.ndarray, constants: Arrays) -> list[bool]:
        summands = [bool((known[kept] != 0).any()) for known in constants]
        whole = [tensor.shape == self.outputs[0].shape for tensor in self.inputs]
        # The rest must have the shape of the sum, and all of its masks.
        has_whole = any(s and w for s, w in zip(summands, whole, strict=True))
        if self.has_masks or not has_whole:
            return super().counts(kept, constants)
        return summands

    def reads(self, edit: Edit) -> Arrays:
        [kept] = edit.outputs
        return [
            kept if counts else given
            for given, counts in zip(
                edit.inputs, self.counts(kept, edit.constants), strict=True
            )
        ]

    def call(self, operation: Any, inputs: list[Any], edit: Edit) -> Any:
        counts = self.counts(edit.outputs[0], edit.constants)
        if all(counts):
            return super().call(operation, inputs, edit)
        left = [
            edit.gathered(tensor, given, edit.outputs[0])
            for tensor, given, each in zip(inputs, edit.inputs, counts, strict=True)
            if each
        ]
        # (An operation has two summands at most; a layer takes any number.)
        return left[0] if len(left) == 1 else operation(left)


class Product(Merging):
    """A product, which is zero where any factor is."""

    def constants(self, inputs: Arrays) -> Arrays:
        any_zero = (np.array(inputs) == 0).any(axis=0)
        [merged] = super().constants(inputs)
        return [np.where(any_zero, 0.0, merged)]


class Concatenation(Rule):
    """Tensors concatenated along the last axis."""

    @classmethod
    def accepts(cls, node: Node) -> bool:
        return node.operation.axis in (-1, len(node.inputs()[0].shape) - 1)

    def constants(self, inputs: Arrays) -> Arrays:
        return [np.concatenate(inputs)]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        return needed

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        ends = np.cumsum([known.size for known in constants])
        parts = np.split(kept[0].copy(), ends[:-1])
        if self.has_masks and kept[0].any():
            for part in parts:  # their masks are combined in that of the output
                part[0] |= not part.any()
        return parts

    def raise_to_minimum(
        self, given: Arrays, kept: Arrays, constants: Arrays
    ) -> Arrays:
        return [np.concatenate(given)]

    def coupled(self) -> tuple[Groups, Groups]:
        features = np.arange(feature_count(self.outputs[0]))
        ends = np.cumsum([feature_count(tensor) for tensor in self.inputs])
        return [*np.split(features, ends[:-1])], [features]

    def smaller(self, edit: Edit) -> keras.Operation:
        return edit.like(self.operation)

    def call(self, operation: Any, inputs: list[Any], edit: Edit) -> Any:
        left = [tensor for tensor in inputs if tensor is not None]
        return left[0] if len(left) == 1 else operation(left)
