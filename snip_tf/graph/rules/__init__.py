"""Which kind a call is of: how it passes features on, and how it is made smaller."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from snip_tf._keras import operation_name
from snip_tf.graph.graph import Node, is_tensor, tensors
from snip_tf.graph.rules.matrix import (
    TRANSPOSED,
    Depthwise,
    Lookup,
    Matrix,
    Separable,
)
from snip_tf.graph.rules.passing import (
    Concatenate,
    EachByItself,
    Merge,
    Padded,
    Rearranged,
)
from snip_tf.graph.rules.recurrent import Recurrent
from snip_tf.graph.rules.rule import Kind, feature_count, is_elementwise

layers = keras.layers

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, *TRANSPOSED)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_RECURRENT = (layers.SimpleRNN, layers.GRU, layers.LSTM)
_MERGES = (layers.Add, layers.Subtract, layers.Multiply, layers.Average)
_MERGES += (layers.Maximum, layers.Minimum)
# Operations of `keras.ops`, for whose classes Keras has no public names.
_MERGING_OPERATIONS = {"Add", "Subtract", "Multiply", "Maximum", "Minimum"}
_ELEMENTWISE_OPERATIONS = {"Relu", "Relu6", "Sigmoid", "Silu", "Tanh", "Gelu", "Elu"}
_ELEMENTWISE_OPERATIONS |= {"HardSigmoid", "HardSilu", "LeakyRelu", "Softplus", "Cast"}
_HANDED_ON = {
    **dict.fromkeys(
        (
            *(layers.ReLU, layers.LeakyReLU, layers.ELU, layers.BatchNormalization),
            *(layers.Activation, layers.Rescaling),
        ),
        "applied",
    ),
    **dict.fromkeys(
        (
            *(layers.Identity, layers.ActivityRegularization, layers.Dropout),
            *(layers.SpatialDropout1D, layers.SpatialDropout2D),
            *(layers.SpatialDropout3D, layers.GaussianNoise, layers.GaussianDropout),
            *(layers.AlphaDropout, layers.MaxPooling1D, layers.MaxPooling2D),
            *(layers.MaxPooling3D, layers.AveragePooling1D, layers.AveragePooling2D),
            *(layers.AveragePooling3D, layers.GlobalMaxPooling1D),
            *(layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
            *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
            *(layers.GlobalAveragePooling3D, layers.Cropping1D, layers.Cropping2D),
            *(layers.Cropping3D, layers.RepeatVector, layers.UpSampling1D),
        ),
        "same",
    ),
    **dict.fromkeys(
        (
            *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
            *(layers.UpSampling2D, layers.UpSampling3D),
        ),
        "zero",
    ),
}


def kind_of(node: Node, tolerance: float, shared: set[int]) -> Kind:
    """How a call passes features on.

    Args:
        node: the call.
        tolerance: the largest magnitude of a weight that counts as zero.
        shared: ids of layers whose weights are used more than once; these stay as
            they are.
    """
    unanalysed = id(node.operation) in shared or bool(node.kwargs.get("training"))
    make = None if unanalysed else _known_kind(node)
    return (make or Kind)(node, tolerance)


def _known_kind(node: Node) -> Callable[[Node, float], Kind] | None:
    """The kind of a call, if it is one that is known to pass features on."""
    operation, inputs, outputs = node.operation, node.inputs(), tensors(node.outputs)
    # A subclass may compute something else, so only the very classes are known.
    cls = type(operation)
    if len(outputs) != 1 or not inputs or len(inputs[0].shape) < 2:
        return None
    if getattr(operation, "data_format", "channels_last") != "channels_last":
        return None
    if getattr(operation, "quantization_mode", None) or getattr(
        operation, "lora_enabled", False
    ):
        return None
    if cls in _RECURRENT or cls is layers.Bidirectional:
        return Recurrent if _is_plain_recurrence(node) else None
    same_features = {feature_count(tensor) for tensor in (*inputs, *outputs)}
    if cls in _MERGES and len(same_features) == 1:
        return Merge
    if cls is layers.Concatenate:
        return Concatenate if operation.axis in (-1, len(inputs[0].shape) - 1) else None
    name = operation_name(operation)
    if name in _MERGING_OPERATIONS and len(same_features) == 1:
        return Merge if len(inputs) == 2 else _applied_to_each(node)
    if len(inputs) > 1:
        return None
    if name == "Pad" and operation.mode == "constant" and not tensors(node.kwargs):
        full = len(operation.pad_width) == len(inputs[0].shape)
        return Padded if full and not other_arguments(node) else None
    if name in _ELEMENTWISE_OPERATIONS:
        return _applied_to_each(node)
    if cls is layers.Dense or (cls in _CONVOLUTIONS and _groups(operation) == 1):
        return Matrix
    if cls in _SEPARABLE:
        return Separable
    if cls in _DEPTHWISE:
        return Depthwise
    if cls is layers.Embedding:
        return Lookup
    if cls in (layers.Flatten, layers.Reshape):
        return _rearranging(inputs[0], outputs[0])
    if cls is layers.Activation and not is_elementwise(operation.activation):
        return None
    if cls is layers.Rescaling and np.ndim(operation.scale) + np.ndim(operation.offset):
        return None
    if cls is layers.BatchNormalization and operation.axis not in (
        *(-1, len(inputs[0].shape) - 1),
    ):
        return None
    if cls in _HANDED_ON and len(same_features) == 1:
        return functools.partial(EachByItself, constant=_HANDED_ON[cls])
    return None


def _applied_to_each(node: Node) -> Callable[[Node, float], Kind] | None:
    """Of an operation on one tensor and on numbers."""
    if all(isinstance(a, (int, float, str, bool)) for a in other_arguments(node)):
        return functools.partial(EachByItself, constant="applied")
    return None


def other_arguments(node: Node) -> list[Any]:
    """What a call is given beside tensors; None is nothing."""
    leaves = keras.tree.flatten((node.args, node.kwargs))
    return [leaf for leaf in leaves if not is_tensor(leaf) and leaf is not None]


def _rearranging(before: Any, after: Any) -> Callable[[Node, float], Kind] | None:
    if None in (*before.shape[1:], *after.shape[1:]):
        return None
    if feature_count(before) == feature_count(after):
        return functools.partial(EachByItself, constant="same")
    return Rearranged if 2 in (len(before.shape), len(after.shape)) else None


def _groups(layer: keras.Layer) -> int:
    return getattr(layer, "groups", 1)


def _is_plain_recurrence(node: Node) -> bool:
    """Whether nothing but a sequence, and a mask perhaps, goes in and only it out."""
    layer = node.operation
    parts = (
        [layer.forward_layer, layer.backward_layer]
        if isinstance(layer, layers.Bidirectional)
        else [layer]
    )
    masks = tensors(node.kwargs.get("mask"))
    return (
        len(node.inputs()) == 1 + len(masks)
        and all(type(part) in _RECURRENT for part in parts)
        and not any(part.stateful or part.return_state for part in parts)
    )
