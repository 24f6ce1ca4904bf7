"""The private names of Keras and TensorFlow that this package uses, all of them.

Each is behind a function that says what it is for, and why no public name will do; each
has a test in tests/_keras_test.py that fails when a new version changes it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

# What Keras saves and loads, if it is no layer, loss or the like.
from keras.src.saving.keras_saveable import KerasSaveable


def held_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers that a layer holds directly, in the order Keras tracks them.

    Keras gives those of a model in public, but not those of a plain layer.
    """
    if isinstance(layer, keras.Model):
        return layer.layers
    return layer._flatten_layers(include_self=False, recursive=False)


@functools.cache
def functional_class() -> type[keras.Model]:
    """Returns the class of Functional models, for which Keras has no public name."""
    # Named, lest the user's next layers get other numbers; and not an input that is its
    # own output, which Keras takes only from 3.14 on.
    x = keras.Input((), name="x")
    return type(keras.Model(x, keras.layers.Identity(name="y")(x), name="of_layers"))


class AfterBuild:
    """Calls `_snip_after_build` of a layer whenever Keras has built it.

    Keras calls `_post_build` after every way in which a layer gets its weights, and has
    no public hook: `build` is an attribute of the layer, bound before it is masked.
    """

    def _post_build(self) -> None:
        super()._post_build()  # type: ignore[misc]  # of Keras, the next class
        self._snip_after_build()

    def _snip_after_build(self) -> None:
        """For the layer to override."""


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


def unpickle() -> Callable:
    """Returns the function by which any layer is unpickled.

    Pickle finds a method by the name of its class, and a masked layer's has none.
    """
    return keras.Layer._unpickle_model


def initialize_like(new: keras.Layer, layer: keras.Layer) -> bool:
    """Does what the constructor of `keras.Layer` does, if nothing of it is replaced.

    The constructor sets 30 attributes, and for each Keras and TensorFlow look at what
    is to be tracked. A class may set attributes in a way of its own.

    Args:
        new: a layer that `new_layer` returned.
        layer: one of the same class, from which what depends on the class is taken.

    Returns:
        Whether it is done.
    """
    own = vars(layer)
    if not _has_known_attributes(type(new)) or own["activity_regularizer"] is not None:
        return False
    made = _made_for_layers()
    known: Any = made["_tracker"]
    stores: dict[str, tuple[Callable, list]]
    stores = {name: (test, []) for name, (test, _) in known.config.items()}
    tracker = type(known)(stores, exclusions=known.exclusions)
    fresh = {id(values): stores[name][1] for name, (_, values) in known.config.items()}
    fresh[id(known)] = tracker
    read = {name: own.get(name) for name in _READ_BY_CONSTRUCTOR}
    read["_call_has_context_arg"] = {"training": own["_call_has_training_arg"]}
    for name, value in made.items():
        item = fresh[id(value)] if id(value) in fresh else read.get(name, value)
        if isinstance(value, (list, set, dict)) and id(value) not in fresh:
            # Of Keras' own kinds, which track what is added later.
            kind: Any = type(value)
            item = kind(item, tracker)
        vars(new)[name] = item
    return True


# What the constructor is given, or reads in the class.
_READ_BY_CONSTRUCTOR = (
    "_auto_config",
    "_call_has_mask_arg",
    "_call_has_training_arg",
    "_call_signature",
    "autocast",
    "call_signature_parameters",
    "name",
)


@functools.cache
def _made_for_layers() -> dict[str, Any]:
    """Returns what the constructor of `keras.Layer` makes."""
    layer = keras.layers.Layer(name="layer")
    return {n: v for n, v in vars(layer).items() if n not in _wrappers()}


def _has_known_attributes(cls: type[keras.Layer]) -> bool:
    """Returns whether attributes of a class are set as those of `keras.Layer` are."""
    return bool(_wrappers()) and all(
        getattr(cls, name, None) is getattr(keras.Layer, name, None)
        for name in ("__setattr__", *_made_for_layers())
    )


# What Keras gives every layer and changes afterwards, and needs to call and to save it.
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
    "_parent_path",
    "_remat_mode",
    "_supports_masking",
    "_trainable",
)


def settings_of(layer: keras.Layer) -> dict[str, Any]:
    """Returns the attributes of a layer that a copy needs from its original.

    All else that the constructor of `keras.Layer` makes it makes for a copy, too. Some
    of these have no public name, or one that does more than to set them.
    """
    attributes = vars(layer)
    return {name: attributes[name] for name in _SETTINGS if name in attributes}


