"""A masked layer computes as its layer does with zeros in its weights."""

import inspect

import keras
import numpy as np
import pytest

from snip_tf import (
    MaskedLayer,
    get_masks,
    set_masks,
)
from snip_tf.weights import weights_by_path
from tests.masking.layers import RNG, built, keep_all, random_masks


def mask_layer(layer, masks):
    """A masked clone of a built layer, and a plain clone with zeros in its weights."""
    config = keras.saving.serialize_keras_object(layer)
    inner = keras.saving.deserialize_keras_object(config)
    plain = keras.saving.deserialize_keras_object(config)
    for clone in (inner, plain):
        clone.set_weights(layer.get_weights())
    masked = MaskedLayer(inner, masks)
    weights = weights_by_path(plain)
    for path, mask in masks.items():
        weights[path].assign(weights[path].numpy() * mask)
    return masked, plain


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: keras.layers.Dense(4, activation="relu"), (6,)),
        (lambda: keras.layers.Conv2D(3, 3), (8, 8, 2)),
        (lambda: keras.layers.DepthwiseConv2D(3), (8, 8, 2)),
        (lambda: keras.layers.EinsumDense("abc,cd->abd", (None, 4)), (3, 6)),
        (lambda: keras.layers.LSTM(4), (5, 3)),
        (lambda: keras.layers.Bidirectional(keras.layers.GRU(4)), (5, 3)),
    ],
    ids=["dense", "conv", "depthwise", "einsum", "lstm", "bidirectional"],
)
def test_computes_what_the_layer_does_with_zeros_in_its_weights(make, shape):
    layer = built(make(), *shape)
    masked, plain = mask_layer(layer, random_masks(layer, ("kernel",)))
    x = RNG.normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_array_equal(masked(x), plain(x))


def test_masks_hold_even_where_the_stored_weight_is_not_zero():
    layer = built(keras.layers.Dense(4), 6)
    masks = random_masks(layer)
    masked, plain = mask_layer(layer, masks)
    masked.kernel.assign(layer.kernel)
    x = RNG.normal(size=(2, 6)).astype(np.float32)
    np.testing.assert_array_equal(masked(x), plain(x))


def test_stored_weights_are_zero_from_the_start():
    mask = np.array([[True, False], [False, False], [True, True]])
    masked = MaskedLayer(keras.layers.Dense(2), {"kernel": mask})
    masked(np.ones((1, 3)))
    np.testing.assert_array_equal(masked.kernel.numpy() != 0, mask)


def test_refuses_masks_that_do_not_fit():
    masked = MaskedLayer(built(keras.layers.Dense(2), 3), {"kernel": keep_all(3, 2)})
    with pytest.raises(ValueError, match="Did you mean 'kernel'"):
        set_masks(masked, {"krnel": np.ones((3, 2), bool)})
    with pytest.raises(ValueError, match=r"of shape \(2, 3\)"):
        set_masks(masked, {"kernel": np.ones((2, 3), bool)})
    with pytest.raises(TypeError, match="float64"):
        set_masks(masked, {"kernel": np.full((3, 2), 0.3)})


def test_a_step_to_infinity_leaves_zeros():
    masked = MaskedLayer(built(keras.layers.Dense(1), 3), {"kernel": keep_all(3, 1)})
    set_masks(masked, {"kernel": np.array([[True], [False], [False]])})
    optimizer = keras.optimizers.SGD(1.0)
    gradient = np.array([[-1.0], [np.inf], [np.nan]], np.float32)
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [masked.kernel])
    assert not masked.kernel.numpy()[1:].any()
    assert np.isfinite(masked(np.ones((1, 3)))).all()


def test_changes_of_state_are_kept():
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(4, name="dense")
            self.norm = keras.layers.BatchNormalization(momentum=0.5, name="norm")
            self.drop = keras.layers.Dropout(0.5, name="drop")

        def build(self, shape):
            self.dense.build(shape)
            self.norm.build((None, 4))

        def call(self, x, training=False):
            y = self.norm(self.dense(x), training=training)
            return self.drop(y, training=training)

    block = Block()
    block.build((None, 3))
    masked = MaskedLayer(block, {"dense/kernel": keep_all(3, 4)})
    x = RNG.normal(size=(8, 3)).astype(np.float32)
    first = np.asarray(masked(x, training=True))
    mean = 0.5 * np.asarray(block.dense(x)).mean(axis=0)
    np.testing.assert_allclose(block.norm.moving_mean, mean, rtol=1e-5, atol=1e-6)
    second = np.asarray(masked(x, training=True))
    assert ((first == 0) != (second == 0)).any(), "dropout repeats itself"


def test_losses_of_the_layer_are_handed_on_once():
    dense = keras.layers.Dense(
        4, activity_regularizer=keras.regularizers.L2(0.1), kernel_regularizer="l2"
    )
    masked, plain = mask_layer(built(dense, 3), {"kernel": keep_all(3, 4)})
    x = RNG.normal(size=(8, 3)).astype(np.float32)
    for layer in (masked, plain):
        layer(x)
    assert len(plain.losses) == 2
    np.testing.assert_array_equal(masked.losses, plain.losses)


