"""Network: a model that is read once, so that no function walks over it again."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import keras
import numpy as np

from snip_tf.checks import check_built, check_paths
from snip_tf.weights import Owner, Patterns, Walk, choose_prunable


class Network:
    """The weights of a model by path, their masks and the layers, read once.

    Each public call makes one and hands it on. It is a view of the moment: layers,
    weights or masks that are added later are not in it.

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
        walk = Walk(model)
        self.model = model
        self.weights: dict[str, keras.Variable] = walk.weights
        self.owners: list[Owner] = walk.owners

    @classmethod
    def of_layer(cls, layer: keras.Layer) -> Network:
        """Reads a layer by itself, or a model that is not to be checked."""
        walk = Walk(layer)
        return cls.of_parts(layer, walk.weights, walk.owners)

    @classmethod
    def of_parts(
        cls,
        model: keras.Model,
        weights: dict[str, keras.Variable],
        owners: list[Owner],
    ) -> Network:
        """Returns that of a model whose parts are known, as a copy's are."""
        network = cls.__new__(cls)
        network.model, network.weights, network.owners = model, weights, owners
        return network

    @property
    def layers(self) -> list[keras.Layer]:
        """The model and all layers that it holds at any depth, each once.

        Of a copy, those that own weights.
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
    """Returns the masks of those of the weights that have one, under the same keys."""
    masks = {key: mask_of(weight) for key, weight in weights.items()}
    return {key: mask for key, mask in masks.items() if mask is not None}


def check_none_pending(layer: keras.Layer) -> None:
    """Raises a ValueError if a layer that is built lacks a weight that has a mask."""
    pending = getattr(layer, "_snip_pending", None)
    if pending and layer.built:
        known = Walk(layer).weights
        check_paths(pending, known, f"The masks of layer {layer.name!r}")
