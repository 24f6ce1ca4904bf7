"""Whatever `fit` takes as an array is scored as the same numbers in a dense array."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import snip_tf
from snip_tf.scoring.batches import make_batches
from tests.versions import since

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X = (RNG.random((40, 12)) < 0.3).astype(np.float32)
Y = np.arange(40) % 3
SPARSE = {
    "csr_matrix": scipy.sparse.csr_matrix,
    "csc_array": scipy.sparse.csc_array,
    "coo_array": scipy.sparse.coo_array,
    "coo_matrix": scipy.sparse.coo_matrix,
    "lil_matrix": scipy.sparse.lil_matrix,
    "float64": lambda x: scipy.sparse.csr_matrix(x.astype(np.float64)),
    "SparseTensor": tf.sparse.from_dense,
}
OPTIONS = {
    "all": {"batch_size": 40},
    "some": {"batch_size": 16, "seed": 1},
    "in pieces": {"batch_size": 5, "batches": 6, "seed": 1},
}


def network(sparse=True):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,), sparse=sparse)
    hidden = layers.Dense(8, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(hidden))
    model.compile("sgd", LOSS)
    return model


def scores(model, *data, **options):
    return snip_tf.connection_sensitivity(model, *data, **options)


def assert_close(found, expected):
    assert list(found) == list(expected)
    for path in expected:
        np.testing.assert_allclose(found[path], expected[path], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
def test_sparse_arrays(make, options):
    expected = scores(network(sparse=False), X, Y, **options)
    for sparse in (True, False):  # what the model's input expects
        assert_close(scores(network(sparse), make(X), Y, **options), expected)


@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
def test_sparse_arrays_of_each_class(make):
    expected = scores(network(sparse=False), *snip_tf.sample_per_class(X, Y, 4, seed=1))
    x, y = snip_tf.sample_per_class(make(X), Y, n=4, seed=1)
    assert_close(scores(network(), x, y), expected)
    pieces = {"batch_size": 5, "batches": 3}
    assert_close(scores(network(), x, y, **pieces), expected)


def test_every_criterion_takes_sparse_arrays():
    for criterion in snip_tf.criteria.CRITERIA:
        pruned = snip_tf.prune_model(
            network(),
            scipy.sparse.csr_matrix(X),
            Y,
            sparsity=0.5,
            criterion=criterion,
        )
        assert snip_tf.sparsity(pruned) == 0.5


def test_sparse_arrays_beside_dense_ones():
    inputs = {"words": keras.Input((12,), sparse=True, name="words")}
    inputs["numbers"] = keras.Input((12,), name="numbers")
    joined = layers.Add()([layers.Dense(4)(tensor) for tensor in inputs.values()])
    model = keras.Model(inputs, layers.Dense(3)(joined))
    model.compile("sgd", LOSS)
    nest = {"words": scipy.sparse.csr_matrix(X), "numbers": X}
    for options in ({"batch_size": 10, "seed": 0}, {"batch_size": 7, "batches": 6}):
        expected = scores(model, {"words": X, "numbers": X}, Y, **options)
        assert_close(scores(model, nest, Y, **options), expected)


def test_batches_of_sparse_arrays():
    expected = scores(network(sparse=False), X[:20], Y[:20])
    matrix = scipy.sparse.csr_matrix(X[:20])
    sliced = tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(X), Y))
    for size in (20, 6):
        starts = range(0, 20, size)
        parts = ((matrix[i : i + size], Y[:20][i : i + size]) for i in starts)
        for data in (sliced.take(20).batch(size), parts):
            found = scores(network(), data, batches=len(starts))
            assert_close(found, expected)
    of_each = scores(network(sparse=False), X[:6], Y[:6])
    # Of batches so small that the examples are put together of two.
    x, y = snip_tf.sample_per_class(sliced.batch(4), n=2)
    assert_close(scores(network(), x, y), of_each)


def test_replicas_share_sparse_batches():
    expected = scores(network(sparse=False), X, Y)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        found = scores(network(), scipy.sparse.csr_matrix(X), Y)
    assert_close(found, expected)


def test_ragged_arrays():
    class Sums(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(3, name="head")

        def call(self, x):
            return self.head(tf.reduce_sum(x, axis=1, keepdims=True))

    lengths = 1 + np.arange(40) % 3
    values = RNG.random(lengths.sum()).astype(np.float32)
    x = tf.RaggedTensor.from_row_lengths(values, lengths)
    model = Sums()
    model.compile("sgd", LOSS)
    expected = scores(model, x.to_tensor(), Y, batch_size=10, seed=0)
    found = scores(model, x, Y, batch_size=10, seed=0)
    assert_close(found, expected)
    pieces = scores(model, x, Y, batch_size=7, batches=6)
    assert_close(pieces, scores(model, x, Y, batch_size=40))
    data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(8)
    of_each = scores(model, *snip_tf.sample_per_class(data, n=4))
    assert_close(of_each, scores(model, x[:12], Y[:12]))


TEXT = np.array(["a b", "c d", "a", "b", "c", "d", "a d", "b"])


@pytest.mark.parametrize(
    "make",
    [
        lambda text: text,
        lambda text: text[:, np.newaxis],
        lambda text: text.astype(object),
        lambda text: text.astype(bytes),
        tf.constant,
    ],
)
def test_text_where_the_model_takes_it(make):
    keras.utils.set_random_seed(0)
    words = layers.TextVectorization(output_sequence_length=4)
    words.adapt(["a b c d"])
    stack = [words, layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((1,), dtype="string"), *stack])
    y = np.arange(8) % 3
    expected = scores(model, tf.constant(TEXT), y, loss=LOSS)
    for options in ({}, {"batch_size": 3, "batches": 3}):
        assert_close(scores(model, make(TEXT), y, loss=LOSS, **options), expected)


@since("3.9")
def test_optional_inputs_that_are_left_out():
    class Sum(layers.Layer):
        def call(self, first, second):
            return first if second is None else first + second

        def compute_output_spec(self, first, second):
            return keras.KerasTensor(first.shape)

    inputs = {"first": keras.Input((12,), name="first")}
    inputs["second"] = keras.Input((12,), name="second", optional=True)
    model = keras.Model(inputs, layers.Dense(3)(Sum()(*inputs.values())))
    expected = scores(model, {"first": X, "second": 0 * X}, Y, loss=LOSS)
    found = scores(
        model, {"first": X, "second": None}, Y, loss=LOSS, batch_size=7, batches=6
    )
    assert_close(found, expected)


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame, labels = pandas.DataFrame(X), pandas.Series(Y)
    expected = scores(network(sparse=False), X, Y)
    assert_close(scores(network(sparse=False), frame, labels), expected)
    mixed = frame.assign(last=frame.pop(11) > 0)  # a column of truth values
    assert_close(scores(network(sparse=False), mixed, labels), expected)


@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
def test_rows_stay_with_their_targets(make):
    x = np.diag(np.arange(1.0, 11.0)).astype(np.float32)
    for part, y, _ in make_batches(make(x), np.arange(10), batch_size=3, batches=3):
        np.testing.assert_array_equal(tf.sparse.to_dense(part), x[y])
