"""What must hold in the life of every kind of model, on every backend."""

import keras
import numpy as np

import snip_tf
from snip_tf.network import Network
from snip_tf.reports.sparsity import weight_rows
from snip_tf.weights import layer_tree
from tests.kinds import EXAMPLES

SPARSITY = 0.6


def values(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def outputs(model, x):
    """Operation by operation, since what a compiler fuses depends on the model."""
    x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
    found = model(x, training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, found)


def assert_same_outputs(one, other, x):
    for model in (one, other):
        restart(model)
    keras.tree.map_structure(
        np.testing.assert_array_equal, outputs(one, x), outputs(other, x)
    )


def pruned_and_left_alone(model, x, y):
    before = values(model.variables)
    pruned = snip_tf.prune_model(model, x, y, sparsity=SPARSITY, batch_size=EXAMPLES)
    np.testing.assert_equal(values(model.variables), before)
    return pruned


def assert_pruned_exactly(pruned, model):
    masks = snip_tf.get_masks(pruned)
    assert list(masks) == list(snip_tf.prunable_weights(pruned))
    assert list(masks) == list(snip_tf.prunable_weights(model))
    total = sum(mask.size for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == round((1 - SPARSITY) * total)


def prunable_values(model):
    weights = snip_tf.prunable_weights(model)
    return dict(zip(weights, values(weights.values()), strict=True))


def assert_zero_where_masked(pruned, masks):
    np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
    for path, value in prunable_values(pruned).items():
        assert not value[~masks[path]].any(), path
    for row in weight_rows(Network(pruned)):
        assert (row.kept, row.total) == (masks[row.path].sum(), masks[row.path].size)


def assert_kept_weights_alone_moved(pruned, masks, start):
    assert_zero_where_masked(pruned, masks)
    for path, value in prunable_values(pruned).items():
        mask = masks[path]
        if mask.any():
            assert (value != start[path])[mask].any(), f"{path} did not move"
        assert np.count_nonzero(value) == mask.sum()


def saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def restart(model):
    """Forgets what layers remember from batch to batch."""
    for layer in layer_tree(model):
        if getattr(layer, "stateful", False):
            layer.reset_states()
