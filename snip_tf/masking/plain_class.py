"""What a layer is but for its masks: its plain class, and its own methods."""

from __future__ import annotations

import functools
import types
from typing import Any

import keras

from snip_tf.masking.switch import Switch

# Whether layers say that they are of their plain class, and give their configuration
# as if they had no masks: in their own calls, and within the configuration of a layer
# around them, which has all the masks.
plainly = Switch("plainly")


def plain_class(layer: keras.Layer) -> type[keras.Layer]:
    """Returns the class that a layer has, or had before it was masked."""
    return getattr(type(layer), "_snip_plain_class", type(layer))


def set_class(layer: keras.Layer, cls: type[keras.Layer]) -> None:
    """Makes a layer an instance of another class, in place."""
    # Past the layer's own `__setattr__`, which is for state, and past the property.
    vars(object)["__class__"].__set__(layer, cls)


def set_attribute(layer: keras.Layer, name: str, value: Any) -> None:
    """Sets an attribute past the layer's own `__setattr__`, which is for state."""
    object.__setattr__(layer, name, value)


def replaced_methods(layer: keras.Layer) -> list[str]:
    """Returns where a layer has something of its own, not the method Keras gave it."""
    own = vars(layer)
    return [
        name
        for name, code in _methods_by_attribute().items()
        if name in own and getattr(own[name], "__code__", None) is not code
    ]


@functools.cache
def _methods_by_attribute() -> dict[str, types.CodeType]:
    """Returns the code of the methods that Keras makes attributes of each layer."""
    attributes = vars(keras.layers.Layer(name="layer"))
    return {
        name: value.__code__
        for name, value in attributes.items()
        if isinstance(value, types.FunctionType)
    }
