"""A model to a file for the LiteRT interpreter, with sparse tensors."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from snip_tf.compaction.graph import Names, Node, remade, trace
from snip_tf.compaction.kinds.kind import in_place
from snip_tf.masked_layer import is_made_of_layers
from snip_tf.weights import layer_tree

# Where most numbers are zero, the converter stores a matrix in blocks of so many
# inputs, or so many of eight bits. What is left over of inputs that they do not divide
# it drops, without a word (TensorFlow 2.21): the outputs are wrong by tenths.
_BLOCK, _BLOCK_OF_INT8 = 4, 16


def convert(model: keras.Model, path: Path, int8: bool) -> list[str]:
    """Writes a model as LiteRT reads it.

    Args:
        model: a plain model, a copy that nothing else uses.
        path: a file that ends in `.tflite`.
        int8: whether its weights have eight bits.

    Returns:
        What a user should know of the file, in sentences.

    Raises:
        ImportError: if there is no converter.
    """
    notes, block = [], _BLOCK_OF_INT8 if int8 else _BLOCK
    _write(_with_whole_blocks(model, block), path, sparse=True, int8=int8)
    if bad := _with_cut_blocks(path):
        _write(model, path, sparse=False, int8=int8)
        notes.append(
            f"Its tensors are not sparse: the converter would drop a part of those of "
            f"shapes {bad}, whose inputs its blocks do not divide."
        )
    if _has_loops(model):
        notes.append("Recurrent layers run in LiteRT on one example at a time.")
    if int8 and not bad:
        notes.append(
            "Sparse layers of eight bits run without LiteRT's default delegates: "
            "OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES."
        )
    return notes


def _write(model: keras.Model, path: Path, *, sparse: bool, int8: bool) -> None:
    try:
        from tensorflow import lite
    except ImportError as error:
        raise ImportError(
            "Expected a TensorFlow that has the LiteRT converter for "
            "format='litert': `pip install tensorflow==2.21.0`."
        ) from error
    # The converter finds by itself which tensors gain from it.
    wanted = [lite.Optimize.EXPERIMENTAL_SPARSITY] if sparse else []
    if int8:
        wanted.append(lite.Optimize.DEFAULT)
    options = {"input_signature": _of_one_example(model)} if _has_loops(model) else {}
    model.export(path, format="litert", verbose=False, optimizations=wanted, **options)


def _has_loops(model: keras.Model) -> bool:
    """Whether LiteRT runs the model on batches of a fixed size only.

    It has no lists of tensors of unknown size, in which loops over time keep what they
    have made.
    """
    return hasattr(model, "inputs") and any(
        isinstance(layer, keras.layers.RNN) for layer in layer_tree(model)
    )


def _of_one_example(model: keras.Model) -> list[Any]:
    def spec(tensor: keras.KerasTensor) -> keras.InputSpec:
        shape = (1, *tensor.shape[1:])
        return keras.InputSpec(shape=shape, dtype=tensor.dtype, name=tensor.name)

    # (A Sequential model that was not called yet has no `input`.)
    sequential = isinstance(model, keras.Sequential)
    given = model.inputs if sequential else [model.input]
    return keras.tree.map_structure(spec, given)


def _with_whole_blocks(model: keras.Model, block: int) -> keras.Model:
    """The same model; dense layers whose inputs are cut get zeros beside them."""
    if not is_made_of_layers(model):
        return model
    graph = trace(model)
    if not any(_is_cut(node, block) for node in graph.nodes):
        return model
    names, known, wider = Names(graph), set(), {}

    def call(node: Node, given: list[Any]) -> Any:
        layer = node.operation
        if layer not in known:
            layer.name = names.of(node)
            known.add(layer)
        if not _is_cut(node, block):
            args, kwargs = in_place(node, given)
            return layer(*args, **kwargs)
        [x] = given
        more = -layer.kernel.shape[0] % block
        x = keras.ops.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, more]])
        if layer not in wider:
            wider[layer] = keras.layers.Dense.from_config(layer.get_config())
        outputs = wider[layer](x)
        kernel = np.pad(np.asarray(layer.kernel), [[0, more], [0, 0]])
        wider[layer].set_weights([kernel, *map(np.asarray, layer.weights[1:])])
        return outputs

    return remade(graph, call)


def _is_cut(node: Node, block: int) -> bool:
    """Whether a call is of a dense layer that might be cut."""
    layer = node.operation
    if type(layer) is not keras.layers.Dense or layer.kernel.shape[0] % block == 0:
        return False
    return not np.all(layer.kernel)  # else it is not made sparse


def _with_cut_blocks(path: Path) -> list[list[int]]:
    """The shapes of the tensors of which the converter may have dropped a part."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TensorFlow, whose own will go
        run = _interpreter()(str(path))
    found = []
    # A loop over time has tensors of its own, in another graph.
    details = [run.get_tensor_details(i) for i in range(run.num_subgraphs())]
    for tensor in itertools.chain(*details):
        coding, shape = tensor["sparsity_parameters"], tensor["shape"]
        blocks = len(coding.get("block_map", ()))
        if blocks and shape[-1] % coding["dim_metadata"][-1]["dense_size"]:
            found.append([int(size) for size in shape])
    return found


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        from tensorflow import lite

        if not hasattr(lite, "Interpreter"):
            raise ImportError(
                "Expected a LiteRT interpreter, to look into the file that "
                "format='litert' writes: `pip install ai-edge-litert`."
            ) from error
        return lite.Interpreter
    return Interpreter
