"""Quantized layers and low-rank updates, and masks."""

import keras
import numpy as np
import pytest

import snip_tf
from tests.masking.networks import (
    X,
    assert_zeros_at_least,
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
