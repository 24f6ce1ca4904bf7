"""The weights of a model: their paths, their owners, and which are prunable."""

from __future__ import annotations

import fnmatch
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from snip_tf import _backend
from snip_tf._keras import held_layers
from snip_tf.checks import check_signature, near_misses

# A selection of weights: a glob pattern or a layer, several, or a predicate.
Patterns: TypeAlias = (
    str
    | keras.Layer
    | Iterable[str | keras.Layer]
    | Callable[[str, keras.Variable], bool]
)


def layer_tree(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields a layer and all layers that it holds at any depth."""
    yield layer
    for sub in held_layers(layer):
        yield from layer_tree(sub)


def values_of(weight: keras.Variable, dtype: Any = np.float64) -> np.ndarray:
    """Returns the values of a weight as an array."""
    return _backend.as_array(weight).astype(dtype)


def is_stateful(model: keras.Model) -> bool:
    """Returns whether a layer keeps a state per example, so batches cannot be split."""
    return any(getattr(layer, "stateful", False) for layer in layer_tree(model))


def weights_by_path(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Returns every weight below `layer` once, by weight path, in the layer's order.

    The path is the names of the layers from (not including) `layer` down to the owner,
    then the weight's name, or its attribute's if it has none. A weight that several
    layers share is listed where the walk meets it first, and siblings with the same
    name are distinguished by `_1`, `_2`, ...

    Args:
        layer: a built `keras.Layer` or `keras.Model`.

    Returns:
        `{weight path: keras.Variable}`.
    """
    return Walk(layer).weights


class Owner(NamedTuple):
    """A layer, and the weights that it owns itself, by name.

    A weight that several layers share has several owners.
    """

    layer: keras.Layer
    weights: dict[str, keras.Variable]


class Walk:
    """A traversal of a layer and all that it holds at any depth.

    Args:
        layer: a built `keras.Layer` or `keras.Model`.

    Attributes:
        weights: `{weight path: keras.Variable}`; see `weights_by_path`.
        owners: list of `Owner`, one for each layer, `layer` first.
    """

    def __init__(self, layer: keras.Layer):
        self.weights: dict[str, keras.Variable] = {}
        self.owners: list[Owner] = []
        self._seen: set[int] = set()
        self._visit(layer, "")

    def _visit(self, layer: keras.Layer, prefix: str) -> None:
        held = held_layers(layer)
        own = own_weights(layer)
        self.owners.append(Owner(layer, own))
        for weight in own.values():
            if id(weight) not in self._seen:
                self._seen.add(id(weight))
                path = _unused(prefix + _name_in(layer, weight), self.weights)
                self.weights[path] = weight
        taken: set[str] = set()
        for sub in held:
            if id(sub) not in self._seen:
                self._seen.add(id(sub))
                name = _unused(prefix + sub.name, taken)
                taken.add(name)
                self._visit(sub, name + "/")


def own_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Returns the weights that a layer owns itself (not a layer inside it), by name."""
    below = {id(weight) for sub in held_layers(layer) for weight in sub.weights}
    own: dict[str, keras.Variable] = {}
    for weight in layer.weights:
        if id(weight) not in below:
            own[_unused(_name_in(layer, weight), own)] = weight
    return own


def _name_in(layer: keras.Layer, weight: keras.Variable) -> str:
    """Returns the weight's name, or its attribute's if it was made without a name.

    Keras numbers those anew in each process: `variable_7` may be `variable_3` in the
    next.
    """
    if not re.fullmatch(r"variable(_\d+)?", weight.name):
        return weight.name
    attributes = (name for name, value in vars(layer).items() if value is weight)
    return next(attributes, "variable")


def why_not_prunable(path: str, variable: keras.Variable) -> str | None:
    """Returns why a weight is left alone by default, or None if it is prunable.

    Kernels of every kind are prunable: trainable floating-point weights of rank 2 or
    more. Rank alone does not decide, since a GRU's bias and the biases of attention
    have rank 2, and an embedding is left alone because one mini-batch touches few of
    its rows.
    """
    name = path.rpartition("/")[2]
    if not variable.trainable:
        return "not trainable"
    if not keras.backend.is_float_dtype(variable.dtype):
        return f"not floating point ({variable.dtype})"
    if "bias" in name:
        return "a bias"
    if name in ("gamma", "beta"):
        return "a normalization scale or offset"
    if name == "alpha":
        return "the slope of an activation"
    if "embedding" in name:
        return "an embedding"
    if name.startswith("lora_"):
        return "a factor of a low-rank update, which is dense"
    if len(variable.shape) < 2:
        return f"rank {len(variable.shape)}, not a kernel"
    return None


def choose_prunable(
    model: keras.Model,
    weights: dict[str, keras.Variable],
    include: Patterns | None,
    exclude: Patterns | None,
) -> dict[str, keras.Variable]:
    """Returns the weights that pruning considers; see `prunable_weights`."""
    trainable = {path: v for path, v in weights.items() if v.trainable}
    included = _matching(model, trainable, include, "include")
    excluded = _matching(model, weights, exclude, "exclude")
    chosen = {}
    for path, variable in weights.items():
        default = why_not_prunable(path, variable) is None
        if (default or path in included) and path not in excluded:
            chosen[path] = variable
    if not chosen:
        reasons = (
            f"{path} ({why_not_prunable(path, variable) or 'excluded'})"
            for path, variable in weights.items()
        )
        raise ValueError(
            f"Expected a model with at least one prunable weight (a trainable kernel). "
            f"Received: model={model.name!r} with include={include!r}, "
            f"exclude={exclude!r}, whose weights are: {', '.join(reasons) or 'none'}."
        )
    return chosen


def _matching(
    model: keras.Model,
    weights: dict[str, keras.Variable],
    patterns: Patterns | None,
    argument: str,
) -> set[str]:
    """Returns the paths of the weights that an argument chooses."""
    if patterns is None:
        return set()
    if isinstance(patterns, (str, keras.Layer)):
        patterns = [patterns]  # (a layer is a callable, too)
    if callable(patterns) and not isinstance(patterns, type):
        return _chosen_by(patterns, weights, argument)
    if not isinstance(patterns, Iterable) or isinstance(patterns, _NOT_LISTS):
        raise TypeError(
            f"Expected `{argument}` to be a glob pattern, a layer, a list of them or a "
            f"callable(path, variable). Received: {argument}="
            f"{_in_words(patterns, weights)}"
        )
    patterns = list(patterns)
    matched = set()
    for pattern in patterns:
        if isinstance(pattern, keras.Layer):
            matched |= _weights_of(pattern, model, weights, argument)
        elif isinstance(pattern, str):
            matched |= _paths_like(pattern, weights, argument)
        else:
            raise TypeError(
                f"Expected each pattern of `{argument}` to be a string or a layer. "
                f"Received: {_in_words(pattern, weights)}"
            )
    if patterns and not matched:
        trainable = "trainable " if argument == "include" else ""
        raise ValueError(
            f"Expected `{argument}` to choose at least one weight. "
            f"Received: layers without {trainable}weights, {argument}={patterns!r}"
        )
    return matched


# Iterable, but not a list of patterns.
_NOT_LISTS = (Mapping, keras.Variable, bytes, type)


def _in_words(value: Any, weights: dict[str, keras.Variable]) -> str:
    """Describes what was received for a pattern: a weight by path, not by value."""
    paths = [path for path, variable in weights.items() if variable is value]
    if paths:
        return f"the weight itself; write its path, {paths[0]!r}"
    return f"{reprlib.repr(value)} of type {type(value).__name__}"


def _chosen_by(
    predicate: Callable[[str, keras.Variable], bool],
    weights: dict[str, keras.Variable],
    argument: str,
) -> set[str]:
    check_signature(argument, predicate, ("path", "variable"))
    matched = {path for path, variable in weights.items() if predicate(path, variable)}
    if not matched:
        raise ValueError(
            f"Expected `{argument}` to choose at least one weight. The callable "
            f"received returned False for each of: {', '.join(weights)}"
        )
    return matched


def is_like(path: str, pattern: str) -> bool:
    """Returns whether a glob pattern matches a weight path.

    A path itself always matches, though brackets in the name of a layer mean something
    else in a pattern.
    """
    return path == pattern or fnmatch.fnmatchcase(path, pattern)


def _paths_like(
    pattern: str, weights: dict[str, keras.Variable], argument: str
) -> set[str]:
    hits = {path for path in weights if is_like(path, pattern)}
    if not hits:
        whole = pattern.rstrip("/") + "/*"
        advice = near_misses(pattern, list(weights))
        if pattern and any(is_like(path, whole) for path in weights):
            advice = f"For all weights of a layer of that name write {whole!r}."
        # (Only trainable weights can be added.)
        kind = "trainable weight's" if argument == "include" else "weight"
        raise ValueError(
            f"Expected each pattern of `{argument}` to match a {kind} path. "
            f"Received: {pattern!r}, which matches none. {advice}"
        )
    return hits


def _weights_of(
    layer: keras.Layer,
    model: keras.Model,
    weights: dict[str, keras.Variable],
    argument: str,
) -> set[str]:
    """Returns the paths of a layer's weights; none if it has no weights."""
    own = {id(variable) for variable in layer.weights}
    hits = {path for path, variable in weights.items() if id(variable) in own}
    layers = list(layer_tree(model))
    if hits or any(part is layer for part in layers):
        return hits
    names = [part.name for part in layers]
    advice = near_misses(layer.name, names, "layers")
    if layer.name in names:
        advice = (
            "It holds another of that name: each copy of a model has its own layers."
        )
    raise ValueError(
        f"Expected each layer of `{argument}` to be one of the model's. "
        f"Received: {layer.name!r} ({type(layer).__name__}), which {model.name!r} does "
        f"not hold. {advice}"
    )


def _unused(name: str, taken: Iterable[str]) -> str:
    if name not in taken:
        return name
    count = 1
    while f"{name}_{count}" in taken:
        count += 1
    return f"{name}_{count}"
