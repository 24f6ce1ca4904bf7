"""MaskedLayer: a layer with some of its connections removed."""

from __future__ import annotations

import abc
import contextlib
import contextvars
import functools
import inspect
import re
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from snip_tf.checks import is_built
from snip_tf.masking.compiling import inlined, product_by_rows, runs_eagerly
from snip_tf.masking.masked_weights import (
    all_masks,
    check_not_low_rank,
    has_masks,
    keep_with_owners,
    mask_variable,
    masked_below,
    put_mask,
    unless_masked,
    unpacked,
)
from snip_tf.masking.masks import (
    check_fits,
    check_masks,
    decode_mask,
    encode_mask,
)
from snip_tf.network import check_none_pending, mask_of
from snip_tf.weights import layer_tree, weights_by_path

# Whether layers say that they are of their plain class, and give their configuration
# as if they had no masks: in their own calls, and within the configuration of a layer
# around them, which has all the masks.
_plainly = contextvars.ContextVar("plainly", default=False)


@keras.saving.register_keras_serializable(package="snip_tf")
class MaskedLayer(keras.layers.Layer):
    """A layer of any kind that runs with `w * mask` instead of its weights.

    `MaskedLayer(layer, masks)` wraps `layer` in place: the very object becomes an
    instance of a subclass of both `MaskedLayer` and its own class, as PyTorch's
    parametrizations do. So whatever refers to the layer (a model, another layer, a
    training step) now has the masked one, and its attributes are what they were; those
    that are added have names that begin with `_snip_`.

    Its `call` runs inside a `keras.StatelessScope` in which each masked weight has its
    masked value, so that no layer type needs to be known: whatever reads the weight
    reads zeros where the mask is False. Removed connections therefore get no gradient,
    and a constraint on the variable holds them at exactly zero, whatever the optimizer
    does. (Only what is assigned by hand can make a removed weight infinite or NaN,
    which no product undoes.) What the layer changes in a call (BatchNorm statistics,
    seed and recurrent states, its own kernel) is assigned at once, and its losses are
    handed on.

    The masks are state, not weights: they are saved with the layer, but `weights` and
    `get_weights` are those of the layer alone. `snip_tf.get_masks` reads them,
    `snip_tf.set_masks` changes them.

    Args:
        layer: `keras.Layer`, built or not. Of a `keras.Model`, each layer that has a
            masked weight is wrapped.
        masks: `{weight path below the layer: boolean array}` of the weight's shape,
            True is kept.

    Raises:
        TypeError: if `layer` is not a layer, or a mask is not boolean.
        ValueError: if `layer` has masks already, or a mask has an unknown path, or
            another shape than its weight: of a layer that is not built, once it is.

    Input shape, output shape: those of the layer.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> dense = keras.layers.Dense(2, kernel_initializer="ones")
    >>> kept = np.array([[True, False], [False, False], [True, True]])
    >>> masked = snip_tf.MaskedLayer(dense, {"kernel": kept})
    >>> np.asarray(masked(np.ones((1, 3))))
    array([[2., 1.]], dtype=float32)
    """

    # Masks of weights that are not made yet, and the names of the layers inside.
    _snip_pending: Mapping[str, keras.Variable] = {}
    _snip_names: Sequence[str] = ()

    def __new__(cls, *args, **kwargs):  # noqa: D102
        if cls is MaskedLayer:
            return _masked(*args, **kwargs)
        # A layer's own code makes another of its class.
        return cls._snip_plain_class(*args, **kwargs)

    def __init__(self, layer: keras.Layer, masks: Mapping[str, np.ndarray]):
        """All is done, on what was made before; see `__new__`."""

    def __init_subclass__(cls, **kwargs):
        """Keeps the masked class from the code that a class has for its subclasses."""

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of the layer, then its masks."""
        variables = super().variables
        known = set(map(id, variables))
        masks = [mask_of(weight) for weight in self.weights]
        masks = [mask for mask in masks if mask is not None and id(mask) not in known]
        return variables + masks

    @property
    def quantize(self) -> Any:
        """As the layer's own; a property, since Keras makes that an attribute.

        A layer may have something of its own there, such as a flag.
        """
        if "quantize" in replaced_methods(self):
            return vars(self)["quantize"]
        return functools.partial(_quantize, self)

    @quantize.setter
    def quantize(self, value: Any) -> None:
        vars(self)["quantize"] = value

    def _post_build(self) -> None:
        # Keras calls this after every way in which a layer gets its weights, and has no
        # public hook for it: `build` is bound to the layer before it is masked.
        super()._post_build()
        _put_pending(self)
        if plain_class(self).build not in (keras.Layer.build, keras.Model.build):
            check_none_pending(self)  # else some weights may be made in the first call

    def load_own_variables(self, store: Any) -> None:  # noqa: D102
        # Files of earlier versions have masks here, by their number in the layer. In
        # others a layer may have something of its own of such a name.
        keys = [key for key in store.keys() if re.fullmatch(r"mask_bits\d+", key)]  # noqa: SIM118
        if not keys or has_masks(store):
            super().load_own_variables(store)
            return
        _load_old_masks(self, {key: store[key] for key in keys})
        rest = {key: store[key] for key in store.keys() - set(keys)}
        super().load_own_variables(rest)

    # What a class has of these comes before; here is what its own code looks for beyond
    # the class of its layer, in `super(type(self), self)`.

    def call(self, *args, **kwargs):  # noqa: D102
        return super(plain_class(self), self).call(*args, **kwargs)

    def build(self, *args, **kwargs):  # noqa: D102
        return super(plain_class(self), self).build(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The layer as it was before it was masked, and all the masks in it."""
        return super(plain_class(self), self).get_config()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.Layer:  # noqa: D102
        _check_config(config)
        layer = keras.saving.deserialize_keras_object(
            config["layer"], custom_objects=_known_class(cls, config["layer"])
        )
        if not isinstance(layer, keras.Layer):
            raise ValueError(
                f"Expected the configuration of a masked layer to be of a layer. "
                f"Received: that of a {type(layer).__name__}"
            )
        names = config["sublayer_names"]
        for part, name in zip(list(layer_tree(layer))[1:], names, strict=False):
            part.name = name
        masks = {path: decode_mask(mask) for path, mask in config["masks"].items()}
        masked = MaskedLayer(layer, {})
        _set_attribute(masked, "_snip_names", tuple(names))
        _set_pending(masked, masks)
        if _has_weights(masked):
            _put_pending(masked)
        return masked

    def __reduce__(self) -> tuple:
        # To be pickled, a method must be of a class that is found by its name.
        _, arguments = super().__reduce__()
        return keras.Layer._unpickle_model, arguments


