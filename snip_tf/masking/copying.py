"""A copy of a model without its masks, for any class of model and of layer.

Keras copies a layer through its configuration, which loses much: functions that are not
registered, models without `get_config`, weights that were tied or made after the
constructor ran. Here a copy is a new object of the same class, with copies of the
original's attributes. Nothing is built or initialized again, which is faster too.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
import types
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from snip_tf.masking.compiling import compile_like, strategy_scope
from snip_tf.masking.masked_layer import functional_class, plain_class, replaced_methods
from snip_tf.masking.masked_weights import KeepZeros

# What Keras gives every layer and changes afterwards; the private ones are what it
# needs to call and to save the layer. All else that the constructor of the base class
# makes is left as that made it.
_SETTINGS = (
    "built",
    "supports_jit",
    "_allow_non_tensor_positional_args",
    "_auto_config",
    "_build_shapes_dict",
    "_called",
    "_convert_input_args",
    "_dtype_policy",
    "_input_spec",
    "_remat_mode",
    "_supports_masking",
    "_trainable",
)
# What `compile` and `fit` add to a model.
_OF_TRAINING = {
    "_compile_config",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
    "history",
    "optimizer",
    "stop_training",
}
# What TensorFlow adds to what it tracks.
_OF_TENSORFLOW = {
    "_self_name_based_restores",
    "_self_saveable_object_factories",
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_deferred_dependencies",
    "_self_unconditional_dependency_names",
    "_self_update_uid",
}
# What belongs to a model, wherever it is held.
_STATE = (
    keras.Layer,
    keras.Metric,
    keras.Optimizer,
    keras.Variable,
    keras.random.SeedGenerator,
    # As code written for TensorFlow has them beside Keras' own.
    tf.Variable,
    tf.random.Generator,
)
# What TensorFlow has that may hold some of it.
_OF_TENSORFLOW_WITH_STATE = (tf.Module, tf.train.ExponentialMovingAverage)
# What of it Keras may have been told not to track.
_HIDDEN = (keras.Layer, keras.Variable, keras.random.SeedGenerator)
# Values that hold none of that, which need not be looked into.
_PLAIN = (
    bool,
    bytes,
    float,
    int,
    str,
    type,
    types.ModuleType,
    types.NoneType,
    keras.KerasTensor,
    np.ndarray,
)


def copy_unmasked(model: keras.Model) -> keras.Model:
    """A copy of a model, compiled as it is, in which nothing is masked.

    Copies have the names, values and settings of their originals, and are shared and
    tied as those are. Functions and objects of other libraries are copied if they hold
    a part of the model, so that the copy never runs the original's layers; else both
    use the same.
    """
    copies = Copies()
    with strategy_scope(model):
        copied_model = copies.of(model)
        for old, new in copies.models():
            compile_like(new, old)
    return copied_model


class Copies:
    """Copies what it is asked for, each thing once."""

    def __init__(self):
        # With the originals: once gone, one would leave its id to another object.
        self._known: dict[int, tuple[Any, Any]] = {}

    def models(self) -> list[tuple[keras.Model, keras.Model]]:
        """The models that were copied, each with its copy."""
        return [
            (old, new)
            for old, new in self._known.values()
            if isinstance(old, keras.Model)
        ]

    def of(self, value: Any) -> Any:
        """A copy of what is, or holds, a part of a model; anything else as it is."""
        if id(value) in self._known:
            return self._known[id(value)][1]
        if not isinstance(value, keras.Operation) and not _reach(value, set()):
            return value
        new = self._new(value)
        self._known[id(value)] = value, new
        return new

    def _new(self, value: Any) -> Any:
        if isinstance(value, keras.Layer):
            return self._layer(value)
        if isinstance(value, keras.Metric):
            return self._metric(value)
        if isinstance(value, keras.Variable):
            return self._variable(value)
        if isinstance(value, keras.random.SeedGenerator):
            # With any seed but none, which would be drawn from the user's generator.
            with _name_scopes(value.state.path.split("/")[:-2]):
                new = keras.random.SeedGenerator(seed=0, name=value.name)
            new.state.assign(value.state)
            self._known[id(value.state)] = value.state, new.state
            return new
        if isinstance(value, keras.Optimizer):
            return _new_optimizer(value)
        if isinstance(value, tf.Variable):
            return _tensorflow_variable(value)
        if isinstance(value, tf.random.Generator):
            return tf.random.Generator.from_state(value.state.numpy(), value.algorithm)
        if isinstance(value, keras.Operation):
            # Of a Functional graph (`keras.ops`); it has no state.
            return type(value).from_config(value.get_config())
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.of(value.__self__))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if _is_traced_function(value):
            # With all its options, for which there is no public way.
            return value._clone(self.of(value.python_function))
        if isinstance(value, functools.partial):
            arguments = map(self.of, value.args)
            return functools.partial(
                self.of(value.func), *arguments, **self.of(value.keywords)
            )
        if isinstance(value, weakref.WeakMethod):
            return weakref.WeakMethod(self.of(value()))
        if isinstance(value, weakref.ref):
            return weakref.ref(self.of(value()))
        if _is_reference(value):
            return self.of(value.deref()).ref()
        return self._container(value)

    def _container(self, value: Any) -> Any:
        """Of the same kind, or an object of the same class, with copies inside."""
        if isinstance(value, collections.OrderedDict):
            return collections.OrderedDict(self._items(value))
        if isinstance(value, dict):
            return dict(self._items(value))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            # TensorFlow wraps the tuples that are attributes.
            return type(getattr(value, "__wrapped__", value))(*map(self.of, value))
        for kind in (list, tuple, set, frozenset, collections.deque):
            if isinstance(value, kind):
                return kind(map(self.of, value))
        new = copy.copy(value)
        self._known[id(value)] = value, new  # at once, for what refers back to it
        for name, item in _attributes(value).items():
            object.__setattr__(new, name, self.of(item))
        return new

    def _items(self, mapping: dict) -> list[tuple[Any, Any]]:
        return [(self.of(key), self.of(item)) for key, item in mapping.items()]

    def _metric(self, metric: keras.Metric) -> keras.Metric:
        new = keras.Metric.__new__(type(metric))
        self._known[id(metric)] = metric, new
        keras.Metric.__init__(new, dtype=metric.dtype, name=metric.name)
        self._set_attributes(metric, new, self._track(metric, new))
        return new

    def _layer(self, layer: keras.Layer) -> keras.Layer:
        # Past a `__new__` and an `__init__` of the class, which may want arguments.
        new = keras.Layer.__new__(plain_class(layer))
        # Known at once, for what refers back to it.
        self._known[id(layer)] = layer, new
        if isinstance(layer, keras.Sequential):
            with _names_not_counted():
                keras.Sequential.__init__(new, self._sequence(layer), name=layer.name)
        elif isinstance(layer, functional_class()):
            inputs, outputs = self._graph(layer)
            functional_class().__init__(new, inputs, outputs, name=layer.name)
        elif isinstance(layer, keras.Model):
            keras.Model.__init__(new, name=layer.name)
        else:
            keras.Layer.__init__(
                new,
                activity_regularizer=self.of(layer.activity_regularizer),
                autocast=layer.autocast,
                name=layer.name,
            )
        made_by_base = set(vars(new)) - set(replaced_methods(layer))
        tracked = self._track(layer, new)
        settings = {
            name: vars(layer)[name] for name in _SETTINGS if name in vars(layer)
        }
        vars(new).update(settings)
        self._set_attributes(layer, new, tracked, made_by_base)
        return new

    def _set_attributes(
        self,
        old: Any,
        new: Any,
        tracked: set[int],
        made_by_base: set[str] | None = None,
    ) -> None:
        """Gives a copy what its base class has not given it yet."""
        made_by_base = set(vars(new)) if made_by_base is None else made_by_base
        for name, value in _own_attributes(old).items():
            if name not in made_by_base:
                copied = self.of(value)
                if name not in vars(old):  # but in a slot
                    object.__setattr__(new, name, copied)
                elif isinstance(value, _PLAIN) or _reach(value, set(tracked), _HIDDEN):
                    vars(new)[name] = copied
                else:
                    setattr(new, name, copied)

    def _track(self, layer: Any, new: Any) -> set[int]:
        """Has Keras track copies of what it tracks of a layer; returns the ids of that.

        There is no public way to see to it that they come in the order of the
        originals: Keras tracks what is set as an attribute or added to a list of one,
        in that order, and what `add_weight` makes. Nor is what was trainable when it
        was made listed apart from the rest once it is frozen.
        """
        tracked: set[int] = set()
        for store, (_, values) in layer._tracker.config.items():
            tracked.update(map(id, values))
            if store == "metrics" and isinstance(layer, keras.Model):
                continue  # those of `compile` among them
            if store == "layers" and isinstance(
                layer, (keras.Sequential, functional_class())
            ):
                continue  # the new model has them by its graph
            for value in list(values):
                new._tracker.add_to_store(store, self.of(value))
        return tracked

    def _variable(self, variable: keras.Variable) -> keras.Variable:
        constraint = variable.constraint
        if isinstance(constraint, KeepZeros):
            constraint = constraint.constraint
        with _name_scopes(variable.path.split("/")[:-1]):
            new = keras.Variable(
                # A tensor, since a TensorFlow variable would be taken itself.
                keras.ops.convert_to_tensor(variable),
                dtype=variable.dtype,
                trainable=variable.trainable,
                autocast=variable._autocast,
                name=variable.name,
                **{
                    setting: getattr(variable, setting)
                    for setting in ("aggregation", "synchronization")
                    if hasattr(variable, setting)  # not before Keras 3.10
                },
            )
        new.regularizer = self.of(variable.regularizer)
        new.constraint = self.of(constraint)
        new.overwrite_with_gradient = variable.overwrite_with_gradient
        return new

    def _sequence(self, model: keras.Sequential) -> list[Any]:
        layers = [self.of(layer) for layer in model.layers]
        inputs = getattr(model, "inputs", None)  # none before it is built
        return [input_like(inputs[0]), *layers] if inputs else layers

    def _graph(self, model: keras.Model) -> tuple[Any, Any]:
        """Inputs and outputs of a copy of the graph of a Functional model.

        So that attributes that are symbolic tensors of the graph stay in it, they are
        taken for outputs.
        """
        tensors = {
            name: value
            for name, value in _own_attributes(model).items()
            if name not in _made_for_functional() and _is_symbolic(value)
        }
        # Named, lest Keras counts it among the user's.
        graph = keras.Model(model.input, [model.output, tensors], name=model.name)
        clone = keras.models.clone_model(
            graph,
            clone_function=self.of,
            input_tensors=keras.tree.map_structure(input_like, model.input),
        )
        outputs, copied_tensors = clone.output
        for name, tensor in tensors.items():
            self._known[id(tensor)] = tensor, copied_tensors[name]
        return clone.input, outputs

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        """The same code, on copies of what it closes over and of its defaults."""
        cells = [types.CellType() for _ in function.__closure__ or ()]
        new = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            self.of(function.__defaults__),
            tuple(cells),
        )
        new.__kwdefaults__ = self.of(function.__kwdefaults__)
        vars(new).update(vars(function))
        self._known[id(function)] = function, new  # before the cells: it may be in one
        for cell, old in zip(cells, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # an empty cell
                cell.cell_contents = self.of(old.cell_contents)
        return new


@contextlib.contextmanager
def _names_not_counted() -> Iterator[None]:
    """Has Keras number what the user makes next as if nothing was made here.

    A Sequential model makes a Functional one, without a name, inside. The numbers, of
    this thread, have no public name.
    """
    counts = global_state.get_global_attribute("object_name_uids")
    before = None if counts is None else dict(counts)
    try:
        yield
    finally:
        if before is not None:
            counts.clear()
            counts.update(before)


@contextlib.contextmanager
def _name_scopes(names: list[str]) -> Iterator[None]:
    """Scopes in each other, in which a variable gets the path of its original."""
    with contextlib.ExitStack() as scopes:
        for name in names:
            scopes.enter_context(keras.name_scope(name, deduplicate=False))
        yield


def _own_attributes(value: Any) -> dict[str, Any]:
    """The attributes of a layer or metric that are a part of it."""
    left_out = _OF_TENSORFLOW | (
        _OF_TRAINING if isinstance(value, keras.Model) else set()
    )
    return {
        name: item
        # At once, as another thread may add to them.
        for name, item in _attributes(value).items()
        if name not in left_out and not name.startswith("_snip_")
    }


def _attributes(value: Any) -> dict[str, Any]:
    """All attributes of an object, also those in slots."""
    slots = [vars(cls).get("__slots__", ()) for cls in type(value).__mro__]
    names = [
        name
        for part in slots
        for name in ([part] if isinstance(part, str) else part)
        if name not in ("__dict__", "__weakref__") and hasattr(value, name)
    ]
    # At once, as another thread may add to them.
    attributes = dict(getattr(value, "__dict__", {}))
    return {**{name: getattr(value, name) for name in names}, **attributes}


def _is_reference(value: Any) -> bool:
    """Whether this is what `ref()` of TensorFlow's gives, of no public class."""
    return type(value).__name__ == "Reference" and hasattr(value, "deref")


