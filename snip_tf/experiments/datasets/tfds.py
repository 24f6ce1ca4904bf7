"""Reads whole data sets of tensorflow-datasets as arrays, with helpful errors."""

from __future__ import annotations

import os
from typing import Any

import numpy as np


def load_images(
    name: str, data_dir: str | None, test_split: str = "test"
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads arrays, with images as float32 in [0, 1] and labels as int32."""
    arrays = load_arrays(name, data_dir, test_split)
    return {
        split: (images / np.float32(255), labels.astype(np.int32))
        for split, (images, labels) in arrays.items()
    }


def load_arrays(
    name: str, data_dir: str | None, test_split: str = "test"
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loads the training and test split of a data set of images and labels.

    Args:
        name: the name in tensorflow-datasets.
        data_dir: existing folder of prepared data sets. None takes tensorflow-datasets'
            default.
        test_split: the name in tensorflow-datasets of the split to test on.

    Returns:
        `{"train": (inputs, labels), "test": (inputs, labels)}`, as they are stored.

    Raises:
        OSError: if it neither exists nor can be downloaded, or is damaged.
    """
    _check_folder(data_dir)
    import tensorflow_datasets as tfds  # slow to import

    # tensorflow-datasets and its dependencies raise errors of many kinds, even plain
    # `Exception`; each becomes the cause of one that says what to do.
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        raise _damaged(name, os.path.join(data_dir or "", name), error) from error
    try:
        builder.download_and_prepare()  # does nothing if it is prepared
    except Exception as error:
        raise _not_prepared(name, builder, error) from error
    return {
        key: _read_split(name, builder, split)
        for key, split in (("train", "train"), ("test", test_split))
    }


def _read_split(name: str, builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds

    try:
        dataset = builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
        inputs, labels = tfds.as_numpy(dataset)
    except Exception as error:
        raise _damaged(name, builder.data_dir, error) from error
    expected = builder.info.splits[split].num_examples
    if len(inputs) != expected:
        found = f"{len(inputs)} of {expected} {split} examples exist"
        raise _damaged(name, builder.data_dir, ValueError(found))
    return inputs, labels


def _not_prepared(name: str, builder: Any, error: Exception) -> OSError:
    source = "a network to download it"
    advice = f"Name the folder that holds {name}/{builder.version} with --data_dir."
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        root = os.path.dirname(os.path.dirname(builder.data_dir))
        source = f"its file, whole, in {os.path.join(root, 'downloads', 'manual')}"
        advice += f" Or: {builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
    return OSError(
        f"Expected the data set {name!r} prepared in {builder.data_dir!r}, or "
        f"{source}. Received: neither ({error}). {advice}"
    )


def _check_folder(data_dir: str | None) -> None:
    """Refuses a mistyped name, for which tensorflow-datasets would make a folder."""
    # tensorflow-datasets itself checks names like gs://bucket.
    if data_dir is None or "://" in data_dir:
        return
    if not os.path.isdir(os.path.expanduser(data_dir)):
        raise FileNotFoundError(
            f"Expected `data_dir` (--data_dir) to be an existing folder. Received: "
            f"{data_dir!r}. Create it first (mkdir) to download into it."
        )


def _damaged(name: str, folder: str | os.PathLike, error: Exception) -> OSError:
    return OSError(
        f"Expected a complete, prepared data set {name!r} in "
        f"{os.fspath(folder)!r}. Received: one that cannot be read: "
        f"{type(error).__name__}: {error}. Remove the folder to have it prepared "
        "anew, or name another with --data_dir."
    )
