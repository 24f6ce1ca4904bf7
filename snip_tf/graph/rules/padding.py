"""Padding by `keras.ops.pad`."""

from __future__ import annotations

import functools

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.graph import Node, tensors
from snip_tf.graph.rules.rule import Groups, Rule, feature_count


class Padding(Rule):
    """Zeros around a tensor, which may add features."""

    @classmethod
    def accepts(cls, node: Node) -> bool:
        operation = node.operation
        with_zeros = operation.mode == "constant" and not node.other_arguments()
        return (
            super().accepts(node)
            and with_zeros
            and not tensors(node.kwargs)
            and len(operation.pad_width) == len(node.inputs()[0].shape)
        )

    @functools.cached_property
    def _own(self) -> slice:
        """The slice of the output's features that holds those of the input."""
        before, _ = self.operation.pad_width[-1]
        return slice(before, before + feature_count(self.inputs[0]))

    def constants(self, inputs: Arrays) -> Arrays:
        constants = np.zeros(feature_count(self.outputs[0]))
        # A nonzero constant is not constant at the border.
        constants[self._own] = np.where(inputs[0] == 0, 0, np.nan)
        return [constants]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        [kept] = needed
        if kept.any() and not kept[self._own].any():
            kept = kept.copy()
            kept[self._own.start] = True  # a tensor needs a feature
        return [kept]

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        return [kept[0][self._own]]

    def raise_to_minimum(
        self, given: Arrays, kept: Arrays, constants: Arrays
    ) -> Arrays:
        if self.worth_a_gather(given[0], kept[0][self._own]):
            return kept
        raised = kept[0].copy()
        raised[self._own] = given[0]
        return [raised]

    def coupled(self) -> tuple[Groups, Groups]:
        features = np.arange(feature_count(self.outputs[0]))
        return [features[self._own]], [features]

    def reads(self, edit: Edit) -> Arrays:
        return [edit.outputs[0][self._own]]

    def smaller(self, edit: Edit) -> keras.Operation:
        [kept] = edit.outputs
        around = (kept[: self._own.start].sum(), kept[self._own.stop :].sum())
        widths = [*self.operation.pad_width[:-1], [int(width) for width in around]]
        return edit.like(self.operation, pad_width=widths)