# What `compile`, `fit`, `evaluate` and `predict` add to a model.
ADDED_BY_TRAINING = frozenset(
    {
        "_compile_config",
        "_compiled_trainable_state",
        "_eval_epoch_iterator",
        "history",
        "optimizer",
        "stop_evaluating",
        "stop_predicting",
        "stop_training",
    }
)
# What TensorFlow adds to what it tracks.
ADDED_BY_TENSORFLOW = frozenset(
    {
        "_self_name_based_restores",
        "_self_saveable_object_factories",
        "_self_unconditional_checkpoint_dependencies",
        "_self_unconditional_deferred_dependencies",
        "_self_unconditional_dependency_names",
        "_self_update_uid",
    }
)


def tracked(owner: Any) -> dict[str, list[Any]]:
    """Returns what Keras tracks of a layer or metric, by kind, each in its order.

    No public list says what was trainable when it was made, once it is frozen.
    """
    return {store: list(values) for store, (_, values) in owner._tracker.config.items()}


def track(owner: Any, store: str, value: Any) -> None:
    """Has Keras track a value, after those that it tracks already.

    In public it tracks what is set as an attribute, in that order alone.
    """
    owner._tracker.add_to_store(store, value)


def adapt_penalties(adapt: Callable[[Callable], Callable]) -> None:
    """Replaces the method of all layers that gives the penalties on variables.

    Public are `losses`, in which nothing tells them from the rest.
    """
    layer = keras.Layer
    layer._get_regularization_losses = adapt(layer._get_regularization_losses)


def show_to_tensorflow(layer: keras.Layer, name: str, variable: keras.Variable) -> None:
    """Has TensorFlow's checkpoints save a variable with a layer, if it makes any.

    Keras takes what TensorFlow tracks for a weight, unless told not to.
    """
    from keras.src.utils import tracking

    if keras.backend.backend() == "tensorflow":
        with tracking.DotNotTrackScope():
            layer._track_trackable(variable, name, overwrite=True)


def autocasts(variable: keras.Variable) -> bool:
    """Returns whether a variable is cast in layers of mixed precision.

    It is public as an argument of `keras.Variable`, not as an attribute.
    """
    return variable._autocast


def set_path(variable: keras.Variable, path: str) -> None:
    """Sets the path of a variable, which Keras makes of the scopes it is made in."""
    variable._path = path


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns what made a tensor of a graph, which Keras does not tell in public."""
    return tensor._keras_history.operation


def calls_in(graph: keras.Model) -> list[Any]:
    """Returns the calls that make up the graph of a Functional model, in order.

    Keras shows in public which operations there are, not on what they are called.
    """
    depths = sorted(graph._nodes_by_depth, reverse=True)
    calls = [call for depth in depths for call in graph._nodes_by_depth[depth]]
    return [call for call in calls if not call.is_input]


def copy_call(
    call: Any, operation: keras.Operation, tensors: dict[int, keras.KerasTensor]
) -> None:
    """Adds a call of another operation to a graph, without calling it.

    In public Keras calls the operation again, to find out the shapes that it knows.

    Args:
        call: one of `calls_in`.
        operation: what is called instead.
        tensors: the tensors to call it on, by the ids of those that they stand for. The
            outputs are added.
    """
    arguments, options = call.arguments.fill_in(tensors)
    outputs = [copy.copy(output) for output in call.outputs]
    type(call)(operation, arguments, options, outputs)
    tensors.update(zip(map(id, call.outputs), outputs, strict=True))


def graph_inside(model: keras.Sequential) -> keras.Model | None:
    """Returns the Functional model that a Sequential one is, once it is built.

    It has no public name.
    """
    return model._functional


def put_graph_inside(
    model: keras.Sequential, layers: list[keras.Layer], graph: keras.Model
) -> None:
    """Gives an empty Sequential model its layers, and the graph that calls them.

    In public Keras makes the graph, for which it calls the layers.
    """
    for layer in [operation_of(graph.inputs[0]), *layers]:
        model.add(layer, rebuild=False)
    model._functional = graph
    model.built = True
    model._path = model.name


def mask_on(tensor: Any) -> Any:
    """Returns which timesteps of a tensor count, or None if Keras attached no mask.

    In public it is only given to layers.
    """
    return getattr(tensor, "_keras_mask", None)


def put_mask_on(tensor: Any, mask: Any) -> None:
    """Attaches a mask to a tensor, for losses and metrics; see `mask_on`."""
    tensor._keras_mask = mask


def logits_of(outputs: Any) -> Any:
    """Returns what Keras computed a softmax or sigmoid from; other tensors as they are.

    Keras attaches it for its own losses.
    """
    return getattr(outputs, "_keras_logits", outputs)


def set_dtype(part: keras.KerasTensor | keras.layers.InputLayer, dtype: str) -> None:
    """Sets the type to which a model casts what it is given.

    Public it is only when an input is made.
    """
    part._dtype = dtype


def compile_config(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of `compile`, as the very objects that were given.

    `get_compile_config` gives them serialized, which fails for a function or class that
    is not registered, and for many schedules.
    """
    return model._compile_config.config


