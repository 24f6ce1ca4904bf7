import keras
import numpy as np
import pytest

from snip_tf.graph.rules.opaque import Opaque
from snip_tf.graph.rules.padding import Padding
from tests.graph.rules.one_call import rule_for

WIDTHS = [[0, 0], [1, 1], [2, 1]]


def padded(x, **options):
    return keras.ops.pad(x, WIDTHS, **options)


def test_new_features_are_zeros_and_a_constant_is_none_at_the_border():
    rule = rule_for(padded, (4, 3))
    assert type(rule) is Padding
    [constants] = rule.constants([np.array([0.0, 2.0, np.nan])])
    np.testing.assert_array_equal(constants, [0, 0, 0, np.nan, np.nan, 0])


def test_a_feature_of_the_input_is_kept_if_only_new_ones_are_needed():
    rule = rule_for(padded, (4, 3))
    unknown = [np.full(3, np.nan)]
    [kept] = rule.kept([np.array([True, False, False, False, False, False])], unknown)
    np.testing.assert_array_equal(kept, [True, False, True, False, False, False])
    [needed] = rule.needed([kept], unknown)
    np.testing.assert_array_equal(needed, [True, False, False])


@pytest.mark.parametrize("options", [{"mode": "reflect"}, {"constant_values": 1.0}])
def test_what_is_not_zeros_is_not_analysed(options):
    call = lambda x: keras.ops.pad(x, [[0, 0], [1, 1], [0, 0]], **options)  # noqa: E731
    assert type(rule_for(call, (4, 3))) is Opaque