def test_runs_inside_a_stateless_scope():
    """As under another backend's trainer: values come from the scope, and go there."""
    norm = built(keras.layers.BatchNormalization(momentum=0.5), 3)
    masked = MaskedLayer(norm, {})
    x = RNG.normal(1, size=(8, 3)).astype(np.float32)
    with keras.StatelessScope([(norm.gamma, np.full(3, 2.0))]) as scope:
        outputs = masked(x, training=False)
        masked(x, training=True)
        moved = scope.get_current_value(norm.moving_mean)
    np.testing.assert_allclose(outputs, 2 * x / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_allclose(moved, 0.5 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(norm.moving_mean, 0)
    np.testing.assert_array_equal(norm.gamma, 1)


def test_has_the_signature_of_the_layer():
    attention = keras.layers.MultiHeadAttention(2, 4)
    x = keras.Input((5, 8))
    attention(x, x)
    masked = MaskedLayer(attention, {})
    assert inspect.signature(masked.call) == inspect.signature(attention.call)
    y = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    plain = attention(query=y, value=y, use_causal_mask=True)
    np.testing.assert_array_equal(masked(query=y, value=y, use_causal_mask=True), plain)


def test_passes_keras_masks_through():
    x = np.array([[1, 2, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(x)
    lstm = keras.layers.LSTM(3, return_sequences=True)
    plain = lstm(embedded)
    masked = MaskedLayer(lstm, {})
    outputs = masked(embedded)
    np.testing.assert_array_equal(outputs, plain)
    np.testing.assert_array_equal(outputs._keras_mask, [[True, True, False]])


def test_keeps_a_constraint_of_the_layer():
    dense = built(keras.layers.Dense(4, kernel_constraint="non_neg"), 3)
    masked = MaskedLayer(dense, {"kernel": keep_all(3, 4)})
    masked(np.zeros((1, 3)))
    set_masks(masked, {"kernel": np.eye(3, 4, dtype=bool)})
    value = np.array([[1.0, -1, 1, 1], [1, -1, 1, 1], [1, 1, 1, 1]], np.float32)
    expected = np.eye(3, 4) * np.maximum(value, 0)
    np.testing.assert_array_equal(dense.kernel.constraint(value), expected)


def test_is_the_layer_itself_with_all_its_attributes():
    layer = built(keras.layers.Dense(4, name="head"), 3)
    inside = keras.Sequential([layer])
    masked = MaskedLayer(layer, {"kernel": keep_all(3, 4)})
    assert masked is layer
    assert inside.layers == [masked]
    assert isinstance(masked, MaskedLayer)
    assert isinstance(masked, keras.layers.Dense)
    assert (masked.units, masked.kernel.shape) == (4, (3, 4))


def test_masks_are_no_weights():
    layer = built(keras.layers.Dense(4), 3)
    before = layer.get_weights()
    masked = MaskedLayer(layer, random_masks(layer))
    assert masked.count_params() == 16
    assert [w.name for w in masked.weights] == ["kernel", "bias"]
    assert [v.name for v in masked.variables] == ["kernel", "bias", "kernel_mask"]
    masked.set_weights(before)
    x = np.ones((1, 3), np.float32)
    expected = x @ np.where(get_masks(masked)["kernel"], before[0], 0)
    np.testing.assert_allclose(masked(x), expected, rtol=1e-6)


def test_refuses_what_it_cannot_wrap():
    with pytest.raises(TypeError, match="Received: 'dense' of type str"):
        MaskedLayer("dense", {})
    masked = MaskedLayer(built(keras.layers.Dense(4), 3), {"kernel": keep_all(3, 4)})
    with pytest.raises(ValueError, match="MaskedLayer already"):
        MaskedLayer(masked, {"kernel": keep_all(3, 4)})


def test_half_precision_computes_in_half_and_stores_in_full():
    layer = built(keras.layers.Dense(4, dtype="mixed_bfloat16"), 3)
    masked, plain = mask_layer(layer, random_masks(layer))
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    assert keras.backend.standardize_dtype(masked(x).dtype) == "bfloat16"
    np.testing.assert_array_equal(masked(x), plain(x))
    assert masked.kernel.dtype == "float32"
    assert masked.compute_output_spec(keras.KerasTensor((2, 3))).dtype == "bfloat16"


def test_a_low_rank_update_of_a_users_class_is_refused_with_advice():
    class Own(keras.layers.Dense):
        def enable_lora(self, rank):
            raise AssertionError("not called")

    masked = MaskedLayer(built(Own(2), 3), {"kernel": keep_all(3, 2)})
    with pytest.raises(ValueError, match=r"LoRA.*layer='own.*strip_pruning"):
        masked.enable_lora(2)
    flatten = keras.layers.Flatten()
    assert not hasattr(MaskedLayer(flatten, {}), "enable_lora")


def test_invalid_masks_are_refused_before_anything_changes():
    layer = built(keras.layers.Dense(2), 3)
    for masks in ([], None, [("kernel", keep_all(3, 2))]):
        with pytest.raises(TypeError, match="Expected `masks` to be a dict"):
            MaskedLayer(layer, masks)
        assert type(layer) is keras.layers.Dense
