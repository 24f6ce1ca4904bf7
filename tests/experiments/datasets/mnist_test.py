"""The real MNIST is tested where SNIP_TF_DATA_DIR names a folder that holds it."""

import os

import numpy as np
import pytest

from snip_tf import datasets
from snip_tf.experiments.datasets import mnist

DATA_DIR = os.environ.get("SNIP_TF_DATA_DIR")


@pytest.fixture(scope="module")
def real():
    if not DATA_DIR:
        pytest.skip("SNIP_TF_DATA_DIR does not name a folder of prepared data sets")
    return mnist.load(DATA_DIR)


@pytest.mark.usefixtures("no_network")
def test_pixels_are_scaled_to_0_1(prepared, images_and_labels):
    splits = mnist.load(str(prepared))
    for split, (stored, stored_labels) in images_and_labels.items():
        images, labels = splits[split]
        assert images.dtype == np.float32
        assert labels.dtype == np.int32
        assert (images.min(), images.max()) == (0, 1)
        np.testing.assert_allclose(
            np.sort(images.ravel()), np.sort(stored.ravel()) / 255, rtol=1e-6
        )
        np.testing.assert_array_equal(np.sort(labels), np.sort(stored_labels))


@pytest.mark.usefixtures("no_network")
def test_is_loaded_by_name(prepared):
    data = datasets.load("mnist", str(prepared))
    assert (data.name, data.classes, data.input_shape) == ("mnist", 10, (28, 28, 1))
    lengths = [len(split[1]) for split in (data.train, data.validation, data.test)]
    assert lengths == [36, 4, 12]


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_has_the_published_number_of_each_digit(real, split, counts):
    images, labels = real[split]
    assert images.shape == (sum(counts), 28, 28, 1)
    assert np.bincount(labels).tolist() == counts


def test_has_the_well_known_mean_and_deviation(real):
    images = real["train"][0]
    assert (images.min(), images.max()) == (0, 1)
    np.testing.assert_allclose(images.mean(dtype=np.float64), 0.1307, atol=5e-5)
    np.testing.assert_allclose(images.std(dtype=np.float64), 0.3081, atol=5e-5)
