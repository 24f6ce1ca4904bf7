import numpy as np
import pytest


@pytest.fixture(scope="session")
def images_and_labels():
    """What the folder of `prepared` holds."""
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(256, size=(count, 28, 28, 1), dtype=np.uint8),
            np.arange(count) % 10,
        )
        for split, count in (("train", 40), ("test", 12))
    }


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, images_and_labels):
    """A folder of prepared data sets: an MNIST of few and random images."""
    tfds = pytest.importorskip("tensorflow_datasets")
    real = tfds.builder_cls("mnist")

    with tfds.core.registered.skip_registration():

        class Mnist(real):
            def _split_generators(self, dl_manager):
                return {split: self._examples(split) for split in ("train", "test")}

            def _examples(self, split):
                for key, row in enumerate(zip(*images_and_labels[split], strict=True)):
                    yield key, dict(zip(("image", "label"), row, strict=True))

    folder = tmp_path_factory.mktemp("data sets")
    Mnist(data_dir=str(folder)).download_and_prepare()
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
