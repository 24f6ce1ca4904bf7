"""The graph of a model: which layer is called on what, with nested models inlined."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from snip_tf._keras import functional_class, mask_on, operation_of
from snip_tf.masking.copied_graphs import input_like
from snip_tf.network import has_call
from snip_tf.weights import layer_tree


@dataclasses.dataclass(eq=False)
class Node:
    """One call of a layer, or of an operation of `keras.ops`.

    Attributes:
        operation: what is called.
        name: its name, prefixed by those of the models that it is in.
        args, kwargs: the arguments of the call, with `KerasTensor`s among them.
        outputs: what it returned, a nest of `KerasTensor`s.
    """

    operation: keras.Operation
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any

    def inputs(self) -> list[keras.KerasTensor]:
        """Returns the tensors among the arguments, in order."""
        return tensors((self.args, self.kwargs))

    def other_arguments(self) -> list[Any]:
        """Returns the arguments that are neither tensors nor None."""
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return [leaf for leaf in leaves if not is_tensor(leaf) and leaf is not None]

    def arguments_with(self, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Returns `args` and `kwargs` with these inputs instead of the tensors."""
        remaining = iter(inputs)
        return keras.tree.map_structure(
            lambda leaf: next(remaining) if is_tensor(leaf) else leaf,
            (self.args, self.kwargs),
        )


@dataclasses.dataclass(eq=False)
class Graph:
    """The calls of a model, in an order in which they can be executed.

    Attributes:
        inputs, outputs: nests of `KerasTensor`s, as the model takes and returns.
        nodes: the calls between them.
    """

    inputs: Any
    outputs: Any
    nodes: list[Node]

    def layers(self) -> Iterator[keras.Layer]:
        """Returns the layers that are called, each once."""
        return iter({n.operation: None for n in self.nodes if _is_layer(n.operation)})


def tensors(nest: Any) -> list[keras.KerasTensor]:
    """Returns the symbolic tensors in a nest, in order."""
    return [leaf for leaf in keras.tree.flatten(nest) if is_tensor(leaf)]


def is_tensor(value: Any) -> bool:
    """Returns whether a value is a tensor of a graph."""
    return isinstance(value, keras.KerasTensor)


def has_graph(layer: Any) -> bool:
    """Returns whether a layer is a Sequential or Functional model with Keras' `call`.

    Its class may define anything else, such as a `train_step`, but not a `call`.
    """
    classes: tuple[type[Any], ...] = (keras.Sequential, functional_class())
    # (A Sequential model whose layers were only run on arrays has no inputs.)
    if not isinstance(layer, classes) or not hasattr(layer, "inputs"):
        return False
    call = getattr(layer.call, "__func__", None)  # of the class, or of this object
    is_of_keras = call in [cls.call for cls in classes]
    return is_of_keras and type(layer).__call__ is keras.Layer.__call__


def trace(model: keras.Model) -> Graph:
    """Returns the graph of a Sequential or Functional model.

    Nested models are inlined, so that the graph consists of their layers. Every layer
    of the model is called once more, as when a Functional model is built.

    Args:
        model: a built `keras.Sequential` or Functional model, perhaps of a subclass,
            but with Keras' `call`.

    Raises:
        ValueError: if the model runs its layers in its own code.
    """
    _check_has_graph(model)
    return _Tracer().trace(model)


def _check_has_graph(model: keras.Model) -> None:
    if has_graph(model):
        return
    how = (
        "which runs its layers in its own code (a `call`). If that only calls "
        "layers, `keras.Model(inputs, model.call(inputs))` with "
        "`inputs = keras.Input(...)` makes it Functional."
    )
    if not has_call(model):
        how = "which has no `call`, only parts. Pass each of these separately."
    raise ValueError(
        f"Expected a keras.Sequential or a Functional model, whose graph can be "
        f"read. Received: model={model.name!r} of type {type(model).__name__}, {how}"
    )


