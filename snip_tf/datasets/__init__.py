"""The paper's data sets, normalized and split: one file for each, loaded by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from snip_tf.datasets import digits, mnist

# A loader takes `data_dir` and returns {"train": (images, labels), "test": ...}, with
# images as float32 in [0, 1].
DATASETS: dict[str, Callable[..., dict]] = {
    "digits": digits.load,
    "mnist": mnist.load,
}
NAMES = tuple(DATASETS)

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


def load(name: str, data_dir: str | None = None, seed: int = 0) -> Dataset:
    """Loads a data set as the paper does.

    A tenth of the training examples, drawn at random, is held out for validation. All
    images are normalized by the mean and standard deviation of the rest of them.

    Args:
        name: one of `NAMES`.
        data_dir: folder of prepared tensorflow-datasets, read offline; what is not
            there is downloaded into it.
        seed: int, which examples are held out.

    Raises:
        ValueError: if the name is not known.
        OSError: if the data set is neither there nor can be downloaded, or is damaged.

    Example:

    >>> import snip_tf.datasets
    >>> data = snip_tf.datasets.load("digits")
    >>> data.input_shape, data.classes, len(data.train[0]), len(data.validation[0])
    ((28, 28, 1), 10, 1350, 150)
    """
    if name not in DATASETS:
        raise ValueError(
            f"Expected `name` to be one of {', '.join(map(repr, NAMES))}. "
            f"Received: name={name!r}"
        )
    splits = DATASETS[name](data_dir)
    images, labels = splits["train"]
    order = np.random.default_rng(seed).permutation(len(images))
    held_out, rest = np.split(order, [round(_VALIDATION_FRACTION * len(order))])
    mean, std = images[rest].mean(), images[rest].std()

    def normalized(images: np.ndarray, labels: np.ndarray) -> Examples:
        return (images - mean) / std, labels

    return Dataset(
        name=name,
        classes=int(labels.max()) + 1,
        train=normalized(images[rest], labels[rest]),
        validation=normalized(images[held_out], labels[held_out]),
        test=normalized(*splits["test"]),
    )
