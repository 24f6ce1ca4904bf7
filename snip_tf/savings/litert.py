"""Converts a model for the LiteRT interpreter, with sparse tensors."""

from __future__ import annotations

import dataclasses
import itertools
import re
import tempfile
from collections.abc import Iterable
from typing import Any

import keras

from snip_tf._keras import converter_error
from snip_tf.graph.graph import has_graph
from snip_tf.savings.litert_blocks import with_whole_blocks
from snip_tf.savings.litert_inspection import cut_shapes, flex_operations
from snip_tf.savings.quiet import quiet
from snip_tf.savings.saved_model import notes_on_inputs, write_saved_model
from snip_tf.weights import layer_tree

# The converter stores a matrix of mostly zeros in blocks of this many inputs.
_BLOCK, _BLOCK_OF_INT8 = 4, 16
# A note names at most this many layers.
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class _File:
    """A file made by the converter.

    Attributes:
        content: the bytes.
        model: the model in it.
        traced: the `tf.function` that runs the model.
    """

    content: bytes
    model: keras.Model
    traced: Any


@dataclasses.dataclass(frozen=True)
class _Settings:
    """How to convert.

    Attributes:
        int8: whether weights have eight bits.
        batch_size: the only batch size of the file; None for any.
    """

    int8: bool
    batch_size: int | None


class _ConverterError(Exception):
    """Says why the converter fails, and on which layer if known."""


class _NotSparseError(Exception):
    """Says why a file cannot have sparse tensors."""


def convert(model: keras.Model, int8: bool, batch_size: int) -> tuple[bytes, list[str]]:
    """Returns a model as a file that LiteRT reads.

    Args:
        model: a plain model, a copy that nothing else uses.
        int8: whether its weights have eight bits.
        batch_size: the only batch size of a model with recurrent layers.

    Returns:
        The content of the file, and notes for its user.

    Raises:
        ImportError: if there is no converter.
        ValueError: if the converter cannot write the model.
    """
    settings = _Settings(int8, _only_batch_size(model, batch_size))
    notes, is_sparse = notes_on_inputs(model), True
    try:
        file = _sparse(model, settings)
    except _NotSparseError as error:
        file, is_sparse = _dense(model, settings), False
        notes.append(f"Its tensors are not sparse: {error}.")
    if operations := _of_tensorflow(file):
        notes.append(
            "It needs TensorFlow operations, which a LiteRT interpreter runs only "
            f"with the Flex delegate built in: {operations}."
        )
    if size := settings.batch_size:
        at_once = "one example" if size == 1 else f"{size} examples"
        notes.append(f"Recurrent layers run in LiteRT on {at_once} at a time.")
    if int8 and is_sparse:
        notes.append(
            "Sparse layers of eight bits run without LiteRT's default delegates: "
            "OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES."
        )
    return file.content, notes


def _sparse(model: keras.Model, settings: _Settings) -> _File:
    model = with_whole_blocks(model, _BLOCK_OF_INT8 if settings.int8 else _BLOCK)
    try:
        file = _converted(model, settings, sparse=True)
    except _ConverterError as error:
        reason = f"the converter fails on sparse ones ({error})"
        raise _NotSparseError(reason) from error
    if cut := cut_shapes(file.content):
        raise _NotSparseError(
            f"the converter would drop part of those of shapes {cut}, whose inputs are "
            "not a multiple of its blocks"
        )
    return file


def _dense(model: keras.Model, settings: _Settings) -> _File:
    try:
        return _converted(model, settings, sparse=False)
    except _ConverterError as error:
        raise ValueError(
            f"Expected a model that TensorFlow's converter can write for LiteRT, with "
            f"format='litert'. Received: model={model.name!r}, on which it fails: "
            f"{error}. {_advice(model)}"
        ) from error.__cause__


def _advice(model: keras.Model) -> str:
    """Says what to do where the converter fails on a model."""
    if any(getattr(layer, "quantization_mode", None) for layer in layer_tree(model)):
        return (
            "It was quantized by Keras' `quantize`, whose operations LiteRT lacks: "
            "export the model before quantization with int8='weights', or use "
            "format='saved_model'."
        )
    return "Leave that out of the model, or use format='saved_model'."


