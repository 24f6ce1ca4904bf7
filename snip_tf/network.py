"""Network: a model that is read once, so that no function has to traverse it again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from snip_tf import _backend
from snip_tf._keras import held_layers
from snip_tf.checks import check_paths
from snip_tf.weights import Owner, Patterns, Walk, choose_prunable


class Network:
    """The weights of a model by path, their masks and the layers, read once.

    Each public call makes one and passes it on. It is a snapshot: layers, weights or
    masks that are added later are not in it.

    Args:
        model: a built `keras.Model`, pruned or not.

    Attributes:
        model: the model.
        weights: `{weight path: keras.Variable}`, all of them, in the model's order.
        owners: list of `Owner`, one for each layer at any depth, the model first: the
            layer, and `{name: keras.Variable}` of the weights that it owns itself.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built.
    """

    def __init__(self, model: keras.Model):
        check_built(model)
        _backend.sync(model)
        walk = Walk(model)
        self.model = model
        self.weights: dict[str, keras.Variable] = walk.weights
        self.owners: list[Owner] = walk.owners

    @classmethod
    def of_layer(cls, layer: keras.Layer) -> Network:
        """Reads a single layer, or a model without checking it."""
        walk = Walk(layer)
        return cls.of_parts(layer, walk.weights, walk.owners)

    @classmethod
    def of_parts(
        cls,
        model: keras.Model,
        weights: dict[str, keras.Variable],
        owners: list[Owner],
    ) -> Network:
        """Returns the network of a model whose parts are known, such as a copy's."""
        network = cls.__new__(cls)
        network.model, network.weights, network.owners = model, weights, owners
        return network

    @property
    def layers(self) -> list[keras.Layer]:
        """The model and all layers that it holds at any depth, each once.

        For a copy, only those that own weights.
        """
        return [owner.layer for owner in self.owners]

    @functools.cached_property
    def mask_variables(self) -> dict[str, keras.Variable]:
        """The masks by weight path, as variables; empty if the model is not pruned.

        Raises:
            ValueError: if a layer that is built has a mask for a weight that it lacks.
        """
        for layer in self.layers:
            check_none_pending(layer)
        return masks_of(self.weights)

    @functools.cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """The masks by weight path, as boolean arrays; empty if it is not pruned."""
        return {
            path: keras.ops.convert_to_numpy(mask)
            for path, mask in self.mask_variables.items()
        }

    def prunable(
        self, include: Patterns | None = None, exclude: Patterns | None = None
    ) -> dict[str, keras.Variable]:
        """Returns the weights that pruning considers; see `prunable_weights`."""
        return choose_prunable(self.model, self.weights, include, exclude)


def mask_of(weight: keras.Variable) -> keras.Variable | None:
    """Returns the mask of a weight, or None if it is not pruned.

    It belongs to the weight, so that whoever has the weight has its mask.
    """
    return getattr(weight, "_snip_mask", None)


def masks_of(weights: Mapping[str, keras.Variable]) -> dict[str, keras.Variable]:
    """Returns the masks of the weights that have one, under the same keys."""
    masks = {key: mask_of(weight) for key, weight in weights.items()}
    return {key: mask for key, mask in masks.items() if mask is not None}


def check_none_pending(layer: keras.Layer) -> None:
    """Raises a ValueError if a layer that is built lacks a weight that has a mask."""
    pending = getattr(layer, "_snip_pending", None)
    if pending and layer.built:
        known = Walk(layer).weights
        check_paths(pending, known, f"The masks of layer {layer.name!r}")


