"""LeNet-300-100 and LeNet-5-Caffe, the paper's networks for MNIST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def lenet300(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Sequential:
    """Builds LeNet-300-100: dense layers of 300 and 100 units with ReLU, then logits.

    266,610 parameters for 28 x 28 images and 10 classes, 266,200 of them prunable.

    Args:
        input_shape: shape of one example; images are flattened.
        classes: number of logits.
        weights: called once for each layer; the initializers and regularizers of its
            kernel and bias, as keyword arguments of `keras.layers.Dense`.

    Reference: LeCun et al., "Gradient-based learning applied to document recognition",
    1998; as used in https://arxiv.org/abs/1810.02340.
    """
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(300, activation="relu", name="dense1", **weights()),
            keras.layers.Dense(100, activation="relu", name="dense2", **weights()),
            keras.layers.Dense(classes, name="logits", dtype="float32", **weights()),
        ],
        name="lenet300",
    )


def lenet5(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    weights: Callable[[], dict[str, Any]] = dict,
) -> keras.Sequential:
    """Builds LeNet-5-Caffe: two pooled convolutions, a dense layer with ReLU, logits.

    As in the authors' release, no activation follows the convolutions. 431,080
    parameters for 28 x 28 x 1 images and 10 classes, 430,500 of them prunable.

    Args:
        input_shape: (height, width, channels) of one image, at least 16 x 16.
        classes: number of logits.
        weights: called once for each layer; the initializers and regularizers of its
            kernel and bias, as keyword arguments of `keras.layers.Dense`.

    Reference: the `lenet` example of Caffe; as used in
        https://arxiv.org/abs/1810.02340.
    """
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(20, 5, name="conv1", **weights()),
            keras.layers.MaxPooling2D(2, name="pool1"),
            keras.layers.Conv2D(50, 5, name="conv2", **weights()),
            keras.layers.MaxPooling2D(2, name="pool2"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(500, activation="relu", name="dense1", **weights()),
            keras.layers.Dense(classes, name="logits", dtype="float32", **weights()),
        ],
        name="lenet5",
    )
