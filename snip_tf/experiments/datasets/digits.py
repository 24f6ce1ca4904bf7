"""The handwritten digits that scikit-learn ships: real images, no download."""

from __future__ import annotations

import keras
import numpy as np

# The last digits were written by other people, so that the test set differs from the
# training set: https://archive.ics.uci.edu/dataset/80
_TRAINING = 1500


def load(data_dir: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads 1,797 digits of 8 x 8 pixels, resized to 28 x 28 x 1.

    Args:
        data_dir: not used; the images come with scikit-learn.

    Returns:
        `{"train": (images, labels), "test": (images, labels)}`; images are float32 in
        [0, 1], labels int32.
    """
    return _load(side=28, channels=1)


def load_rgb(data_dir: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads the same digits in the shape of CIFAR-10's images, 32 x 32 x 3.

    Args:
        data_dir: not used.

    Returns:
        As `load`.
    """
    return _load(side=32, channels=3)


def _load(side: int, channels: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The data set 'digits' comes with scikit-learn: pip install scikit-learn"
        ) from error
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]
    images = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (side, side)))
    images = images.repeat(channels, axis=-1)
    labels = digits.target.astype(np.int32)
    return {
        "train": (images[:_TRAINING], labels[:_TRAINING]),
        "test": (images[_TRAINING:], labels[_TRAINING:]),
    }
