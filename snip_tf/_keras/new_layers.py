"""Layers made as copies, past their constructors."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import keras

from snip_tf._keras.layers import ADDED_BY_BACKEND, functional_class


def new_layer(cls: type[keras.Layer]) -> Any:
    """Returns what `keras.Layer.__new__` does, for a layer made without a constructor.

    That reads the signature of the constructor twice, to record its arguments. The rest
    is to make methods of the layer of two functions.
    """
    wrappers = _wrappers()
    if not wrappers:
        return keras.Layer.__new__(cls)
    layer = super(keras.Operation, cls).__new__(cls)
    for name, wrapper in wrappers.items():
        method = getattr(layer, name)
        cells = (layer if var == "obj" else method for var in _variables_of(wrapper))
        own = types.FunctionType(
            wrapper.__code__,
            wrapper.__globals__,
            name,
            wrapper.__defaults__,
            tuple(map(types.CellType, cells)),
        )
        vars(layer)[name] = functools.update_wrapper(own, method)
    return layer


@functools.cache
def _wrappers() -> dict[str, types.FunctionType]:
    """Returns the methods that Keras makes of each layer; empty if it is not known how.

    With Flax a layer has more that is made there.
    """
    own = vars(keras.layers.Layer(name="layer"))
    wrappers = {n: f for n, f in own.items() if isinstance(f, types.FunctionType)}
    known = all(
        set(_variables_of(wrapper)) == {"obj", f"original_{name}_method"}
        for name, wrapper in wrappers.items()
    )
    return wrappers if known and keras.backend.backend() == "tensorflow" else {}


def _variables_of(function: types.FunctionType) -> tuple[str, ...]:
    return function.__code__.co_freevars


def initialize_like(new: keras.Layer, layer: keras.Layer) -> bool:
    """Does what the constructor of `keras.Layer` does, if nothing of it is replaced.

    The constructor sets 30 attributes, and for each Keras and TensorFlow look at what
    is to be tracked. A class may set attributes in a way of its own.

    Args:
        new: a layer that `new_layer` returned; for a model, the constructor is that of
            `keras.Model`.
        layer: one of the same class, from which what depends on the class is taken.

    Returns:
        Whether it is done.
    """
    own = vars(layer)
    base = keras.Model if isinstance(new, keras.Model) else keras.Layer
    if (
        not _has_known_attributes(type(new), base)
        or own["activity_regularizer"] is not None
    ):
        return False
    made = _made_by(base)
    known: Any = made.tracker
    stores: dict[str, tuple[Callable, list]]
    stores = {name: (test, []) for name, (test, _) in known.config.items()}
    tracker = type(known)(stores, exclusions=known.exclusions)
    read = {name: own.get(name) for name in made.read}
    if "_call_has_context_arg" in made.plain:  # Keras 3.8 has none
        read["_call_has_context_arg"] = {"training": own["_call_has_training_arg"]}
    attributes = vars(new)
    attributes.update(made.plain, **read, _tracker=tracker)
    for name, value in made.containers.items():
        # Of Keras' own kinds, which track what is added later.
        kind: Any = type(value)
        attributes[name] = kind(read.get(name, value), tracker)
    for name, store in made.stores.items():
        attributes[name] = stores[store][1]
    return True


# What the constructor is given, or reads in the class and the scope of a strategy.
_READ_BY_CONSTRUCTOR = (
    "_auto_config",
    "_call_has_mask_arg",
    "_call_has_training_arg",
    "_call_signature",
    "_compute_loss_has_training_arg",
    "_distribute_strategy",
    "autocast",
    "call_signature_parameters",
    "name",
)


def initialize_sequence_like(new: keras.Sequential, model: keras.Sequential) -> None:
    """Does what the constructor of `keras.Sequential` does without layers."""
    if initialize_like(new, model):
        new._functional = None
        new._layers = []
    else:
        keras.Sequential.__init__(new, name=model.name)


def initialize_graph_like(
    new: keras.Model, model: keras.Model, inputs: Any, outputs: Any
) -> None:
    """Does what the constructor of a Functional model does.

    Args:
        new: a model that `new_layer` returned.
        model: one of the same class.
        inputs: the inputs of the new model's graph, in the structure of the model's.
        outputs: its outputs.
    """
    if _has_known_graph() and initialize_like(new, model):
        _set_graph(new, inputs, outputs)
    else:
        initialize: Callable = functional_class().__init__
        initialize(new, inputs, outputs, name=model.name)


def _set_graph(new: keras.Model, inputs: Any, outputs: Any) -> None:
    from keras.src.ops.function import map_graph
    from keras.src.utils import tracking

    flat = keras.tree.flatten(inputs), keras.tree.flatten(outputs)
    nodes, nodes_by_depth, operations, operations_by_depth = map_graph(*flat)
    vars(new).update(
        _inputs_struct=inputs,
        _outputs_struct=outputs,
        _inputs=flat[0],
        _outputs=flat[1],
        _nodes=nodes,
        _nodes_by_depth=nodes_by_depth,
        _operations_by_depth=operations_by_depth,
    )
    with tracking.DotNotTrackScope():
        new._operations = operations  # the layers that TensorFlow's checkpoints find
    new.output_names = [output._keras_history.operation.name for output in flat[1]]
    for layer in new.layers:
        new._tracker.track(layer)


@functools.cache
def _has_known_graph() -> bool:
    """Returns whether Functional models have just the attributes that are set here."""
    x = keras.Input((), name="x")
    own = set(vars(functional_class()(x, keras.layers.Identity(name="y")(x), name="m")))
    return own - set(vars(keras.Model(name="m"))) - ADDED_BY_BACKEND == {
        "_inputs",
        "_inputs_struct",
        "_nodes",
        "_nodes_by_depth",
        "_operations",
        "_operations_by_depth",
        "_outputs",
        "_outputs_struct",
        "output_names",
    }


@dataclasses.dataclass(frozen=True)
class _Made:
    """The attributes that the constructor of a base class makes, by what they are.

    Args:
        plain: what all layers may share.
        read: the names of those that are read from another layer.
        containers: what tracks its items.
        stores: `{name: kind}`, what the tracker has found of each kind.
        tracker: Keras' tracker of attributes.
        inherited: what the class has by these names, and to set attributes.
    """

    plain: dict[str, Any]
    read: list[str]
    containers: dict[str, Any]
    stores: dict[str, str]
    tracker: Any
    inherited: dict[str, Any]


@functools.cache
def _made_by(base: type[keras.Layer]) -> _Made:
    """Returns what the constructor of `keras.Layer` or `keras.Model` makes."""
    own = {n: v for n, v in vars(base(name="layer")).items() if n not in _wrappers()}
    inherited = {name: getattr(base, name, None) for name in ("__setattr__", *own)}
    tracker = own.pop("_tracker")
    kinds = {id(values): kind for kind, (_, values) in tracker.config.items()}
    stores = {name: kinds[id(v)] for name, v in own.items() if id(v) in kinds}
    plain = {name: v for name, v in own.items() if name not in stores}
    containers = {n: v for n, v in plain.items() if isinstance(v, (list, set, dict))}
    read = [name for name in _READ_BY_CONSTRUCTOR if name in own]
    return _Made(plain, read, containers, stores, tracker, inherited)


def _has_known_attributes(cls: type[keras.Layer], base: Any) -> bool:
    """Returns whether attributes of a class are set as those of its base are."""
    inherited = _made_by(base).inherited
    return bool(_wrappers()) and all(
        getattr(cls, name, None) is value for name, value in inherited.items()
    )


def set_variable(layer: keras.Layer, name: str, variable: keras.Variable) -> None:
    """Sets an attribute to a variable that Keras tracks already.

    Publicly, Keras would look again whether it does, and TensorFlow be told twice.
    """
    if type(layer).__setattr__ is not keras.Layer.__setattr__:
        setattr(layer, name, variable)
        return
    vars(layer)[name] = variable
    if keras.backend.backend() == "tensorflow":
        layer._track_trackable(variable, name, overwrite=True)
