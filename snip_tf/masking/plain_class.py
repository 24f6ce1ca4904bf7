"""The plain class of a masked layer, and the layer's own methods."""

from __future__ import annotations

import functools
import types
from typing import Any

import keras

from snip_tf._backend.switch import Switch

# Whether layers report their plain class, and a configuration without masks: in their
# own calls, and inside the configuration of a layer around them, which holds all the
# masks.
plainly = Switch("plainly")


def plain_class(layer: keras.Layer) -> type[keras.Layer]:
    """Returns the class that a layer has, or had before it was masked."""
    return getattr(type(layer), "_snip_plain_class", type(layer))


def set_class(layer: keras.Layer, cls: type[keras.Layer]) -> None:
    """Makes a layer an instance of another class, in place."""
    # Bypasses the layer's own `__setattr__`, which tracks state, and the property.
    vars(object)["__class__"].__set__(layer, cls)


def set_attribute(layer: keras.Layer, name: str, value: Any) -> None:
    """Sets an attribute, bypassing the layer's `__setattr__`, which tracks state."""
    object.__setattr__(layer, name, value)


def replaced_methods(layer: keras.Layer) -> list[str]:
    """Returns the names of methods that a layer has replaced with something else."""
    own = vars(layer)
    return [
        name
        for name, code in _methods_by_attribute().items()
        if name in own and getattr(own[name], "__code__", None) is not code
    ]


@functools.cache
def _methods_by_attribute() -> dict[str, types.CodeType]:
    """Returns the code of the methods that Keras sets as attributes on each layer."""
    attributes = vars(keras.layers.Layer(name="layer"))
    return {
        name: value.__code__
        for name, value in attributes.items()
        if isinstance(value, types.FunctionType)
    }
