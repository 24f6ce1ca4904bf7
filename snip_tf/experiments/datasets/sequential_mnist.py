"""MNIST read row by row, as the paper feeds it to recurrent networks."""

from __future__ import annotations

import numpy as np

from snip_tf.experiments.datasets import mnist


def load(data_dir: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads the images of MNIST as sequences of 28 rows of 28 pixels.

    Args:
        data_dir: as in `mnist.load`.

    Returns:
        `{"train": (sequences, labels), "test": (sequences, labels)}`; sequences are
        float32 in [0, 1] of shape (28, 28), labels int32.

    Raises:
        OSError: if it neither exists nor can be downloaded, or is damaged.
    """
    return {
        split: (images[..., 0], labels)
        for split, (images, labels) in mnist.load(data_dir).items()
    }
