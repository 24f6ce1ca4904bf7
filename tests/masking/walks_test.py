"""A public call walks over the weights of the model once."""

import numpy as np
import pytest

import snip_tf
from snip_tf.masking.copying import plain_copy
from snip_tf.network import Network
from tests.small_network import cut, small_network

MASKS = {"conv/kernel": np.ones((2, 2, 1, 3), bool)}


@pytest.mark.parametrize(
    "call",
    [
        snip_tf.get_masks,
        snip_tf.strip_pruning,
        lambda pruned: snip_tf.apply_masks(pruned, MASKS),
        lambda pruned: snip_tf.set_masks(pruned, MASKS),
        lambda pruned: plain_copy(Network(pruned)),
        lambda pruned: snip_tf.prunable_weights(pruned, include="*/bias"),
    ],
    ids=["get", "strip", "apply", "set", "plain_copy", "prunable"],
)
def test_one_walk(call, walks):
    pruned = cut(small_network())
    walks.clear()
    call(pruned)
    assert walks == ["small"]


def test_one_walk_over_a_layer_that_is_masked(walks):
    conv = small_network().get_layer("conv")
    snip_tf.MaskedLayer(conv, {"kernel": MASKS["conv/kernel"]})
    assert walks == ["conv"]


def test_one_walk_of_prune_model(walks):
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 1)).astype(np.float32)
    loss = "mean_squared_error"
    snip_tf.prune_model(small_network(), x, np.zeros((4, 2)), sparsity=0.5, loss=loss)
    assert walks == ["small"]
