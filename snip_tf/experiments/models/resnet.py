"""ResNet-20, the smallest residual network of He et al. for CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def resnet_20(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
    widths: tuple[int, int, int] = (16, 32, 64),
) -> keras.Model:
    """Builds a residual network of 20 layers for small images; 268,346 parameters.

    Three groups of three residual blocks with 16, 32 and 64 filters, each convolution
    followed by normalization; average pooling, logits. Where a group halves the image,
    the shortcut takes every second pixel and pads channels with zeros, so it has no
    parameters. The count is of the convolutions and the dense layer for CIFAR-10. Not
    in the paper: a network that a processor can train.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of logits.
        weights: called once for each layer; the initializers and regularizers of its
            kernel and bias, as keyword arguments of `keras.layers.Dense`.
        widths: the filters of each group.

    Reference: He et al., "Deep residual learning for image recognition", 2016,
        https://arxiv.org/abs/1512.03385, section 4.2.
    """
    layers = keras.layers

    def convolution(x, filters, stride, name):
        own = {key: value for key, value in weights().items() if "bias" not in key}
        x = layers.Conv2D(
            filters,
            3,
            strides=stride,
            padding="same",
            use_bias=False,
            name=name,
            **own,
        )(x)
        return layers.BatchNormalization(name=f"{name}_norm")(x)

    inputs = keras.Input(input_shape)
    x = convolution(inputs, widths[0], 1, "conv")
    x = layers.Activation("relu", name="conv_relu")(x)
    for group, filters in enumerate(widths, 1):
        for block in (1, 2, 3):
            prefix = f"group{group}_block{block}"
            stride = 2 if group > 1 and block == 1 else 1
            y = convolution(x, filters, stride, f"{prefix}_conv1")
            y = layers.Activation("relu", name=f"{prefix}_conv1_relu")(y)
            y = convolution(y, filters, 1, f"{prefix}_conv2")
            if stride == 2:
                x = layers.MaxPooling2D(1, strides=2, name=f"{prefix}_shortcut")(x)
                new = filters - x.shape[-1]
                around = [new // 2, new - new // 2]
                x = keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], around])
            x = layers.Add(name=f"{prefix}_add")([x, y])
            x = layers.Activation("relu", name=f"{prefix}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(classes, name="logits", dtype="float32", **weights())(x)
    return keras.Model(inputs, logits, name="resnet_20")
