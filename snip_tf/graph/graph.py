"""The graph of a model: which layer is called on what, the models inside laid open."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from snip_tf._keras import functional_class, mask_on, operation_of
from snip_tf.checks import has_call
from snip_tf.masking.copying import input_like
from snip_tf.weights import layer_tree


@dataclasses.dataclass(eq=False)
class Node:
    """One call of a layer, or of an operation of `keras.ops`.

    Attributes:
        operation: what is called.
        name: that of the operation, after those of the models that it is in.
        args, kwargs: the arguments of the call, with `KerasTensor`s among them.
        outputs: what it returned, a nest of `KerasTensor`s.
    """

    operation: keras.Operation
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any

    def inputs(self) -> list[keras.KerasTensor]:
        """The tensors among the arguments, in order."""
        return tensors((self.args, self.kwargs))


@dataclasses.dataclass(eq=False)
class Graph:
    """The calls of a model in an order in which they can be made.

    Attributes:
        inputs, outputs: nests of `KerasTensor`s, as the model takes and returns.
        nodes: the calls between them.
    """

    inputs: Any
    outputs: Any
    nodes: list[Node]

    def layers(self) -> Iterator[keras.Layer]:
        """The layers that are called, each once."""
        return iter({n.operation: None for n in self.nodes if _is_layer(n.operation)})


def tensors(nest: Any) -> list[keras.KerasTensor]:
    """The symbolic tensors in a nest, in order."""
    return [leaf for leaf in keras.tree.flatten(nest) if is_tensor(leaf)]


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of a graph."""
    return isinstance(value, keras.KerasTensor)


def has_graph(layer: Any) -> bool:
    """Whether a layer is a model that runs as Keras runs Sequential or Functional ones.

    Its class may add to these what it likes, such as a `train_step`, but no `call`.
    """
    classes = (keras.Sequential, functional_class())
    # (A Sequential model may be built without, by layers that run on numbers alone.)
    if not isinstance(layer, classes) or not hasattr(layer, "inputs"):
        return False
    call = getattr(layer.call, "__func__", None)  # a class's, or that of an object
    of_keras = call in [cls.call for cls in classes]
    return of_keras and type(layer).__call__ is keras.Layer.__call__


