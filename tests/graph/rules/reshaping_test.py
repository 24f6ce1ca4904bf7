import keras
import numpy as np
import pytest

from snip_tf.graph.rules.opaque import Opaque
from tests.graph.rules.one_call import rule_for

layers = keras.layers


def test_a_feature_becomes_one_at_each_place():
    rule = rule_for(layers.Flatten(), (2, 3))
    [inputs], [outputs] = rule.coupled()
    np.testing.assert_array_equal(outputs, [*inputs, *inputs])
    [constants] = rule.constants([np.array([np.nan, 1.0, np.nan])])
    np.testing.assert_array_equal(constants, [np.nan, 1, np.nan] * 2)


def test_a_feature_of_several_places_is_constant_if_all_are_the_same():
    rule = rule_for(layers.Reshape((2, 2)), (4,))
    [constants] = rule.constants([np.array([1.0, 2.0, 1.0, 3.0])])
    np.testing.assert_array_equal(constants, [1, np.nan])
    [needed] = rule.needed([np.array([True, False])], [np.full(4, np.nan)])
    np.testing.assert_array_equal(needed, [True, False, True, False])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Reshape((3, 4)), (2, 2, 3)),
        (layers.Reshape((4, -1)), (None, 3)),
        (layers.Flatten(), (None, 3)),
    ],
)
def test_what_mixes_features_or_has_no_known_size_is_not_analysed(layer, shape):
    assert type(rule_for(layer, shape)) is Opaque
