"""A mini-batch on all replicas."""

import keras
import numpy as np
import pytest

import snip_tf
from tests.replicas import two_replicas
from tests.scoring.of_fit import gradients
from tests.versions import on

pytestmark = on("tensorflow")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 5)).astype(np.float32), rng.integers(3, size=12)


class Counts(keras.layers.Layer):
    """Keeps the numbers of examples that it was called on."""

    seen = ()

    def call(self, x):
        Counts.seen += (x.shape[0],)
        return x


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_replicas_see_a_share_each(data, where):
    def network():
        return keras.Sequential([Counts(), keras.layers.Dense(3)])

    def prune(model):
        Counts.seen = ()
        snip_tf.prune_model(model, *data, sparsity=0.5, loss=LOSS)
        return Counts.seen

    with two_replicas().scope():
        model = network()
        seen = prune(model) if where == "inside" else None
    seen = seen or prune(model)
    assert seen.count(6) == 2
    # It was not built; now it is, for replicas.
    assert len(model.layers[1].kernel.value.values) == 2


@pytest.mark.parametrize(
    ("where", "examples"),
    [("inside", 12), ("inside", 11), ("inside", 2), ("outside", 11)],
)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_replicas_share_a_batch_as_one_device(data, examples, where, reduction):
    loss = keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction)
    x, y = data[0][:examples], data[1][:examples]
    half = np.linspace(0, 1, examples, dtype=np.float32)

    def network():
        keras.utils.set_random_seed(0)
        hidden = keras.layers.Dense(6, "tanh", name="hidden")
        out = keras.layers.Dense(3, name="out")
        model = keras.Sequential([keras.Input((5,)), hidden, out])
        model.compile("sgd", loss)
        return model

    def prune(model):
        return snip_tf.prune_model(model, x, y, half, sparsity=0.5)

    expected = prune(network())
    with two_replicas().scope():
        model = network()
        pruned = prune(model) if where == "inside" else None
    pruned = pruned or prune(model)
    np.testing.assert_equal(snip_tf.get_masks(pruned), snip_tf.get_masks(expected))
    shared, alone = gradients(model, (x, y)), gradients(network(), (x, y))
    for path in alone:
        least = 1e-6 * np.abs(alone[path]).max()
        np.testing.assert_allclose(shared[path], alone[path], rtol=1e-5, atol=least)
    pruned.fit(x[:2], y[:2], verbose=0)  # Keras fails on 11 with two replicas
    assert snip_tf.sparsity(pruned) == 0.5


def test_refuses_fewer_examples_than_replicas(data):
    with two_replicas().scope():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="of the 2 replicas"):
        snip_tf.prune_model(model, *(a[:1] for a in data), sparsity=0.5, loss=LOSS)