def _masked(layer: keras.Layer, masks: Mapping[str, np.ndarray]) -> keras.Layer:
    if not isinstance(layer, keras.Layer):
        raise TypeError(
            f"Expected `layer` to be a `keras.Layer`. Received: {layer!r} of type "
            f"{type(layer).__name__}"
        )
    if isinstance(layer, MaskedLayer):
        raise ValueError(
            f"Expected a layer without masks. Received: layer={layer.name!r}, "
            f"which is a MaskedLayer already. Change its masks with "
            f"`snip_tf.set_masks`."
        )
    weights = weights_by_path(layer) if layer.built else None
    if masks or not isinstance(masks, Mapping):
        check_masks(masks, weights)
    check_not_low_rank(masks, weights or ())
    _set_class(layer, _masked_class(type(layer)))
    _set_pending(layer, masks)
    if layer.built:
        _put_pending(layer)
    return layer


def _has_weights(layer: keras.Layer) -> bool:
    # (A model without `call` is never built itself, but has those of its parts.)
    return is_built(layer) if isinstance(layer, keras.Model) else layer.built


def _check_config(config: Any) -> None:
    """Raises unless this is what `get_config` of a masked layer gives."""
    expected = {"layer": Mapping, "sublayer_names": (list, tuple), "masks": Mapping}
    received = config if isinstance(config, Mapping) else {}
    wrong = [
        name
        for name, kind in expected.items()
        if not isinstance(received.get(name), kind)
    ]
    names = received.get("sublayer_names")
    if wrong or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"Expected the configuration of a masked layer: its `layer`, the names of "
            f"the layers inside as `sublayer_names`, and its `masks`. Received: one "
            f"without a valid {' and '.join(wrong) or 'sublayer_names'}"
        )


def _known_class(cls: type, config: Mapping[str, Any]) -> dict[str, type]:
    """The class that a masked class is of, if a configuration is of that.

    To clone a model Keras asks the class itself, which need not be registered.
    """
    plain = getattr(cls, "_snip_plain_class", None)
    known = plain is not None and config.get("registered_name") == plain.__name__
    return {plain.__name__: plain} if known else {}


def _set_pending(layer: keras.Layer, masks: Mapping[str, np.ndarray]) -> None:
    # As variables at once: in the first call, Keras may not let any be made.
    pending = {path: mask_variable(path, mask) for path, mask in masks.items()}
    _set_attribute(layer, "_snip_pending", pending)


