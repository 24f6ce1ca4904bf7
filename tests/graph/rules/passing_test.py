import keras
import numpy as np
import pytest

from tests.graph.rules.one_call import rule_for

layers = keras.layers


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.MaxPooling2D(), [0, 2, np.nan]),
        (layers.Dropout(0.5), [0, 2, np.nan]),
        (layers.ZeroPadding2D(), [0, np.nan, np.nan]),
        (layers.UpSampling2D(), [0, np.nan, np.nan]),
    ],
)
def test_constants(layer, expected):
    rule = rule_for(layer, (6, 6, 3))
    np.testing.assert_array_equal(
        rule.constants([np.array([0.0, 2.0, np.nan])]), [expected]
    )


def test_a_feature_goes_with_that_of_the_input():
    rule = rule_for(layers.MaxPooling2D(), (6, 6, 3))
    [inputs], [outputs] = rule.coupled()
    np.testing.assert_array_equal(inputs, outputs)
    assert len({*inputs}) == 3


def test_few_features_are_not_picked_where_more_are_given():
    given, wanted = np.ones(16, bool), np.ones(16, bool)
    wanted[:1] = False
    rule = rule_for(layers.Dropout(0.5), (16,))
    unknown = [np.full(16, np.nan)]
    assert rule.raise_to_minimum([given], [wanted], unknown)[0].all()
    wanted[:2] = False  # an eighth less is worth a gather
    assert not rule.raise_to_minimum([given], [wanted], unknown)[0].all()
    masked = rule_for(layers.Dropout(0.5), (16,), hidden_masks=True)
    assert masked.raise_to_minimum([given], [wanted], unknown)[0].all()
