"""The rule for one call."""

import keras

from snip_tf.graph.graph import trace
from snip_tf.graph.rules import rule_of


def rule_for(call, shape, tolerance=0.0, **options):
    """Returns the rule for a layer, or a function of `keras.ops`, on such an input."""
    inputs = keras.Input(shape)
    *_, node = trace(keras.Model(inputs, call(inputs))).nodes
    return rule_of(node, tolerance, **options)
