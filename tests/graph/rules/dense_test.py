import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.graph.rules.dense import Dense
from tests.graph.rules.one_call import rule_for
from tests.random_networks import assert_same_outputs

layers = keras.layers


def test_what_it_reads_and_which_outputs_are_constant():
    layer = layers.Dense(3, activation="relu")
    rule = rule_for(layer, (4,), tolerance=0.1)
    kernel = np.zeros((4, 3))
    kernel[0, 0], kernel[1, 0], kernel[2, 1], kernel[3, 2] = 1, 2, 1, 0.05
    layer.set_weights([kernel, np.array([0.0, -3.0, 0.5])])
    known = np.array([np.nan, 10, 2, np.nan])
    assert type(rule) is Dense
    [constants] = rule.constants([known])
    # relu(2 - 3), and 0.05 counts as zero.
    np.testing.assert_array_equal(constants, [np.nan, 0, 0.5])
    [needed] = rule.needed([np.array([True, True, True])], [known])
    np.testing.assert_array_equal(needed, [True, False, False, False])
    assert rule.coupled() == ([None], [None])


@pytest.mark.parametrize("use_bias", [True, False])
def test_constants_are_folded_into_the_bias(use_bias):
    stack = [
        layers.Dense(5, "sigmoid", name="in"),
        layers.Dense(2, use_bias=use_bias, name="out"),
    ]
    model = keras.Sequential([keras.Input((4,)), *stack])
    reads = np.ones((4, 5), bool)
    reads[:, 1:3] = False  # where sigmoid(0) stays
    pruned = snip_tf.apply_masks(model, {"in/kernel": reads})
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer("in").units == 3
    assert_same_outputs(smaller, pruned, np.random.rand(3, 4))


def test_a_softmax_couples_all_outputs():
    rule = rule_for(layers.Dense(3, activation="softmax"), (4,))
    [of_inputs], [of_outputs] = rule.coupled()
    assert of_inputs is None
    np.testing.assert_array_equal(of_outputs, [0, 0, 0])
    [kept] = rule.kept([np.array([True, False, False])], [np.full(4, np.nan)])
    assert kept.all()
    assert np.isnan(rule.constants([np.zeros(4)])).all()
