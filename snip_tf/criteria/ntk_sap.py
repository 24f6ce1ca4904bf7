"""NTK-SAP: what leaves the training dynamics as they are (Wang et al., ICLR 2023)."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from snip_tf import _backend
from snip_tf.checks import check_count, check_number, check_seed
from snip_tf.criteria.base import Criterion, ScoringContext
from snip_tf.scoring.calling import OfOutputs
from snip_tf.scoring.forward import LossAt, Pass, Tensors
from snip_tf.scoring.made_up_inputs import check_has_call, made_up_inputs
from snip_tf.scoring.objective import Part
from snip_tf.scoring.precision import computing_in


@dataclasses.dataclass(frozen=True)
class NtkSap(Criterion):
    """How much the spectrum of the neural tangent kernel depends on a connection.

        s_j = |dR/dm_j|,   R = sum over x of ||f(x; m * w) - f(x; m * (w + e))||^2

    averaged over mini-batches of standard normal inputs x and normal perturbations e of
    standard deviation `epsilon`, each with weights w drawn anew (normal, of variance 2
    / inputs), so that the masks depend on the network alone, not on its weights. After
    step t of T the fraction keep^(t / T) is kept. For research: it needs neither data
    nor a loss, and many passes.

    Args:
        steps: int, T.
        batches: int, mini-batches of inputs and weights in each step.
        batch_size: int, inputs in a mini-batch.
        epsilon: float, the standard deviation of the perturbation.
        seed: int, 0 or more. None takes the `seed` of `prune_model`, or else draws with
            NumPy's global generator.

    Example:

    >>> import keras, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> few = snip_tf.criteria.NtkSap(steps=4)
    >>> pruned = snip_tf.prune_model(model, sparsity=0.75, criterion=few)
    >>> snip_tf.sparsity(pruned)
    0.75

    Reference: Wang et al., "NTK-SAP: improving neural network pruning by aligning
    training dynamics", ICLR 2023, https://arxiv.org/abs/2304.02840
    """

    steps: int = 20
    batches: int = 5
    batch_size: int = 64
    epsilon: float = 0.01
    seed: int | None = None
    needs_data: ClassVar[bool] = False

    def __post_init__(self):
        check_count("steps", self.steps)
        check_count("batches", self.batches)
        check_count("batch_size", self.batch_size)
        check_number("epsilon", self.epsilon, above=0)
        check_seed(self.seed)

    def __call__(self, context: ScoringContext) -> dict[str, np.ndarray]:
        """Returns the scores of one step."""
        check_has_call(context.model, "ntk_sap")
        seed = context.seed if self.seed is None else self.seed
        left = sum(int(mask.sum()) for mask in context.masks.values())
        entropy = np.random.randint(2**32) if seed is None else [seed, left]
        rng = np.random.default_rng(entropy)
        total = {p: np.zeros(w.shape, np.float32) for p, w in context.weights.items()}
        for _ in range(self.batches):
            for path, found in self._derivatives(context, rng).items():
                total[path] += np.abs(_backend.on_host(found)) / self.batches
        return total

    def _derivatives(
        self, context: ScoringContext, rng: np.random.Generator
    ) -> Mapping[str, Any]:
        x = made_up_inputs(
            context.model, context.batches, self.batch_size, _normal(rng)
        )
        run = Pass(
            context.model,
            context.weights,
            OfOutputs(context.model, "output", _in_full),
            {},
            functools.partial(_by_masks, context, rng, self.epsilon),
        )
        with computing_in("float32", context.model):
            return run((x, None, None), Part(None))[1]


def _by_masks(
    context: ScoringContext,
    rng: np.random.Generator,
    epsilon: float,
    loss_at: LossAt,
    values: Tensors,
    what: str,
) -> tuple[Any, Tensors]:
    """Returns R and its derivatives by the masks, a `Derivative`."""
    del what
    drawn, moved, masks = {}, {}, {}
    for path, value in values.items():
        shape = tuple(value.shape)
        inputs = max(1, int(np.prod(shape[:-1])))
        w = rng.normal(scale=np.sqrt(2 / inputs), size=shape)
        drawn[path] = _constant(w)
        moved[path] = _constant(w + rng.normal(scale=epsilon, size=shape))
        masks[path] = _constant(context.masks.get(path, np.ones(shape)))

    def distance(at: Tensors) -> tuple[Any, None]:
        outputs = [
            loss_at({path: at[path] * weights[path] for path in at})
            for weights in (drawn, moved)
        ]
        pairs = zip(*outputs, strict=True)
        squares = [keras.ops.sum(keras.ops.square(a - b)) for a, b in pairs]
        return functools.reduce(operator.add, squares), None

    value, _, found = _backend.differentiate(distance, masks)
    zeros = {path: keras.ops.zeros_like(masks[path]) for path in masks}
    return value, {p: zeros[p] if g is None else g for p, g in found.items()}


def _constant(array: np.ndarray) -> Any:
    return keras.ops.convert_to_tensor(array.astype(np.float32))


def _normal(rng: np.random.Generator) -> Any:
    def make(shape: list[int], dtype: Any) -> Any:
        name = keras.backend.standardize_dtype(dtype)
        if not keras.backend.is_float_dtype(name):
            raise ValueError(
                f"Expected a model that takes real numbers with criterion='ntk_sap', "
                f"whose inputs are drawn from a normal distribution. Received: inputs "
                f"of type {name}. Use another criterion, such as 'snip'."
            )
        return _constant(rng.normal(size=shape))

    return make


def _in_full(outputs: list[Any]) -> list[Any]:
    return [keras.ops.cast(output, "float32") for output in outputs]