def input_signature(model: keras.Model) -> list[Any]:
    """Returns what a model takes, as `model.export` finds it out."""
    from keras.src.export.export_utils import get_input_signature

    return get_input_signature(model)


def converter_error() -> type[Exception]:
    """Returns what TensorFlow's LiteRT converter raises; no public name stands for it.

    Raises:
        ImportError: if TensorFlow lacks the converter.
    """
    from tensorflow.lite.python.convert import ConverterError

    return ConverterError


def litert_schema() -> Any:
    """Returns readers of LiteRT files, made of their public description.

    `ai_edge_litert`, which has them too, need not be installed to write a file.
    """
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def loss_settings(loss: keras.losses.Loss) -> dict[str, Any]:
    """Returns what a loss of Keras gives to its function, besides targets and outputs.

    `get_config` gives it serialized.
    """
    return loss._fn_kwargs


def trained_by(optimizer: Any) -> list[keras.Variable]:
    """Returns the weights that an optimizer trains; public are all its variables."""
    return vars(optimizer).get("_trainable_variables", [])


def first_value(optimizer: keras.Optimizer, slots: str) -> float:
    """Returns what an optimizer begins a list of slots with, such as `_momentums`."""
    if slots == "_accumulators":
        return getattr(optimizer, "initial_accumulator_value", 0.0)
    return 0.0


def averages_of(
    optimizer: keras.Optimizer,
) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """Yields each weight with the moving average that the optimizer has of it.

    With `use_ema`, once it is built; the averages are public only as variables.
    """
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if getattr(optimizer, "use_ema", False) and averages:
        for weight, average in zip(trained_by(optimizer), averages, strict=True):
            if average is not None:
                yield weight, average


def position_in(optimizer: keras.Optimizer, variable: Any) -> int:
    """Returns which of the weights that an optimizer trains this one is."""
    return optimizer._get_variable_index(variable)


class SavedPart(KerasSaveable):
    """An attribute of a layer that Keras saves, in a group of its own.

    It needs `save_own_variables` and `load_own_variables`.
    """

    def _obj_type(self) -> str:
        return "Operation"  # by which Keras skips the attributes that those have


def paths_in(store: Any) -> Iterable[str]:
    """Returns the paths of all that is in the file which a store reads.

    In public Keras shows a layer only what is its own. This asks the HDF5 file of the
    store, or its list of what is in which of several; other kinds have no paths.
    """
    names = list(getattr(store, "sharding_config", {}).get("weight_map", {}))
    file = getattr(store, "h5_file", None)
    if file:
        file.visit(names.append)
    return names


@contextlib.contextmanager
def names_not_counted() -> Iterator[None]:
    """Has Keras number what the user makes next as if nothing was made here.

    The numbers, of this thread, have no public name.
    """
    from keras.src.backend.common import global_state

    counts = global_state.get_global_attribute("object_name_uids")
    before = None if counts is None else dict(counts)
    try:
        yield
    finally:
        if before is not None:
            counts.clear()
            counts.update(before)


def inline_functions_where(asks: Callable[[], bool]) -> None:
    """Has every `tf.function` run line by line where `asks()` is true, from now on.

    `tf.config.run_functions_eagerly` does it for all threads; what the functions
    themselves look up has no public name. TensorFlow's own functions, as in
    `tf.vectorized_map`, which do not work line by line, stay as they are, and so does
    what is loaded from a file, of which there are no lines.
    """
    import tensorflow as tf

    cls = type(tf.function(lambda: None))
    theirs = cls._run_functions_eagerly

    def run_eagerly(function: Any) -> bool:
        if not asks():
            return theirs.fget(function)
        module = getattr(function.python_function, "__module__", None) or ""
        return not module.startswith("tensorflow.")

    cls._run_functions_eagerly = property(run_eagerly)


def function_like(function: Any, python_function: Callable) -> Any:
    """Returns a `tf.function` of other code, with all the options of one."""
    return function._clone(python_function)


def is_reference(value: Any) -> bool:
    """Returns whether this is what `ref()` of TensorFlow gives, of no public class."""
    return type(value).__name__ == "Reference" and hasattr(value, "deref")


def unwrapped(value: Any) -> Any:
    """Returns the tuple that TensorFlow wraps when it is an attribute of a layer."""
    return getattr(value, "__wrapped__", value)


def is_traced_for_one_call() -> bool:
    """Returns whether the function traced now is made anew for each call, then gone.

    Keras makes one for grouped convolutions, whose gradients TensorFlow has only under
    XLA where it is built without oneDNN, as on Apple's processors.
    """
    import tensorflow as tf

    return getattr(tf.compat.v1.get_default_graph(), "name", None) == "_conv_xla"