def trace(model: keras.Model) -> Graph:
    """The graph of a Sequential or Functional model.

    Models inside are laid open, so that the graph is of their layers. The layers of the
    model are called once more each, which leaves traces in them.

    Args:
        model: a built `keras.Sequential` or Functional model, of a class of its own
            perhaps, but with Keras' `call`.

    Raises:
        ValueError: if the model runs its layers in code of its own.
    """
    if not has_graph(model):
        how = (
            "which runs its layers in code of its own (its `call`). If that only calls "
            "layers, `keras.Model(inputs, model.call(inputs))` with "
            "`inputs = keras.Input(...)` makes it Functional."
        )
        if not has_call(model):
            how = "which has no `call`, only parts. Pass these, each by itself."
        raise ValueError(
            f"Expected a keras.Sequential or a Functional model, whose graph can be "
            f"read. Received: model={model.name!r} of type {type(model).__name__}, "
            f"{how}"
        )
    same: dict[int, keras.KerasTensor] = {}
    held: list[Any] = []  # so that no id is given to another tensor
    nodes: list[Node] = []

    def resolve(nest: Any) -> Any:
        def known_as(leaf: Any) -> Any:
            while id(leaf) in same:
                leaf = same[id(leaf)]
            return leaf

        return keras.tree.map_structure(known_as, nest)

    def alias(tensors_of: Any, others: Any) -> None:
        held.append(tensors_of)
        for tensor, other in zip(tensors(tensors_of), tensors(others), strict=True):
            same[id(tensor)] = other

    def cast(given: keras.KerasTensor, wanted: keras.KerasTensor, name: str) -> Any:
        """What a model makes of a tensor of another type than its input's."""
        given = resolve(given)
        if given.dtype == wanted.dtype:
            return given
        made = keras.ops.cast(given, wanted.dtype)
        operation = operation_of(made)
        nodes.append(Node(operation, f"{name}/cast", (given,), {}, made))
        return made

    def walk(model: keras.Model, prefix: str, given: dict[str, Any]) -> tuple[Any, Any]:
        def record(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
            outputs = operation(*args, **kwargs)
            held.append(outputs)
            name = prefix + operation.name
            kwargs = {**kwargs, **_accepted(operation, given)}
            if has_graph(operation) and _can_be_laid_open(operation, args, kwargs):
                handed_on = {k: v for k, v in kwargs.items() if v is not None}
                own = in_own_order(args[0], operation.inputs, operation)
                pairs = zip(own, operation.inputs, strict=True)
                cast_to_own = [cast(*pair, name) for pair in pairs]
                inputs, inner = walk(operation, f"{name}/", handed_on)
                alias(inputs, cast_to_own)
                # Its readers read what was recorded inside.
                alias(outputs, resolve(inner))
            else:
                nodes.append(Node(operation, name, args, kwargs, outputs))
            return outputs

        graph = keras.Model(model.inputs, model.outputs)
        inputs = [input_like(tensor) for tensor in model.inputs]
        clone = keras.models.clone_model(
            graph,
            input_tensors=inputs,
            clone_function=lambda layer: layer,
            call_function=record,
        )
        return inputs, clone.outputs

    inputs, outputs = walk(model, "", {})
    if not isinstance(model, keras.Sequential):  # which has one of each
        inputs = keras.tree.pack_sequence_as(model.input, inputs)
        outputs = keras.tree.pack_sequence_as(model.output, outputs)
    else:
        [inputs], [outputs] = inputs, outputs
    for node in nodes:
        node.args, node.kwargs = resolve(node.args), resolve(node.kwargs)
    return Graph(inputs, resolve(outputs), nodes)


def carry_masks(of: Iterable[keras.KerasTensor]) -> bool:
    """Whether any of some tensors has a mask on it."""
    return any(mask_on(tensor) is not None for tensor in of)


def hides_masks(graph: Graph) -> bool:
    """Whether a layer puts masks on its outputs that only its call knows of.

    The `call` of a layer may hand on the mask of an embedding inside, where Keras sees
    none in the graph.
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
    """What a model is given, in the order of its inputs, by which Keras names them."""
    if isinstance(given, dict):
        # (A Sequential model has one input.)
        own = None if isinstance(model, keras.Sequential) else model.input
        names = sorted(own) if isinstance(own, dict) else [t.name for t in inputs]
        return [given[name] for name in names]
    return keras.tree.flatten(given)


class Names:
    """Names for the operations of a model that is made of a graph, each given once."""

    def __init__(self, graph: Graph):
        self._taken = {tensor.name for tensor in tensors(graph.inputs)}
        self._of_graph = {node.name.rpartition("/")[2] for node in graph.nodes}

    def of(self, node: Node) -> str:
        """That of a call, or if it is taken, with those of the models it was in."""
        name = node.name.rpartition("/")[2]
        if name in self._taken:
            name = node.name.replace("/", "_")
        return self._unused(name, self._taken)

    def new(self, name: str) -> str:
        """Of an operation that the graph has not."""
        return self._unused(name, self._taken | self._of_graph)

    def _unused(self, base: str, taken: set[str]) -> str:
        name, count = base, 1
        while name in taken:
            name = f"{base}_{count}"
            count += 1
        self._taken.add(name)
        return name


def remade(graph: Graph, call: Callable[[Node, list[Any]], Any]) -> keras.Model:
    """A model of a graph in which each call is made in another way.

    Args:
        graph: the calls.
        call: makes one instead of a `Node`, on these new tensors (None where there
            is none), and returns its outputs; or None, where nothing needs them.
    """
    inputs = keras.tree.map_structure(input_like, graph.inputs)
    new = dict(zip(map(id, tensors(graph.inputs)), tensors(inputs), strict=True))
    for node in graph.nodes:
        outputs = call(node, [new.get(id(tensor)) for tensor in node.inputs()])
        if outputs is not None:
            new.update(
                zip(map(id, tensors(node.outputs)), tensors(outputs), strict=True)
            )
    for tensor in tensors(inputs):
        # Older versions of Keras (3.13) refuse an input that nothing reads.
        keras.layers.Identity(name="unread")(tensor)
    return keras.Model(
        inputs, keras.tree.map_structure(lambda tensor: new[id(tensor)], graph.outputs)
    )


def _can_be_laid_open(
    model: keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Whether the layers inside a model may be called on what it is given."""
    if _masks(args, kwargs):
        return False
    own = in_own_order(args[0], model.inputs, model)
    # Keras adds or drops an axis where there is one too few or too many.
    return all(
        len(g.shape) == len(i.shape) for g, i in zip(own, model.inputs, strict=True)
    )


def _masks(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call has, or its inputs carry, masks, which the layers inside need."""
    return carry_masks(tensors(args)) or bool(tensors(kwargs)) or len(args) > 1


def _accepted(operation: keras.Operation, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments of a model's call that Keras hands on to a layer."""
    if "training" not in arguments or not _is_layer(operation):
        return {}
    parameters = inspect.signature(operation.call).parameters
    return {"training": arguments["training"]} if "training" in parameters else {}


def _is_layer(operation: keras.Operation) -> bool:
    return isinstance(operation, keras.Layer)
