"""A copy of a model without its masks, for any class of model and of layer.

Keras copies a layer through its configuration, which loses much: functions that are not
registered, models without `get_config`, weights that were tied or made after the
constructor ran. Here a copy is a new object of the same class, with copies of the
original's attributes. Nothing is built or initialized again, which is faster too.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import types
from typing import Any

import keras

from snip_tf.compiling import compile_like
from snip_tf.masked_layer import KeepZeros, functional_class, unmasked

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
    "_supports_masking",
    "_trainable",
)
# What `compile` and `fit` add to a model, and TensorFlow to what it tracks.
_LEFT_OUT = {
    "_compile_config",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
    "_self_name_based_restores",
    "_self_saveable_object_factories",
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_deferred_dependencies",
    "_self_unconditional_dependency_names",
    "_self_update_uid",
    "history",
    "optimizer",
    "stop_training",
}
# Values that Keras does not track: they are set without asking it.
_PLAIN = (
    bool,
    float,
    int,
    str,
    types.FunctionType,
    types.NoneType,
    keras.constraints.Constraint,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
)


def copy_unmasked(model: keras.Model) -> keras.Model:
    """A copy of a model, compiled as it is, in which nothing is masked.

    Copies have the names, values and settings of their originals, and are shared and
    tied as those are. Functions, arrays and objects that are no part of Keras are not
    copied but used by both.
    """
    copies = _Copies()
    # Where the model was made: its variables may be mirrored over replicas.
    strategy = getattr(model, "distribute_strategy", None)  # with TensorFlow only
    with strategy.scope() if strategy else contextlib.nullcontext():
        with unmasked(model):
            copy = copies.of(model)
        for old, new in copies.models():
            compile_like(new, old)
    return copy


class _Copies:
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
        """A copy of what belongs to a model, alone or in a container; else `value`."""
        if isinstance(value, _PLAIN) and not getattr(value, "__closure__", None):
            return value
        if id(value) not in self._known:
            new = self._new(value)
            if new is value:
                return value
            self._known[id(value)] = value, new
        return self._known[id(value)][1]

    def _new(self, value: Any) -> Any:
        if isinstance(value, keras.Layer):
            return self._layer(value)
        if isinstance(value, keras.Variable):
            return self._variable(value)
        if isinstance(value, keras.random.SeedGenerator):
            # With any seed but none, which would be drawn from the user's generator.
            new = keras.random.SeedGenerator(seed=0, name=value.name)
            new.state.assign(value.state)
            self._known[id(value.state)] = value.state, new.state
            return new
        if isinstance(value, (keras.Operation, keras.Metric, keras.Optimizer)):
            return type(value).from_config(value.get_config())
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.of(value.__self__))
        if isinstance(value, functools.partial):
            arguments = map(self.of, value.args)
            return functools.partial(
                self.of(value.func), *arguments, **self.of(value.keywords)
            )
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, collections.OrderedDict):
            return collections.OrderedDict((k, self.of(v)) for k, v in value.items())
        if isinstance(value, dict):
            return {key: self.of(item) for key, item in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.of, value))
        for kind in (list, tuple, set):
            if isinstance(value, kind):
                return kind(map(self.of, value))
        return value

    def _layer(self, layer: keras.Layer) -> keras.Layer:
        # Past a `__new__` and an `__init__` of the class, which may want arguments.
        new = keras.Layer.__new__(type(layer))
        # Known at once, for what refers back to it.
        self._known[id(layer)] = layer, new
        own = {
            name: value
            for name, value in vars(layer).items()
            if name not in _LEFT_OUT and not name.startswith("_snip_mask")
        }
        if isinstance(layer, keras.Sequential):
            keras.Sequential.__init__(new, self._sequence(layer), name=layer.name)
        elif isinstance(layer, functional_class()):
            inputs, outputs = self._graph(layer, own)
            functional_class().__init__(new, inputs, outputs, name=layer.name)
        elif isinstance(layer, keras.Model):
            keras.Model.__init__(new, name=layer.name)
        else:
            keras.Layer.__init__(
                new,
                activity_regularizer=layer.activity_regularizer,
                autocast=layer.autocast,
                name=layer.name,
            )
        made_by_base = set(vars(new))
        tracked = self._track(layer, new)
        for name, value in own.items():
            if name in _SETTINGS:
                vars(new)[name] = value
            elif name not in made_by_base:
                copy = self.of(value)
                if isinstance(copy, _PLAIN) or _is_hidden(value, tracked):
                    vars(new)[name] = copy
                else:
                    setattr(new, name, copy)
        return new

    def _track(self, layer: keras.Layer, new: keras.Layer) -> set[int]:
        """Has Keras track copies of what it tracks of a layer; returns the ids of that.

        There is no public way to see to it that they come in the order of the
        originals: Keras tracks what is set as an attribute or added to a list of one,
        in that order, and what `add_weight` makes. Nor is what was trainable when it
        was made listed apart from the rest once it is frozen.
        """
        tracked: set[int] = set()
        masks = {id(mask) for mask in getattr(layer, "_snip_masks", {}).values()}
        for store, (_, values) in layer._tracker.config.items():
            tracked.update(map(id, values))
            if store == "metrics" and isinstance(layer, keras.Model):
                continue  # those of `compile` among them
            if store == "layers" and isinstance(
                layer, (keras.Sequential, functional_class())
            ):
                continue  # the new model has them by its graph
            for value in values:
                if id(value) not in masks:
                    new._tracker.add_to_store(store, self.of(value))
        return tracked

    def _variable(self, variable: keras.Variable) -> keras.Variable:
        constraint = variable.constraint
        if isinstance(constraint, KeepZeros):
            constraint = constraint.constraint
        with contextlib.ExitStack() as scopes:
            for name in variable.path.split("/")[:-1]:
                scopes.enter_context(keras.name_scope(name, deduplicate=False))
            new = keras.Variable(
                # A tensor, since a TensorFlow variable would be taken itself.
                keras.ops.convert_to_tensor(variable),
                dtype=variable.dtype,
                trainable=variable.trainable,
                autocast=variable._autocast,
                aggregation=variable.aggregation,
                synchronization=variable.synchronization,
                name=variable.name,
            )
        new.regularizer = variable.regularizer
        new.constraint = constraint
        new.overwrite_with_gradient = variable.overwrite_with_gradient
        return new

    def _sequence(self, model: keras.Sequential) -> list[Any]:
        layers = [self.of(layer) for layer in model.layers]
        inputs = getattr(model, "inputs", None)  # none before it is built
        return [_input_like(inputs[0]), *layers] if inputs else layers

    def _graph(self, model: keras.Model, attributes: dict[str, Any]) -> tuple[Any, Any]:
        """Inputs and outputs of a copy of the graph of a Functional model.

        So that attributes that are symbolic tensors of the graph stay in it, they are
        taken for outputs.
        """
        tensors = {
            name: value
            for name, value in attributes.items()
            if name.isidentifier() and _is_symbolic(value)
        }
        graph = keras.Model(model.input, [model.output, tensors])
        copy = keras.models.clone_model(
            graph,
            clone_function=self.of,
            input_tensors=keras.tree.map_structure(_input_like, model.input),
        )
        outputs, copied_tensors = copy.output
        for name, tensor in tensors.items():
            self._known[id(tensor)] = tensor, copied_tensors[name]
        return copy.input, outputs

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        """The function itself, or one on the copies of the layers it closes over."""
        self._known[id(function)] = function, function  # if it calls itself
        cells = []
        for cell in function.__closure__:
            try:
                content = cell.cell_contents
            except ValueError:  # an empty cell
                cells.append(cell)
                continue
            belongs = (keras.Layer, keras.Variable, types.FunctionType)
            copy = self.of(content) if isinstance(content, belongs) else content
            cells.append(cell if copy is content else types.CellType(copy))
        if all(map(lambda new, old: new is old, cells, function.__closure__)):
            return function
        new = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            tuple(cells),
        )
        new.__kwdefaults__ = function.__kwdefaults__
        return new


def _is_hidden(value: Any, tracked: set[int]) -> bool:
    """Whether an attribute holds state that Keras was told not to track."""
    state = (keras.Layer, keras.Variable, keras.random.SeedGenerator)
    return any(
        isinstance(leaf, state) and id(leaf) not in tracked
        for leaf in keras.tree.flatten(value)
    )


def _is_symbolic(value: Any) -> bool:
    leaves = (
        keras.tree.flatten(value) if isinstance(value, (dict, list, tuple)) else [value]
    )
    return bool(leaves) and all(isinstance(leaf, keras.KerasTensor) for leaf in leaves)


def _input_like(tensor: keras.KerasTensor) -> keras.KerasTensor:
    # A tensor does not tell in public which layer made it, and only the layer knows
    # whether an input is optional.
    layer = tensor._keras_history.operation
    return type(layer).from_config(layer.get_config()).output
