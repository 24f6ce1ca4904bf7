"""GraSP: what keeps the gradient flowing (Wang, Zhang & Grosse, ICLR 2020)."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf._keras import logits_of, mask_on, put_mask_on
from snip_tf.checks import check_number
from snip_tf.criteria.base import Criterion, ScoringContext
from snip_tf.scoring.calling import warn_caller
from snip_tf.scoring.data_loss import Adjustment
from snip_tf.scoring.forward import LossAt, Tensors
from snip_tf.scoring.gradients import gradient, naming_alternatives
from snip_tf.scoring.losses import built_in, name_of
from snip_tf.weights import values_of

_FIRST_ORDER = "'snip', 'iterative_snip' and 'force' need only a first one"


@dataclasses.dataclass(frozen=True)
class Grasp(Criterion):
    """How much the norm of the gradient falls when a connection is removed.

        s = w * (H g),   g = dL/dw,   H the Hessian of L by w

    This is, to first order, what |g|^2 / 2 loses without the connection, so the largest
    are kept. (The paper writes -w * H g, and removes the largest.) Logits of a
    cross-entropy are divided by a temperature, as at initialization the outputs say
    nothing yet. H g is exact, in about twice the memory of a gradient. Scores are
    signed.

    Args:
        temperature: float, above 0; the paper uses 200, and 10 examples of each class
            (`snip_tf.sample_per_class`).

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.random.rand(32, 8), np.random.randint(4, size=32)
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> pruned = snip_tf.prune_model(
    ...     model, x, y, sparsity=0.75, loss=loss, criterion="grasp"
    ... )

    Reference: Wang et al., "Picking winning tickets before training by preserving
    gradient flow", ICLR 2020, https://arxiv.org/abs/2002.07376
    """

    temperature: float = 200.0

    def __post_init__(self):
        check_number("temperature", self.temperature, above=0)

    def __call__(self, context: ScoringContext) -> dict[str, np.ndarray]:
        """Returns the scores."""
        context = dataclasses.replace(context, batches=list(context.batches))
        adjust = _Temperature(self.temperature) if self.temperature != 1 else None
        products = hessian_products(context, context.gradients(adjust), adjust)
        return {
            path: values_of(weight, np.float32) * _backend.as_array(products.pop(path))
            for path, weight in context.weights.items()
        }


def hessian_products(
    context: ScoringContext,
    direction: Mapping[str, Any],
    adjust: Adjustment | None = None,
) -> Tensors:
    """Returns H v, the Hessian of the loss by the weights times a vector, averaged.

    Exact, as the gradient of the inner product of v and the gradient:

        (H v)_j = d(sum_k v_k * dL/dw_k) / dw_j

    in about twice the time and the memory of a gradient, whatever the number of
    weights.

    Args:
        context: the model, the weights and the data.
        direction: `{weight path: array}`, v, of the shapes of the weights.
        adjust: changes the model's output before it is passed to the loss.

    Returns:
        `{weight path: tensor}` of the weights' shapes.

    Raises:
        ValueError: if an operation has no second derivative, or none that is finite.
    """

    def product(loss_at: LossAt, values: Tensors, what: str) -> tuple[Any, Tensors]:
        def along_direction(values: Tensors) -> tuple[Any, Any]:
            loss, gradients = gradient(loss_at, values, what)
            return _inner_product(gradients, direction), loss

        # Here, since each replica runs this in a thread of its own.
        with (
            naming_alternatives("a second derivative", _FIRST_ORDER),
            _backend.second_derivatives(),
        ):
            _, loss, products = _backend.differentiate(along_direction, values)
        # Zero for weights in which the loss is linear, jointly with all others.
        return loss, {
            path: keras.ops.zeros_like(values[path]) if p is None else p
            for path, p in products.items()
        }

    products = context.mean(product, adjust)
    _check_finite(products, direction)
    return products


def _inner_product(gradients: Tensors, direction: Mapping[str, Any]) -> Any:
    products = [
        gradients[path] * keras.ops.cast(v, gradients[path].dtype)
        for path, v in direction.items()
    ]
    return functools.reduce(operator.add, map(keras.ops.sum, products))


def _check_finite(products: Tensors, direction: Mapping[str, Any]) -> None:
    """Raises if second derivatives are not finite though the first ones are."""
    bad = [path for path, product in products.items() if not _is_finite(product)]
    if bad and all(map(_is_finite, direction.values())):
        raise ValueError(
            f"Expected a finite second derivative, which the criterion 'grasp' needs. "
            f"Received: NaN or infinity in that of {', '.join(bad)}, though the loss "
            f"and its first derivative are finite. Some operations have none, such as "
            f"the loss CTC. Use another criterion: {_FIRST_ORDER}."
        )


def _is_finite(tensor: Any) -> bool:
    return bool(keras.ops.all(keras.ops.isfinite(tensor)))


@dataclasses.dataclass(frozen=True)
class _Temperature:
    """Divides the logits of a cross-entropy; an `Adjustment`."""

    temperature: float

    def __call__(self, loss: Any, y_pred: Any) -> Any:
        """Returns the outputs with their logits divided by the temperature."""
        found = built_in(loss)
        if found is None:  # a custom function may take anything
            self.is_not_used(f"the loss {name_of(loss)!r} is not a built-in Keras loss")
            return y_pred
        function, settings = found
        name = function.__name__
        if not name.endswith(("crossentropy", "cross_entropy")):
            return y_pred
        if settings.get("axis", -1) not in (-1, len(y_pred.shape) - 1):
            self.is_not_used("the classes are not along the last axis")
            return y_pred
        if settings.get("from_logits", False):
            tempered = logits_of(y_pred) / self.temperature
        else:
            tempered = self._probabilities(y_pred, binary=name.startswith("binary"))
        if mask_on(y_pred) is not None:
            put_mask_on(tempered, mask_on(y_pred))
        return tempered

    def _probabilities(self, y_pred: Any, binary: bool) -> Any:
        known = logits_of(y_pred)
        if known is y_pred:
            # Clipped away from 0 and 1 by as much as in Keras' losses.
            least = keras.config.epsilon()
            inside = keras.ops.clip(y_pred, least, 1 - least)
            known = keras.ops.log(inside)
            known -= keras.ops.log1p(-inside) if binary else 0
        activation = keras.ops.sigmoid if binary else keras.ops.softmax
        return activation(known / self.temperature)

    def is_not_used(self, why: str) -> None:
        """Warns that the temperature is not used."""
        warn_caller(f"The temperature of {self.temperature:g} is not used: {why}.")
