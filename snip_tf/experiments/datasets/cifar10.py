"""CIFAR-10, through tensorflow-datasets."""

from __future__ import annotations

import numpy as np

from snip_tf.experiments.datasets.tfds import load_images


def load(data_dir: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads 50,000 + 10,000 photographs of 32 x 32 x 3 pixels, in ten classes.

    `data_dir`, what is returned and what is raised are as in `mnist.load`.
    """
    return load_images("cifar10", data_dir)
