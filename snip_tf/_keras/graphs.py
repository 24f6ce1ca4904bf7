"""Private names of graphs: tensors, calls, masks, inputs."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import keras

from snip_tf._keras.layers import functional_class


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns the operation that made a tensor of a graph, which is not public."""
    return tensor._keras_history.operation


def calls_in(graph: keras.Model) -> list[Any]:
    """Returns the calls that make up the graph of a Functional model, in order.

    The first ones are of its inputs. Keras shows in public which operations there are,
    not on what they are called.
    """
    depths = sorted(graph._nodes_by_depth, reverse=True)
    return [call for depth in depths for call in graph._nodes_by_depth[depth]]


def casts_in(layer: keras.Layer) -> list[Any]:
    """Returns the casts in the graph of a Functional model; none for other layers.

    Their class has no public name.
    """
    from keras.src.ops.core import Cast

    if not isinstance(layer, functional_class()):
        return []
    return [each for each in layer.operations if type(each) is Cast]


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


def mask_on(tensor: Any) -> Any:
    """Returns the mask of timesteps that Keras attached to a tensor, or None.

    Publicly, it is only passed to layers. Keras keeps those of tensors that take no
    attributes, as in a derivative of JAX's, elsewhere.
    """
    from keras.src.backend.common.masking import get_keras_mask

    return get_keras_mask(tensor)


def put_mask_on(tensor: Any, mask: Any) -> None:
    """Attaches a mask to a tensor, for losses and metrics; see `mask_on`."""
    from keras.src.backend.common.masking import set_keras_mask

    set_keras_mask(tensor, mask)


def logits_of(outputs: Any) -> Any:
    """Returns the logits of a softmax or sigmoid; other tensors unchanged.

    Keras attaches them for its own losses.
    """
    return getattr(outputs, "_keras_logits", outputs)


def set_dtype(part: keras.KerasTensor | keras.layers.InputLayer, dtype: str) -> None:
    """Sets the dtype to which a model casts an input.

    It is public only when an input is made.
    """
    part._dtype = dtype


def input_signature(model: keras.Model) -> list[Any]:
    """Returns the input signature of a model, as `model.export` determines it."""
    from keras.src.export.export_utils import get_input_signature

    return get_input_signature(model)


@contextlib.contextmanager
def names_not_counted() -> Iterator[None]:
    """Has Keras number the user's next objects as if nothing had been made here.

    The counts, of this thread, have no public name.
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
