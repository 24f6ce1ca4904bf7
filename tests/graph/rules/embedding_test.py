import keras
import numpy as np

import snip_tf
from tests.random_networks import assert_same_outputs

layers = keras.layers


def test_unused_and_constant_columns_are_removed():
    table = layers.Embedding(9, 6, name="table")
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), table, layers.Dense(2, name="out")]
    )
    values = np.random.normal(size=(9, 6))
    values[:, 0] = 3.0
    table.set_weights([values])
    reads = np.ones((6, 2), bool)
    reads[1] = False
    pruned = snip_tf.apply_masks(model, {"out/kernel": reads})
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer("table").output_dim == 4
    assert_same_outputs(smaller, pruned, np.random.randint(9, size=(3, 5)))
