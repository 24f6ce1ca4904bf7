"""AlexNet-s and AlexNet-b, the paper's variants of AlexNet for small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

# For each convolution: side of the filter, number of filters.
_CONVOLUTIONS = ((11, 96), (5, 256), (3, 384), (3, 384), (3, 256))


def alexnet_s(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Sequential:
    """Builds AlexNet with two hidden dense layers of 1,024 units (`alexnet-v1`).

    Five convolutions of stride 2 and no pooling, each followed by batch normalization
    and ReLU, as the dense layers are. 5,070,218 parameters for CIFAR-10, normalization
    not counted. The paper's text says 512 units, but its counts fit 1,024.

    Args:
        input_shape: (height, width, channels) of one image; the first stride is 4 for
            images of 64 and more, as for Tiny-ImageNet.
        classes: number of logits.
        weights: called once for each layer; the initializers and regularizers of its
            kernel and bias, as keyword arguments of `keras.layers.Dense`.

    Reference: Krizhevsky et al., "ImageNet classification with deep convolutional
        neural networks", 2012; as used in https://arxiv.org/abs/1810.02340.
    """
    return _alexnet("alexnet_s", 1024, input_shape, classes, weights)


def alexnet_b(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Sequential:
    """Builds AlexNet with two hidden dense layers of 2,048 units (`alexnet-v2`).

    8,490,378 parameters for CIFAR-10, normalization not counted; else as `alexnet_s`.

    Args:
        input_shape, classes, weights: as in `alexnet_s`.
    """
    return _alexnet("alexnet_b", 2048, input_shape, classes, weights)


def _alexnet(
    name: str,
    units: int,
    input_shape: tuple[int, ...],
    classes: int,
    weights: Callable[[], dict[str, Any]],
) -> keras.Sequential:
    layers = keras.layers
    model = keras.Sequential([keras.Input(input_shape)], name=name)
    for index, (side, filters) in enumerate(_CONVOLUTIONS, start=1):
        stride = 4 if index == 1 and input_shape[0] >= 64 else 2
        model.add(
            layers.Conv2D(
                filters,
                side,
                strides=stride,
                padding="same",
                name=f"conv{index}",
                **weights(),
            )
        )
        model.add(layers.BatchNormalization(name=f"conv{index}_norm"))
        model.add(layers.Activation("relu", name=f"conv{index}_relu"))
    model.add(layers.Flatten(name="flatten"))
    for index in (1, 2):
        model.add(layers.Dense(units, name=f"dense{index}", **weights()))
        model.add(layers.BatchNormalization(name=f"dense{index}_norm"))
        model.add(layers.Activation("relu", name=f"dense{index}_relu"))
    model.add(layers.Dense(classes, name="logits", dtype="float32", **weights()))
    return model
