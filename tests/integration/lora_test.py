"""GPT-2 of KerasHub, pruned, tuned with LoRA, saved, loaded, and merged."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.masking.low_rank import update_of
from snip_tf.weights import layer_tree, weights_by_path
from tests.network_kinds import HAS_KERAS_HUB

pytestmark = pytest.mark.skipif(not HAS_KERAS_HUB, reason="without KerasHub")
TEXT = b"The quick brown fox jumps over the lazy dog. " * 40
LENGTH = 24


def examples():
    tokens = np.frombuffer(TEXT, np.uint8).astype("int32")
    rows = np.arange(0, len(tokens) - LENGTH - 1, 7)[:, None] + np.arange(LENGTH + 1)
    batch = tokens[rows]
    x = {"token_ids": batch[:, :-1], "padding_mask": np.ones_like(batch[:, 1:])}
    return x, batch[:, 1:]


def gpt2(num_layers, hidden_dim):
    import keras_hub

    keras.utils.set_random_seed(0)
    return keras_hub.models.GPT2Backbone(
        vocabulary_size=256,
        num_layers=num_layers,
        num_heads=2,
        hidden_dim=hidden_dim,
        intermediate_dim=2 * hidden_dim,
        max_sequence_length=LENGTH,
        dropout=0.0,
    )


@pytest.fixture(scope="module")
def tuned():
    """The pruned model, after LoRA was trained, and the losses."""
    backbone = gpt2(num_layers=2, hidden_dim=16)
    logits = keras.layers.Dense(256, name="logits")(backbone.output)
    model = keras.Model(backbone.input, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    x, y = examples()
    model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.9, min_kept=1)
    for layer in layer_tree(pruned):
        if isinstance(layer, keras.layers.EinsumDense):
            layer.enable_lora(4)
    pruned.compile(keras.optimizers.Adam(1e-2), loss)
    before = pruned.evaluate(x, y, verbose=0)
    pruned.fit(x, y, batch_size=32, epochs=4, verbose=0)
    return pruned, before, pruned.evaluate(x, y, verbose=0)


def array(value):
    return keras.ops.convert_to_numpy(value)


def test_the_loss_falls(tuned):
    pruned, before, after = tuned
    assert sum(update_of(layer) is not None for layer in layer_tree(pruned)) == 8
    assert after < 0.8 * before


def test_merged_it_has_exactly_the_zeros_of_the_masks(tuned):
    pruned, *_ = tuned
    masks = snip_tf.get_masks(pruned)
    plain = snip_tf.strip_pruning(pruned)
    assert not any(map(update_of, layer_tree(plain)))
    weights = snip_tf.prunable_weights(plain)
    assert weights.keys() == masks.keys()
    for path, mask in masks.items():
        value = array(weights[path])
        assert not value[~mask].any()
        assert (value[mask] != 0).all()
    assert snip_tf.sparsity(pruned) == pytest.approx(0.9, abs=1e-4)
    x, _ = examples()
    np.testing.assert_allclose(array(plain(x)), array(pruned(x)), atol=1e-4)


def test_loaded_it_is_equal_and_goes_on(tuned, tmp_path):
    pruned, *_ = tuned
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    x, y = examples()
    np.testing.assert_array_equal(array(loaded(x)), array(pruned(x)))
    for model in (loaded, pruned):
        model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    for one, other in zip(loaded.get_weights(), pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_as_kerashub_enables_it(tmp_path):
    """On a backbone inside of a model, whose other layers it freezes."""
    backbone = gpt2(num_layers=1, hidden_dim=8)
    inputs = {
        name: keras.Input((LENGTH,), dtype="int32")
        for name in ("token_ids", "padding_mask")
    }
    logits = keras.layers.Dense(256, name="logits")(backbone(inputs))
    model = keras.Model(inputs, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    x, y = examples()
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.9)
    pruned.get_layer(backbone.name).enable_lora(4)
    pruned.compile("adam", loss)
    pruned.fit(x, y, verbose=0)
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert len(loaded.trainable_variables) == len(pruned.trainable_variables)
    for model in (loaded, pruned):
        model.fit(x, y, shuffle=False, verbose=0)
    for one, other in zip(loaded.get_weights(), pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = snip_tf.strip_pruning(pruned)
    assert not any(map(update_of, layer_tree(plain)))
    weights = weights_by_path(plain)
    for path, mask in snip_tf.get_masks(pruned).items():
        assert not array(weights[path])[~mask].any()
