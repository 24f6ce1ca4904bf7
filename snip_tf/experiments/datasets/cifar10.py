"""CIFAR-10, through tensorflow-datasets."""

from __future__ import annotations

import numpy as np

from snip_tf.experiments.datasets.tfds import load_images


def load(data_dir: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads 50,000 + 10,000 photographs of 32 x 32 x 3 pixels, in ten classes.

    Args:
        data_dir: existing folder of prepared data sets; what it holds is read offline,
            the rest is downloaded into it. None takes tensorflow-datasets' default.

    Returns:
        `{"train": (images, labels), "test": (images, labels)}`; images are float32 in
        [0, 1], labels int32.

    Raises:
        OSError: if it is neither there nor can be downloaded, or the folder is damaged.
    """
    return load_images("cifar10", data_dir)