def _put_pending(layer: keras.Layer) -> None:
    """Puts the masks on weights that have been made since."""
    _rename(layer)
    weights, pending = weights_by_path(layer), layer._snip_pending
    made = {path: mask for path, mask in pending.items() if path in weights}
    if not made:
        return
    for path, mask in made.items():
        check_fits(path, mask, weights[path])
        put_mask(weights[path], mask)
    left = {path: mask for path, mask in pending.items() if path not in made}
    _set_attribute(layer, "_snip_pending", left)
    if isinstance(layer, keras.Model):
        _wrap_layers_of(layer)
    keep_with_owners(layer)


def _rename(layer: keras.Layer) -> None:
    """Gives the layers inside, once all are made, the names they were saved with.

    Keras numbers those without a name of their own anew when they are made from a
    configuration, but the paths of the masks must stay.
    """
    parts = list(layer_tree(layer))[1:]
    if len(parts) == len(layer._snip_names):
        for part, name in zip(parts, layer._snip_names, strict=True):
            part.name = name


def _call_masked(layer: keras.Layer, call: Callable, args: tuple, kwargs: dict) -> Any:
    """`call`, the layer's own, on masked weights."""
    if getattr(layer, "_snip_pending", None):
        # Layers below make their weights in this call, the first.
        call(layer, *args, **kwargs)
        _put_pending(layer)
        check_none_pending(layer)
    masked = _read_by_call(layer)
    # Code of the user's may ask for the class of its layer, as `super` needs it.
    token = _plainly.set(True)
    try:
        if not masked:
            return call(layer, *args, **kwargs)
        with inlined(layer), _Scope(masked, _looks_up(layer)) as scope:
            outputs = call(layer, *args, **kwargs)
    finally:
        _plainly.reset(token)
    for loss in scope.losses:
        # A new tensor: Keras knows losses by their id, and a layer inside has
        # already claimed this one, which lives on lest another gets its id.
        handed_on = keras.ops.add(loss, 0)
        with contextlib.suppress(AttributeError):  # of JAX
            handed_on._snip_source = loss
        layer.add_loss(handed_on)
    return outputs


def _read_by_call(layer: keras.Layer) -> list[keras.Variable]:
    """The masked weights that the call of a layer reads.

    Of a model, only its own: those of its layers are masked there.
    """
    masked = [weight for weight in layer.weights if mask_of(weight) is not None]
    if masked and isinstance(layer, keras.Model):
        below = {id(weight) for part in layer.layers for weight in part.weights}
        masked = [weight for weight in masked if id(weight) not in below]
    return masked


class _Scope(keras.StatelessScope):
    """Gives weights their masked values, and lets the rest be as it is outside."""

    def __init__(self, weights: list[keras.Variable], looks_up: bool):
        super().__init__(collect_losses=True)
        self._eager, self._looks_up = runs_eagerly(), looks_up
        self._masked = {id(weight): self._product(weight) for weight in weights}

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        variable, value = update
        given = id(variable) in self._masked
        # At once, since a value from inside a loop or a branch is unknown after it.
        with self._outside():
            variable.assign(masked_like(variable, value) if given else value)
        if given:
            # From here on it is read anew, as outside of a scope, where what was
            # assigned is a new beginning for gradients.
            self._masked[id(variable)] = None

    def get_current_value(self, variable: keras.Variable) -> Any:
        if id(variable) in self._masked:
            value = self._masked[id(variable)]
            # A function that is traced in an eager call would keep the value for good.
            if value is None or (self._eager and not runs_eagerly()):
                with self._outside():
                    value = self._product(variable)
            return value
        if self.original_scope is not None:
            # Keras does not look through to the scope around this one.
            return self.original_scope.get_current_value(variable)
        return None

    def _product(self, weight: keras.Variable) -> Any:
        # It takes half the time of `where` (`benchmarks/step_time.py`). (In a scope a
        # weight may have a value of another type.)
        mask = keras.ops.cast(mask_of(weight), weight.value.dtype)
        if self._looks_up:
            return product_by_rows(keras.ops.convert_to_tensor(weight), mask)
        return keras.ops.multiply(weight, mask)

    @contextlib.contextmanager
    def _outside(self) -> Iterator[None]:
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


def _looks_up(layer: keras.Layer) -> bool:
    """Whether the call of a layer may look up some rows of a weight.

    Of Keras' own layers only embeddings do; for the others a plain product will do,
    which makes a step of a small transformer faster by two percent.
    """
    own = plain_class(layer)
    return not own.__module__.startswith("keras.") or issubclass(
        own, keras.layers.Embedding
    )