class _Tracer:
    """Records the calls that a model makes, and those of nested models.

    A nested model is recorded as the calls of its layers. Each of its inputs and
    outputs then has two tensors; the recorded nodes use one of them.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        # By id of a tensor: the tensor used instead.
        self._same: dict[int, keras.KerasTensor] = {}
        self._alive: list[Any] = []  # so that no id is reused

    def trace(self, model: keras.Model) -> Graph:
        """Returns the graph of a model that has one."""
        inputs, outputs = self._run(model, "", {})
        if isinstance(model, keras.Sequential):  # which has one of each
            [inputs], [outputs] = inputs, outputs
        else:
            inputs = keras.tree.pack_sequence_as(model.input, inputs)
            outputs = keras.tree.pack_sequence_as(model.output, outputs)
        for node in self._nodes:
            node.args, node.kwargs = self._resolve((node.args, node.kwargs))
        return Graph(inputs, self._resolve(outputs), self._nodes)

    def _run(
        self, model: keras.Model, prefix: str, options: dict[str, Any]
    ) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
        """Calls a model's layers on new inputs; returns these and the outputs.

        Args:
            model: one that has a graph.
            prefix: what the names of its nodes begin with.
            options: keyword arguments of its call, which it passes to its layers.
        """
        graph = keras.Model(model.inputs, model.outputs)
        inputs = [input_like(tensor) for tensor in model.inputs]
        clone = keras.models.clone_model(
            graph,
            input_tensors=inputs,
            clone_function=lambda layer: layer,
            call_function=functools.partial(self._call, prefix, options),
        )
        return inputs, clone.outputs

    def _call(
        self,
        prefix: str,
        options: dict[str, Any],
        operation: keras.Operation,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Calls an operation and records the call."""
        outputs = operation(*args, **kwargs)
        self._alive.append(outputs)
        node = Node(operation, prefix + operation.name, args, kwargs, outputs)
        node.kwargs = {**kwargs, **_accepted(operation, options)}
        if has_graph(operation) and _can_be_opened(node):
            self._open(node)
        else:
            self._nodes.append(node)
        return outputs

    def _open(self, node: Node) -> None:
        """Records the calls inside a nested model instead of its own call."""
        model = node.operation
        options = {name: v for name, v in node.kwargs.items() if v is not None}
        given = in_own_order(node.args[0], model.inputs, model)
        given = [
            self._cast(tensor, own.dtype, node.name)
            for tensor, own in zip(given, model.inputs, strict=True)
        ]
        inputs, outputs = self._run(model, f"{node.name}/", options)
        self._alias(inputs, given)
        # Whatever reads its outputs now reads those recorded inside.
        self._alias(node.outputs, self._resolve(outputs))

    def _cast(self, given: keras.KerasTensor, dtype: str, name: str) -> Any:
        """Casts a tensor as a model does whose input is of another type."""
        given = self._resolve(given)
        if given.dtype == dtype:
            return given
        made = keras.ops.cast(given, dtype)
        node = Node(operation_of(made), f"{name}/cast", (given,), {}, made)
        self._nodes.append(node)
        return made

    def _alias(self, nest: Any, others: Any) -> None:
        """Has the tensors of one nest replace those of another."""
        self._alive.append(nest)
        for tensor, other in zip(tensors(nest), tensors(others), strict=True):
            self._same[id(tensor)] = other

    def _resolve(self, nest: Any) -> Any:
        """Returns a nest with its tensors replaced."""

        def known_as(leaf: Any) -> Any:
            while id(leaf) in self._same:
                leaf = self._same[id(leaf)]
            return leaf

        return keras.tree.map_structure(known_as, nest)


def carry_masks(nest: Iterable[keras.KerasTensor]) -> bool:
    """Returns whether any of some tensors has a mask attached."""
    return any(mask_on(tensor) is not None for tensor in nest)


def hides_masks(graph: Graph) -> bool:
    """Returns whether a layer attaches masks that are not in the graph.

    The `call` of a layer may pass on the mask of an embedding that it holds, which
    Keras sees when it runs, but not in the graph.
    """
    return any(
        _is_layer(node.operation)
        and any(map(_makes_masks, layer_tree(node.operation)))
        and not carry_masks(tensors(node.outputs))
        for node in graph.nodes
    )


def _makes_masks(layer: keras.Layer) -> bool:
    return getattr(layer, "mask_zero", False) or isinstance(layer, keras.layers.Masking)


def in_own_order(
    given: Any, inputs: list[keras.KerasTensor], model: keras.Model
) -> list[Any]:
    """Returns the arguments of a model in the order of its inputs; dicts go by name."""
    if not isinstance(given, dict):
        return keras.tree.flatten(given)
    # (A Sequential model has one input.)
    own = None if isinstance(model, keras.Sequential) else model.input
    names = sorted(own) if isinstance(own, dict) else [t.name for t in inputs]
    return [given[name] for name in names]


def _can_be_opened(node: Node) -> bool:
    """Returns whether a nested model's layers can be called on its arguments."""
    if _has_masks(node):
        return False
    model = node.operation
    given = in_own_order(node.args[0], model.inputs, model)
    # Keras adds or drops an axis where the rank differs by one.
    return all(
        len(tensor.shape) == len(own.shape)
        for tensor, own in zip(given, model.inputs, strict=True)
    )


def _has_masks(node: Node) -> bool:
    """Returns whether masks are passed to a call or attached to its inputs."""
    return (
        carry_masks(tensors(node.args))
        or bool(tensors(node.kwargs))
        or len(node.args) > 1
    )


def _accepted(operation: keras.Operation, arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a model's call that Keras passes on to a layer."""
    if "training" not in arguments or not _is_layer(operation):
        return {}
    parameters = inspect.signature(operation.call).parameters
    return {"training": arguments["training"]} if "training" in parameters else {}


def _is_layer(operation: keras.Operation) -> bool:
    return isinstance(operation, keras.Layer)
