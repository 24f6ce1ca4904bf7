"""Runs layers inline, with nothing traced or recomputed separately.

Values that a variable has in a `keras.StatelessScope` are lost in code that runs
separately: in a `tf.function`, which TensorFlow traces once and keeps, and in a layer
of a `keras.RematScope`, or a call of `keras.remat`, which is recomputed for its
gradients, after the scope.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras

from snip_tf import _backend, _keras
from snip_tf._backend.switch import Switch
from snip_tf.weights import layer_tree

_functions = Switch("functions_inlined")
_without_recomputing = Switch("without_recomputing")


@contextlib.contextmanager
def inlined(layer: keras.Layer) -> Iterator[None]:
    """Runs a layer and those below it inline, in this thread."""
    _adapt_keras()
    # Without functions of the user, nothing is changed, since Keras' own functions
    # inside operations, for grouped convolutions, should stay compiled.
    has_functions = any(map(_has_functions, layer_tree(layer)))
    functions = _functions.on() if has_functions else contextlib.nullcontext()
    with _without_recomputing.on(), functions:
        yield


def functions_inlined() -> contextlib.AbstractContextManager:
    """Runs every `tf.function` line by line, in this thread.

    One that is traced in a `keras.StatelessScope` keeps the values of that scope.
    """
    _adapt_keras()
    return _functions.on()


@functools.cache
def _adapt_keras() -> None:
    """Has Keras and its backend ask the two switches.

    This is permanent, as other threads may be in the middle of a call.
    """
    layer = keras.Layer
    if hasattr(layer, "rematerialized_call"):  # since Keras 3.9
        layer.rematerialized_call = _called_plainly(layer.rematerialized_call)
    _backend.recompute_unless(functools.partial(bool, _without_recomputing))
    if _backend.FUNCTIONS:
        _keras.inline_functions_where(functools.partial(bool, _functions))


def _called_plainly(rematerialized_call: Callable) -> Callable:
    """Wraps `Layer.rematerialized_call` to call plainly where the switch is on."""

    @functools.wraps(rematerialized_call)
    def plainly_where_asked(self, layer_call, *args, **kwargs):
        if _without_recomputing:
            return layer_call
        return rematerialized_call(self, layer_call, *args, **kwargs)

    return plainly_where_asked


def _has_functions(layer: keras.Layer) -> bool:
    if not _backend.FUNCTIONS:
        return False
    cls = type(layer)
    if cls not in _with_functions:
        _with_functions[cls] = any(
            is_function(value) for base in cls.__mro__ for value in vars(base).values()
        )
    return _with_functions[cls] or any(map(is_function, vars(layer).copy().values()))


# Whether classes have functions; weak keys, since users' classes come and go.
_with_functions: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def is_function(value: Any) -> bool:
    """Returns whether a value is a `tf.function`."""
    # Many values are asked; an abstract class alone would take longer.
    return hasattr(value, "python_function") and isinstance(value, _backend.FUNCTIONS)
