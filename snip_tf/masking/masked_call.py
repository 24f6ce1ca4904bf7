"""Calls a masked layer, in which its weights have their masked values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from snip_tf import _backend
from snip_tf.masking.inlining import inlined
from snip_tf.masking.masked_weights import masked_value
from snip_tf.masking.plain_class import plain_class, plainly
from snip_tf.network import check_none_pending, mask_of


def call_masked(layer: keras.Layer, call: Callable, args: tuple, kwargs: dict) -> Any:
    """Runs the layer's own `call` on masked weights."""
    if getattr(layer, "_snip_pending", None):
        # Layers below may create their weights in this call, if it is the first.
        call(layer, *args, **kwargs)
        layer._snip_put_pending()
        check_none_pending(layer)
    masked = _read_by_call(layer)
    # The user's code may ask for the class of its layer, as `super` does.
    with plainly.on():
        if not masked:
            return call(layer, *args, **kwargs)
        with inlined(layer), _Scope(masked, _looks_up(layer)) as scope:
            outputs = call(layer, *args, **kwargs)
    _hand_on(scope.losses, layer)
    return outputs


def _hand_on(losses: list[Any], layer: keras.Layer) -> None:
    """Has a layer add the losses that were added in its scope."""
    for loss in losses:
        # A new tensor: Keras identifies losses by id, and a layer inside has already
        # claimed this one, which is kept so that its id is not reused.
        handed_on = keras.ops.add(loss, 0)
        with contextlib.suppress(AttributeError):  # of JAX
            handed_on._snip_source = loss
        layer.add_loss(handed_on)


def _read_by_call(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the masked weights that the call of a layer reads.

    Of a model, only its own: those of its layers are masked there.
    """
    masked = [weight for weight in layer.weights if mask_of(weight) is not None]
    if masked and isinstance(layer, keras.Model):
        below = {id(weight) for part in layer.layers for weight in part.weights}
        masked = [weight for weight in masked if id(weight) not in below]
    return masked


class _Scope(keras.StatelessScope):
    """Gives weights their masked values, and leaves the rest as it is outside."""

    def __init__(self, weights: list[keras.Variable], looks_up: bool):
        super().__init__(collect_losses=True)
        self._eager, self._looks_up = _backend.runs_eagerly(), looks_up
        self._masked = {id(weight): self._product(weight) for weight in weights}

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        variable, value = update
        given = id(variable) in self._masked
        # At once, since a value from inside a loop or a branch is not available after
        # it.
        with self._outside():
            variable.assign(masked_value(value, mask_of(variable)) if given else value)
        if given:
            # From here on it is read anew, as outside of a scope, where gradients do
            # not flow through an assignment.
            self._masked[id(variable)] = None

    def get_current_value(self, variable: keras.Variable) -> Any:
        if id(variable) in self._masked:
            value = self._masked[id(variable)]
            # A function that is traced in an eager call would keep the value for good.
            if value is None or (self._eager and not _backend.runs_eagerly()):
                with self._outside():
                    value = self._product(variable)
            return value
        if self.original_scope is not None:
            # Keras does not consult the scope around this one.
            return self.original_scope.get_current_value(variable)
        return None

    def _product(self, weight: keras.Variable) -> Any:
        # It takes half the time of `where` (`benchmarks/step_time.py`). (In a scope a
        # weight may have a value of another type.)
        mask = keras.ops.cast(mask_of(weight), weight.value.dtype)
        if self._looks_up:
            return _backend.product_by_rows(keras.ops.convert_to_tensor(weight), mask)
        return keras.ops.multiply(keras.ops.convert_to_tensor(weight), mask)

    @contextlib.contextmanager
    def _outside(self) -> Iterator[None]:
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


def _looks_up(layer: keras.Layer) -> bool:
    """Returns whether the call of a layer may look up some rows of a weight.

    Of Keras' own layers only embeddings do; for the others a plain product suffices,
    which makes a step of a small transformer two percent faster.
    """
    own = plain_class(layer)
    return not own.__module__.startswith("keras.") or issubclass(
        own, keras.layers.Embedding
    )
