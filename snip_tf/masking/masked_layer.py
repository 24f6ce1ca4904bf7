"""MaskedLayer: a layer with some of its connections removed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from snip_tf import _keras
from snip_tf.masking.adapted_layers import adapt_layers
from snip_tf.masking.configuration import check_config, known_class
from snip_tf.masking.low_rank import restore_updates
from snip_tf.masking.mask_files import decode_mask
from snip_tf.masking.masked_class import masked_class
from snip_tf.masking.masked_weights import (
    mask_variable,
    put_mask,
    remove,
)
from snip_tf.masking.masks import check_fits, check_masks
from snip_tf.masking.optimizers import adapt_optimizers
from snip_tf.masking.plain_class import (
    plain_class,
    replaced_methods,
    set_attribute,
    set_class,
)
from snip_tf.masking.quantizing import quantize
from snip_tf.masking.stored_masks import keep_with_owners, load_numbered_masks
from snip_tf.network import check_none_pending, is_built, mask_of
from snip_tf.weights import Walk, layer_tree


@keras.saving.register_keras_serializable(package="snip_tf")
class MaskedLayer(_keras.AfterBuild, keras.layers.Layer):
    """A layer of any kind that runs with `w * mask` instead of its weights.

    `MaskedLayer(layer, masks)` wraps `layer` in place: the very object becomes an
    instance of a subclass of both `MaskedLayer` and its own class, as PyTorch's
    parametrizations do. So whatever refers to the layer (a model, another layer, a
    training step) now has the masked one, and its attributes are unchanged; the names
    of added ones begin with `_snip_`.

    Its `call` runs inside a `keras.StatelessScope` in which each masked weight has its
    masked value, so that no layer type needs to be known: whatever reads the weight
    reads zeros where the mask is False. Removed connections therefore get no gradient,
    and a constraint on the variable holds them at exactly zero, whatever the optimizer
    does. (Only an explicit assignment can make a removed weight infinite or NaN, which
    a product with zero does not undo.) What the layer changes in a call (BatchNorm
    statistics, seed and recurrent states, its own kernel) is assigned at once, and its
    losses are passed on.

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
        ValueError: if `layer` has masks already, or a mask has an unknown path or
            another shape than its weight (for a layer that is not built: once it is).

    Input shape, output shape: those of the layer.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> dense = keras.layers.Dense(2, kernel_initializer="ones")
    >>> kept = np.array([[True, False], [False, False], [True, True]])
    >>> masked = snip_tf.MaskedLayer(dense, {"kernel": kept})
    >>> np.asarray(masked(np.ones((1, 3))))
    array([[2., 1.]], dtype=float32)
    """

    # Masks of weights that do not exist yet, the names of the layers inside, and their
    # low-rank updates.
    _snip_pending: Mapping[str, keras.Variable] = {}
    _snip_names: Sequence[str] = ()
    _snip_updates: Mapping[str, Any] = {}

    def __new__(cls, *args, **kwargs):
        """Masks a layer; if called on a masked class, makes a plain layer instead."""
        if cls is MaskedLayer:
            return _masked(*args, **kwargs)
        return cls._snip_plain_class(*args, **kwargs)

    def __init__(self, layer: keras.Layer, masks: Mapping[str, np.ndarray]):
        """Does nothing: `__new__` has masked the layer."""

    def __init_subclass__(cls, **kwargs):
        """Skips the code that a class runs for its subclasses."""

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
        """The layer's own `quantize`; a property, since Keras makes it an attribute.

        A layer may have something else under this name, such as a flag.
        """
        if "quantize" in replaced_methods(self):
            return self.__dict__["quantize"]
        return functools.partial(quantize, self)

    @quantize.setter
    def quantize(self, value: Any) -> None:
        self.__dict__["quantize"] = value

    def _snip_after_build(self) -> None:
        self._snip_put_pending()
        if plain_class(self).build not in (keras.Layer.build, keras.Model.build):
            check_none_pending(self)  # else the first call may create some weights

    def _snip_put_pending(self) -> None:
        """Puts the pending masks on weights that exist by now."""
        _put_pending(self)

    def load_own_variables(self, store: Any) -> None:
        """Loads what the layer saves itself, and masks saved by an earlier version."""
        masks = load_numbered_masks(self, store)
        if masks:
            store = {key: store[key] for key in store.keys() - set(masks)}
        super().load_own_variables(store)

    # Methods of the layer's class take precedence; these are found by its code beyond
    # that class, through `super(type(self), self)`.

    def call(self, *args, **kwargs):
        """Calls what comes after the layer's class."""
        return super(plain_class(self), self).call(*args, **kwargs)

    def build(self, *args, **kwargs):
        """Builds with what comes after the layer's class."""
        return super(plain_class(self), self).build(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration by what comes after the layer's class."""
        return super(plain_class(self), self).get_config()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.Layer:
        """Makes the layer from its configuration, and masks it."""
        check_config(config)
        layer = keras.saving.deserialize_keras_object(
            config["layer"], custom_objects=known_class(cls, config["layer"])
        )
        if not isinstance(layer, keras.Layer):
            raise ValueError(
                "Expected the configuration of a masked layer to describe a layer. "
                f"Received: that of a {type(layer).__name__}"
            )
        names = tuple(config["sublayer_names"])
        for part, name in zip(list(layer_tree(layer))[1:], names, strict=False):
            part.name = name
        masks = {path: decode_mask(mask) for path, mask in config["masks"].items()}
        masked = MaskedLayer(layer, {})
        set_attribute(masked, "_snip_names", names)
        updates = {name: config.get(name, []) for name in ("low_rank", "frozen")}
        set_attribute(masked, "_snip_updates", updates if updates["low_rank"] else {})
        _set_pending(masked, masks)
        if _has_weights(masked):
            _put_pending(masked)
        return masked

    def __reduce__(self) -> tuple:
        _, arguments = super().__reduce__()
        return _keras.unpickle(), arguments


def _masked(layer: keras.Layer, masks: Mapping[str, np.ndarray]) -> keras.Layer:
    """Masks a layer in place; see `MaskedLayer`."""
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
    walk = Walk(layer) if layer.built else None
    weights = walk.weights if walk else None
    if masks or not isinstance(masks, Mapping):
        check_masks(masks, weights)
    _wrap(layer)
    _set_pending(layer, masks)
    if walk:
        _put(layer, walk)
    return layer


def _has_weights(layer: keras.Layer) -> bool:
    # (A model without `call` is never built itself, but has the weights of its parts.)
    return is_built(layer) if isinstance(layer, keras.Model) else layer.built


def _set_pending(layer: keras.Layer, masks: Mapping[str, np.ndarray]) -> None:
    # As variables at once: in the first call, Keras may not allow creating any.
    pending = {path: mask_variable(path, mask) for path, mask in masks.items()}
    set_attribute(layer, "_snip_pending", pending)


def _put_pending(layer: keras.Layer) -> None:
    """Puts the pending masks on weights that exist by now."""
    _rename(layer)
    restore_updates(layer, layer._snip_updates)
    set_attribute(layer, "_snip_updates", {})
    _put(layer, Walk(layer))


def _put(layer: keras.Layer, walk: Walk) -> None:
    weights, pending = walk.weights, layer._snip_pending
    made = {path: mask for path, mask in pending.items() if path in weights}
    if not made:
        return
    for path, mask in made.items():
        check_fits(path, mask, weights[path])
        put_mask(weights[path], mask)
        remove(weights[path])
    left = {path: mask for path, mask in pending.items() if path not in made}
    set_attribute(layer, "_snip_pending", left)
    if isinstance(layer, keras.Model):
        _wrap_layers_of(layer)
    keep_with_owners(walk.owners)


def _rename(layer: keras.Layer) -> None:
    """Gives the layers inside, once all exist, the names they were saved with.

    Keras renumbers unnamed layers when it makes them from a configuration, but the
    paths of the masks must stay.
    """
    parts = list(layer_tree(layer))[1:]
    if len(parts) == len(layer._snip_names):
        for part, name in zip(parts, layer._snip_names, strict=True):
            part.name = name


def wrap_model(model: keras.Model) -> None:
    """Wraps the layers of a model that have masked weights.

    Keras makes a Sequential or Functional model from its configuration layer by layer,
    masked ones included. Any other model makes its layers itself, so it is wrapped,
    too, and keeps their masks in its configuration.
    """
    _wrap_layers_of(model)
    made_of_layers = (keras.Sequential, _keras.functional_class())
    if type(model) not in made_of_layers and not isinstance(model, MaskedLayer):
        _wrap(model)


def _wrap_layers_of(model: keras.Model) -> None:
    for layer in model.layers:
        if not any(mask_of(weight) is not None for weight in layer.weights):
            continue
        if isinstance(layer, keras.Model):
            wrap_model(layer)
        elif not isinstance(layer, MaskedLayer):
            _wrap(layer)


def _wrap(layer: keras.Layer) -> None:
    """Makes a layer a `MaskedLayer`, in place."""
    adapt_optimizers()
    adapt_layers()
    set_class(layer, masked_class(type(layer), MaskedLayer))
