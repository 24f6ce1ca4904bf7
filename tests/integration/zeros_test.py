"""Pruned weights are exactly zero after any training, and in any checkpoint."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.weights import weights_by_path

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "ema": lambda: keras.optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3
    ),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.1),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "ftrl": lambda: keras.optimizers.Ftrl(0.1),
    # Mixes the entries of a matrix, so that masked gradients alone would not do.
    "muon": lambda: keras.optimizers.Muon(0.01),
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 8, 8, 1)).astype(np.float32), rng.integers(4, size=64)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(
                4,
                3,
                kernel_regularizer=keras.regularizers.L1L2(0.01, 0.01),
                name="conv",
            ),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(16, kernel_constraint="max_norm", name="hidden"),
            keras.layers.Dense(4, name="head"),
        ]
    )


def assert_zeros(model, masks):
    weights = weights_by_path(model)
    for path, mask in masks.items():
        value = weights[path].numpy()
        np.testing.assert_array_equal(value[~mask], 0, err_msg=path)
        assert value[mask].any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_after_training(model, data, optimizer):
    pruned = snip_tf.prune_model(model, *data, sparsity=0.9, loss=LOSS)
    masks = snip_tf.get_masks(pruned)
    before = {path: w.numpy() for path, w in weights_by_path(pruned).items()}
    pruned.compile(OPTIMIZERS[optimizer](), LOSS)
    pruned.fit(*data, epochs=3, batch_size=16, verbose=0)
    assert_zeros(pruned, masks)
    assert_zeros(snip_tf.strip_pruning(pruned), masks)
    for path, mask in masks.items():
        after = weights_by_path(pruned)[path].numpy()
        assert (after[mask] != before[path][mask]).any(), f"{path} was not trained"
    np.testing.assert_equal(snip_tf.get_masks(pruned), masks)


def test_after_a_custom_loop(model, data):
    pruned = snip_tf.prune_model(model, *data, sparsity=0.9, loss=LOSS)
    masks = snip_tf.get_masks(pruned)
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = LOSS(data[1], pruned(data[0], training=True)) + sum(pruned.losses)
        gradients = tape.gradient(loss, pruned.trainable_variables)
        optimizer.apply(gradients, pruned.trainable_variables)
    assert_zeros(pruned, masks)


def test_in_a_checkpoint_written_in_the_middle_of_an_epoch(model, data, tmp_path):
    pruned = snip_tf.prune_model(model, *data, sparsity=0.9, loss=LOSS)
    masks = snip_tf.get_masks(pruned)
    pruned.compile(OPTIMIZERS["muon"](), LOSS)
    path = str(tmp_path / "at-{batch}.keras")
    saves = keras.callbacks.ModelCheckpoint(path, save_freq=3)
    pruned.fit(*data, batch_size=8, verbose=0, callbacks=[saves])
    found = sorted(file.name for file in tmp_path.iterdir())
    assert found == ["at-3.keras", "at-6.keras"]
    for name in found:
        saved = keras.models.load_model(tmp_path / name)
        assert_zeros(saved, masks)
        assert int(saved.optimizer.iterations) in (3, 6)
