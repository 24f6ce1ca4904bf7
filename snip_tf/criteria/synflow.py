"""SynFlow: synaptic flow, without data (Tanaka et al., NeurIPS 2020)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from snip_tf import _backend
from snip_tf._keras import logits_of
from snip_tf.checks import check_count
from snip_tf.criteria.base import Criterion, ScoringContext
from snip_tf.scoring.calling import OfOutputs
from snip_tf.scoring.examples import Batch
from snip_tf.scoring.forward import Pass, Tensors, value_in_full
from snip_tf.scoring.gradients import gradient
from snip_tf.scoring.made_up_inputs import check_has_call, made_up_inputs
from snip_tf.scoring.objective import Part
from snip_tf.scoring.precision import computing_in, in_float64
from snip_tf.weights import is_stateful, layer_tree, values_of


@dataclasses.dataclass(frozen=True)
class SynFlow(Criterion):
    """How much of the flow from the inputs to the outputs a connection carries.

        s_j = |w_j| * dR/d|w_j|,   R = sum of the outputs f(1; |w|)

    with the magnitudes of all variables, and an input of ones. In each of T steps the
    scores are of the network so far, and after step t the fraction keep^(t / T) is
    kept. The scores of each layer sum to R (without biases, and with activations such
    as ReLU), so that a small layer is not cut off by a large one. Neither data nor a
    loss is needed, only an input of the right shape.

    Where the flow is not a product of weights, as in an LSTM, in gates, in attention,
    or after a LayerNormalization, which turns ones into zeros, the sums differ and a
    layer can be cut off: `min_kept=1` prevents it.

    Computed in float64, since R is a sum over all paths. A final softmax or sigmoid is
    left out, and so are shifts (Rescaling, Normalization, BatchNormalization). Where an
    activation saturates (ReLU6, tanh), the input is made smaller.

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
        check_count("steps", self.steps)

    def __call__(self, context: ScoringContext) -> dict[str, np.ndarray]:
        """Returns the scores of one step."""
        batches = list(context.batches)
        check_has_call(context.model, "synflow")
        _check_numbers(context.model, batches)
        return _flow(context, _ones_for(context.model, batches))


def _flow(context: ScoringContext, x: Any) -> dict[str, np.ndarray]:
    """Returns w * dR/dw, R the sum of the outputs with the magnitudes of all variables.

    Where nothing flows through a weight, an activation may be saturated: then smaller
    inputs are tried, which without biases scale R and leave the order unchanged.
    """
    best: dict[str, np.ndarray] = {}
    for scale in _INPUT_SCALES:
        scores = _flow_of(context, _scaled(x, scale))
        if not best or _alive(scores) > _alive(best):
            best = scores
        if _alive(best) == len(context.weights):
            break
    return best


# Powers of two, since multiplying floats by them is exact.
_INPUT_SCALES = (1.0, 2.0**-100, 2.0**-400)


def _alive(scores: Mapping[str, np.ndarray]) -> int:
    """Returns how many weights have a score that is more than rounding.

    Such as that of attention's queries and keys, which an input of ones leaves at zero.
    """
    largest = [float(np.abs(score).max(initial=0)) for score in scores.values()]
    return sum(one > _ROUNDING * max(largest) for one in largest)


# Of the largest score. The scores of each layer add up to the same.
_ROUNDING = 1e-12


def _scaled(x: Any, scale: float) -> Any:
    def scaled(array: Any) -> Any:
        array = _backend.on_host(array)
        is_float = (
            np.can_cast(array.dtype, np.float64) and array.dtype.kind not in "iub"
        )
        return array.astype(np.float64) * scale if is_float else array

    return keras.tree.map_structure(scaled, x)