def _converted(model: keras.Model, settings: _Settings, *, sparse: bool) -> _File:
    lite, converter_error = _lite()
    with tempfile.TemporaryDirectory() as folder:
        # Keras' own `model.export(..., "litert")` differs from version to version.
        traced = write_saved_model(model, folder, settings.batch_size)
        converter = lite.TFLiteConverter.from_saved_model(folder)
        operations = [lite.OpsSet.TFLITE_BUILTINS, lite.OpsSet.SELECT_TF_OPS]
        converter.target_spec.supported_ops = operations
        converter.experimental_enable_resource_variables = True
        # The converter itself decides which tensors gain from being sparse.
        wanted = [lite.Optimize.EXPERIMENTAL_SPARSITY] if sparse else []
        wanted += [lite.Optimize.DEFAULT] if settings.int8 else []
        converter.optimizations = wanted
        with quiet() as written:
            try:
                return _File(converter.convert(), model, traced)
            except (converter_error, RuntimeError) as error:
                raise _ConverterError(_reason(written(), error, model)) from error


def _lite() -> tuple[Any, type[Exception]]:
    """Returns TensorFlow's converter, and the error that it raises."""
    try:
        from tensorflow import lite

        return lite, converter_error()
    except ImportError as error:
        raise ImportError(
            "Expected a TensorFlow that has the LiteRT converter for "
            "format='litert': `pip install tensorflow==2.21.0`."
        ) from error


def _reason(written: str, error: Exception, model: keras.Model) -> str:
    """Extracts the reason from the converter's many lines, and names the layer."""
    lines = [*written.splitlines(), *str(error).splitlines()]
    for line in lines:
        if found := re.search(r"error: (?:loc\(.*\): )?(.+)", line):
            names = re.findall(r'"([^"@;]+)', line)
            layers = _layers_of(names, model)
            return found[1] + (f", in {layers[0]}" if layers else "")
    return str(error).partition("\n")[0] or "it does not say why"


def _layers_of(names: Iterable[str], model: keras.Model) -> list[str]:
    """Returns the layers that created the operations with these names, each once.

    Keras opens a scope with the layer's name, which TensorFlow numbers: the layer
    `dense` is in `model_1/dense_1/MatMul`.
    """
    layers = itertools.islice(layer_tree(model), 1, None)
    known = {layer.name: type(layer).__name__ for layer in layers}
    found: dict[str, None] = {}
    for name in names:
        for scope in reversed(name.split("/")):
            unnumbered = re.sub(r"_\d+$", "", scope)
            layer = unnumbered if unnumbered in known else scope
            if layer in known:
                found[f"{layer} ({known[layer]})"] = None
                break
    return list(found)


def _only_batch_size(model: keras.Model, wanted: int) -> int | None:
    """Returns the only batch size on which LiteRT runs the model, if there is one.

    Loops over time keep their outputs in lists, whose size LiteRT needs to know.
    """
    if not any(isinstance(layer, keras.layers.RNN) for layer in layer_tree(model)):
        return None
    inputs = model.inputs if has_graph(model) else []
    return next((x.shape[0] for x in inputs if x.shape[0]), wanted)


def _of_tensorflow(file: _File) -> str:
    """Says which operations of TensorFlow a file needs, and in which layers."""
    places: dict[str, list[str]] = {}
    for operation, outputs in flex_operations(file.content):
        layers = _layers_of(outputs, file.model)
        if not layers:  # the last ones are named after the outputs of the model
            layers = _layers_of(_nodes(file.traced, operation), file.model)
        for layer in layers or [""]:
            places.setdefault(layer, []).append(operation)
    of_each = [
        ", ".join(dict.fromkeys(operations)) + (f" in {layer}" if layer else "")
        for layer, operations in places.items()
    ]
    if len(of_each) > _LISTED:
        of_each[_LISTED:] = [f"and more in {len(of_each) - _LISTED} other layers"]
    return "; ".join(of_each)


def _nodes(traced: Any, operation: str) -> list[str]:
    """Returns the names of the nodes of an operation in the graphs of a function."""
    graph = traced.get_concrete_function().graph.as_graph_def()
    inside = (function.node_def for function in graph.library.function)
    nodes = itertools.chain(graph.node, *inside)
    return [node.name for node in nodes if node.op == operation]
