"""MaskedLayer: a layer with some of its connections removed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from snip_tf.compiling import inlined
from snip_tf.masks import PackedMask, check_masks, decode_mask, encode_mask
from snip_tf.weights import check_paths, held_layers, layer_tree, weights_by_path


@keras.saving.register_keras_serializable(package="snip_tf")
class MaskedLayer(keras.layers.Layer):
    """A layer of any kind that runs with `w * mask` in the place of its weights.

    `MaskedLayer(layer, masks)` wraps `layer` in place: the very object becomes an
    instance of a subclass of both `MaskedLayer` and its own class, as PyTorch's
    parametrizations do. So whatever refers to the layer (a model, another layer, a
    training step) now has the masked one, and its attributes are what they were.

    Its `call` runs inside a `keras.StatelessScope` in which each masked weight has its
    masked value, so that no layer type needs to be known: whatever reads the weight
    reads zeros where the mask is False. Removed connections therefore get no gradient,
    and a constraint on the variable holds them at exactly zero, whatever the optimizer
    does. (Only what is assigned by hand can make a removed weight infinite or NaN,
    which no product undoes.) What the layer changes in a call (BatchNorm statistics,
    seed and recurrent states) is assigned back, and its losses are handed on.

    The masks are state, not weights: they are saved with the layer, but `weights` and
    `get_weights` are those of the layer alone.

    Args:
        layer: `keras.Layer`, built or not. Of a `keras.Model`, each layer that has a
            masked weight is wrapped.
        masks: `{weight path below the layer: boolean array}` of the weight's shape,
            True is kept.

    Input shape, output shape: those of the layer.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> dense = keras.layers.Dense(2, kernel_initializer="ones")
    >>> kept = np.array([[True, False], [False, False], [True, True]])
    >>> masked = snip_tf.MaskedLayer(dense, {"kernel": kept})
    >>> np.asarray(masked(np.ones((1, 3))))
    array([[2., 1.]], dtype=float32)
    """

    _snip_masks: Mapping[str, keras.Variable] = {}
    _snip_mask_names: Sequence[str] = ()

    def __new__(cls, layer: keras.Layer, masks: Mapping[str, np.ndarray]):  # noqa: D102
        if not isinstance(layer, keras.Layer):
            raise TypeError(
                f"Expected `layer` to be a `keras.Layer`. Received: {layer!r} of type "
                f"{type(layer).__name__}"
            )
        if isinstance(layer, MaskedLayer):
            raise ValueError(
                f"Expected a layer without masks. Received: layer={layer.name!r}, "
                f"which is a MaskedLayer already. Change its masks with `set_masks`."
            )
        if isinstance(layer, keras.Model):
            masks = _mask_layers_of(layer, masks)
        _set_class(layer, _masked_class(type(layer)))
        if masks:
            layer._add_masks(masks)
        return layer

    def __init__(self, layer: keras.Layer, masks: Mapping[str, np.ndarray]):
        """All is done, in the place of what was made before; see `__new__`."""

    def _add_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        variables = {path: _mask_variable(path, mask) for path, mask in masks.items()}
        # Keras locks a layer when it is built, and has no public way to add state to it
        # after that; its own `enable_lora` does the same.
        locked = self._tracker.locked
        self._tracker.unlock()
        self._snip_masks = variables
        for index, mask in enumerate(variables.values()):
            # TensorFlow's checkpoints see attributes, but not what is in Keras' dicts.
            setattr(self, f"_snip_mask{index}", mask)
        if locked:
            self._tracker.lock()
        if self.built:
            self._remove()

    @property
    def masks(self) -> dict[str, keras.Variable]:
        """`{weight path below the layer: bool variable}`, True is kept."""
        return dict(self._snip_masks)

    @property
    def weights(self) -> list[keras.Variable]:
        """The weights of the layer, without the masks."""
        masks = {id(mask) for mask in self._snip_masks.values()}
        return [weight for weight in super().weights if id(weight) not in masks]

    def set_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        """Assigns masks, and zeros to the weights that they remove.

        Args:
            masks: `{weight path below the layer: bool array}` for any of the masks.

        Raises:
            TypeError: if a mask is not boolean.
            ValueError: if a path is not known, or a shape does not fit.
        """
        known = self.masks
        check_masks(masks, known)
        for path, mask in masks.items():
            known[path].assign(mask)
        if self.built:
            self._remove()

    def masked_weights(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Each masked weight that there is yet, with its mask.

        Of a model, only its own weights: those of its layers are masked there.
        """
        weights = weights_by_path(self) if self._snip_masks else {}
        return [
            (weights[path], mask)
            for path, mask in self._snip_masks.items()
            if path in weights
        ]

    def _remove(self) -> None:
        """Zeros the removed weights, and has every optimizer's step end in zeros."""
        for weight, mask in self.masked_weights():
            weight.assign(masked_value(weight, mask))
            if not isinstance(weight.constraint, KeepZeros):
                weight.constraint = KeepZeros(weight.constraint, mask)

    def _post_build(self) -> None:
        # Keras calls this after every way in which a layer gets its weights, and has no
        # public hook for it: `build` is bound to the layer before it is masked.
        super()._post_build()
        self._rename()
        self._remove()

    def _rename(self) -> None:
        """Gives the layers inside, once all are made, the names they were saved with.

        Keras numbers those without a name of their own anew when they are made from a
        configuration, but the paths of the masks must stay.
        """
        parts = list(layer_tree(self))[1:]
        if len(parts) == len(self._snip_mask_names):
            for part, name in zip(parts, self._snip_mask_names, strict=True):
                part.name = name

    def _call_masked(self, call: Callable, args: tuple, kwargs: dict) -> Any:
        """`call`, the layer's own, on masked weights."""
        masked = self.masked_weights()
        if len(masked) < len(self._snip_masks):
            # Layers below make their weights in this call, the first.
            call(self, *args, **kwargs)
            self._rename()
            self._remove()
            masked = self.masked_weights()
            known = weights_by_path(self)
            check_paths(self._snip_masks, known, f"The masks of layer {self.name!r}")
        if not masked:
            return call(self, *args, **kwargs)
        # A product, which takes half the time of `where` (`benchmarks/step_time.py`).
        # (In a scope a weight may have a value of another type.)
        values = [
            (
                weight,
                keras.ops.multiply(weight, keras.ops.cast(mask, weight.value.dtype)),
            )
            for weight, mask in masked
        ]
        with inlined(self), _Scope(values) as scope:
            outputs = call(self, *args, **kwargs)
        for variable in scope.updated.values():
            variable.assign(scope.get_current_value(variable))
        for loss in scope.losses:
            # A new tensor: Keras knows losses by their id, and a layer inside has
            # already claimed this one.
            self.add_loss(keras.ops.add(loss, 0))
        return outputs

    @contextlib.contextmanager
    def _masks_apart(self) -> Iterator[None]:
        """Takes the masks out of what the layer knows as its own variables."""
        for mask in self._snip_masks.values():
            self._untrack_variable(mask)
        locked = self._tracker.locked
        self._tracker.unlock()
        try:
            yield
        finally:
            for mask in self._snip_masks.values():
                self._track_variable(mask)
            if locked:
                self._tracker.lock()

    def save_own_variables(self, store: Any) -> None:  # noqa: D102
        with self._masks_apart():
            super().save_own_variables(store)
        for key, mask in self._stored_masks().items():
            store[key] = np.packbits(keras.ops.convert_to_numpy(mask))

    def load_own_variables(self, store: Any) -> None:  # noqa: D102
        keys, masks = set(store.keys()), self._stored_masks()
        with self._masks_apart():
            super().load_own_variables({key: store[key] for key in keys - set(masks)})
        for key, mask in masks.items():
            if key in keys:  # else these are the weights of a model that is not pruned
                mask.assign(PackedMask(np.asarray(store[key]), mask.shape).unpack())
        self._remove()

    def _stored_masks(self) -> dict[str, keras.Variable]:
        masks = self._snip_masks.values()
        return {f"mask_bits{index}": mask for index, mask in enumerate(masks)}

    def get_config(self) -> dict[str, Any]:
        """The layer as it was before it was masked, and all the masks in it."""
        masks = {
            path: encode_mask(keras.ops.convert_to_numpy(mask))
            for path, mask in all_masks(self).items()
        }
        with unmasked(self):
            try:
                layer = keras.saving.serialize_keras_object(self)
            except NotImplementedError as error:
                raise NotImplementedError(
                    f"Keras makes a configuration of {self.name!r}, to save or clone "
                    f"it, by the `get_config` of {type(self).__name__}, which does not "
                    f"give one: implement it. Or keep `save_weights(...)` and "
                    f"`snip_tf.save_masks(path, snip_tf.get_masks(model))`, and then "
                    f"build the model anew, its layers named as now, call "
                    f"`snip_tf.apply_masks(model, snip_tf.load_masks(path))`, and "
                    f"`load_weights(...)` on that."
                ) from error
        layer.pop("compile_config", None)
        if not isinstance(self, keras.Model):
            layer.pop("build_config", None)
        return {
            "layer": layer,
            "sublayer_names": [part.name for part in layer_tree(self)][1:],
            "masks": masks,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.Layer:  # noqa: D102
        layer = keras.saving.deserialize_keras_object(config["layer"])
        names = config["sublayer_names"]
        for part, name in zip(list(layer_tree(layer))[1:], names, strict=False):
            part.name = name
        masks = {path: decode_mask(mask) for path, mask in config["masks"].items()}
        masked = MaskedLayer(layer, masks)
        # Past the layer's own `__setattr__`, which is for state.
        object.__setattr__(masked, "_snip_mask_names", tuple(names))
        return masked

    def __reduce__(self) -> tuple:
        # To be pickled, a method must be of a class that is found by its name.
        _, arguments = super().__reduce__()
        return keras.Layer._unpickle_model, arguments


class _Scope(keras.StatelessScope):
    """Gives some variables other values, and lets the rest be as it is outside."""

    def __init__(self, values: list[tuple[keras.Variable, Any]]):
        super().__init__(values, collect_losses=True)
        self._given = {id(variable) for variable, _ in values}
        self.updated: dict[int, keras.Variable] = {}

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        variable, value = update
        if id(variable) in self._given:
            super().add_update(update)
            self.updated[id(variable)] = variable
            return
        # At once, since a value from inside a loop or a branch is unknown after it.
        self.__exit__()
        try:
            variable.assign(value)
        finally:
            self.__enter__()

    def get_current_value(self, variable: keras.Variable) -> Any:
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            # Keras does not look through to the scope around this one.
            value = self.original_scope.get_current_value(variable)
        return value


class KeepZeros(keras.constraints.Constraint):
    """A weight's own constraint, then its mask.

    Masked gradients already keep zeros under optimizers that treat each weight by
    itself. Others mix them (Muon orthogonalizes whole matrices); and a hand-written
    training step may do anything.
    """

    def __init__(self, constraint: keras.constraints.Constraint | None, mask):
        self.constraint = constraint
        self.mask = mask

    def __call__(self, w):  # noqa: D102
        if self.constraint is not None:
            w = self.constraint(w)
        return masked_value(w, self.mask)


def _mask_variable(path: str, mask: np.ndarray | keras.Variable) -> keras.Variable:
    if isinstance(mask, keras.Variable):
        return mask
    # bool, by measurement (`benchmarks/mask_dtype.py`, two cores, batch 100): a
    # training step over the dense model's took 1.10 (LeNet-300-100), 1.08 (LeNet-5)
    # and 1.01 (an MLP of 6.3 million weights); with uint8 1.13, 0.99, 1.01; with
    # float32 1.03, 0.98, 1.13: no difference beyond the noise, of about 0.1, while
    # float32 takes four times the memory, as much as the weight itself.
    name = path.replace("/", "_") + "_mask"
    return keras.Variable(mask, dtype="bool", trainable=False, name=name)


def masked_value(weight: Any, mask: Any) -> Any:
    """`weight * mask`, as a tensor: a removed weight is zero whatever it was."""
    # `where` rather than a product: 0 * inf would be NaN, and -1 * 0 is -0. The number
    # takes the type of the weight.
    return keras.ops.where(mask, weight, 0)


def all_masks(layer: keras.Layer) -> dict[str, keras.Variable]:
    """The masks of a layer and of all below it, by weight path; empty without any."""
    by_weight = {
        id(weight): mask
        for part in layer_tree(layer)
        if isinstance(part, MaskedLayer)
        for weight, mask in part.masked_weights()
    }
    if not by_weight:
        return {}
    return {
        path: by_weight[id(weight)]
        for path, weight in weights_by_path(layer).items()
        if id(weight) in by_weight
    }


def mask_model(
    model: keras.Model, masks: Iterable[tuple[str, np.ndarray | keras.Variable]]
) -> None:
    """Wraps the layers of a model that have a masked weight, in place.

    The masks, by weight path, may be made one by one, so that none is held twice, as an
    array and as a variable.

    Keras makes a Sequential or Functional model from its configuration layer by layer,
    masked ones included. Any other model makes its layers itself, so it is wrapped too,
    and has their masks in its configuration.
    """
    variables = {path: _mask_variable(path, mask) for path, mask in masks}
    if is_made_of_layers(model):
        _mask_layers_of(model, variables)
    else:
        MaskedLayer(model, variables)


def is_made_of_layers(layer: keras.Layer) -> bool:
    """Whether a layer is exactly a `keras.Sequential` or a Functional model."""
    return type(layer) in (keras.Sequential, functional_class())


@functools.cache
def functional_class() -> type:
    """The class of Functional models, for which Keras has no public name."""
    x = keras.Input(())
    return type(keras.Model(x, x))


def _mask_layers_of(
    model: keras.Model, masks: Mapping[str, np.ndarray | keras.Variable]
) -> dict[str, keras.Variable]:
    """Wraps the layers of a model; returns the masks of weights that are its own.

    A weight that several layers use has one mask, which is a variable of each.
    """
    weights = weights_by_path(model)
    by_weight = {
        id(weights[path]): _mask_variable(path, mask) for path, mask in masks.items()
    }
    in_layers: set[int] = set()
    for layer in held_layers(model):
        inside = {
            path: by_weight[id(weight)]
            for path, weight in weights_by_path(layer).items()
            if id(weight) in by_weight
        }
        in_layers.update(map(id, inside.values()))
        if not inside or isinstance(layer, MaskedLayer):
            continue  # nothing to do, or shared with a model that came before
        if isinstance(layer, keras.Model):
            mask_model(layer, inside.items())
        else:
            MaskedLayer(layer, inside)
    own = {path: by_weight[id(weights[path])] for path in masks}
    return {path: mask for path, mask in own.items() if id(mask) not in in_layers}


@contextlib.contextmanager
def unmasked(layer: keras.Layer) -> Iterator[None]:
    """Gives the layers of a tree their own classes for a while, to be serialized."""
    parts = [part for part in layer_tree(layer) if isinstance(part, MaskedLayer)]
    classes = [type(part) for part in parts]
    for part, masked_class in zip(parts, classes, strict=True):
        _set_class(part, masked_class.unmasked_class)
    try:
        yield
    finally:
        for part, masked_class in zip(parts, classes, strict=True):
            _set_class(part, masked_class)


@functools.cache
def _masked_class(cls: type[keras.Layer]) -> type[keras.Layer]:
    """The subclass of `MaskedLayer` and `cls`."""

    # `wraps`, since Keras reads in the signature of `call` which arguments it takes.
    @functools.wraps(cls.call)
    def call(self, *args, **kwargs):
        return self._call_masked(cls.call, args, kwargs)

    attributes = {
        "call": call,
        "unmasked_class": cls,
        "__qualname__": f"Masked{cls.__qualname__}",
        "__doc__": f"A `{cls.__name__}` with some of its connections removed.",
    }
    if hasattr(cls, "enable_lora"):
        attributes["enable_lora"] = _refuse_lora
    # By the name of the class Keras finds weights in a file, those of the layer
    # unmasked too.
    masked = type(cls.__name__, (MaskedLayer, cls), attributes)
    # All share one name in files; `from_config` makes whichever it is.
    return keras.saving.register_keras_serializable("snip_tf", "MaskedLayer")(masked)


def _refuse_lora(layer: MaskedLayer, *args: Any, **kwargs: Any) -> None:
    """In the place of `enable_lora`.

    Keras saves the sum of a kernel and its update, which is dense; loaded under the
    masks, it would compute something else.
    """
    raise ValueError(
        f"Expected a layer without masks, since a low-rank update (LoRA) is dense: it "
        f"would bring removed connections back. Received: layer={layer.name!r}, which "
        f"is pruned. Call `enable_lora` on the model that `snip_tf.strip_pruning` "
        f"gives; the zeros stay in the kernel, beside the update."
    )


def _set_class(layer: keras.Layer, cls: type[keras.Layer]) -> None:
    # Past the layer's own `__setattr__`, which is for state.
    object.__setattr__(layer, "__class__", cls)
