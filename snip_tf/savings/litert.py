"""A model as the LiteRT interpreter reads it, with sparse tensors."""

from __future__ import annotations

import dataclasses
import itertools
import re
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from snip_tf.graph.edit import Names, like, rebuild
from snip_tf.graph.graph import Node, has_graph, trace
from snip_tf.masking.copying import Copies
from snip_tf.savings.quiet import quiet
from snip_tf.savings.serving import notes_on_inputs, write_saved_model
from snip_tf.weights import layer_tree

# Where most numbers are zero, the converter stores a matrix in blocks of so many
# inputs, or so many of eight bits. What is left over of inputs that they do not divide
# it drops, without a word (TensorFlow 2.21): the outputs are wrong by tenths.
_BLOCK, _BLOCK_OF_INT8 = 4, 16
# Of so many layers at most a note gives the names.
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class _File:
    """What the converter made.

    Attributes:
        content: the file.
        model: what it was made of.
        traced: the `tf.function` that runs it.
    """

    content: bytes
    model: keras.Model
    traced: Any


class _ConverterFails(Exception):
    """With the converter's reason and, if it tells one, the layer."""


def convert(model: keras.Model, int8: bool) -> tuple[bytes, list[str]]:
    """What LiteRT reads of a model.

    Args:
        model: a plain model, a copy that nothing else uses.
        int8: whether its weights have eight bits.

    Returns:
        The content of the file, and what a user should know of it, in sentences.

    Raises:
        ImportError: if there is no converter.
        ValueError: if the converter cannot write the model.
    """
    notes, block = notes_on_inputs(model), _BLOCK_OF_INT8 if int8 else _BLOCK
    file, why_dense = _sparse(_with_whole_blocks(model, block), int8)
    if why_dense:
        file = _dense(model, int8)
        notes.append(f"Its tensors are not sparse: {why_dense}.")
    if operations := _of_tensorflow(file):
        notes.append(
            f"It needs operations of TensorFlow, which an interpreter of LiteRT runs "
            f"only with the Flex delegate built in: {operations}."
        )
    if size := _batch_size(model):
        at_once = "one example" if size == 1 else f"{size} examples"
        notes.append(f"Recurrent layers run in LiteRT on {at_once} at a time.")
    if int8 and not why_dense:
        notes.append(
            "Sparse layers of eight bits run without LiteRT's default delegates: "
            "OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES."
        )
    return file.content, notes


def _sparse(model: keras.Model, int8: bool) -> tuple[_File | None, str]:
    """The file with sparse tensors; or None, and why there is none."""
    try:
        file = _converted(model, sparse=True, int8=int8)
    except _ConverterFails as failure:
        return None, f"the converter fails on sparse ones ({failure})"
    if bad := _with_cut_blocks(file.content):
        return None, (
            f"the converter would drop a part of those of shapes {bad}, whose inputs "
            f"its blocks do not divide"
        )
    return file, ""


def _dense(model: keras.Model, int8: bool) -> _File:
    try:
        return _converted(model, sparse=False, int8=int8)
    except _ConverterFails as failure:
        raise ValueError(
            f"Expected a model that TensorFlow's converter can write for LiteRT, with "
            f"format='litert'. Received: model={model.name!r}, on which it fails: "
            f"{failure}. {_advice(model)}"
        ) from failure.__cause__


def _advice(model: keras.Model) -> str:
    """What to do where the converter fails on a model."""
    if any(getattr(layer, "quantization_mode", None) for layer in layer_tree(model)):
        return (
            "It was quantized by Keras' `quantize`, whose operations LiteRT has not: "
            "export it as it was before, with int8=True, or use format='saved_model'."
        )
    return "Leave that out of the model, or use format='saved_model'."


