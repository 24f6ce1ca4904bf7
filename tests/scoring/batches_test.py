import keras
import numpy as np
import pytest
import tensorflow as tf

from snip_tf.scoring.batches import make_batches
from snip_tf.scoring.sampling import sample_per_class
from tests.replicas import two_replicas

X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10)


class Pairs(keras.utils.PyDataset):
    def __init__(self, length):
        super().__init__()
        self._length = length

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        return X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2]


def test_all_examples_are_taken_in_order_when_they_fit():
    ((x, y, sample_weight),) = make_batches(X, Y)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    assert sample_weight is None


def test_batches_that_use_all_keep_the_order():
    sizes = [len(x) for x, _, _ in make_batches(X, Y, batch_size=4, batches=3)]
    labels = [y for _, y, _ in make_batches(X, Y, batch_size=4, batches=3)]
    assert sizes == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(labels), Y)


def test_examples_are_drawn_without_replacement_and_stay_together():
    drawn = list(make_batches(X, Y, Y / 10, batch_size=3, batches=3, seed=1))
    labels = np.concatenate([y for _, y, _ in drawn])
    assert len(set(labels.tolist())) == 9
    for x, y, sample_weight in drawn:
        np.testing.assert_array_equal(x[:, 0], 2 * y)
        np.testing.assert_array_equal(sample_weight, y / 10)


def first_labels(seed):
    return next(make_batches(X, Y, batch_size=4, seed=seed))[1].tolist()


def test_the_seed_decides_which_examples():
    assert first_labels(3) == first_labels(3)
    assert len({tuple(first_labels(seed)) for seed in range(5)}) > 1


def test_without_a_seed_the_global_one_decides():
    keras.utils.set_random_seed(5)
    first, second = first_labels(None), first_labels(None)
    keras.utils.set_random_seed(5)
    assert first_labels(None) == first
    assert first != second


def test_nests_of_arrays():
    x = {"left": X, "right": [X, tf.constant(X)]}
    ((batch, y, _),) = make_batches(x, {"a": Y}, batch_size=4, seed=0)
    np.testing.assert_array_equal(batch["left"], batch["right"][0])
    np.testing.assert_array_equal(batch["left"], batch["right"][1])
    np.testing.assert_array_equal(batch["left"][:, 0], 2 * y["a"])


def test_the_first_batches_of_a_dataset():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    labels = [np.asarray(y).tolist() for _, y, _ in make_batches(data, batches=2)]
    assert labels == [[0, 1, 2], [3, 4, 5]]


def test_the_first_batches_of_a_pydataset_and_a_generator():
    for data in (Pairs(5), (pair for pair in [Pairs(5)[0], Pairs(5)[1]])):
        labels = [y.tolist() for _, y, _ in make_batches(data, batches=2)]
        assert labels == [[0, 1], [2, 3]]


class Epochs(keras.utils.PyDataset):
    """Batches that are chosen at the start of each epoch."""

    num_batches = 3

    def __init__(self):
        super().__init__()
        self.log = []

    def on_epoch_begin(self):
        self.log.append("begin")
        self.order = np.arange(10)[::-1]

    def on_epoch_end(self):
        self.log.append("end")

    def __getitem__(self, index):
        rows = self.order[2 * index : 2 * index + 2]
        return X[rows], Y[rows]


def test_a_pydataset_is_read_in_an_epoch():
    data = Epochs()
    labels = [y.tolist() for _, y, _ in make_batches(data, batches=2)]
    assert labels == [[9, 8], [7, 6]]
    assert data.log == ["begin", "end"]
    sample_per_class(data, n=1)
    assert data.log == ["begin", "end"] * 2
    with pytest.raises(ValueError, match="ended after 3"):
        list(make_batches(data, batches=4))
    assert data.log == ["begin", "end"] * 3


def test_a_generator_can_be_read_on():
    data = (Pairs(5)[index] for index in range(5))
    assert len(list(make_batches(data, batches=2))) == 2
    assert next(data)[1].tolist() == [4, 5]


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ([(X, X, Y, Y)], ValueError, r"a tuple of 4.*\(\(first, second\), targets\)"),
        ([(np.float32(1), 2)], ValueError, r"shape \(\).*`\.batch"),
        ([("a", 2)], TypeError, "Received: str"),
        ([(X[:0], Y[:0])], ValueError, "0 examples"),
    ],
)
def test_refuses_invalid_batches(data, error, words):
    with pytest.raises(error, match=words):
        next(make_batches(iter(data)))


def test_one_data_set_at_a_time():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    with pytest.raises(TypeError, match=r"x=data\['train'\]"):
        make_batches({"train": data, "test": data})
    with pytest.raises(TypeError, match="data set itself"):
        make_batches((data, "information"))


def test_sample_weights_of_a_generator():
    data = iter([(X, Y, Y / 10)])
    ((_, _, sample_weight),) = make_batches(data)
    np.testing.assert_array_equal(sample_weight, Y / 10)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="x has 10, y has 9"):
        make_batches(X, Y[:9])
    with pytest.raises(ValueError, match=r"x\[0\] has 10, x\[1\] has 3"):
        make_batches([X, X[:3]], Y)
    with pytest.raises(ValueError, match="sample_weight has 2"):
        make_batches(X, Y, Y[:2])


def test_class_weights_are_refused_as_sample_weights():
    with pytest.raises(ValueError, match=r"class weights.*numpy.vectorize"):
        make_batches(X, Y, {0: 1.0, 1: 2.0})


def test_a_function_that_makes_data_is_to_be_called():
    with pytest.raises(TypeError, match=r"Received: function\. Call it"):
        next(make_batches(lambda: iter([(X, Y)])))


def test_says_what_to_do_about_distributed_data():
    strategy = two_replicas()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    with pytest.raises(TypeError, match="before a strategy distributed it"):
        list(make_batches(strategy.experimental_distribute_dataset(data)))


def test_too_little_data():
    with pytest.raises(ValueError, match="0 examples"):
        make_batches(X[:0], Y[:0])
    with pytest.raises(ValueError, match="10 examples, which make 3"):
        make_batches(X, Y, batch_size=4, batches=4)
    empty = tf.data.Dataset.from_tensor_slices((X, Y)).take(0).batch(2)
    with pytest.raises(ValueError, match="it is empty"):
        next(make_batches(empty))
    with pytest.raises(ValueError, match="ended after 2"):
        list(make_batches(Pairs(2), batches=3))


def test_targets_come_with_the_dataset():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    with pytest.raises(ValueError, match="no `y`"):
        make_batches(data, Y)
    with pytest.raises(ValueError, match="no `batch_size`"):
        make_batches(data, batch_size=3)


@pytest.mark.parametrize("x", [None, "images.npy", 3, [1.0, 2.0], {"a": "b"}])
def test_refuses_invalid_data(x):
    with pytest.raises(TypeError, match=r"as `Model\.fit` takes it"):
        next(make_batches(x, Y))


@pytest.mark.parametrize("argument", ["batch_size", "batches"])
def test_counts_are_positive_integers(argument):
    with pytest.raises(ValueError, match=f"`{argument}` to be a whole"):
        make_batches(X, Y, **{argument: 0})
    for value in (1.5, "1", True):
        with pytest.raises(TypeError, match=f"`{argument}` to be a whole"):
            make_batches(X, Y, **{argument: value})
