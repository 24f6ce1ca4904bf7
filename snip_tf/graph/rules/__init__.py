"""The rule for each kind of layer: how it passes features on, and how it shrinks.

To add one: a file here with its `Rule`, and a line in `RULES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras

from snip_tf.graph.graph import Node, tensors
from snip_tf.graph.rules.convolution import Convolution, TransposedConvolution
from snip_tf.graph.rules.dense import Dense
from snip_tf.graph.rules.depthwise import DepthwiseConvolution, SeparableConvolution
from snip_tf.graph.rules.elementwise import (
    Activation,
    BatchNormalization,
    Elementwise,
    Rescaling,
)
from snip_tf.graph.rules.embedding import Embedding
from snip_tf.graph.rules.merging import Concatenation, Merging, Product, Sum
from snip_tf.graph.rules.opaque import Opaque
from snip_tf.graph.rules.padding import Padding
from snip_tf.graph.rules.passing import Passing, PassingOnlyZeros
from snip_tf.graph.rules.recurrent import Recurrent
from snip_tf.graph.rules.reshaping import Reshaping
from snip_tf.graph.rules.rule import Rule

layers, ops = keras.layers, keras.ops

# By class of layer; operations of `keras.ops`, whose classes have no public names, by
# function.
RULES: Mapping[Any, type[Rule]] = {
    layers.Dense: Dense,
    layers.Conv1D: Convolution,
    layers.Conv2D: Convolution,
    layers.Conv3D: Convolution,
    layers.Conv1DTranspose: TransposedConvolution,
    layers.Conv2DTranspose: TransposedConvolution,
    layers.Conv3DTranspose: TransposedConvolution,
    layers.SeparableConv1D: SeparableConvolution,
    layers.SeparableConv2D: SeparableConvolution,
    layers.DepthwiseConv1D: DepthwiseConvolution,
    layers.DepthwiseConv2D: DepthwiseConvolution,
    layers.Embedding: Embedding,
    layers.SimpleRNN: Recurrent,
    layers.GRU: Recurrent,
    layers.LSTM: Recurrent,
    layers.Bidirectional: Recurrent,
    layers.Add: Sum,
    layers.Multiply: Product,
    layers.Subtract: Merging,
    layers.Average: Merging,
    layers.Maximum: Merging,
    layers.Minimum: Merging,
    layers.Concatenate: Concatenation,
    ops.add: Sum,
    ops.multiply: Product,
    ops.subtract: Merging,
    ops.maximum: Merging,
    ops.minimum: Merging,
    layers.Activation: Activation,
    layers.ReLU: Elementwise,
    layers.LeakyReLU: Elementwise,
    layers.ELU: Elementwise,
    layers.BatchNormalization: BatchNormalization,
    layers.Rescaling: Rescaling,
    ops.relu: Elementwise,
    ops.relu6: Elementwise,
    ops.sigmoid: Elementwise,
    ops.silu: Elementwise,
    ops.tanh: Elementwise,
    ops.gelu: Elementwise,
    ops.elu: Elementwise,
    ops.hard_sigmoid: Elementwise,
    ops.hard_silu: Elementwise,
    ops.leaky_relu: Elementwise,
    ops.softplus: Elementwise,
    ops.cast: Elementwise,
    layers.Identity: Passing,
    layers.ActivityRegularization: Passing,
    layers.Dropout: Passing,
    layers.SpatialDropout1D: Passing,
    layers.SpatialDropout2D: Passing,
    layers.SpatialDropout3D: Passing,
    layers.AlphaDropout: Passing,
    layers.GaussianDropout: Passing,
    layers.GaussianNoise: Passing,
    layers.MaxPooling1D: Passing,
    layers.MaxPooling2D: Passing,
    layers.MaxPooling3D: Passing,
    layers.AveragePooling1D: Passing,
    layers.AveragePooling2D: Passing,
    layers.AveragePooling3D: Passing,
    layers.GlobalMaxPooling1D: Passing,
    layers.GlobalMaxPooling2D: Passing,
    layers.GlobalMaxPooling3D: Passing,
    layers.GlobalAveragePooling1D: Passing,
    layers.GlobalAveragePooling2D: Passing,
    layers.GlobalAveragePooling3D: Passing,
    layers.Cropping1D: Passing,
    layers.Cropping2D: Passing,
    layers.Cropping3D: Passing,
    layers.RepeatVector: Passing,
    layers.UpSampling1D: Passing,
    layers.UpSampling2D: PassingOnlyZeros,
    layers.UpSampling3D: PassingOnlyZeros,
    layers.ZeroPadding1D: PassingOnlyZeros,
    layers.ZeroPadding2D: PassingOnlyZeros,
    layers.ZeroPadding3D: PassingOnlyZeros,
    ops.pad: Padding,
    layers.Flatten: Reshaping,
    layers.Reshape: Reshaping,
}


def rule_of(
    node: Node, tolerance: float, shared: bool = False, hidden_masks: bool = False
) -> Rule:
    """Returns the rule for a call.

    Args:
        node: the call.
        tolerance: the largest magnitude of a weight that counts as zero.
        shared: whether the layer has weights that are used more than once; it is then
            left unchanged.
        hidden_masks: whether any tensor may have a mask that the graph does not show.
    """
    rule = Opaque if shared or not _is_ordinary(node) else _listed(node)
    return rule(node, tolerance, hidden_masks)


def _listed(node: Node) -> type[Rule]:
    """Returns the rule in `RULES`, if it accepts the call."""
    rule = RULES.get(_key(type(node.operation)), Opaque)
    return rule if rule.accepts(node) else Opaque


def _key(cls: type[keras.Operation]) -> Any:
    """Returns the key of an operation in `RULES`.

    This is its exact class, as a subclass may compute something else. For `keras.ops`
    it is the function of the same module: `hard_silu` makes `HardSilu`.
    """
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
    function = getattr(keras.ops, name, None)
    return function if getattr(function, "__module__", "") == cls.__module__ else cls


def _is_ordinary(node: Node) -> bool:
    """Returns whether a call has features on the last axis that a rule can follow."""
    operation, inputs = node.operation, node.inputs()
    return (
        len(tensors(node.outputs)) == 1
        and bool(inputs)
        and len(inputs[0].shape) >= 2
        and getattr(operation, "data_format", "channels_last") == "channels_last"
        and not node.kwargs.get("training")  # (which is not inference)
        and not getattr(operation, "quantization_mode", None)
        and not getattr(operation, "lora_enabled", False)
    )
