import numpy as np
import pytest

from snip_tf import datasets


@pytest.fixture
def source(monkeypatch):
    """A data set, known as `made_up`, in which every example has a label of its own."""
    rng = np.random.default_rng(0)
    images = rng.gamma(2, 0.1, size=(250, 6, 5, 2)).clip(0, 1).astype(np.float32)
    labels = np.arange(250, dtype=np.int32)
    splits = {
        "train": (images[:200], labels[:200]),
        "test": (images[200:], labels[200:]),
    }
    monkeypatch.setitem(datasets.DATASETS, "made_up", lambda data_dir: splits)
    return splits


def test_the_splits_share_no_example_and_hold_all(source):
    data = datasets.load("made_up")
    train, validation, test = data.train[1], data.validation[1], data.test[1]
    assert (len(train), len(validation)) == (180, 20)
    held = np.concatenate([train, validation])
    np.testing.assert_array_equal(np.sort(held), source["train"][1])
    np.testing.assert_array_equal(test, source["test"][1])


def test_all_splits_are_normalized_by_the_training_examples_that_are_left(source):
    data = datasets.load("made_up")
    images = np.concatenate([source["train"][0], source["test"][0]]).astype(np.float64)
    left = images[data.train[1]]
    for normalized, labels in (data.train, data.validation, data.test):
        assert normalized.dtype == np.float32
        expected = (images[labels] - left.mean((0, 1, 2))) / left.std((0, 1, 2))
        np.testing.assert_allclose(normalized, expected, rtol=1e-4, atol=1e-5)


def test_images_of_one_channel_are_normalized_as_a_whole(source):
    for split, (images, labels) in source.items():
        source[split] = images[..., :1], labels
    data = datasets.load("made_up")
    left = source["train"][0][data.train[1]]
    expected = (left - left.mean()) / left.std()
    np.testing.assert_array_equal(data.train[0], expected)  # to the last bit


def test_max_examples_limits_the_examples(source):
    kept = {split: images.copy() for split, (images, _) in source.items()}
    data = datasets.load("made_up", max_examples=30)
    train, validation, test = data.train[1], data.validation[1], data.test[1]
    np.testing.assert_array_equal(np.sort(np.r_[train, validation]), np.arange(30))
    np.testing.assert_array_equal(test, np.arange(200, 230))
    assert data.classes == 200
    for split, (images, _) in source.items():
        np.testing.assert_array_equal(images, kept[split])


def test_the_seed_decides_what_is_held_out(source):
    first, again = (datasets.load("made_up", seed=3).validation[1] for _ in range(2))
    other = datasets.load("made_up", seed=4).validation[1]
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_what_is_held_out_is_drawn_from_all_examples(source):
    held = np.concatenate(
        [datasets.load("made_up", seed=seed).validation[1] for seed in range(200)]
    )
    counts = np.bincount(held, minlength=200)
    assert counts.shape == (200,)
    # 200 draws of a tenth: each example about 20 times, with a deviation of 4.2.
    assert counts.min() > 0
    assert counts.max() < 45


def test_describes_itself(source):
    data = datasets.load("made_up")
    assert data.name == "made_up"
    assert data.input_shape == (6, 5, 2)
    assert data.classes == 200


def test_the_loader_gets_the_folder(monkeypatch, source):
    asked = []

    def loader(data_dir):
        asked.append(data_dir)
        return source

    monkeypatch.setitem(datasets.DATASETS, "made_up", loader)
    datasets.load("made_up", "a folder")
    assert asked == ["a folder"]


def test_digits():
    pytest.importorskip("sklearn")
    data = datasets.load("digits")
    lengths = [len(split[0]) for split in (data.train, data.validation, data.test)]
    assert lengths == [1350, 150, 297]
    assert (data.input_shape, data.classes) == ((28, 28, 1), 10)
    np.testing.assert_allclose(data.train[0].mean(dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(data.train[0].std(dtype=np.float64), 1, atol=1e-5)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"Received: name='cifar'") as caught:
        datasets.load("cifar")
    assert {"digits", "mnist"} <= set(datasets.DATASETS)
    for name in datasets.DATASETS:
        assert repr(name) in str(caught.value)


def test_workers_compare_the_digests_of_their_data():
    data = datasets.load("digits", None, 0, 40)
    same = datasets.load("digits", None, 0, 40)
    other = datasets.load("digits", None, 1, 40)
    assert data.digest() == same.digest() != other.digest()
