"""A public call walks over the weights of the model once."""

import pytest

import snip_tf
from tests.small_network import cut, small_network


def print_summary(model):
    snip_tf.summary(model, print_fn=lambda line: None)


@pytest.mark.parametrize("call", [snip_tf.report, print_summary, snip_tf.sparsity])
def test_one_walk_over_a_pruned_model(call, walks):
    pruned = cut(small_network())
    walks.clear()
    call(pruned)
    assert walks == ["small"]


@pytest.mark.parametrize("call", [snip_tf.report, snip_tf.sparsity])
def test_one_walk_over_a_model_that_is_not_pruned(call, walks):
    call(small_network())
    assert walks == ["small"]