def _flow_of(context: ScoringContext, x: Any) -> dict[str, np.ndarray]:
    try:
        flow, gradients = _flow_in("float64", context, x)
    except _backend.OPERATION_ERRORS as error:
        if not _is_of_double(error):
            raise
        # A layer with constants of its own in float32, say.
        flow, gradients = _flow_in("float32", context, x)
    if not math.isfinite(flow := float(flow)):
        raise ValueError(
            f"Expected a finite flow through the network. Received: {flow} with "
            f"an input of ones. With this many layers, or weights this large, SynFlow "
            f"cannot score them."
        )
    scores = {}
    for path, found in gradients.items():
        weight = np.abs(values_of(context.weights[path]))
        kept = context.masks.get(path, True)
        scores[path] = weight * kept * keras.ops.convert_to_numpy(found)
    return scores


def _flow_in(dtype: str, context: ScoringContext, x: Any) -> tuple[Any, Tensors]:
    """Returns R and its gradient, computed without subtracting means."""
    model = context.model
    subtracted = {
        id(layer.moving_mean)
        for layer in layer_tree(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    }

    def magnitude(variable: keras.Variable) -> Any:
        value = keras.ops.abs(keras.ops.cast(value_in_full(variable), dtype))
        return keras.ops.zeros_like(value) if id(variable) in subtracted else value

    flow = OfOutputs(model, "flow", _sum_of_logits)
    run = Pass(model, context.weights, flow, context.masks, gradient, magnitude)
    with in_float64(), computing_in(dtype, model), _without_shifts(model):
        return run((x, None, None), Part(None))


def _sum_of_logits(outputs: list[Any]) -> Any:
    """Returns R: a final softmax or sigmoid is left out, since it would bound R."""
    sums = [keras.ops.sum(keras.ops.cast(logits_of(y), "float64")) for y in outputs]
    return functools.reduce(operator.add, sums)


@contextlib.contextmanager
def _without_shifts(model: keras.Model) -> Iterator[None]:
    """Has preprocessing layers neither add nor subtract, for a while.

    Shifts could make the flow negative.
    """
    changed = []
    for layer in layer_tree(model):
        if isinstance(layer, keras.layers.Rescaling):
            changed.append((layer, "offset", layer.offset, 0.0))
        elif isinstance(layer, keras.layers.Normalization) and layer.mean is not None:
            changed.append(
                (layer, "mean", layer.mean, keras.ops.zeros_like(layer.mean))
            )
    try:
        for layer, name, _, value in changed:
            setattr(layer, name, value)
        yield
    finally:
        for layer, name, before, _ in reversed(changed):
            setattr(layer, name, before)


def _is_of_double(error: Exception) -> bool:
    """Returns whether an error says that double precision is not supported.

    TensorFlow has no error class for this, but always names the type (and so does what
    Keras appends about the arguments of the call). The exceptions are grouped
    convolutions, whose gradients exist on CPUs in single precision only.
    """
    words = str(error.__cause__ or error).partition("Arguments received by")[0]
    return re.search("double|float64|grouped conv", words, re.IGNORECASE) is not None


def _ones_for(model: keras.Model, batches: Iterable[Batch]) -> Any:
    """Returns ones for one example, or for a whole batch if the model is stateful."""
    examples = None if is_stateful(model) else 1
    return made_up_inputs(model, batches, examples, keras.ops.ones)


def _check_numbers(model: keras.Model, batches: list[Batch]) -> None:
    """Raises a ValueError if the model takes text instead of numbers."""
    inputs = batches[0][0] if batches else getattr(model, "inputs", None)
    types = [leaf.dtype for leaf in keras.tree.flatten(inputs) if leaf is not None]
    # A dtype of NumPy or of TensorFlow, or its name.
    if any(getattr(t, "kind", "") in tuple("OSU") or "string" in str(t) for t in types):
        raise ValueError(
            f"Expected a model that takes numbers with criterion='synflow', which "
            f"scores with ones for an input. Received: model={model.name!r}, which "
            f"takes text (type string). Prune the model behind the layer that reads "
            f"the text, or use 'snip', 'iterative_snip', 'force' or 'grasp', with "
            f"data, or 'magnitude' or 'random', without."
        )
