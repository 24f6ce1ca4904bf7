"""Whole networks of keras.applications; `network_kinds.py` has the first part of each.

Operation by operation: a step is sooner done than traced.
"""

import keras
import numpy as np
import pytest

import snip_tf
from tests.network_kinds import APPLICATIONS, IMAGE
from tests.random_networks import assert_same_outputs, compacted

# Of these networks, most connections go, and all of some weights.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Pruning kept nothing", "ignore:.*have a score of zero"
)
IMAGES = np.random.default_rng(0).normal(size=(4, *IMAGE)).astype(np.float32)


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV3Small",
        *(pytest.param(n, marks=pytest.mark.slow) for n in list(APPLICATIONS)[1:]),
    ],
)
def test_lives(name, tmp_path):
    keras.utils.set_random_seed(0)
    make_network = getattr(keras.applications, name)
    model = make_network(input_shape=IMAGE, weights=None, classes=5)
    x, y = IMAGES, np.arange(4)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=True)
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.9, batch_size=4)
    assert isinstance(pruned, type(model))
    assert [layer.name for layer in pruned.layers] == [
        layer.name for layer in model.layers
    ]
    masks = snip_tf.get_masks(pruned)
    assert list(masks) == list(snip_tf.prunable_weights(model))
    before = pruned.get_weights()
    pruned.train_on_batch(x, y)
    moved = [
        (old != new).any()
        for old, new in zip(before, pruned.get_weights(), strict=True)
    ]
    assert np.mean(moved) > 0.5
    for path, weight in snip_tf.prunable_weights(pruned).items():
        assert not weight.numpy()[~masks[path]].any(), path

    expected = np.asarray(pruned(x))
    stripped = snip_tf.strip_pruning(pruned)
    assert type(stripped) is type(model)
    np.testing.assert_equal(np.asarray(stripped(x)), expected)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(pruned)
    np.testing.assert_equal(snip_tf.get_masks(loaded), masks)
    np.testing.assert_equal(np.asarray(loaded(x)), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetV2B0"]
)
def test_is_compacted_and_loses_units(name, record_property):
    keras.utils.set_random_seed(0)
    make_network = getattr(keras.applications, name)
    model = make_network(
        input_shape=IMAGE, weights=None, classes=5, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith(("beta", "moving_mean")):
            weight.assign(rng.normal(scale=0.1, size=weight.shape))
    x, y = IMAGES, np.arange(4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    half = {"sparsity": 0.5, "structure": snip_tf.Units(cost="multiply_adds")}
    for asked in ({"sparsity": 0.9}, half):
        pruned = snip_tf.prune_model(model, x, y, batch_size=4, loss=loss, **asked)
        smaller = compacted(pruned)
        saved = 1 - smaller.count_params() / model.count_params()
        print(f"{name}, {asked}: {saved:.1%} of the parameters go")
        record_property(f"saved at {asked}", saved)
        assert_same_outputs(smaller, pruned, x, tolerance=3e-6)
        if asked is half:
            totals = snip_tf.report(pruned).totals()
            left = totals["compacted_multiply_adds"] / totals["multiply_adds"]
            assert 0.45 < left <= 0.5
        else:
            assert saved >= 0
