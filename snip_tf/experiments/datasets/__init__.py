"""The paper's data sets, normalized and split: one file for each, loaded by name.

Example:

>>> import snip_tf
>>> x, y = snip_tf.datasets.load("digits").train
>>> x.shape, y.shape
((1350, 28, 28, 1), (1350,))
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from snip_tf.checks import check_count, check_one_of, check_seed
from snip_tf.experiments.datasets import (
    cifar10,
    digits,
    fashion_mnist,
    mnist,
    sequential_mnist,
    tiny_imagenet,
)

# A loader takes `data_dir` and returns {"train": (images, labels), "test": ...}, with
# images as float32 in [0, 1].
DATASETS: dict[str, Callable[..., dict]] = {
    "digits": digits.load,
    "digits_rgb": digits.load_rgb,
    "mnist": mnist.load,
    "sequential_mnist": sequential_mnist.load,
    "fashion_mnist": fashion_mnist.load,
    "cifar10": cifar10.load,
    "tiny_imagenet": tiny_imagenet.load,
    # As the authors' release names it.
    "cifar-10": cifar10.load,
}

Examples = tuple[np.ndarray, np.ndarray]

# The paper holds out 10 % of the training set.
_VALIDATION_FRACTION = 0.1


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images (float32, normalized) and labels (int32) in three splits."""

    name: str
    classes: int
    train: Examples
    validation: Examples
    test: Examples

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return self.train[0].shape[1:]

    def digest(self) -> str:
        """Returns a hash of the training split, by which workers compare their data."""
        digest = hashlib.blake2b(digest_size=8)
        for array in self.train:
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load(
    name: str,
    data_dir: str | None = None,
    seed: int = 0,
    max_examples: int | None = None,
) -> Dataset:
    """Loads a data set as the paper does.

    A tenth of the training examples, drawn at random, is held out for validation. All
    images are normalized by the mean and standard deviation of the remaining ones,
    separately for each channel.

    Args:
        name: one of `DATASETS`.
        data_dir: existing folder of prepared tensorflow-datasets, read offline; what
            it lacks is downloaded into it.
        seed: int, 0 or more, decides which examples are held out.
        max_examples: int, the number of training and of test examples to use, the
            first ones; None uses all.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if the name is unknown, `seed` is negative, or `max_examples` is
            below 1.
        OSError: if the data set neither exists nor can be downloaded, or is damaged,
            or the folder does not exist.

    Example:

    >>> import snip_tf
    >>> data = snip_tf.datasets.load("digits")
    >>> data.input_shape, data.classes, len(data.train[0]), len(data.validation[0])
    ((28, 28, 1), 10, 1350, 150)
    """
    check_one_of("name", name, DATASETS)
    if max_examples is not None:
        check_count("max_examples", max_examples)
    check_seed(seed)
    splits = DATASETS[name](data_dir)
    classes = int(splits["train"][1].max()) + 1
    images, labels = (array[:max_examples] for array in splits["train"])
    order = np.random.default_rng(seed).permutation(len(images))
    held_out, rest = np.split(order, [round(_VALIDATION_FRACTION * len(order))])
    train_images = images[rest]
    mean, std = _mean_and_deviation(train_images)

    def normalized(images: np.ndarray, labels: np.ndarray) -> Examples:
        # In place: these are copies, and may take gigabytes.
        images -= mean
        images /= std
        return images, labels

    return Dataset(
        name=name,
        classes=classes,
        train=normalized(train_images, labels[rest]),
        validation=normalized(images[held_out], labels[held_out]),
        test=normalized(*(array[:max_examples].copy() for array in splits["test"])),
    )


def _mean_and_deviation(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and deviation of all pixels, or of each of several channels."""
    if images.ndim < 4 or images.shape[-1] == 1:
        return images.mean(), images.std()
    axes = tuple(range(images.ndim - 1))
    # In float64: along axes, NumPy sums float32 numbers one by one.
    mean = images.mean(axis=axes, dtype=np.float64)
    squares = [
        np.square(channel, dtype=np.float64).mean()
        for channel in np.moveaxis(images, -1, 0)
    ]
    return mean.astype(np.float32), np.sqrt(squares - mean**2).astype(np.float32)
