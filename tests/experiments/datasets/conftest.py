import numpy as np
import pytest


def few_examples(*shape):
    """Random images of that shape, with labels."""
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(256, size=(count, *shape), dtype=np.uint8),
            np.arange(count) % 10,
        )
        for split, count in (("train", 40), ("test", 12))
    }


def prepare(name, examples, folder):
    """Prepares these examples as a data set of tensorflow-datasets of that name."""
    tfds = pytest.importorskip("tensorflow_datasets")
    real = tfds.builder_cls(name)

    def generate(split):
        for key, (image, label) in enumerate(zip(*examples[split], strict=True)):
            row = {"image": image, "label": label}
            if name == "cifar10":
                row["id"] = f"{split}_{key}"
            yield key, row

    def split_generators(self, dl_manager):
        return {split: generate(split) for split in ("train", "test")}

    with tfds.core.registered.skip_registration():
        builder = type(real.__name__, (real,), {"_split_generators": split_generators})
    builder(data_dir=str(folder)).download_and_prepare()


@pytest.fixture(scope="session")
def images_and_labels():
    """What the folder of `prepared` holds."""
    return few_examples(28, 28, 1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, images_and_labels):
    """A folder of prepared data sets: an MNIST of few and random images."""
    folder = tmp_path_factory.mktemp("data sets")
    prepare("mnist", images_and_labels, folder)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """What is not prepared cannot be downloaded either."""
    tfds = pytest.importorskip("tensorflow_datasets")

    def download_and_prepare(builder):
        if not builder.is_prepared():
            raise ConnectionError("the network is down")

    builder = tfds.core.DatasetBuilder
    monkeypatch.setattr(builder, "download_and_prepare", download_and_prepare)
