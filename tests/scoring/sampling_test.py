"""As many examples of each class."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf

X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10)


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2]


def of_each_class(y, n=3, **options):
    x = np.arange(len(y))
    drawn, labels = snip_tf.sample_per_class(x, y, n=n, **options)
    np.testing.assert_array_equal(labels, np.asarray(y)[drawn])  # they stay together
    return drawn


@pytest.mark.parametrize("kind", ["labels", "column", "one-hot", "floats"])
def test_n_of_each_class(kind):
    y = np.random.default_rng(0).permutation(np.arange(60) % 4)
    given = {
        "labels": y,
        "column": y[:, None],
        "one-hot": np.eye(4)[y],
        "floats": y.astype(np.float32),
    }[kind]
    drawn = of_each_class(given, seed=1)
    assert sorted(y[drawn].tolist()) == sorted([0, 1, 2, 3] * 3)
    assert len(set(drawn.tolist())) == 12
    assert drawn.tolist() == of_each_class(given, seed=1).tolist()
    assert drawn.tolist() != of_each_class(given, seed=2).tolist()


def test_without_a_seed_the_global_one_decides():
    y = np.arange(60) % 4
    keras.utils.set_random_seed(5)
    first, second = of_each_class(y).tolist(), of_each_class(y).tolist()
    keras.utils.set_random_seed(5)
    assert of_each_class(y).tolist() == first != second


def test_nests_of_arrays():
    x, y = snip_tf.sample_per_class({"a": X, "b": [tf.constant(X)]}, Y % 2, n=2)
    np.testing.assert_array_equal(x["a"], x["b"][0])
    np.testing.assert_array_equal(x["a"][:, 0] // 2 % 2, y)


def test_the_first_of_each_class_of_what_yields_batches():
    y = np.array([0, 0, 0, 0, 1, 2, 0, 1, 2, 1, 2, 0])
    batches = ((np.arange(i, i + 4), y[i : i + 4]) for i in range(0, 12, 4))
    dataset = tf.data.Dataset.from_tensor_slices((np.arange(12), y)).batch(5)
    for data in (batches, dataset):
        x, labels = snip_tf.sample_per_class(data, n=2)
        assert x.tolist() == [0, 1, 4, 5, 7, 8]
        assert labels.tolist() == [0, 0, 1, 2, 1, 2]


def test_an_endless_dataset_is_read_until_it_is_of_no_use():
    read = 0

    def batches():
        nonlocal read
        while True:
            read += 1
            yield np.zeros((10_000, 1)), np.arange(10_000) % 2

    x, _ = snip_tf.sample_per_class(batches(), n=2)
    assert len(x) == 4
    assert read < 20


def test_no_more_is_read_than_all_classes_of_one_hot_vectors_need():
    y, read = np.eye(3)[[0, 0, 0, 0, 1, 2, 0, 1, 2, 1, 2, 0]], []

    def batches():
        for start in range(0, 1200, 4):
            read.append(start)
            rows = np.arange(start, start + 4)
            yield rows, y[rows % 12]

    x, labels = snip_tf.sample_per_class(batches(), n=2)
    assert x.tolist() == [0, 1, 4, 5, 7, 8]
    assert labels.argmax(axis=1).tolist() == [0, 0, 1, 2, 1, 2]
    assert read == [0, 4, 8]


def test_weights_of_examples_come_along_with_the_inputs():
    (x, weight), y = snip_tf.sample_per_class((X, Y / 10), Y % 2, n=2, seed=0)
    np.testing.assert_array_equal(x[:, 0], weight * 20)
    np.testing.assert_array_equal(x[:, 0] // 2 % 2, y)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((X, Y % 3, 4), ValueError, "3 of class 1, 3 of class 2"),
        ((X, np.eye(12)[Y], 1), ValueError, "0 of class 10, 0 of class 11"),
        ((iter([(X, np.eye(11)[Y])]), None, 1), ValueError, "0 of class 10"),
        ((X, Y, 0), ValueError, "`n` to be a whole number, 1 or more"),
        ((X, Y, 1.5), TypeError, "`n` to be a whole number"),
        ((X, Y, 1, -1), ValueError, "`seed` to be a whole number"),
        ((X, Y / 3, 1), ValueError, "whole numbers or one-hot"),
        ((X, None, 1), ValueError, "no targets"),
        ((X, Y.astype(str), 1), ValueError, "targets of text. Number"),
        ((X, list(Y.astype(str)), 1), ValueError, "targets of text. Number"),
        ((X, X - 0.5, 1), ValueError, "whole numbers or one-hot"),
        ((X, Y[:9], 1), ValueError, "x has 10, y has 9"),
        ((Pairs(), None, 2), ValueError, "1 of class 0"),
        ((Pairs(), Y, 1), ValueError, "no `y`"),
        ((iter([(X, Y, Y)]), None, 1), ValueError, "weights of the examples"),
        ((iter([]), None, 1), ValueError, "an empty data set"),
        (("images.npy", None, 1), TypeError, "as `Model.fit` takes it"),
    ],
)
def test_refuses_what_it_cannot_sample(arguments, error, words):
    with pytest.raises(error, match=words):
        snip_tf.sample_per_class(*arguments)


def test_refuses_single_examples_and_dicts_without_pairs():
    with pytest.raises(ValueError, match=r"y of shape \(\).*`\.batch"):
        snip_tf.sample_per_class(tf.data.Dataset.from_tensor_slices((X, Y)), n=1)
    data = tf.data.Dataset.from_tensor_slices({"image": X, "label": Y}).batch(8)
    with pytest.raises(ValueError, match="as_supervised=True"):
        snip_tf.sample_per_class(data, n=1)
