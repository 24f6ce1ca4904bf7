"""Layers made as copies, past their constructors."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import keras


def new_layer(cls: type[keras.Layer]) -> Any:
    """Returns what `keras.Layer.__new__` does, for a layer made without a constructor.

    That reads the signature of the constructor twice, to record its arguments. The rest
    is to make methods of the layer of two functions.
    """
    wrappers = _wrappers()
    if not wrappers:
        return keras.Layer.__new__(cls)
    layer = super(keras.Operation, cls).__new__(cls)
    for name, wrapper in wrappers.items():
        method = getattr(layer, name)
        cells = (layer if var == "obj" else method for var in _variables_of(wrapper))
        own = types.FunctionType(
            wrapper.__code__,
            wrapper.__globals__,
            name,
            wrapper.__defaults__,
            tuple(map(types.CellType, cells)),
        )
        vars(layer)[name] = functools.update_wrapper(own, method)
    return layer


@functools.cache
def _wrappers() -> dict[str, types.FunctionType]:
    """Returns the methods that Keras makes of each layer; empty if it is not known how.

    With Flax a layer has more that is made there.
    """
    own = vars(keras.layers.Layer(name="layer"))
    wrappers = {n: f for n, f in own.items() if isinstance(f, types.FunctionType)}
    known = all(
        set(_variables_of(wrapper)) == {"obj", f"original_{name}_method"}
        for name, wrapper in wrappers.items()
    )
    return wrappers if known and keras.backend.backend() == "tensorflow" else {}


def _variables_of(function: types.FunctionType) -> tuple[str, ...]:
    return function.__code__.co_freevars


def initialize_like(new: keras.Layer, layer: keras.Layer) -> bool:
    """Does what the constructor of `keras.Layer` does, if nothing of it is replaced.

    The constructor sets 30 attributes, and for each Keras and TensorFlow look at what
    is to be tracked. A class may set attributes in a way of its own.

    Args:
        new: a layer that `new_layer` returned.
        layer: one of the same class, from which what depends on the class is taken.

    Returns:
        Whether it is done.
    """
    own = vars(layer)
    if not _has_known_attributes(type(new)) or own["activity_regularizer"] is not None:
        return False
    made = _made_for_layers()
    known: Any = made["_tracker"]
    stores: dict[str, tuple[Callable, list]]
    stores = {name: (test, []) for name, (test, _) in known.config.items()}
    tracker = type(known)(stores, exclusions=known.exclusions)
    fresh = {id(values): stores[name][1] for name, (_, values) in known.config.items()}
    fresh[id(known)] = tracker
    read = {name: own.get(name) for name in _READ_BY_CONSTRUCTOR}
    read["_call_has_context_arg"] = {"training": own["_call_has_training_arg"]}
    for name, value in made.items():
        item = fresh[id(value)] if id(value) in fresh else read.get(name, value)
        if isinstance(value, (list, set, dict)) and id(value) not in fresh:
            # Of Keras' own kinds, which track what is added later.
            kind: Any = type(value)
            item = kind(item, tracker)
        vars(new)[name] = item
    return True


# What the constructor is given, or reads in the class.
_READ_BY_CONSTRUCTOR = (
    "_auto_config",
    "_call_has_mask_arg",
    "_call_has_training_arg",
    "_call_signature",
    "autocast",
    "call_signature_parameters",
    "name",
)


@functools.cache
def _made_for_layers() -> dict[str, Any]:
    """Returns what the constructor of `keras.Layer` makes."""
    layer = keras.layers.Layer(name="layer")
    return {n: v for n, v in vars(layer).items() if n not in _wrappers()}


def _has_known_attributes(cls: type[keras.Layer]) -> bool:
    """Returns whether attributes of a class are set as those of `keras.Layer` are."""
    return bool(_wrappers()) and all(
        getattr(cls, name, None) is getattr(keras.Layer, name, None)
        for name in ("__setattr__", *_made_for_layers())
    )