def _is_traced_function(value: Any) -> bool:
    return isinstance(value, tf.types.experimental.PolymorphicFunction)


def _reach(value: Any, seen: set[int], state: tuple[type, ...] = _STATE) -> bool:
    """Whether a value is, or holds at any depth, `state` of a model."""
    if isinstance(value, _PLAIN) or id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, state):
        return True
    if isinstance(value, _STATE):
        return False  # of another kind than asked for
    if isinstance(value, types.MethodType):
        held = [value.__self__]
    elif isinstance(value, types.FunctionType):
        held = [value.__defaults__, value.__kwdefaults__]
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                held.append(cell.cell_contents)
    elif isinstance(value, functools.partial):
        held = [value.func, value.args, value.keywords]
    elif isinstance(value, dict):
        held = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        held = list(value)
    elif isinstance(value, weakref.ref):
        held = [value()]
    elif _is_traced_function(value):
        held = [value.python_function]
    elif isinstance(value, _OF_TENSORFLOW_WITH_STATE):
        held = list(vars(value).values())
    elif _is_reference(value):
        held = [value.deref()]
    elif isinstance(value, keras.initializers.Initializer):
        held = list(vars(value).values())  # a generator of seeds
    elif type(value).__module__.partition(".")[0] in ("keras", "numpy", "tensorflow"):
        return False
    else:
        held = list(_attributes(value).values())
    return any(_reach(item, seen, state) for item in held)


