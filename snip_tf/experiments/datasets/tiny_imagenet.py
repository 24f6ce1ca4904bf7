"""Tiny-ImageNet, read from the official zip file through tensorflow-datasets."""

from __future__ import annotations

import numpy as np

from snip_tf.experiments.datasets.tfds import load_images


def load(data_dir: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads 100,000 + 10,000 photographs of 64 x 64 x 3 pixels, in 200 classes.

    The labels of the official test images are not public, so the validation images are
    the test split, as in the paper.

    Args:
        data_dir: folder of prepared data sets; if it lacks this one, it is prepared
            from `downloads/manual/tiny-imagenet-200.zip` in the folder. None uses
            tensorflow-datasets' default.

    Returns:
        `{"train": (images, labels), "test": (images, labels)}`; images are float32 in
        [0, 1], labels int32.

    Raises:
        OSError: if it is not prepared and the zip file is missing, or either is
            damaged.
    """
    # Slow to import. Makes the name known to tensorflow-datasets.
    import snip_tf.experiments.datasets.tiny_imagenet_builder  # noqa: F401

    return load_images("tiny_imagenet_zip", data_dir, test_split="validation")
