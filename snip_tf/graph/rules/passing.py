"""Layers that pass on each feature separately: pooling, dropout, cropping, padding."""

from __future__ import annotations

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.graph import Node
from snip_tf.graph.rules.rule import Groups, Rule, feature_count


class Passing(Rule):
    """Features passed on separately, each to the same index of the output.

    A constant keeps its value.
    """

    @classmethod
    def accepts(cls, node: Node) -> bool:
        return super().accepts(node) and same_features(node)

    def constants(self, inputs: Arrays) -> Arrays:
        return inputs

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        return needed

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        return kept

    def raise_to_minimum(
        self, given: Arrays, kept: Arrays, constants: Arrays
    ) -> Arrays:
        return kept if self.worth_a_gather(given[0], kept[0]) else given

    def coupled(self) -> tuple[Groups, Groups]:
        features = np.arange(feature_count(self.outputs[0]))
        return [features], [features]

    def reads(self, edit: Edit) -> Arrays:
        return edit.outputs

    def smaller(self, edit: Edit) -> keras.Operation:
        # An operation of `keras.ops` does not depend on the number of features.
        if edit.keeps_all() or not isinstance(self.operation, keras.Layer):
            return edit.copy(self.operation)
        return edit.like(self.operation)


class PassingOnlyZeros(Passing):
    """The same for layers that pad with zeros or interpolate.

    A nonzero constant does not stay constant.
    """

    def constants(self, inputs: Arrays) -> Arrays:
        return [np.where(inputs[0] == 0, 0.0, np.nan)]


def same_features(node: Node) -> bool:
    """Returns whether all inputs and outputs of a call have equally many features."""
    made = keras.tree.flatten(node.outputs)
    return len({feature_count(tensor) for tensor in (*node.inputs(), *made)}) == 1
