"""Copies of functions, containers and other objects that hold a part of a model."""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from snip_tf import _backend, _keras
from snip_tf.masking.reach import attributes_of


class Copier(Protocol):
    """Copies what it is asked for, each thing once; see `Copies`."""

    def of(self, value: Any) -> Any:
        """Copies what holds a part of a model; returns anything else unchanged."""

    def remember(self, value: Any, new: Any) -> None:
        """Knows a copy at once, for what is inside and refers back to it."""


def copy_value(value: Any, copies: Copier) -> Any:
    """Returns a value of the same kind or class that holds copies."""
    for kind, copied in _COPIED:
        if isinstance(value, kind):
            return copied(value, copies)
    if _keras.is_reference(value):
        return copies.of(value.deref()).ref()
    return _object(value, copies)


def _method(method: types.MethodType, copies: Copier) -> types.MethodType:
    return types.MethodType(method.__func__, copies.of(method.__self__))


def _function(function: types.FunctionType, copies: Copier) -> types.FunctionType:
    """Returns the same code, with copies of what it closes over and of its defaults."""
    cells = [types.CellType() for _ in function.__closure__ or ()]
    new = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        copies.of(function.__defaults__),
        tuple(cells),
    )
    new.__kwdefaults__ = copies.of(function.__kwdefaults__)
    vars(new).update(vars(function))
    copies.remember(function, new)  # before the cells: it may be in one
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            cell.cell_contents = copies.of(old.cell_contents)
    return new


def _traced(function: Any, copies: Copier) -> Any:
    return _keras.function_like(function, copies.of(function.python_function))


def _partial(call: functools.partial, copies: Copier) -> functools.partial:
    arguments = map(copies.of, call.args)
    return functools.partial(
        copies.of(call.func), *arguments, **copies.of(call.keywords)
    )


def _weak_method(method: weakref.WeakMethod, copies: Copier) -> weakref.WeakMethod:
    return weakref.WeakMethod(copies.of(method()))


def _weak(reference: weakref.ref, copies: Copier) -> weakref.ref:
    return weakref.ref(copies.of(reference()))


def _dict(mapping: dict, copies: Copier) -> dict:
    items = ((copies.of(key), copies.of(item)) for key, item in mapping.items())
    ordered = isinstance(mapping, collections.OrderedDict)
    return collections.OrderedDict(items) if ordered else dict(items)


def _sequence(values: Any, copies: Copier) -> Any:
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        # TensorFlow wraps the tuples that are attributes.
        return type(_keras.unwrapped(values))(*map(copies.of, values))
    kind = next(kind for kind in _SEQUENCES if isinstance(values, kind))
    return kind(map(copies.of, values))


def _object(value: Any, copies: Copier) -> Any:
    new = copy.copy(value)
    copies.remember(value, new)
    for name, item in attributes_of(value).items():
        object.__setattr__(new, name, copies.of(item))
    return new


_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
# How to copy values; the first matching kind decides.
_COPIED: list[tuple[Any, Callable[[Any, Copier], Any]]] = [
    (types.MethodType, _method),
    (types.FunctionType, _function),
    (_backend.FUNCTIONS, _traced),
    (functools.partial, _partial),
    (weakref.WeakMethod, _weak_method),
    (weakref.ref, _weak),
    (dict, _dict),
    (_SEQUENCES, _sequence),
]
