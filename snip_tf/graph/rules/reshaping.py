"""Flatten and Reshape."""

from __future__ import annotations

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.graph import Node
from snip_tf.graph.rules.rule import Groups, Rule, feature_count


class Reshaping(Rule):
    """Features at other positions: the same number, or from or to a flat tensor.

    A flat tensor has features interleaved: feature i of the n features of the other
    tensor is at i, i + n, i + 2n, ...
    """

    @classmethod
    def accepts(cls, node: Node) -> bool:
        before, after = node.inputs()[0], node.outputs
        if not super().accepts(node) or None in (*before.shape[1:], *after.shape[1:]):
            return False
        is_flat = 2 in (len(before.shape), len(after.shape))
        return is_flat or feature_count(before) == feature_count(after)

    @property
    def _in(self) -> int:
        return feature_count(self.inputs[0])

    @property
    def _out(self) -> int:
        return feature_count(self.outputs[0])

    def constants(self, inputs: Arrays) -> Arrays:
        [known] = inputs
        if self._out >= self._in:
            return [np.tile(known, self._out // self._in)]
        places = known.reshape(-1, self._out)
        return [np.where((places == places[0]).all(axis=0), places[0], np.nan)]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        return [self._spread(self._features(needed[0]), self._out)]

    def needed(self, kept: Arrays, constants: Arrays) -> Arrays:
        return [self._spread(self._features(kept[0]), self._in)]

    def raise_to_minimum(
        self, given: Arrays, kept: Arrays, constants: Arrays
    ) -> Arrays:
        [wanted] = self.needed(kept, constants)
        if self.worth_a_gather(given[0], wanted):
            return kept
        # All positions of a feature stay, even where only some are given.
        return [self._spread(self._features(given[0]), self._out)]

    def coupled(self) -> tuple[Groups, Groups]:
        features = np.arange(min(self._in, self._out))
        return [self._spread(features, self._in)], [self._spread(features, self._out)]

    def reads(self, edit: Edit) -> Arrays:
        return [self._spread(self._features(edit.outputs[0]), self._in)]

    def smaller(self, edit: Edit) -> keras.Operation:
        layer = self.operation
        if edit.keeps_all() or isinstance(layer, keras.layers.Flatten):
            return edit.like(layer)
        kept = int(edit.outputs[0].sum())
        return edit.like(layer, target_shape=(*layer.target_shape[:-1], kept))

    def _features(self, keep: np.ndarray) -> np.ndarray:
        """Returns which features are kept at any position."""
        return np.any(keep.reshape(-1, min(self._in, self._out)), axis=0)

    def _spread(self, features: np.ndarray, size: int) -> np.ndarray:
        return np.tile(features, size // features.size)
