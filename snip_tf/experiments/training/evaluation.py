"""Measures the error of a model on a split of the data."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from snip_tf.experiments.datasets import Examples

_EVALUATION_BATCH = 1000


def evaluation_function(model: keras.Model) -> Callable[[Examples], float]:
    """Returns a function that returns the percentage of misclassified examples.

    Every worker evaluates all examples: `Model.predict` would split them, and does not
    run under MultiWorkerMirroredStrategy.
    """

    @tf.function(reduce_retracing=True)
    def wrong(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        chosen = tf.argmax(model(images, training=False), axis=-1)
        return tf.math.count_nonzero(chosen != tf.cast(labels, chosen.dtype))

    def error_percent(examples: Examples) -> float:
        count, total = len(examples[0]), 0
        for start in range(0, count, _EVALUATION_BATCH):
            end = start + _EVALUATION_BATCH
            total += int(wrong(*(tf.constant(array[start:end]) for array in examples)))
        return 100 * total / count

    return error_percent
