import pytest

from snip_tf import datasets
from tests.experiments.datasets.conftest import few_examples, prepare


@pytest.fixture
def folder(tmp_path):
    prepare("fashion_mnist", few_examples(28, 28, 1), tmp_path)
    return str(tmp_path)


@pytest.mark.usefixtures("folder", "no_network")
def test_is_loaded_by_name(folder):
    data = datasets.load("fashion_mnist", folder)
    assert (data.input_shape, data.classes) == ((28, 28, 1), 10)
    lengths = [len(split[1]) for split in (data.train, data.validation, data.test)]
    assert lengths == [36, 4, 12]
