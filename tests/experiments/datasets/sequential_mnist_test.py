import numpy as np
import pytest

from snip_tf import datasets


@pytest.mark.usefixtures("prepared", "no_network")
def test_is_mnist_row_by_row(prepared):
    rows = datasets.load("sequential_mnist", str(prepared))
    images = datasets.load("mnist", str(prepared))
    assert rows.input_shape == (28, 28)
    for split in ("train", "validation", "test"):
        sequences, labels = getattr(rows, split)
        pictures, same = getattr(images, split)
        np.testing.assert_allclose(sequences, pictures[..., 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(labels, same)
