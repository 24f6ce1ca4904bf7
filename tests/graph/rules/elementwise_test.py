import keras
import numpy as np
import pytest

from snip_tf.graph.rules.elementwise import Elementwise
from snip_tf.graph.rules.opaque import Opaque
from tests.graph.rules.one_call import rule_for

layers, ops = keras.layers, keras.ops


@pytest.mark.parametrize(
    ("call", "constant"),
    [
        (layers.ReLU(), 0.0),
        (layers.Rescaling(2.0, offset=1.0), -3.0),
        (layers.Activation("softsign"), -2 / 3),
        (lambda x: ops.leaky_relu(x, 0.5), -1.0),
        (lambda x: ops.relu6(x), 0.0),
        (lambda x: ops.cast(x, "float64"), -2.0),
    ],
)
def test_a_constant_becomes_another(call, constant):
    rule = rule_for(call, (4, 3))
    assert isinstance(rule, Elementwise)
    [constants] = rule.constants([np.array([np.nan, -2.0, np.nan])])
    np.testing.assert_allclose(constants, [np.nan, constant, np.nan], 1e-6)


def test_batch_normalization_of_a_constant():
    layer = layers.BatchNormalization(epsilon=0.0)
    rule = rule_for(layer, (4, 2))
    layer.set_weights(np.array([[3, 3], [1, 1], [5, 5], [4, 4]]))
    [constants] = rule.constants([np.array([9.0, np.nan])])
    np.testing.assert_allclose(constants, [3 * (9 - 5) / 2 + 1, np.nan])


@pytest.mark.parametrize(
    "call",
    [
        layers.Activation("softmax"),
        layers.Activation(lambda x: x[:, ::-1]),
        layers.Rescaling([1.0, 2.0, 3.0]),
        layers.BatchNormalization(axis=1),
        lambda x: ops.add(x, np.array([1.0, 2.0, 3.0], np.float32)),
    ],
)
def test_what_is_not_of_each_number_alone(call):
    assert type(rule_for(call, (4, 3))) is Opaque
