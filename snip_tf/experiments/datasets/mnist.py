"""MNIST, through tensorflow-datasets."""

from __future__ import annotations

import numpy as np

from snip_tf.experiments.datasets.tfds import load_images


def load(data_dir: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads 60,000 + 10,000 handwritten digits of 28 x 28 x 1 pixels.

    Args:
        data_dir: existing folder of prepared data sets; what it holds is read offline,
            the rest is downloaded into it. None uses tensorflow-datasets' default.

    Returns:
        `{"train": (images, labels), "test": (images, labels)}`; images are float32 in
        [0, 1], labels int32.

    Raises:
        OSError: if it neither exists nor can be downloaded, or is damaged.
    """
    return load_images("mnist", data_dir)
