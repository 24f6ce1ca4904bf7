"""Embeddings."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from snip_tf.graph.edit import Arrays, Edit
from snip_tf.graph.rules.rule import Groups, Rule, feature_count


class Embedding(Rule):
    """A lookup table, whose columns are features; nothing is multiplied."""

    def _table(self) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.operation.embeddings)

    def constants(self, inputs: Arrays) -> Arrays:
        table = self._table()
        table = np.where(np.abs(table) > self.tolerance, table, 0)
        return [np.where((table == table[0]).all(axis=0), table[0], np.nan)]

    def kept(self, needed: Arrays, constants: Arrays) -> Arrays:
        return needed

    def coupled(self) -> tuple[Groups, Groups]:
        return [np.zeros(feature_count(self.inputs[0]), int)], [None]

    def smaller(self, edit: Edit) -> keras.Operation:
        if edit.keeps_all():
            return edit.copy(self.operation)
        return edit.like(self.operation, output_dim=int(edit.outputs[0].sum()))

    def fill(self, operation: Any, edit: Edit) -> None:
        operation.embeddings.assign(self._table()[:, edit.outputs[0]])
