"""A copy of a model without its masks, for any class of model and of layer.

Keras copies a layer through its configuration, which loses much: functions that are not
registered, models without `get_config`, weights that were tied or made after the
constructor ran. Here a copy is a new object of the same class, with copies of the
original's attributes. Nothing is built or initialized again, which is faster too.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from snip_tf import _backend, _keras
from snip_tf.masking.compiling import compile_like, strategy_scope
from snip_tf.masking.copied_graphs import copied_ends, initialize_sequence
from snip_tf.masking.copied_values import copy_value
from snip_tf.masking.low_rank import merge_updates
from snip_tf.masking.masked_weights import KeepZeros, masked_value
from snip_tf.masking.plain_class import plain_class, replaced_methods
from snip_tf.masking.reach import attributes_of, is_untracked, reaches
from snip_tf.network import Network
from snip_tf.weights import Owner

# Parts of a model that Keras may have been told not to track.
_HIDDEN = (keras.Layer, keras.Variable, keras.random.SeedGenerator)


def plain_copy(network: Network) -> keras.Model:
    """Returns a copy of a model without masks, compiled like it, with its zeros."""
    return plain_network(network).model


def plain_network(network: Network) -> Network:
    """Returns the same copy as `plain_copy`, as a network.

    In that of a pruned model, low-rank updates of masked weights are merged.
    """
    copied = copied_network(network, network.mask_variables)
    if not network.mask_variables:
        return copied
    owners = [owner for owner in network.owners if owner.weights]
    removed = merge_updates(owners, copied.owners)
    weights = {p: w for p, w in copied.weights.items() if id(w) not in removed}
    return Network.of_parts(copied.model, weights, copied.owners)


def copied_network(network: Network, masks: Mapping[str, keras.Variable]) -> Network:
    """Returns a copy like `copy_unmasked`, without reading the copy again.

    Args:
        network: the model to copy.
        masks: `{weight path: mask}`; what they remove is zero in the copy.
    """
    copies = Copies({id(network.weights[path]): mask for path, mask in masks.items()})
    model = copies.compiled(network.model)
    weights = {path: copies.known(weight) for path, weight in network.weights.items()}
    # (Layers without weights, such as inputs, may have been created by the copy
    # itself.)
    owners = [
        Owner(copies.known(layer), {name: copies.known(w) for name, w in own.items()})
        for layer, own in network.owners
        if own
    ]
    return Network.of_parts(model, weights, owners)


def copy_unmasked(model: keras.Model) -> keras.Model:
    """Returns a copy of a model, compiled like it, in which nothing is masked.

    Copies have the names, values and settings of their originals, and are shared and
    tied in the same way. Functions and objects of other libraries are copied if they
    hold a part of the model, so that the copy never runs the original's layers;
    otherwise both models share them.
    """
    return Copies().compiled(model)


class Copies:
    """Copies what it is asked for, each thing once.

    Args:
        masks: `{id of a variable: mask}` of those that get zeros.
    """

    def __init__(self, masks: Mapping[int, keras.Variable] | None = None):
        self._masks = masks or {}
        # The originals are kept, too: the id of a deleted one could be reused.
        self._known: dict[int, tuple[Any, Any]] = {}

    def compiled(self, model: keras.Model) -> keras.Model:
        """Returns a copy of a model; it and the models inside are compiled alike."""
        with strategy_scope(model):
            copied_model = self.of(model)
            for old, new in self._models():
                compile_like(new, old)
        return copied_model

    def _models(self) -> list[tuple[keras.Model, keras.Model]]:
        return [
            (old, new)
            for old, new in self._known.values()
            if isinstance(old, keras.Model)
        ]

    def of(self, value: Any) -> Any:
        """Copies what is, or holds, a part of a model; anything else is unchanged."""
        if id(value) in self._known:
            return self.known(value)
        if not isinstance(value, keras.Operation) and not reaches(value):
            return value
        new = self._new(value)
        self.remember(value, new)
        return new

    def known(self, value: Any) -> Any:
        """Returns the copy of a value that was copied; raises a KeyError for others."""
        return self._known[id(value)][1]

    def remember(self, value: Any, new: Any) -> None:
        """Knows a copy at once, for what is inside and refers back to it."""
        self._known[id(value)] = value, new

    def _new(self, value: Any) -> Any:
        for kind, copied in _COPIED:
            if isinstance(value, kind):
                return copied(self, value)
        return copy_value(value, self)

    def _metric(self, metric: keras.Metric) -> keras.Metric:
        new = keras.Metric.__new__(type(metric))
        self.remember(metric, new)
        keras.Metric.__init__(new, dtype=metric.dtype, name=metric.name)
        self._set_attributes(metric, new, self._track(metric, new))
        return new

    def _seeds(self, seeds: keras.random.SeedGenerator) -> keras.random.SeedGenerator:
        # With some seed: for None, one would be drawn from the user's generator.
        with _name_scopes(seeds.state.path.split("/")[:-2]):
            new = keras.random.SeedGenerator(seed=0, name=seeds.name)
        new.state.assign(_backend.value_of(seeds.state))
        self.remember(seeds.state, new.state)
        return new

    def _layer(self, layer: keras.Layer) -> keras.Layer:
        # Past `__new__` and `__init__` of the class, which may require arguments.
        new = _keras.new_layer(plain_class(layer))
        self.remember(layer, new)
        self._initialize(layer, new)
        made_by_base = set(vars(new)) - set(replaced_methods(layer))
        tracked = self._track(layer, new)
        vars(new).update(_keras.settings_of(layer))
        self._set_attributes(layer, new, tracked, made_by_base)
        return new

    def _initialize(self, layer: Any, new: Any) -> None:
        """Runs the constructor of the layer's base class."""
        if isinstance(layer, keras.Sequential):
            # A Sequential model makes a Functional one, without a name, inside.
            with _keras.names_not_counted():
                initialize_sequence(new, layer, self)
        elif isinstance(layer, _keras.functional_class()):
            ends = copied_ends(layer, _own_attributes(layer), self)
            _keras.initialize_graph_like(new, layer, *ends)
        elif _keras.initialize_like(new, layer):
            pass
        elif isinstance(layer, keras.Model):
            keras.Model.__init__(new, name=layer.name)
        else:
            keras.Layer.__init__(
                new,
                activity_regularizer=self.of(layer.activity_regularizer),
                autocast=layer.autocast,
                name=layer.name,
            )

    def _set_attributes(
        self,
        old: Any,
        new: Any,
        tracked: set[int],
        made_by_base: set[str] | None = None,
    ) -> None:
        """Sets the attributes that the constructor of the base class did not set."""
        made_by_base = set(vars(new)) if made_by_base is None else made_by_base
        for name, value in _own_attributes(old).items():
            if name not in made_by_base:
                copied = self.of(value)
                if name in _keras.modules_of(old):
                    setattr(new, name, copied)
                elif name not in vars(old):  # but in a slot
                    object.__setattr__(new, name, copied)
                elif is_untracked(value) or reaches(value, _HIDDEN, tracked):
                    vars(new)[name] = copied
                elif isinstance(value, keras.Variable):
                    _keras.set_variable(new, name, copied)
                else:
                    setattr(new, name, copied)

    def _track(self, layer: Any, new: Any) -> set[int]:
        """Has Keras track copies of what it tracks of a layer; returns the old ids.

        The order is that of the originals, including what was trainable when it was
        created.
        """
        made_of_layers = (keras.Sequential, _keras.functional_class())
        tracked: set[int] = set()
        for store, values in _keras.tracked(layer).items():
            tracked.update(map(id, values))
            if store == "metrics" and isinstance(layer, keras.Model):
                continue  # those of `compile` among them
            if store == "layers" and isinstance(layer, made_of_layers):
                continue  # the new model gets them from its graph
            for value in values:
                _keras.track(new, store, self.of(value))
        return tracked

    def _variable(self, variable: keras.Variable) -> keras.Variable:
        constraint = variable.constraint
        if isinstance(constraint, KeepZeros):
            constraint = constraint.constraint
        value = _backend.value_of(variable)
        if id(variable) in self._masks:
            value = masked_value(value, self._masks[id(variable)])
        above = variable.path.rpartition("/")[0]
        with _backend.name_scope(above):
            new = keras.Variable(value, **_keras.variable_settings(variable))
        _keras.set_path(new, variable.path)
        new.regularizer = self.of(variable.regularizer)
        new.constraint = self.of(constraint)
        new.overwrite_with_gradient = variable.overwrite_with_gradient
        return new

    def _optimizer(self, optimizer: keras.Optimizer) -> keras.Optimizer | None:
        try:
            return type(optimizer).from_config(optimizer.get_config())
        except (NotImplementedError, TypeError, ValueError) as error:
            warnings.warn(
                f"The optimizer {optimizer.name!r}, an attribute of the model, cannot "
                "be recreated from its configuration, and is None in the copy: "
                f"{error}. Call `compile` on the copy, or set it.",
                stacklevel=2,
            )
            return None

    def _state(self, state: Any) -> Any:
        return _backend.copy_state(state)

    def _operation(self, operation: keras.Operation) -> keras.Operation:
        # Of a Functional graph (`keras.ops`); it has no state.
        return type(operation).from_config(operation.get_config())


# How to copy parts of a model; the first matching kind decides.
_COPIED: list[tuple[Any, Callable[[Copies, Any], Any]]] = [
    (keras.Layer, Copies._layer),
    (keras.Metric, Copies._metric),
    (keras.Variable, Copies._variable),
    (keras.random.SeedGenerator, Copies._seeds),
    (keras.Optimizer, Copies._optimizer),
    (_backend.STATE, Copies._state),
    (keras.Operation, Copies._operation),
]


@contextlib.contextmanager
def _name_scopes(names: list[str]) -> Iterator[None]:
    """Opens nested scopes, in which a variable gets the path of its original."""
    with contextlib.ExitStack() as scopes:
        for name in names:
            scopes.enter_context(keras.name_scope(name, deduplicate=False))
        yield


def _own_attributes(value: Any) -> dict[str, Any]:
    """Returns the attributes of a layer or metric that belong to it."""
    left_out = _keras.ADDED_BY_BACKEND | (
        _keras.ADDED_BY_TRAINING if isinstance(value, keras.Model) else set()
    )
    return {
        name: item
        # At once, as another thread may add to them.
        for name, item in attributes_of(value).items()
        if name not in left_out and not name.startswith("_snip_")
    }
