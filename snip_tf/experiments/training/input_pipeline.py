"""Turns arrays into an endless, shuffled, reproducible tf.data.Dataset of batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from snip_tf.experiments.training import augmentation


def training_batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    *,
    seed: int = 0,
    start: int = 0,
    aug_kinds: Sequence[str] = (),
) -> tf.data.Dataset:
    """Returns endless batches for training, starting at any iteration.

    Each epoch is a new order of all examples, which depends only on `seed` and the
    epoch, so a run that continues at iteration `start` sees what it would have seen.
    Whole batches are gathered by index, without work for single examples. A smaller
    last batch of an epoch is left out.

    Args:
        images: array, examples along axis 0.
        labels: integer array of the same length.
        batch_size: int.
        seed: int, determines the order and the augmentation.
        start: int, the first iteration.
        aug_kinds: names in `augmentation.AUGMENTATIONS`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`.

    Raises:
        ValueError: if there are fewer examples than `batch_size`.
    """
    count = len(images)
    per_epoch = count // batch_size
    if per_epoch == 0:
        raise ValueError(
            f"Expected a batch_size of at most the number of training examples, "
            f"{count}. Received: batch_size={batch_size}"
        )
    images, labels = tf.constant(images), tf.constant(labels)

    def order_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        batches = tf.reshape(order[: per_epoch * batch_size], [per_epoch, batch_size])
        return tf.data.Dataset.from_tensor_slices(batches)

    def gather(iteration: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.gather(images, rows)
        if aug_kinds:
            batch = augmentation.augment(batch, aug_kinds, seed=(seed, iteration))
        return batch, tf.gather(labels, rows)

    first_epoch, skipped = divmod(start, per_epoch)
    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    rows = epochs.flat_map(order_of_epoch).skip(skipped)
    iterations = tf.data.Dataset.range(start, tf.int64.max)
    batches = tf.data.Dataset.zip(iterations, rows)
    # `repeat` only declares the data endless: else replicas that share the batches ask
    # each other before every step whether there are more.
    batches = batches.map(gather, num_parallel_calls=tf.data.AUTOTUNE).repeat()
    return batches.prefetch(tf.data.AUTOTUNE)
