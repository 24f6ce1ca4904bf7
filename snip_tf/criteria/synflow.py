"""SynFlow: synaptic flow, without data (Tanaka et al., NeurIPS 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from snip_tf.checks import check_steps
from snip_tf.scoring.batches import Batch, ones_for
from snip_tf.scoring.gradients import flow
from snip_tf.weights import has_call


@dataclasses.dataclass(frozen=True)
class SynFlow:
    """How much of the flow from the inputs to the outputs a connection carries.

        s_j = |w_j| * dR/d|w_j|,   R = sum of the outputs f(1; |w|)

    with the magnitude of every variable, and ones for an input. In each of T steps the
    scores are of the network so far, and after step t the fraction keep^(t / T) is
    kept. The scores of each layer sum to R (without biases, and with activations such
    as ReLU), so that a small layer is not cut off by a large one. Neither data nor a
    loss is needed, only an input of the right shape.

    Where the flow is not a product of weights, as in an LSTM, in gates, in attention,
    or behind a LayerNormalization, which makes ones to zeros, the sums differ, and a
    layer can be cut off: `min_kept=1` prevents it.

    In float64: R is a sum over all paths. A final softmax or sigmoid is left out, and
    shifts are (Rescaling, Normalization, BatchNormalization). Where an activation is
    saturated (ReLU6, tanh), the input is made smaller.

    Args:
        steps: int, T; the paper uses 100.

    Example:

    >>> import keras, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ten = snip_tf.criteria.SynFlow(steps=10)
    >>> pruned = snip_tf.prune_model(model, sparsity=0.75, criterion=ten)
    >>> snip_tf.sparsity(pruned)
    0.75

    Reference: Tanaka et al., "Pruning neural networks without any data by iteratively
    conserving synaptic flow", NeurIPS 2020, https://arxiv.org/abs/2006.05467
    """

    steps: int = 100
    needs_data: ClassVar[bool] = False
    changes_layers: ClassVar[bool] = True  # to compute in float64

    def __post_init__(self):
        check_steps(self.steps)

    def __call__(
        self,
        model: keras.Model,
        weights: Mapping[str, keras.Variable],
        batches: Iterable[Batch],
        *,
        loss: Any = None,
        training: bool = False,
        masks: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """The scores of one step; see `snip_tf.criteria`."""
        del loss, training
        batches = list(batches)
        _check_has_call(model)
        _check_numbers(model, batches)
        return flow(model, weights, ones_for(model, batches), masks)


def _check_has_call(model: keras.Model) -> None:
    """Raises a ValueError if the model only holds others, and nothing flows."""
    if has_call(model):
        return
    raise ValueError(
        f"Expected a model with a `call` with criterion='synflow', which scores by "
        f"what flows from inputs to outputs. Received: model={model.name!r} of class "
        f"{type(model).__name__}, which has no `call`. Prune its parts, each by "
        f"itself, or use 'magnitude' or 'random', or another criterion with data and "
        f"an `objective`."
    )


def _check_numbers(model: keras.Model, batches: list[Batch]) -> None:
    """Raises a ValueError if the model takes text, of which there are no ones."""
    inputs = batches[0][0] if batches else getattr(model, "inputs", None)
    types = [leaf.dtype for leaf in keras.tree.flatten(inputs) if leaf is not None]
    # Of NumPy, of TensorFlow, or a name.
    if any(getattr(t, "kind", "") in tuple("OSU") or "string" in str(t) for t in types):
        raise ValueError(
            f"Expected a model that takes numbers with criterion='synflow', which "
            f"scores with ones for an input. Received: model={model.name!r}, which "
            f"takes text (type string). Prune the model behind the layer that reads "
            f"the text, or use 'snip', 'iterative_snip', 'force' or 'grasp', with "
            f"data, or 'magnitude' or 'random', without."
        )
