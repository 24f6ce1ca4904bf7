import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.network import Network
from snip_tf.reports.sparsity import weight_rows
from tests.small_network import cut, small_network

layers = keras.layers


@pytest.fixture
def model():
    return small_network()


@pytest.fixture
def pruned(model):
    return cut(model)


def test_rows_count_the_stored_weights(pruned):
    plain = snip_tf.strip_pruning(pruned)
    for row in weight_rows(Network(pruned)):
        layer, _, weight = row.path.partition("/")
        stored = getattr(plain.get_layer(layer), weight).numpy()
        assert row.kept == np.count_nonzero(stored)
        assert (row.total, row.shape) == (stored.size, stored.shape)
        assert row.sparsity == 1 - np.count_nonzero(stored) / stored.size


def test_rows_count_what_is_dead(pruned):
    conv, fc = weight_rows(Network(pruned))
    assert (conv.inputs, conv.dead_inputs, conv.units, conv.dead_units) == (1, 0, 3, 1)
    assert (fc.inputs, fc.dead_inputs, fc.units, fc.dead_units) == (27, 2, 5, 1)


def test_sparsity_of_pruned_stripped_and_dense_models(model, pruned):
    masks = snip_tf.get_masks(pruned)
    removed = sum((~mask).sum() for mask in masks.values())
    assert snip_tf.sparsity(pruned) == pytest.approx(removed / (12 + 135), abs=1e-12)
    # Of a plain model all kernels count, the dense head too.
    stripped = snip_tf.strip_pruning(pruned)
    assert snip_tf.sparsity(stripped) == pytest.approx(removed / (12 + 135 + 10))
    assert snip_tf.sparsity(model) == 0


def test_dead_units_are_counted_only_where_the_kernel_is_known():
    for layer in (layers.Conv2DTranspose(3, 2), layers.DepthwiseConv2D(2)):
        odd = keras.Sequential([keras.Input((6, 6, 2)), layer])
        (path,) = snip_tf.prunable_weights(odd)
        mask = np.zeros(layer.kernel.shape, bool)
        (row,) = weight_rows(Network(snip_tf.apply_masks(odd, {path: mask})))
        assert (row.inputs, row.units) == (0, 0)


def test_sparsity_refuses_what_is_no_model():
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.sparsity(None)
