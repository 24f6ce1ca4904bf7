import keras
import numpy as np
import pytest

from snip_tf.graph.rules.rule import is_elementwise
from tests.graph.rules.one_call import rule_for

layers = keras.layers


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return x


@pytest.mark.parametrize("function", [keras.activations.relu, keras.activations.tanh])
def test_elementwise(function):
    assert is_elementwise(function)


@pytest.mark.parametrize(
    "function", [keras.activations.softmax, None, abs, Unhashable(), layers.PReLU()]
)
def test_not_known_to_be_elementwise(function):
    assert not is_elementwise(function)


def test_by_default_all_inputs_are_needed_or_none():
    rule = rule_for(layers.LayerNormalization(), (5, 3))
    unknown = [np.full(3, np.nan)]
    for needed in (np.array([False, True, False]), np.zeros(3, bool)):
        [kept] = rule.kept([needed], unknown)
        assert {*kept} == {needed.any()}
        [inputs] = rule.needed([kept], unknown)
        assert {*inputs} == {needed.any()}
    assert np.isnan(rule.constants([np.zeros(3)])).all()
    [inputs], [outputs] = rule.coupled()
    assert {*inputs, *outputs} == {0}