def _tensorflow_variable(variable: tf.Variable) -> tf.Variable:
    return tf.Variable(
        tf.convert_to_tensor(variable),
        trainable=variable.trainable,
        name=variable.name.partition(":")[0],
        dtype=variable.dtype,
        constraint=variable.constraint,
        synchronization=variable.synchronization,
        aggregation=variable.aggregation,
        shape=variable.shape,
    )


def holds_tensorflow_state(layer: keras.Layer) -> bool:
    """Whether a layer has state of TensorFlow's own, of which no Keras scope knows."""
    kinds = (tf.Variable, tf.random.Generator)
    known = _made_for_layers()
    return any(
        _reach(value, set(), kinds)
        for name, value in vars(layer).copy().items()
        if name not in known and not isinstance(value, _PLAIN)
    )


def _new_optimizer(optimizer: keras.Optimizer) -> keras.Optimizer | None:
    try:
        return type(optimizer).from_config(optimizer.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        warnings.warn(
            f"The optimizer {optimizer.name!r}, an attribute of the model, cannot be "
            f"made again from its configuration, and is None in the copy: {error}. "
            f"Call `compile` on the copy, or set it.",
            stacklevel=2,
        )
        return None


@functools.cache
def _made_for_layers() -> frozenset[str]:
    return frozenset(vars(keras.layers.Layer(name="layer"))) | _OF_TENSORFLOW


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


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """What made a tensor of a graph, which Keras does not tell in public."""
    return tensor._keras_history.operation


def input_like(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A new input like one that a graph has."""
    layer = operation_of(tensor)  # which alone knows whether an input is optional
    return type(layer).from_config(layer.get_config()).output
