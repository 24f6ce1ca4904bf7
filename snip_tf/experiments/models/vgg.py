"""VGG-C, VGG-D and VGG-like, the paper's variants of VGG-16 for small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

# For each block: number of filters, and the side of each convolution's filters.
_C = (
    (64, (3, 3)),
    (128, (3, 3)),
    (256, (3, 3, 1)),
    (512, (3, 3, 1)),
    (512, (3, 3, 1)),
)
_D = (
    (64, (3, 3)),
    (128, (3, 3)),
    (256, (3, 3, 3)),
    (512, (3, 3, 3)),
    (512, (3, 3, 3)),
)


def vgg_c(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Sequential:
    """Builds VGG-16's configuration C: the last convolution of three blocks is 1 x 1.

    Batch normalization and ReLU follow each convolution and each of two hidden dense
    layers of 512 units, instead of dropout. 10,526,538 parameters for CIFAR-10,
    normalization not counted.

    Args:
        input_shape: (height, width, channels) of one image, at least 32 x 32; the first
            stride is 2 for images of 64 and more, as for Tiny-ImageNet.
        classes: number of logits.
        weights: called once for each layer; the initializers and regularizers of its
            kernel and bias, as keyword arguments of `keras.layers.Dense`.

    Reference: Simonyan & Zisserman, "Very deep convolutional networks for large-scale
        image recognition", 2015; as used in https://arxiv.org/abs/1810.02340.
    """
    return _vgg("vgg_c", _C, 2, input_shape, classes, weights)


def vgg_d(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Sequential:
    """Builds VGG-16's configuration D: all convolutions are 3 x 3.

    15,245,130 parameters for CIFAR-10, normalization not counted; else as `vgg_c`.

    Args:
        input_shape, classes, weights: as in `vgg_c`.
    """
    return _vgg("vgg_d", _D, 2, input_shape, classes, weights)


def vgg_like(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Sequential:
    """Builds the convolutions of VGG-D with one hidden dense layer instead of two.

    14,982,474 parameters for CIFAR-10, normalization not counted; else as `vgg_c`.

    Args:
        input_shape, classes, weights: as in `vgg_c`.
    """
    return _vgg("vgg_like", _D, 1, input_shape, classes, weights)


def _vgg(
    name: str,
    blocks: tuple[tuple[int, tuple[int, ...]], ...],
    hidden: int,
    input_shape: tuple[int, ...],
    classes: int,
    weights: Callable[[], dict[str, Any]],
) -> keras.Sequential:
    layers = keras.layers
    model = keras.Sequential([keras.Input(input_shape)], name=name)
    for block, (filters, sides) in enumerate(blocks, start=1):
        for index, side in enumerate(sides, start=1):
            conv = f"conv{block}_{index}"
            first = (block, index) == (1, 1)
            model.add(
                layers.Conv2D(
                    filters,
                    side,
                    strides=2 if first and input_shape[0] >= 64 else 1,
                    padding="same",
                    name=conv,
                    **weights(),
                )
            )
            model.add(layers.BatchNormalization(name=f"{conv}_norm"))
            model.add(layers.Activation("relu", name=f"{conv}_relu"))
        model.add(layers.MaxPooling2D(2, name=f"pool{block}"))
    model.add(layers.Flatten(name="flatten"))
    for index in range(1, hidden + 1):
        model.add(layers.Dense(512, name=f"dense{index}", **weights()))
        model.add(layers.BatchNormalization(name=f"dense{index}_norm"))
        model.add(layers.Activation("relu", name=f"dense{index}_relu"))
    model.add(layers.Dense(classes, name="logits", dtype="float32", **weights()))
    return model
