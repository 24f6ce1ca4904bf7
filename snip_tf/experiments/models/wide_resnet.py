"""Wide residual networks for small images: WRN-16-8, WRN-16-10, WRN-22-8, WRN-16-1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def wrn_16_8(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Model:
    """Builds a wide residual network of 16 layers, 8 times as wide: 10,954,170 weights.

    Three groups of residual blocks with 16 k, 32 k and 64 k filters, normalization and
    ReLU before each convolution, no bias in a convolution, average pooling, logits. The
    count is of the convolutions and the dense layer for CIFAR-10, not normalization.
    (The paper's table says 10.0 million, but the 548,000 it keeps are 5 % of this.)

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of logits.
        weights: called once for each layer; the initializers and regularizers of its
            kernel and bias, as keyword arguments of `keras.layers.Dense`.

    Reference: Zagoruyko & Komodakis, "Wide residual networks", 2016; as used in
        https://arxiv.org/abs/1810.02340.
    """
    return _wide_resnet("wrn_16_8", 16, 8, input_shape, classes, weights)


def wrn_16_10(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Model:
    """Builds 16 layers, 10 times as wide: 17,107,642 parameters; else `wrn_16_8`.

    Args:
        input_shape, classes, weights: as in `wrn_16_8`.
    """
    return _wide_resnet("wrn_16_10", 16, 10, input_shape, classes, weights)


def wrn_22_8(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Model:
    """Builds 22 layers, 8 times as wide: 17,147,322 parameters; else `wrn_16_8`.

    Args:
        input_shape, classes, weights: as in `wrn_16_8`.
    """
    return _wide_resnet("wrn_22_8", 22, 8, input_shape, classes, weights)


def wrn_16_1(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Model:
    """Builds 16 layers of ordinary width: 174,138 parameters; else `wrn_16_8`.

    Not in the paper: a network that a processor can train.

    Args:
        input_shape, classes, weights: as in `wrn_16_8`.
    """
    return _wide_resnet("wrn_16_1", 16, 1, input_shape, classes, weights)


def _wide_resnet(
    name: str,
    depth: int,
    width: int,
    input_shape: tuple[int, ...],
    classes: int,
    weights: Callable[[], dict[str, Any]],
) -> keras.Model:
    layers = keras.layers

    def convolution(x, filters, side, stride, name):
        own = {key: value for key, value in weights().items() if "bias" not in key}
        return layers.Conv2D(
            filters,
            side,
            strides=stride,
            padding="same",
            use_bias=False,
            name=name,
            **own,
        )(x)

    def normalized(x, name):
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        return layers.Activation("relu", name=f"{name}_relu")(x)

    inputs = keras.Input(input_shape)
    x = convolution(inputs, 16, 3, 1, "conv")
    for group in (1, 2, 3):
        filters = 16 * width * 2 ** (group - 1)
        for block in range(1, (depth - 4) // 6 + 1):
            prefix = f"group{group}_block{block}"
            stride = 2 if group > 1 and block == 1 else 1
            y = normalized(x, f"{prefix}_conv1")
            if x.shape[-1] != filters:
                x = convolution(y, filters, 1, stride, f"{prefix}_shortcut")
            y = convolution(y, filters, 3, stride, f"{prefix}_conv1")
            y = normalized(y, f"{prefix}_conv2")
            y = convolution(y, filters, 3, 1, f"{prefix}_conv2")
            x = layers.Add(name=f"{prefix}_add")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(normalized(x, "final"))
    return keras.Model(
        inputs,
        layers.Dense(classes, name="logits", dtype="float32", **weights())(x),
        name=name,
    )