def _converted(model: keras.Model, *, sparse: bool, int8: bool) -> _File:
    try:
        from tensorflow import lite

        # There is no public name for what `convert` raises.
        from tensorflow.lite.python.convert import ConverterError
    except ImportError as error:
        raise ImportError(
            "Expected a TensorFlow that has the LiteRT converter for "
            "format='litert': `pip install tensorflow==2.21.0`."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        # Keras' own `model.export(..., "litert")` differs from version to version.
        traced = write_saved_model(model, folder, _batch_size(model))
        converter = lite.TFLiteConverter.from_saved_model(folder)
        operations = [lite.OpsSet.TFLITE_BUILTINS, lite.OpsSet.SELECT_TF_OPS]
        converter.target_spec.supported_ops = operations
        converter.experimental_enable_resource_variables = True
        # The converter finds by itself which tensors gain from being sparse.
        wanted = [lite.Optimize.EXPERIMENTAL_SPARSITY] if sparse else []
        converter.optimizations = wanted + ([lite.Optimize.DEFAULT] if int8 else [])
        with quiet() as written:
            try:
                return _File(converter.convert(), model, traced)
            except (ConverterError, RuntimeError) as error:
                raise _ConverterFails(_reason(written(), error, model)) from error


def _reason(written: str, error: Exception, model: keras.Model) -> str:
    """What the converter's many lines say of an error, and of which layer."""
    lines = [*written.splitlines(), *str(error).splitlines()]
    for line in lines:
        if found := re.search(r"error: (?:loc\(.*\): )?(.+)", line):
            names = re.findall(r'"([^"@;]+)', line)
            layers = _layers_of(names, model)
            return found[1] + (f", in {layers[0]}" if layers else "")
    return str(error).partition("\n")[0] or "it does not say why"


def _layers_of(names: Iterable[str], model: keras.Model) -> list[str]:
    """The layers that made operations of these names, each once.

    Keras opens a scope of the layer's name, which TensorFlow numbers: the layer `dense`
    is in `model_1/dense_1/MatMul`.
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


def _batch_size(model: keras.Model) -> int | None:
    """The only size of batches on which LiteRT runs the model, if there is one.

    It has no lists of tensors of unknown size, in which loops over time keep what they
    have made.
    """
    if not any(isinstance(layer, keras.layers.RNN) for layer in layer_tree(model)):
        return None
    inputs = model.inputs if has_graph(model) else []
    return next((x.shape[0] for x in inputs if x.shape[0]), 1)


def _with_whole_blocks(model: keras.Model, block: int) -> keras.Model:
    """The same model; dense layers whose inputs are cut get zeros beside them."""
    if not has_graph(model):
        return model
    graph = trace(model)
    if not any(_is_cut(node, block) for node in graph.nodes):
        return model
    names, known, wider, copy = Names(graph), set(), {}, Copies().of

    def call(node: Node, given: list[Any]) -> Any:
        layer = node.operation
        if layer not in known:
            layer.name = names.of(node)
            known.add(layer)
        if not _is_cut(node, block):
            args, kwargs = node.arguments_with(given)
            return layer(*args, **kwargs)
        [x] = given
        more = -layer.kernel.shape[0] % block
        x = _Pad(more, dtype=layer.compute_dtype)(x)  # LiteRT pads no other types
        if layer not in wider:
            wider[layer] = like(layer, copy)
        outputs = wider[layer](x)
        kernel = np.pad(np.asarray(layer.kernel), [[0, more], [0, 0]])
        wider[layer].set_weights([kernel, *map(np.asarray, layer.weights[1:])])
        return outputs

    return rebuild(graph, call)


class _Pad(keras.layers.Layer):
    """Zeros after the features; unlike `keras.ops.pad` it hands a mask on."""

    def __init__(self, more: int, **options: Any):
        super().__init__(**options)
        self._more, self.supports_masking = more, True

    def call(self, x: Any) -> Any:
        x = keras.ops.cast(x, self.compute_dtype)
        return keras.ops.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, self._more]])


def _is_cut(node: Node, block: int) -> bool:
    """Whether a call is of a dense layer that might be cut."""
    layer = node.operation
    if type(layer) is not keras.layers.Dense or layer.compute_dtype != "float32":
        return False  # which the converter does not make sparse
    if not keras.backend.is_float_dtype(layer.kernel.dtype):
        return False  # quantized, which the converter refuses in words of its own
    if layer.kernel.shape[0] % block == 0:
        return False
    return not np.all(layer.kernel)  # else it is not made sparse


def _with_cut_blocks(content: bytes) -> list[list[int]]:
    """The shapes of the tensors of which the converter may have dropped a part."""
    found = []
    for graph in _graphs(content):  # a loop over time has tensors of its own
        for i in range(graph.TensorsLength()):
            coding = graph.Tensors(i).Sparsity()
            if coding is None or not coding.BlockMapLength():
                continue
            block = coding.DimMetadata(coding.DimMetadataLength() - 1).DenseSize()
            shape = graph.Tensors(i).ShapeAsNumpy().tolist()
            if shape[-1] % block:
                found.append(shape)
    return found


def _of_tensorflow(file: _File) -> str:
    """The operations of TensorFlow that a file needs, and the layers they are of."""
    places: dict[str, list[str]] = {}
    for operation, outputs in _flex_operations(file.content):
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


def _flex_operations(content: bytes) -> Iterator[tuple[str, list[str]]]:
    """Each operation of TensorFlow in a file, with the names of its outputs."""
    file = _schema().Model.GetRootAs(content)
    for graph in _graphs(content):
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            code = file.OperatorCodes(operator.OpcodeIndex()).CustomCode() or b""
            if code.startswith(b"Flex"):
                outputs = map(operator.Outputs, range(operator.OutputsLength()))
                names = [graph.Tensors(output).Name().decode() for output in outputs]
                yield code.decode().removeprefix("Flex"), names


def _nodes(traced: Any, operation: str) -> list[str]:
    """The names of the nodes of one operation in all the graphs of a `tf.function`."""
    graph = traced.get_concrete_function().graph.as_graph_def()
    inside = (function.node_def for function in graph.library.function)
    nodes = itertools.chain(graph.node, *inside)
    return [node.name for node in nodes if node.op == operation]


def _graphs(content: bytes) -> list[Any]:
    file = _schema().Model.GetRootAs(content)
    return [file.Subgraphs(i) for i in range(file.SubgraphsLength())]


def _schema() -> Any:
    """Readers of a file, made of LiteRT's public description of it."""
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated
