import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.graph.rules.opaque import Opaque
from tests.graph.rules.one_call import rule_for
from tests.random_networks import (
    Words,
    assert_same_outputs,
    attention_over_padding,
    compacted,
)

layers = keras.layers


def test_a_branch_that_only_adds_zeros_goes():
    inputs = keras.Input((4,))
    x = layers.Dense(5, name="stem")(inputs)
    branch = layers.Dense(5, name="out")(layers.Dense(7, name="in")(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()([x, branch])))
    pruned = snip_tf.apply_masks(model, {"out/kernel": np.zeros((7, 5), bool)})
    smaller = snip_tf.compact(pruned)
    assert [layer.name for layer in smaller.layers][1:2] == ["stem"]
    assert not {"in", "out"} & {layer.name for layer in smaller.layers}
    assert_same_outputs(smaller, pruned, np.random.rand(3, 4))


@pytest.mark.parametrize("words", [None, Words])
def test_an_attention_sees_no_padding_afterwards(words):
    pruned, ids = attention_over_padding(words)
    assert_same_outputs(compacted(pruned), pruned, ids)


def test_a_loss_counts_no_padding_afterwards():
    inputs = keras.Input((5,), dtype="int32")
    table = layers.Embedding(20, 6, mask_zero=True)(inputs)
    few = layers.Dense(8, activation="relu", name="few")(table)
    joined = layers.Concatenate()([layers.Dense(3, name="dead")(few), table])
    summed = layers.Add()([few, layers.Dense(8, name="zeros", use_bias=False)(joined)])
    whole = layers.Dense(2)(layers.LayerNormalization()(table))
    model = keras.Model(inputs, [layers.Dense(2)(summed), whole])
    model.compile("sgd", ["mse", "mse"])
    reads = np.zeros((6, 8), bool)
    reads[:2, :5] = True
    nothing = {
        "dead/kernel": np.zeros((8, 3)) > 0,
        "zeros/kernel": np.zeros((9, 8)) > 0,
    }
    pruned = snip_tf.apply_masks(model, {"few/kernel": reads, **nothing})
    ids = np.array([[3, 4, 5, 0, 0], [1, 2, 0, 0, 0]], np.int32)
    y = [np.ones((2, 5, 2)), np.ones((2, 5, 2))]
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    np.testing.assert_allclose(
        smaller.evaluate(ids, y, verbose=0), pruned.evaluate(ids, y, verbose=0), 1e-6
    )


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        (layers.Add(), [np.nan, 3, np.nan]),
        (layers.Multiply(), [0, 2, np.nan]),
        (layers.Average(), [np.nan, 1.5, np.nan]),
        (layers.Subtract(), [np.nan, -1, np.nan]),
    ],
)
def test_constants(merge, expected):
    rule = rule_for(lambda x: merge([x, x]), (3,))
    first, second = np.array([np.nan, 1.0, np.nan]), np.array([0.0, 2.0, 5.0])
    np.testing.assert_array_equal(rule.constants([first, second]), [expected])


def test_a_summand_without_the_shape_of_the_sum_does_not_stand_alone():
    kept, [zeros, unknown] = np.ones(3, bool), [np.zeros(3), np.full(3, np.nan)]

    def needed(constants, shape):
        small = layers.GlobalMaxPooling1D(keepdims=True)
        rule = rule_for(lambda x: layers.Add()([x, small(x)]), shape)
        return [need.any() for need in rule.needed([kept], constants)]

    assert needed([unknown, zeros], (4, 3)) == [True, False]
    assert needed([zeros, unknown], (4, 3)) == [True, True]
    assert needed([zeros, unknown], (1, 3)) == [False, True]


def test_all_parts_of_a_concatenation_with_a_mask_are_needed():
    join = layers.Concatenate()
    kept, unknown = np.array([True, False, False, False]), [np.full(2, np.nan)] * 2
    for masked, second in ((False, False), (True, True)):
        rule = rule_for(lambda x: join([x, x]), (4, 2), hidden_masks=masked)
        assert [need.any() for need in rule.needed([kept], unknown)] == [True, second]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: layers.Concatenate(axis=1)([x, x]),
        lambda x: layers.Add()([x, layers.Dense(1)(x)]),
        lambda x: layers.Dot(-1)([x, x]),
    ],
)
def test_what_is_not_of_the_same_features(call):
    assert type(rule_for(call, (3, 2))) is Opaque