def prunable_weights(
    model: keras.Model,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> dict[str, keras.Variable]:
    """Returns the weights of a model that pruning considers.

    By default these are the trainable kernels of every kind of layer: floating-point
    weights of rank 2 or more that are neither biases, nor normalization scales, nor
    embeddings. `include` adds to them, then `exclude` takes away.

    Args:
        model: a built `keras.Model`, pruned or not.
        include: a glob pattern on weight paths (`"*"` also matches `/`), a layer of the
            model (for all its weights, at any depth), a list of them, or a callable
            `(path, variable) -> bool`: trainable weights to add, such as `"*/bias"`.
        exclude: the same, for weights to leave alone, such as `"head/*"`.

    Returns:
        `{weight path: keras.Variable}`, in the model's order. A weight path is the
        names of the layers from the model down to the owner, then the weight's name;
        the model's own name is not part of it.

    Raises:
        TypeError: if `model` is not a Keras model, or a pattern is of the wrong kind.
        ValueError: if the model is not built, a pattern matches nothing, a layer is not
            one of the model's, or nothing prunable is left.

    Example:

    >>> import keras, snip_tf
    >>> head = keras.layers.Dense(3, name="head")
    >>> model = keras.Sequential([keras.Input((4,)), head])
    >>> list(snip_tf.prunable_weights(model))
    ['head/kernel']
    >>> list(snip_tf.prunable_weights(model, include="*/bias"))
    ['head/kernel', 'head/bias']
    """
    return Network(model).prunable(include, exclude)


def check_model(model: Any) -> None:
    """Raises a TypeError unless `model` is a Keras 3 model."""
    if isinstance(model, keras.Model):
        return
    kind = f"{type(model).__module__}.{type(model).__name__}"
    received = f"model={model!r} of type {kind}" if isinstance(model, str) else kind
    advice = (
        "Load a file with `keras.models.load_model` first; models of Keras 2 "
        "(`tf_keras`) and of other libraries have to be built in Keras 3."
    )
    if isinstance(model, type):
        received = f"the class {model.__name__}"
        if issubclass(model, keras.Model):
            advice = f"Make a model of it first: {model.__name__}(...)."
    elif isinstance(model, keras.Layer):
        advice = (
            "Make a model of the layer: keras.Sequential([keras.Input(...), layer])."
        )
    elif hasattr(model, "shape"):
        advice = "The model comes first, then the data."
    elif isinstance(model, Mapping):
        advice = "The model comes first, then the masks."
    raise TypeError(
        f"Expected `model` to be a Keras 3 model (`keras.Model`). "
        f"Received: {received}. {advice}"
    )


def check_built(model: Any) -> None:
    """Raises unless `model` is a Keras 3 model that has its weights."""
    check_model(model)
    if is_built(model):
        return
    received, what = f"model={model.name!r}, not built", "it"
    if not has_call(model):
        parts = ", ".join(map(repr, _unbuilt_parts(model))) or "all"
        received += f" and without `call`, with parts that are not built: {parts}"
        what = "each of them"
    raise ValueError(
        f"Expected a built model, since an unbuilt one has no weights yet. "
        f"Received: {received}. Call {what} on a batch, or give it a `keras.Input`."
    )


def is_built(model: keras.Model) -> bool:
    """Returns whether a model has its weights.

    One without `call`, such as a GAN of a generator and a critic, which its
    `train_step` calls, is never built by Keras; it has the weights of its parts.
    """
    if model.built or has_call(model):
        return model.built
    return bool(model.weights) and not _unbuilt_parts(model)


def has_call(model: keras.Model) -> bool:
    """Returns whether a model computes something itself."""
    # (That of a pruned model wraps that of its class.)
    calls = {inspect.unwrap(cls.call) for cls in (type(model), keras.Model)}
    return len(calls) > 1


def _unbuilt_parts(model: keras.Model) -> list[str]:
    return [part.name for part in held_layers(model) if _lacks_weights(part)]


def _lacks_weights(layer: keras.Layer) -> bool:
    """Returns whether a layer, or one inside it, has yet to create its weights.

    Many of Keras' layers without weights, such as those that resize or augment images,
    are not built before they are called.
    """
    if layer.built:
        return False
    without = (keras.Layer.build, keras.Model.build, keras.Sequential.build)
    makes = type(layer).build not in without
    return makes or any(map(_lacks_weights, held_layers(layer)))