def masked_like(weight: keras.Variable, value: Any) -> Any:
    """A value for a weight, with zeros where its mask removes."""
    return keras.ops.where(mask_of(weight), value, 0)


def mask_model(model: keras.Model, masks: Iterable[tuple[str, np.ndarray]]) -> None:
    """Puts masks on the weights of a model, and wraps the layers that have them.

    The masks, by weight path, may be made one by one, so that none is held twice, as an
    array and as a variable.

    Keras makes a Sequential or Functional model from its configuration layer by layer,
    masked ones included. Any other model makes its layers itself, so it is wrapped too,
    and has their masks in its configuration.
    """
    weights = weights_by_path(model)
    for path, mask in masks:
        put_mask(weights[path], mask_variable(path, mask))
    _wrap_model(model)
    keep_with_owners(model)


def _wrap_model(model: keras.Model) -> None:
    _wrap_layers_of(model)
    if not is_made_of_layers(model) and not isinstance(model, MaskedLayer):
        _set_class(model, _masked_class(type(model)))


def _wrap_layers_of(model: keras.Model) -> None:
    """Wraps the layers of a model that have masked weights."""
    for layer in model.layers:
        if not any(mask_of(weight) is not None for weight in layer.weights):
            continue
        if isinstance(layer, keras.Model):
            _wrap_model(layer)
        elif not isinstance(layer, MaskedLayer):
            _set_class(layer, _masked_class(type(layer)))


def is_made_of_layers(layer: keras.Layer) -> bool:
    """Whether a layer is exactly a `keras.Sequential` or a Functional model."""
    return type(layer) in (keras.Sequential, functional_class())


@functools.cache
def functional_class() -> type:
    """The class of Functional models, for which Keras has no public name."""
    # Named, so that the next layers of the user are numbered as they would be; and not
    # an input that is its own output, which Keras takes from 3.14 on.
    x = keras.Input((), name="x")
    return type(keras.Model(x, keras.layers.Identity(name="y")(x), name="of_layers"))


def replaced_methods(layer: keras.Layer) -> list[str]:
    """Where a layer has something of its own instead of a method that Keras gave it."""
    own = vars(layer)
    return [
        name
        for name, code in _methods_by_attribute().items()
        if name in own and getattr(own[name], "__code__", None) is not code
    ]


@functools.cache
def _methods_by_attribute() -> dict[str, types.CodeType]:
    """The code of the methods that Keras makes attributes of each layer."""
    attributes = vars(keras.layers.Layer(name="layer"))
    return {
        name: value.__code__
        for name, value in attributes.items()
        if isinstance(value, types.FunctionType)
    }


def plain_class(layer: keras.Layer) -> type[keras.Layer]:
    """The class that a layer has, or had before it was masked."""
    return getattr(type(layer), "_snip_plain_class", type(layer))


def _get_config(layer: MaskedLayer) -> dict[str, Any]:
    """The layer as it was before it was masked, and all the masks in it."""
    masks = {
        path: keras.ops.convert_to_numpy(mask)
        for path, mask in {**all_masks(layer), **layer._snip_pending}.items()
    }
    token = _plainly.set(True)
    try:
        config = keras.saving.serialize_keras_object(layer)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"Keras makes a configuration of {layer.name!r}, to save or clone it, by "
            f"the `get_config` of {plain_class(layer).__name__}, which does not give "
            f"one: implement it. Or keep `save_weights(...)` and "
            f"`snip_tf.save_masks(path, snip_tf.get_masks(model))`, and then build the "
            f"model anew, its layers named as now, call "
            f"`snip_tf.apply_masks(model, snip_tf.load_masks(path))`, and "
            f"`load_weights(...)` on that."
        ) from error
    finally:
        _plainly.reset(token)
    config.pop("compile_config", None)
    if not isinstance(layer, keras.Model):
        config.pop("build_config", None)
    return {
        "layer": config,
        "sublayer_names": [part.name for part in layer_tree(layer)][1:],
        "masks": {path: encode_mask(mask) for path, mask in masks.items()},
    }


def _load_old_masks(layer: keras.Layer, found: Mapping[str, np.ndarray]) -> None:
    """Assigns masks from a file in which they are numbered, if they fit."""
    weights = list(masked_below(layer).values())
    try:
        if len(found) != len(weights):
            raise ValueError(f"{len(found)} masks")
        masks = [
            unpacked(found[f"mask_bits{number}"], weight)
            for number, weight in enumerate(weights)
        ]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Expected a file with a mask for each of the {len(weights)} pruned "
            f"weights of layer {layer.name!r}, a bit for each connection. Received: "
            f"{error}. The file is damaged, or is of another network."
        ) from error
    for weight, mask in zip(weights, masks, strict=True):
        mask_of(weight).assign(mask)


