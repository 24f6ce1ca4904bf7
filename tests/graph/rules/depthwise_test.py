import keras
import numpy as np

from tests.graph.rules.one_call import rule_for

layers = keras.layers


def test_the_outputs_of_an_input_stay_together():
    rule = rule_for(layers.DepthwiseConv2D(2, depth_multiplier=2), (5, 5, 3))
    [inputs], [outputs] = rule.coupled()
    np.testing.assert_array_equal(inputs, [0, 1, 2])
    np.testing.assert_array_equal(outputs, [0, 0, 1, 1, 2, 2])
    wanted = np.array([False, True, False, False, False, False])
    [kept] = rule.kept([wanted], [np.full(3, np.nan)])
    np.testing.assert_array_equal(kept, [True, True, False, False, False, False])


def test_constants_pass_except_at_a_border():
    known = [np.array([0.0, 2.0, np.nan])]
    for padding, expected in (("valid", [0, 8, np.nan]), ("same", [0, np.nan, np.nan])):
        layer = layers.DepthwiseConv2D(2, padding=padding, depthwise_initializer="ones")
        rule = rule_for(layer, (5, 5, 3))
        np.testing.assert_array_equal(rule.constants(known), [expected])


def test_a_separable_convolution_multiplies_in_two_steps():
    layer = layers.SeparableConv2D(4, 2, depth_multiplier=2)
    rule = rule_for(layer, (5, 5, 3))
    depthwise, pointwise = rule.uses()
    assert depthwise.weight is layer.depthwise_kernel and depthwise.positions == 16
    assert pointwise.weight is layer.pointwise_kernel and pointwise.read is None
    np.testing.assert_array_equal(pointwise.axes[-2][1], [0, 0, 1, 1, 2, 2])
