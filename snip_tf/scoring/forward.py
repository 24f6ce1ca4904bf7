"""A forward pass on substituted variables, which leaves the variables unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf._keras import is_traced_for_one_call
from snip_tf.masking.inlining import functions_inlined, inlined
from snip_tf.network import mask_of
from snip_tf.scoring.examples import Batch
from snip_tf.scoring.objective import Part, Scored

Tensors = dict[str, Any]
LossAt = Callable[[Tensors], Any]
# From the loss as a function, the values it depends on, and its name for errors: the
# loss and a tensor for each value.
Derivative = Callable[[LossAt, Tensors, str], tuple[Any, Tensors]]

_HALF = ("float16", "bfloat16")


def value_in_full(variable: keras.Variable) -> Any:
    """Returns the value, in float32 if it is stored in half precision."""
    value = _backend.value_of(variable)
    return keras.ops.cast(value, "float32") if variable.dtype in _HALF else value


@dataclasses.dataclass(frozen=True)
class Pass:
    """The loss on a mini-batch, and a derivative of it.

    Args:
        model: the model that is scored.
        weights: `{weight path: variable}` to differentiate by.
        scored: computes the loss.
        masks: `{weight path: bool array}` that the weights are multiplied by.
        derivative: computes it.
        value: returns the value to use for a variable, which itself is not changed.
        revives: whether connections that the model's own masks remove get derivatives,
            too, as if each came back with the value zero.
    """

    model: keras.Model
    weights: Mapping[str, keras.Variable]
    scored: Scored
    masks: Mapping[str, np.ndarray]
    derivative: Derivative
    value: Callable[[keras.Variable], Any] = value_in_full
    revives: bool = False

    def __call__(self, batch: Batch, part: Part) -> tuple[Any, Tensors]:
        """Returns the loss and the derivative on a mini-batch."""
        # Here, since each replica runs this in a thread of its own.
        with inlined(self.model):
            try:
                return self._derived(batch, part, inlined=False)
            except _ReadByFunction:
                with functions_inlined():
                    return self._derived(batch, part, inlined=True)

    def _derived(self, batch: Batch, part: Part, inlined: bool) -> tuple[Any, Tensors]:
        variables = self.model.variables
        known = {id(weight) for weight in self.weights.values()}
        others = [(v, self._value_of(v)) for v in variables if id(v) not in known]
        if self.revives:
            # The weights have zeros where these masks do.
            masks = map(mask_of, self.weights.values())
            others += [
                (m, keras.ops.ones(m.shape, "bool")) for m in masks if m is not None
            ]
        own = {id(variable.value) for variable in variables}

        def loss_at(values: Tensors) -> Any:
            # The scope substitutes every variable, so the variables themselves, which
            # may be mirrored over replicas, are not used.
            given = [(weight, values[path]) for path, weight in self.weights.items()]
            scope = _Scope(given + others, known)
            with scope, _backend.variables_read() as read_past_scope:
                loss = self.scored(batch, scope.losses, part)
            if read_past_scope() & own and not inlined:
                raise _ReadByFunction
            return loss

        return self.derivative(loss_at, self._values(), self.scored.what)

    def _values(self) -> Tensors:
        values = {}
        for path, weight in self.weights.items():
            values[path] = self.value(weight)
            if path in self.masks:
                mask = keras.ops.cast(self.masks[path], values[path].dtype)
                values[path] *= mask
        return values

    def _value_of(self, variable: keras.Variable) -> Any:
        is_float = variable.dtype.startswith(("float", "bfloat"))
        return self.value(variable) if is_float else _backend.value_of(variable)


class _ReadByFunction(BaseException):  # not caught by `except Exception`
    """Raised when a `tf.function` reads weights, which a scope cannot substitute.

    A function traced earlier reads the variables themselves; one traced now would keep
    the substituted values for good.
    """


class _Scope(keras.StatelessScope):
    """Substitutes variables, and gives assigned values the gradient of a variable.

    Training differentiates by what a variable holds when it is read, not by what that
    value was computed from when it was assigned. In Keras' own scope the gradient would
    flow through the assignment.
    """

    def __init__(self, values: list[tuple[keras.Variable, Any]], scored: set[int]):
        super().__init__(collect_losses=True)
        self._scored, self._eager = scored, _backend.runs_eagerly()
        for update in values:
            super().add_update(update)

    def get_current_value(self, variable: keras.Variable) -> Any:
        if self._eager and not _backend.runs_eagerly() and not is_traced_for_one_call():
            raise _ReadByFunction
        return super().get_current_value(variable)

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        variable, value = update
        before = self.get_current_value(variable)
        value = keras.ops.stop_gradient(value)
        if before is not None:  # may differ in precision from the variable
            value = keras.ops.cast(value, before.dtype)
        if id(variable) in self._scored:
            # Bit for bit the new value, with the derivative of the previous one.
            value += before - keras.ops.stop_gradient(before)
        super().add_update((variable, value))
