"""The state that optimizers keep for each weight, and how they respect masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras

from snip_tf import _keras
from snip_tf.masking.masked_weights import masked_value, remove
from snip_tf.network import mask_of

# The least that Adafactor adds to squared gradients of a pruned weight.
_LEAST_SQUARE = 1e-15
# The least product of a row mean and a column mean that is safe without it.
_LEAST_PRODUCT = 1e-35


def optimizers_of(layers: Iterable[keras.Layer]) -> list[keras.Optimizer]:
    """Returns the optimizers of models, including those of custom training steps.

    The latter are attributes, as in a GAN with one for each of its parts.
    """
    return [
        optimizer
        for layer in layers
        for value in list(vars(layer).values())
        for optimizer in _optimizers_in(value)
    ]


def _optimizers_in(value: Any) -> Iterator[keras.Optimizer]:
    if isinstance(value, keras.Optimizer):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _optimizers_in(part)


def reset_slots(optimizer: keras.Optimizer, weight: keras.Variable, kept: Any) -> None:
    """Resets the state that an optimizer keeps for connections.

    Args:
        optimizer: of the model.
        weight: the weight.
        kept: bool array of its shape; where it is True, the slots stay.
    """
    for slot, start in _slots(optimizer, weight):
        if tuple(slot.shape) == tuple(weight.shape):
            slot.assign(keras.ops.where(kept, keras.ops.convert_to_tensor(slot), start))


def _slots(
    optimizer: Any, weight: keras.Variable
) -> Iterator[tuple[keras.Variable, float]]:
    """Yields the state that an optimizer keeps for a weight, and its initial value.

    Keras keeps momenta, averages and accumulated gradients in lists in the order of the
    weights.
    """
    attributes, weights = dict(vars(optimizer)), _keras.trained_by(optimizer)
    position = next((i for i, w in enumerate(weights) if w is weight), None)
    for name, value in attributes.items():
        if isinstance(value, keras.Optimizer):  # wrapped by one that scales the loss
            yield from _slots(value, weight)
        elif not isinstance(value, (list, tuple)) or value is weights:
            continue
        elif all(isinstance(part, keras.Optimizer) for part in value):
            for part in value:
                yield from _slots(part, weight)
        elif position is not None and len(value) == len(weights):
            slot = value[position]
            if isinstance(slot, keras.Variable):
                yield slot, _keras.first_value(optimizer, name)


@functools.cache
def adapt_optimizers() -> None:
    """Makes Keras' optimizers respect masks where a constraint comes too late.

    A constraint is applied at the end of a step, and Keras has no other hook. For
    weights without a mask, or with one that keeps everything, these methods are
    unchanged.
    """
    base = keras.Optimizer
    base.apply = _with_zeros_in_averages(base.apply)
    base.load_own_variables = _with_zeros_in_averages(base.load_own_variables)
    base.finalize_variable_values = _with_zeros(base.finalize_variable_values)
    adafactor = keras.optimizers.Adafactor
    adafactor.update_step = _without_zero_by_zero(adafactor.update_step)


def _with_zeros_in_averages(method: Callable) -> Callable:
    """Wraps a method of an optimizer to zero its averages where weights are removed.

    `apply` averages before the constraint zeros what an optimizer that mixes
    connections, such as Muon, wrote into removed ones; and the file of a model that is
    not pruned has averages of all weights.
    """

    @functools.wraps(method)
    def method_with_zeros(self, *args, **kwargs):
        result = method(self, *args, **kwargs)
        for weight, average in _keras.averages_of(self):
            mask = mask_of(weight)
            if mask is not None:
                average.assign(masked_value(average, mask))
        return result

    return method_with_zeros


def _with_zeros(finalize: Callable) -> Callable:
    """Wraps `Optimizer.finalize_variable_values` to zero removed weights.

    In a custom training loop `set_masks` does not know the optimizer, whose averages
    predate the masks.
    """

    @functools.wraps(finalize)
    def finalize_with_zeros(self, var_list):
        finalize(self, var_list)
        for weight in var_list:
            if mask_of(weight) is not None and _keras.has_value(weight):
                remove(weight)

    return finalize_with_zeros


def _without_zero_by_zero(update_step: Callable) -> Callable:
    """Wraps Adafactor's `update_step` to stay finite where whole rows are removed.

    It divides a gradient by the root of the product of its row mean and its column
    mean, each 1e-30 (`epsilon_1`) where all gradients are zero: 0 / 0 in float32, which
    spreads over the whole weight. So `epsilon_1` is raised where any connection is
    removed, or where pruning around a weight leaves it such a row and column.
    """

    @functools.wraps(update_step)
    def finite_update_step(self, gradient, variable, learning_rate):
        # (This receives TensorFlow's variable, but Keras' variable has the mask.)
        masks = [mask_of(weight) for weight in _keras.trained_by(self)]
        if all(mask is None for mask in masks):
            return update_step(self, gradient, variable, learning_rate)
        mask = masks[_keras.position_in(self, variable)]
        own = self.epsilon_1
        more = keras.ops.cast(max(own, _LEAST_SQUARE), variable.dtype)
        needs_more = _has_least_product(gradient, own)
        if mask is not None:
            needs_more |= ~keras.ops.all(keras.ops.convert_to_tensor(mask))
        own_or_more = keras.ops.where(needs_more, more, own)
        self.epsilon_1 = keras.ops.cast(own_or_more, variable.dtype)
        try:
            return update_step(self, gradient, variable, learning_rate)
        finally:
            self.epsilon_1 = own

    return finite_update_step


def _has_least_product(gradient: Any, epsilon: float) -> Any:
    """Returns whether Adafactor divides by about zero in a row and a column."""
    squares = keras.ops.square(keras.ops.cast(gradient, "float32"))
    squares = keras.ops.add(squares, epsilon)  # a sparse gradient becomes a tensor
    if len(gradient.shape) < 2:
        return keras.ops.min(squares) < _LEAST_PRODUCT
    row, column = (keras.ops.min(keras.ops.mean(squares, axis=i)) for i in (-1, -2))
    return row * column < _LEAST_PRODUCT
