"""Attributes of a Functional model that are symbolic tensors of its graph."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras


def symbolic_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those that are symbolic tensors, or containers of them.

    Without the inputs and outputs, which each Functional model has.
    """
    return {
        name: value
        for name, value in attributes.items()
        if name not in _made_for_functional() and _is_symbolic(value)
    }


@functools.cache
def _made_for_functional() -> frozenset[str]:
    x = keras.Input((), name="x")
    y = keras.layers.Identity(name="y")(x)
    return frozenset(vars(keras.Model(x, y, name="of_layers")))


def _is_symbolic(value: Any) -> bool:
    leaves = (
        keras.tree.flatten(value) if isinstance(value, (dict, list, tuple)) else [value]
    )
    return bool(leaves) and all(isinstance(leaf, keras.KerasTensor) for leaf in leaves)
