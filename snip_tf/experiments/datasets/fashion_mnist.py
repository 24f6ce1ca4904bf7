"""Fashion-MNIST, through tensorflow-datasets."""

from __future__ import annotations

import numpy as np

from snip_tf.experiments.datasets.tfds import load_images


def load(data_dir: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads 60,000 + 10,000 articles of clothing of 28 x 28 x 1 pixels, in ten classes.

    `data_dir`, what is returned and what is raised are as in `mnist.load`.
    """
    return load_images("fashion_mnist", data_dir)
