import numpy as np
import pytest

from snip_tf import datasets
from tests.experiments.datasets.conftest import few_examples, prepare


@pytest.fixture(scope="module")
def examples():
    return few_examples(32, 32, 3)


@pytest.fixture(scope="module")
def folder(examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data sets")
    prepare("cifar10", examples, folder)
    return str(folder)


@pytest.mark.usefixtures("folder", "no_network")
@pytest.mark.parametrize("name", ["cifar10", "cifar-10"])
def test_each_channel_is_normalized_by_itself(name, folder, examples):
    data = datasets.load(name, folder)
    assert (data.input_shape, data.classes) == ((32, 32, 3), 10)
    lengths = [len(split[1]) for split in (data.train, data.validation, data.test)]
    assert lengths == [36, 4, 12]
    images = data.train[0].astype(np.float64)
    np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1, atol=1e-5)
