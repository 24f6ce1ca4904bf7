"""Finds out which values hold a part of a model, at any depth."""

from __future__ import annotations

import collections
import contextlib
import functools
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from snip_tf import _backend, _keras

# Parts of a model, wherever they are held.
STATE = (
    keras.Layer,
    keras.Metric,
    keras.Optimizer,
    keras.Variable,
    keras.random.SeedGenerator,
    # Code written for the backend holds these, besides Keras' own.
    *_backend.STATE,
)
# Values that hold no such parts, and need not be searched.
PLAIN = (
    bool,
    bytes,
    float,
    int,
    str,
    type,
    types.ModuleType,
    types.NoneType,
    keras.KerasTensor,
    np.ndarray,
)
# Neither Keras nor TensorFlow wraps or tracks these as attributes of a layer.
_UNTRACKED = (
    *PLAIN,
    types.FunctionType,
    types.BuiltinFunctionType,
    keras.initializers.Initializer,
    keras.InputSpec,
    keras.DTypePolicy,
)
# Classes of these libraries that do hold parts.
_HOLDERS = (
    *_backend.HOLDERS,
    keras.initializers.Initializer,  # may hold a seed generator
)


def reaches(
    value: Any, state: tuple[type, ...] = STATE, seen: Iterable[int] = ()
) -> bool:
    """Returns whether a value is, or holds at any depth, a part of a model.

    Args:
        value: anything.
        state: the kinds of parts that count.
        seen: the ids of values known not to.
    """
    return _reaches(value, state, set(seen))


def _reaches(value: Any, state: tuple[type, ...], seen: set[int]) -> bool:
    if isinstance(value, PLAIN) or id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, state):
        return True
    if isinstance(value, STATE):
        return False  # a part of another kind
    return any(_reaches(item, state, seen) for item in _held_by(value))


def _held_by(value: Any) -> Iterable[Any]:
    """Returns what a value holds."""
    for kind, look in _LOOKS:
        if isinstance(value, kind):
            return look(value)
    if _keras.is_reference(value):
        return [value.deref()]
    if type(value).__module__.partition(".")[0] in _LIBRARIES:
        return []
    return attributes_of(value).values()


def _held_by_function(function: types.FunctionType) -> Iterator[Any]:
    yield function.__defaults__
    yield function.__kwdefaults__
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            yield cell.cell_contents


# Whose objects hold nothing, but for those above.
_LIBRARIES = ("keras", "numpy", "tensorflow", "jax", "jaxlib", "torch")
# How to search values; the first matching kind decides.
_LOOKS: list[tuple[Any, Callable[[Any], Iterable[Any]]]] = [
    (types.MethodType, lambda method: [method.__self__]),
    (types.FunctionType, _held_by_function),
    (functools.partial, lambda call: [call.func, call.args, call.keywords]),
    (dict, lambda mapping: [*mapping.keys(), *mapping.values()]),
    ((list, tuple, set, frozenset, collections.deque), list),
    (weakref.ref, lambda reference: [reference()]),
    (_backend.FUNCTIONS, lambda f: [f.python_function]),
    (_HOLDERS, lambda holder: list(vars(holder).values())),
]


def attributes_of(value: Any) -> dict[str, Any]:
    """Returns all attributes of an object, also those in slots or apart."""
    slots = [vars(cls).get("__slots__", ()) for cls in type(value).__mro__]
    names = [
        name
        for part in slots
        for name in ([part] if isinstance(part, str) else part)
        if name not in ("__dict__", "__weakref__") and hasattr(value, name)
    ]
    # At once, as another thread may add to them.
    attributes = dict(getattr(value, "__dict__", {}))
    modules = _keras.modules_of(value) if attributes else {}
    return {**{n: getattr(value, n) for n in names}, **modules, **attributes}


def is_untracked(value: Any) -> bool:
    """Returns whether an attribute of a layer is just that to Keras and TensorFlow."""
    if type(value) is tuple:
        return all(isinstance(item, PLAIN) for item in value)
    return isinstance(value, _UNTRACKED)


def holds_foreign_state(layer: keras.Layer) -> bool:
    """Returns whether a layer has state of the backend's own, unknown to any scope."""
    known = _made_for_layers()
    own = [value for name, value in vars(layer).copy().items() if name not in known]
    return reaches(own, _backend.STATE)


@functools.cache
def _made_for_layers() -> frozenset[str]:
    made = frozenset(vars(keras.layers.Layer(name="layer")))
    return made | _keras.ADDED_BY_BACKEND
