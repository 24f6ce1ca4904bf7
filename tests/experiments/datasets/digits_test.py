import sys

import numpy as np
import pytest

from snip_tf.experiments.datasets import digits


@pytest.fixture(scope="module")
def source():
    return pytest.importorskip("sklearn.datasets").load_digits()


@pytest.fixture(scope="module")
def splits(source):
    return digits.load()


def test_all_digits_appear_once_and_in_order(splits, source):
    labels = [splits["train"][1], splits["test"][1]]
    assert [len(part) for part in labels] == [1500, 297]
    np.testing.assert_array_equal(np.concatenate(labels), source.target)


def test_images_are_enlarged_by_linear_interpolation(splits, source):
    # The centers of 28 pixels on the axis of the 8, whose centers are 0 to 7.
    centers = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    weights = np.maximum(1 - abs(centers[:, None] - np.arange(8)), 0)
    expected = weights @ (source.images / 16) @ weights.T
    images = np.concatenate([splits["train"][0], splits["test"][0]])
    np.testing.assert_allclose(images[..., 0], expected, atol=1e-6)


def test_types_and_range(splits):
    for images, labels in splits.values():
        assert images.dtype == np.float32
        assert images.shape == (len(labels), 28, 28, 1)
        assert images.min() >= 0
        assert images.max() <= 1
        assert labels.dtype == np.int32


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        digits.load()


def test_in_the_shape_of_cifar10(splits):
    for split, (images, labels) in digits.load_rgb().items():
        assert images.shape[1:] == (32, 32, 3)
        np.testing.assert_array_equal(images[..., 0], images[..., 2])
        np.testing.assert_array_equal(labels, splits[split][1])
