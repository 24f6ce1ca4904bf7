"""Wanda: weights and activations, for trained networks (Sun et al., ICLR 2024)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import numpy as np

from snip_tf.checks import list_of, visible
from snip_tf.criteria.base import Criterion, ScoringContext
from snip_tf.scoring.inputs_of_weights import input_squares
from snip_tf.weights import layer_tree, values_of


@dataclasses.dataclass(frozen=True)
class Wanda(Criterion):
    """The magnitude of each weight times the norm of its input.

        s_ij = |w_ij| * ||X_j||_2

    where X_j is what the connection multiplies, over all examples of the mini-batches
    and all positions: the activations of an input unit of a dense layer, the pixels
    that an entry of a convolution's kernel meets. Meant for trained networks, which are
    not trained afterwards, with the outputs ranked by themselves (`scope="unit"`) or
    N:M. It needs inputs and no targets; one forward pass finds the norms, whatever the
    layer, in the memory of one number for each input.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x = np.random.rand(32, 8)
    >>> pruned = snip_tf.prune_model(
    ...     model, x, sparsity=0.5, criterion="wanda", scope="unit"
    ... )
    >>> snip_tf.sparsity(pruned)
    0.5

    Reference: Sun et al., "A simple and effective pruning approach for large language
    models", ICLR 2024, https://arxiv.org/abs/2306.11695
    """

    changes_layers: ClassVar[bool] = True  # recurrent ones, to see each step

    def __call__(self, context: ScoringContext) -> dict[str, np.ndarray]:
        """Returns the scores."""
        for layer in layer_tree(context.model):
            if isinstance(layer, keras.layers.RNN):
                # Else a backend may run its steps at once.
                layer.unroll, layer.use_cudnn = True, False
        squares = input_squares(
            context.model, context.weights, context.batches, context.training
        )
        unseen = [visible(path) for path in context.weights if path not in squares]
        if unseen:
            raise ValueError(
                f"Expected weights that the model multiplies its activations by, with "
                f"operations of keras.ops, when it is called. Received: "
                f"{list_of(unseen)}, whose inputs were not seen. Leave them out with "
                f"exclude={unseen}, or use another criterion, such as 'snip'."
            )
        return {
            path: np.abs(values_of(weight)) * np.sqrt(squares[path])
            for path, weight in context.weights.items()
        }
