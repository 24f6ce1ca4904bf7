"""Augmentations of image batches, by the names of the authors' release."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

_TRANSLATION = 4  # pixels


def _fliplr(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors each image left to right with probability 1/2."""
    flip = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed) < 0.5
    return tf.where(flip, images[:, :, ::-1], images)


def _translate_px(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Moves each image by -4 to 4 pixels along each axis, filling with zeros."""
    count, height, width = tf.unstack(tf.shape(images)[:3])
    shift = tf.random.stateless_uniform(
        [count, 2], seed, -_TRANSLATION, _TRANSLATION + 1, tf.int32
    )
    pad = [_TRANSLATION, _TRANSLATION]
    padded = tf.pad(images, [[0, 0], pad, pad, [0, 0]])
    rows = tf.range(height) + (_TRANSLATION + shift[:, :1])
    columns = tf.range(width) + (_TRANSLATION + shift[:, 1:])
    moved = tf.gather(padded, rows, batch_dims=1)
    moved = tf.gather(moved, columns, batch_dims=1, axis=2)
    return tf.ensure_shape(moved, images.shape)


def _at_random(kind: Callable) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns an augmentation that leaves an image unchanged with probability 1/2.

    The authors' release draws how many of the kinds are applied to an image, from none
    to all, and which: so each is applied to half of the images on average.
    """

    def augment_some(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        own = tf.random.experimental.stateless_fold_in(seed, 0)
        chosen = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], own) < 0.5
        return tf.where(chosen, kind(images, seed), images)

    return augment_some


AUGMENTATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "fliplr": _fliplr,
    "translate_px": _translate_px,
    "fliplr_at_random": _at_random(_fliplr),
    "translate_px_at_random": _at_random(_translate_px),
}


def augment(
    images: tf.Tensor, kinds: Sequence[str], seed: tuple[int, int | tf.Tensor]
) -> tf.Tensor:
    """Applies augmentations in turn.

    Args:
        images: float tensor (batch, height, width, channels).
        kinds: names in `AUGMENTATIONS`.
        seed: two integers that determine all randomness.

    Returns:
        A tensor of the same shape.
    """
    for number, kind in enumerate(kinds):
        own = tf.stack([tf.cast(part, tf.int64) for part in seed])
        own = tf.random.experimental.stateless_fold_in(own, number)
        images = AUGMENTATIONS[kind](images, own)
    return images
