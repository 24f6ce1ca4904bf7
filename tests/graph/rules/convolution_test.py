import keras
import numpy as np
import pytest

import snip_tf
from tests.random_networks import assert_same_outputs, compacted

layers = keras.layers


def one_unit_without_inputs(**convolution):
    """A model whose first convolution has a filter that only its bias moves."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 1, name="first", bias_initializer="ones")(inputs)
    x = layers.Conv2D(4, 3, name="second", **convolution)(layers.ReLU()(x))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    mask = np.ones((1, 1, 2, 3), bool)
    mask[..., 1] = False
    return snip_tf.apply_masks(model, {"first/kernel": mask})


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_constant_unit_is_folded_into_the_next_bias(use_bias):
    model = one_unit_without_inputs(use_bias=use_bias)
    smaller = snip_tf.compact(model)
    assert smaller.get_layer("first").filters == 2
    assert_same_outputs(smaller, model, np.random.rand(2, 6, 6, 2))


def test_a_constant_unit_stays_before_a_padded_convolution():
    model = one_unit_without_inputs(padding="same")
    smaller = compacted(model)
    assert smaller.get_layer("first").filters == 3
    assert_same_outputs(smaller, model, np.random.rand(2, 6, 6, 2))
