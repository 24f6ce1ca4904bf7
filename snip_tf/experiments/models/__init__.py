"""The paper's networks: one file per family, built by name.

Example:

>>> import snip_tf
>>> model = snip_tf.models.build("lenet5")
>>> model.output_shape
(None, 10)
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import keras

from snip_tf.checks import check_count, check_one_of
from snip_tf.experiments.models import initializers
from snip_tf.experiments.models.alexnet import alexnet_b, alexnet_s
from snip_tf.experiments.models.lenet import lenet5, lenet300
from snip_tf.experiments.models.recurrent import gru_b, gru_s, lstm_b, lstm_s
from snip_tf.experiments.models.resnet import resnet_20
from snip_tf.experiments.models.vgg import vgg_c, vgg_d, vgg_like
from snip_tf.experiments.models.wide_resnet import (
    wrn_16_1,
    wrn_16_8,
    wrn_16_10,
    wrn_22_8,
)

MODELS: dict[str, Callable[..., keras.Model]] = {
    "lenet300": lenet300,
    "lenet5": lenet5,
    "alexnet_s": alexnet_s,
    "alexnet_b": alexnet_b,
    "vgg_c": vgg_c,
    "vgg_d": vgg_d,
    "vgg_like": vgg_like,
    "wrn_16_8": wrn_16_8,
    "wrn_16_10": wrn_16_10,
    "wrn_22_8": wrn_22_8,
    "lstm_s": lstm_s,
    "lstm_b": lstm_b,
    "gru_s": gru_s,
    "gru_b": gru_b,
    # Not the paper's: small enough to be trained on a processor.
    "resnet_20": resnet_20,
    "wrn_16_1": wrn_16_1,
    # As the authors' release names them.
    "alexnet-v1": alexnet_s,
    "alexnet-v2": alexnet_b,
    "vgg-c": vgg_c,
    "vgg-d": vgg_d,
    "vgg-like": vgg_like,
}


def build(
    name: str,
    *,
    input_shape: tuple[int, ...] | None = None,
    classes: int = 10,
    kernel_initializer: str | keras.initializers.Initializer = "vs",
    bias_initializer: str | keras.initializers.Initializer = "zeros",
    kernel_regularizer: Any = None,
    bias_regularizer: Any = None,
) -> keras.Model:
    """Builds one of the paper's networks.

    Args:
        name: one of `MODELS`.
        input_shape: shape of one example, without the batch axis. Default: that of the
            data set on which the paper trains the network.
        classes: int, number of logits; the last layer has no activation.
        kernel_initializer, bias_initializer: a name in
            `snip_tf.models.initializers.INITIALIZERS`, or what any Keras layer takes.
            Default: variance scaling by fan-in, as in the authors' release. Each layer
            draws different values, even from one initializer with a seed.
        kernel_regularizer, bias_regularizer: what any Keras layer takes.

    Returns:
        A built `keras.Model`, not compiled. Its logits are float32 under any policy.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a name is unknown, `classes` is below 1, or the shape does not
            fit the network.

    Example:

    >>> import snip_tf
    >>> snip_tf.models.build("lenet300", classes=10).count_params()
    266610
    """
    check_one_of("name", name, MODELS)
    check_count("classes", classes)
    number = itertools.count()

    def weights() -> dict[str, Any]:
        layer = next(number)
        return {
            "kernel_initializer": initializers.for_layer(kernel_initializer, layer),
            "bias_initializer": initializers.for_layer(bias_initializer, layer),
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
        }

    shape = {} if input_shape is None else {"input_shape": tuple(input_shape)}
    try:
        return MODELS[name](classes=classes, weights=weights, **shape)
    except ValueError as error:
        if not shape:
            raise
        usual = inspect.signature(MODELS[name]).parameters["input_shape"].default
        raise ValueError(
            f"Expected an `input_shape` that {name} can take, such as {usual}. "
            f"Received: input_shape={input_shape}. {_reason(error)}"
        ) from error


def _reason(error: ValueError) -> str:
    """Returns the line of Keras' message that states the problem, without colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("\n")
    said = [line for line in lines if line and not line.startswith("Exception ")]
    return said[0] if said else str(error)
