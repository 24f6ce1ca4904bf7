import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.masking.compiling import compile_arguments
from snip_tf.weights import layer_tree

X = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
Y = np.arange(12) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_keras_still_keeps_the_arguments_of_compile():
    """Guards the one read of `Model._compile_config`."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert compile_arguments(model) == {}

    def loss(y_true, y_pred):
        return y_pred

    model.compile("adam", loss, loss_weights=[2.0], metrics=["mae"], jit_compile=False)
    arguments = compile_arguments(model)
    assert arguments["loss"] is loss
    assert arguments["loss_weights"] == [2.0]
    assert arguments["metrics"] == ["mae"]
    assert arguments["optimizer"] is model.optimizer
    assert arguments["jit_compile"] is False


class Composite(keras.layers.Layer):
    """A dense layer inside a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(6, activation="tanh", name="inner")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


def composite_model(scope):
    keras.utils.set_random_seed(0)
    with scope:
        layers = [
            Composite(name="composite"),
            keras.layers.Dense(6, activation="tanh", name="dense"),
        ]
    head = keras.layers.Dense(3, name="head")
    model = keras.Sequential([keras.Input((5,)), *layers, head])
    # With TensorFlow, Keras 3.15 cannot trace a layer of a `RematScope`.
    model.compile(keras.optimizers.SGD(0.1), LOSS, run_eagerly=True)
    return model


def test_rematerialized_layers_are_pruned_and_trained_like_others():
    """Guards the use of `Layer._remat_mode`."""
    trained = []
    for scope in (contextlib.nullcontext(), keras.RematScope(mode="full")):
        model = composite_model(scope)
        pruned = snip_tf.prune_model(model, X, Y, sparsity=0.5)
        modes = [layer._remat_mode for layer in layer_tree(pruned)]
        assert modes == [layer._remat_mode for layer in layer_tree(model)]
        before = [weight.numpy() for weight in pruned.trainable_weights]
        pruned.fit(X, Y, epochs=2, shuffle=False, verbose=0)
        after = pruned.trainable_weights
        assert all((a.numpy() != b).any() for a, b in zip(after, before, strict=True))
        trained.append((sum(mode is not None for mode in modes), pruned))
    (plain_modes, plain), (modes, rematerialized) = trained
    assert (plain_modes, modes) == (0, 3)
    np.testing.assert_equal(snip_tf.get_masks(rematerialized), snip_tf.get_masks(plain))
    for one, other in zip(plain.weights, rematerialized.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("remat", [keras.remat, lambda f: tf.recompute_grad(f)])
@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow"])
def test_what_recomputes_by_itself_is_scored_like_other_layers(remat, criterion):
    class Recomputing(Composite):
        def call(self, x):
            return remat(self.dense)(x)

    masks = []
    for layer in (Composite, Recomputing):
        keras.utils.set_random_seed(0)
        inner = layer(name="composite")
        model = keras.Sequential([keras.Input((5,)), inner, keras.layers.Dense(3)])
        pruned = snip_tf.prune_model(
            model, X, Y, sparsity=0.5, loss=LOSS, criterion=criterion
        )
        masks.append(list(snip_tf.get_masks(pruned).values()))
    np.testing.assert_equal(*masks)


def test_what_recomputes_from_before_the_call_is_refused_with_advice():
    class Recomputing(Composite):
        def build(self, shape):
            super().build(shape)
            self.recomputed = keras.remat(self.dense)

        def call(self, x):
            return self.recomputed(x)

    model = keras.Sequential([keras.Input((5,)), Recomputing(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"inner/kernel'.*write keras.remat"):
        snip_tf.prune_model(model, X, Y, sparsity=0.5, loss=LOSS)
