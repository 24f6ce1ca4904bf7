"""The class of a masked layer: a subclass of `MaskedLayer` and of the layer's own."""

from __future__ import annotations

import abc
import contextlib
import functools
import inspect
import types
import weakref
from typing import Any

import keras

from snip_tf.masking.adapted_layers import unless_masked
from snip_tf.masking.configuration import config_of
from snip_tf.masking.masked_call import call_masked
from snip_tf.masking.plain_class import plainly

# The masked class of each class, as long as a layer of it exists.
_classes: weakref.WeakKeyDictionary[type, weakref.ref[type]] = (
    weakref.WeakKeyDictionary()
)


def masked_class(cls: type[keras.Layer], base: type[keras.Layer]) -> type[keras.Layer]:
    """Returns the subclass of a class and of `base`, which is `MaskedLayer`."""
    known = _classes.get(cls)
    masked = known() if known else None
    if masked is None:
        # Keras finds weights in a file by the name of the class, also those of the
        # plain layer.
        masked = _new_class(cls.__name__, (base, cls), _attributes(cls))
        _register(masked, base)
        _classes[cls] = weakref.ref(masked)
    return masked


def _attributes(cls: type[keras.Layer]) -> dict[str, Any]:
    """Returns the attributes in which the masked class differs from its plain class."""

    # `wraps`, since Keras reads the arguments of `call` from its signature.
    @functools.wraps(cls.call)
    def call(self, *args, **kwargs):
        return call_masked(self, cls.call, args, kwargs)

    attributes = {
        "__init__": _init_like(cls),
        # What Keras reads of a layer that it serializes.
        "__class__": property(lambda self: cls if plainly else type(self)),
        "call": call,
        "build": cls.build,
        # A property, since Keras asks whether a layer's method is that of its class.
        "get_config": property(functools.partial(_get_config_of, cls)),
        "_snip_plain_class": cls,
        "__module__": cls.__module__,
        "__qualname__": f"Masked{cls.__qualname__}",
        "__doc__": f"A `{cls.__name__}` with some of its connections removed.",
    }
    enable_lora = getattr(cls, "enable_lora", None)
    if enable_lora and not enable_lora.__module__.startswith("keras."):
        attributes["enable_lora"] = unless_masked(cls.enable_lora)
    return attributes


def _get_config_of(cls: type[keras.Layer], layer: keras.Layer) -> Any:
    if plainly:
        return types.MethodType(cls.get_config, layer)
    return functools.partial(config_of, layer)


def _init_like(cls: type[keras.Layer]) -> Any:
    """Returns an `__init__` of the same signature, which does nothing.

    Python calls it after `MaskedLayer(layer, masks)`, and Keras reads its signature
    when it makes a configuration.
    """

    @functools.wraps(cls.__init__)
    def init(self, *args, **kwargs):
        """Does nothing: the layer was made before it was masked."""

    with contextlib.suppress(TypeError, ValueError):
        # For Keras, which inspects it in a way that does not follow `wraps`.
        vars(init)["__signature__"] = inspect.signature(cls.__init__)
    return init


def _new_class(name: str, bases: tuple[type, ...], attributes: dict) -> type:
    """Makes a class, bypassing what a user's metaclass does with its classes."""
    meta = type(bases[-1])
    make = abc.ABCMeta if issubclass(meta, abc.ABCMeta) else type
    return make.__new__(meta, name, bases, attributes)


def _register(masked: type[keras.Layer], base: type[keras.Layer]) -> None:
    """Registers a masked class under the name that all share in files.

    `from_config` recreates the right one.
    """
    register = keras.saving.register_keras_serializable("snip_tf", base.__name__)
    register(_WeakClass(masked, base))
    register(base)


class _WeakClass:
    """A weak reference that equals a class, by which Keras finds the registered name.

    Keras keeps registered objects forever, and a class keeps what its methods close
    over.
    """

    def __init__(self, cls: type[keras.Layer], base: type[keras.Layer]):
        self._class = weakref.ref(cls)
        self._hash = hash(cls)
        # For the moment in which this is registered instead of `MaskedLayer`.
        self.from_config = base.from_config

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or self._class() is other
