"""Masks and scores of `prune_model` equal float64 references."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import models
from tests import numpy_reference

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
GRADIENTS = {
    "lenet300": numpy_reference.lenet300_gradients,
    "lenet5": numpy_reference.lenet5_gradients,
}


@pytest.fixture(scope="module")
def digits():
    from snip_tf import datasets

    images, labels = datasets.load("digits").train
    return images[:100], labels[:100]


@pytest.mark.parametrize("name", ["lenet300", "lenet5"])
def test_masks_equal_a_float64_reference(name, digits, record_property):
    """Only scores that float32 cannot tell from the threshold may fall otherwise."""
    keras.utils.set_random_seed(1)
    model = models.build(name)
    gradients = GRADIENTS[name](model.get_weights(), *digits)
    kernels = snip_tf.prunable_weights(model)
    scores = [
        np.abs(g * kernel.numpy().astype(np.float64))
        for g, kernel in zip(gradients, kernels.values(), strict=True)
    ]
    every = np.concatenate([score.ravel() for score in scores])
    for sparsity in (0.5, 0.9, 0.95, 0.99):
        number = round((1 - sparsity) * every.size)
        expected = numpy_reference.keep_largest(scores, number)
        pruned = snip_tf.prune_model(model, *digits, sparsity=sparsity, loss=LOSS)
        masks = snip_tf.get_masks(pruned)
        assert sum(mask.sum() for mask in masks.values()) == number
        threshold = np.sort(every)[-number]
        swapped = 0
        for path, mask, score in zip(kernels, expected, scores, strict=True):
            differ = masks[path] != mask
            swapped += int(differ.sum())
            np.testing.assert_allclose(score[differ], threshold, rtol=1e-4)
        print(f"{name} at {sparsity}: {swapped} of {every.size} differ by rounding")
        record_property(f"differ_by_rounding_at_{sparsity}", swapped)
        assert swapped <= 1e-4 * every.size


def test_scores_equal_a_float64_reference(digits):
    keras.utils.set_random_seed(1)
    model = models.build("lenet5")
    gradients = numpy_reference.lenet5_gradients(model.get_weights(), *digits)
    kernels = snip_tf.prunable_weights(model)
    expected = {
        path: np.abs(g * kernel.numpy())
        for (path, kernel), g in zip(kernels.items(), gradients, strict=True)
    }
    total = sum(score.sum() for score in expected.values())
    scores = snip_tf.connection_sensitivity(model, *digits, loss=LOSS)
    for path, score in scores.items():
        assert score.dtype == np.float32
        np.testing.assert_allclose(score, expected[path] / total, rtol=1e-3, atol=1e-7)
    assert sum(s.sum(dtype=np.float64) for s in scores.values()) == pytest.approx(1)
