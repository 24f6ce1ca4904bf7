"""Quantized layers and low-rank updates, and masks."""

import keras
import numpy as np
import pytest

import snip_tf
from tests.masking.networks import (
    X,
    assert_zeros_at_least,
    network,
    pruned_network,
    random_masks,
)
from tests.versions import since

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    "mode", ["int8", pytest.param("int4", marks=since("3.11")), "float8"]
)
def test_quantizing_keeps_zeros(mode):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", name="a"),
            layers.Dense(4, name="b"),
        ]
    )
    masks = random_masks(model)
    pruned = snip_tf.apply_masks(model, masks)
    expected = np.asarray(pruned(X[:, 0]))
    pruned.quantize(mode)
    assert {layer.quantization_mode for layer in pruned.layers} == {mode}
    np.testing.assert_allclose(pruned(X[:, 0]), expected, atol=0.3)
    if mode == "float8":  # which goes on training
        pruned.compile("adam", LOSS)
        pruned.fit(X[:, 0], np.arange(16) % 4, epochs=2, verbose=0)
        np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
        assert_zeros_at_least(pruned, masks)
        return
    for layer in pruned.layers:
        # Of the identity, a layer gives its kernel.
        inputs = np.eye(masks[f"{layer.name}/kernel"].shape[0], dtype=np.float32)
        kernel = np.asarray(layer(inputs)) - np.asarray(layer.bias)
        kernel = np.where(kernel > 0, kernel, 0) if layer.name == "a" else kernel
        assert not kernel[~masks[f"{layer.name}/kernel"]].any()


def test_other_ways_to_quantize_are_refused_with_advice():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="out")])
    pruned = snip_tf.apply_masks(model, random_masks(model))
    with pytest.raises(ValueError, match=r"int8.*'out'.*strip_pruning"):
        pruned.layers[0].quantize("nf4")
    assert snip_tf.get_masks(pruned)


def test_masks_of_low_rank_factors_are_refused():
    layer = layers.Dense(4, name="out")
    model = keras.Sequential([keras.Input((8,)), layer])
    layer.enable_lora(2)
    factor = np.ones((2, 4), bool)
    with pytest.raises(ValueError, match=r"out/lora_kernel_b.*masks would be lost"):
        snip_tf.apply_masks(model, {"out/lora_kernel_b": factor})
    with pytest.raises(ValueError, match="lora_kernel_b"):
        snip_tf.MaskedLayer(layer, {"lora_kernel_b": factor})
    with pytest.raises(ValueError, match="out/lora_kernel_a, out/lora_kernel_b"):
        snip_tf.prune_model(
            model, sparsity=0.5, criterion="magnitude", include="*/lora_*"
        )


def test_a_kernel_with_a_low_rank_update_is_refused(tmp_path):
    """Its bias is saved as it is."""
    layer = layers.Dense(4, name="out")
    model = keras.Sequential([keras.Input((8,)), layer])
    layer.enable_lora(2)
    with pytest.raises(ValueError, match=r"of out/kernel, part of a low-rank update"):
        snip_tf.apply_masks(model, {"out/kernel": np.ones((8, 4), bool)})
    with pytest.raises(ValueError, match=r"of kernel, part of a low-rank update"):
        snip_tf.MaskedLayer(layer, {"kernel": np.ones((8, 4), bool)})
    mask = np.array([True, False, True, False])
    pruned = snip_tf.apply_masks(model, {"out/bias": mask})
    pruned.compile("adam", LOSS)
    pruned.fit(X[:, 0], np.arange(16) % 4, verbose=0)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_equal(snip_tf.get_masks(loaded), {"out/bias": mask})
    np.testing.assert_allclose(loaded(X[:, 0]), pruned(X[:, 0]), atol=1e-6)


def test_a_low_rank_update_inside_a_masked_layer_is_refused():
    """As code that adapts the layers of an attention one by one asks for it."""
    pruned, plain = pruned_network(), network()
    for model in (pruned, plain):
        attention = model.get_layer("attention")
        parts = [attention.query_dense, attention.value_dense]
        parts += [model.get_layer("block")._first]
        for part in parts:
            if model is plain:
                part.enable_lora(2)
                continue
            with pytest.raises(ValueError, match=r"LoRA.*strip_pruning"):
                part.enable_lora(2)
    assert len(snip_tf.strip_pruning(pruned).weights) == len(pruned.weights)