# The masked class of each class, as long as somebody has a layer of it.
_classes: weakref.WeakKeyDictionary[type, weakref.ref[type]] = (
    weakref.WeakKeyDictionary()
)


def _masked_class(cls: type[keras.Layer]) -> type[keras.Layer]:
    """The subclass of `MaskedLayer` and `cls`."""
    known = _classes.get(cls, lambda: None)()
    if known is not None:
        return known

    # `wraps`, since Keras reads in the signature of `call` which arguments it takes.
    @functools.wraps(cls.call)
    def call(self, *args, **kwargs):
        return _call_masked(self, cls.call, args, kwargs)

    # Called by Python after `MaskedLayer(layer, masks)`. Keras reads its signature when
    # it makes a configuration.
    @functools.wraps(cls.__init__)
    def init(self, *args, **kwargs):
        """All is done, on what was made before."""

    with contextlib.suppress(TypeError, ValueError):
        # For Keras, which asks in a way that does not follow `wraps`.
        init.__signature__ = inspect.signature(cls.__init__)

    attributes = {
        "__init__": init,
        # What Keras reads of a layer that it serializes.
        "__class__": property(lambda self: cls if _plainly.get() else type(self)),
        "call": call,
        "build": cls.build,
        # A property, since Keras asks whether a layer's is its class' own.
        "get_config": property(
            lambda self: (
                types.MethodType(cls.get_config, self)
                if _plainly.get()
                else functools.partial(_get_config, self)
            )
        ),
        "_snip_plain_class": cls,
        "__module__": cls.__module__,
        "__qualname__": f"Masked{cls.__qualname__}",
        "__doc__": f"A `{cls.__name__}` with some of its connections removed.",
    }
    if hasattr(cls, "enable_lora"):
        attributes["enable_lora"] = unless_masked(cls.enable_lora)
    # By the name of the class Keras finds weights in a file, those of the layer
    # unmasked too.
    masked = _new_class(cls.__name__, (MaskedLayer, cls), attributes)
    # All share one name in files; `from_config` makes whichever it is.
    keras.saving.register_keras_serializable("snip_tf", "MaskedLayer")(
        _WeakClass(masked)
    )
    keras.saving.register_keras_serializable("snip_tf", "MaskedLayer")(MaskedLayer)
    _classes[cls] = weakref.ref(masked)
    return masked


def _new_class(name: str, bases: tuple[type, ...], attributes: dict) -> type:
    """A class, made past what a metaclass of the user's does with its classes."""
    meta = type(bases[-1])
    make = abc.ABCMeta if issubclass(meta, abc.ABCMeta) else type
    return make.__new__(meta, name, bases, attributes)


class _WeakClass:
    """Equal to a class, by which Keras finds the registered name, but not keeping it.

    Keras keeps what is registered for ever, and a class what its methods close over.
    """

    # For the moment in which Keras has this registered instead of `MaskedLayer`.
    from_config = MaskedLayer.from_config

    def __init__(self, cls: type):
        self._class = weakref.ref(cls)
        self._hash = hash(cls)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or self._class() is other


_QUANTIZED = ("int8", "int4", "float8")


def _quantize(layer: MaskedLayer, mode: Any = None, **options: Any) -> None:
    """Keras' `quantize` of the plain layer; zeros are zeros in eight bits, too.

    What is not a float any more is not trained, and so needs no mask; what stays one
    keeps its own.
    """
    config = options.get("config")
    wanted = mode or getattr(config, "mode", None)
    if wanted not in _QUANTIZED:
        raise ValueError(
            f"Expected one of {', '.join(map(repr, _QUANTIZED))} as the mode to "
            f"quantize a pruned model in. Received: {wanted!r} for layer "
            f"{layer.name!r}. Call `quantize` on the model that "
            f"`snip_tf.strip_pruning` gives."
        )
    masked, layers_own = type(layer), vars(layer)["quantize"]
    _set_class(layer, plain_class(layer))
    try:
        layers_own(mode, **options)
    finally:
        if any(mask_of(weight) is not None for weight in layer.weights):
            _set_class(layer, masked)


def _set_class(layer: keras.Layer, cls: type[keras.Layer]) -> None:
    # Past the layer's own `__setattr__`, which is for state, and past the property.
    object.__dict__["__class__"].__set__(layer, cls)


def _set_attribute(layer: keras.Layer, name: str, value: Any) -> None:
    # Past the layer's own `__setattr__`, which is for state.
    object.__setattr__(layer, name, value)
