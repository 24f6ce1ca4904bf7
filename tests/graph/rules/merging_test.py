import keras
import numpy as np
import pytest

import snip_tf
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
