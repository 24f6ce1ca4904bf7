"""A model that is pruned is left as it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_leaves_the_model_as_it_was():
    layers = keras.layers.Dense(16, "relu"), keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(4)])
    data = np.random.default_rng(0).normal(size=(32, 8)), np.arange(32) % 4
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(*data, verbose=0)

    def state():
        variables = [*model.variables, *model.optimizer.variables]
        return [v.numpy() for v in variables + model.metrics_variables]

    before = state()
    snip_tf.prune_model(model, *data, sparsity=0.5, training=True)
    for old, new in zip(before, state(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.compiled
    assert model.train_function is not None


class Counting(keras.layers.Layer):
    """Keeps state of TensorFlow's own, as a variable, in a module and in a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = tf.Variable(0.0, trainable=False)
        self.module = tf.Module()
        self.module.scales = {"first": tf.Variable([1.0, 1.0], trainable=False)}
        self.generator = tf.random.Generator.from_seed(1)

    def call(self, x):
        self.calls.assign_add(1.0)
        self.module.scales["first"].assign_add([0.5, 0.5])
        return x * self.module.scales["first"] + 0 * self.generator.normal(())

    def state(self):
        scale = self.module.scales["first"]
        return [self.calls.numpy(), scale.numpy(), self.generator.state.numpy()]


def test_state_of_tensorflow_is_copied_and_left_as_it_is():
    layer = Counting(name="counting")
    model = keras.Sequential([keras.Input((2,)), layer, keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 2), np.float32), np.ones((8, 3), np.float32)
    before = layer.state()
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.5, training=True)
    snip_tf.connection_sensitivity(model, x, y)
    pruned.fit(x, y, verbose=0)
    np.testing.assert_equal(layer.state(), before)
    own = pruned.get_layer("counting")
    assert all(
        (np.array(a) != b).any() for a, b in zip(own.state(), before, strict=True)
    )


class Spy(keras.layers.Layer):
    """Looks at layers of the original while it, or a copy of it, is called."""

    live, seen = (), set()

    def call(self, x):
        Spy.seen.update(layer.dtype_policy.name for layer in Spy.live)
        Spy.seen.update(x.offset for x in Spy.live if hasattr(x, "offset"))
        return x


@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow"])
def test_nobody_sees_a_model_change_while_it_is_scored(criterion):
    """Half precision is scored in float32, SynFlow in float64: in a copy."""
    keras.utils.set_random_seed(0)
    mixed = {"dtype": "mixed_bfloat16"}
    shift = keras.layers.Rescaling(0.5, offset=1.0, **mixed)
    parts = [shift, Spy(**mixed), keras.layers.Dense(3, **mixed)]
    model = keras.Sequential([keras.Input((2,)), *parts])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 2), np.float32), np.ones((8, 3), np.float32)
    Spy.live, Spy.seen = tuple(parts), set()
    snip_tf.prune_model(model, x, y, sparsity=0.5, criterion=criterion)
    assert Spy.seen == {"mixed_bfloat16", 1.0}


def test_a_model_that_is_not_built_is_built_and_no_more():
    class Counts(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(4)
            self.norm = keras.layers.BatchNormalization()
            self.drop = keras.layers.Dropout(0.5, seed=1)
            self.out = keras.layers.Dense(3)
            self.calls = tf.Variable(0.0, trainable=False)
            self.count = self.add_weight((), "zeros", name="count", trainable=False)

        def call(self, x, training=False):
            self.calls.assign_add(1.0)
            self.count.assign_add(1.0)
            return self.out(
                self.drop(self.norm(self.hidden(x["a"])), training=training)
            )

    x, y = {"a": np.ones((8, 2), np.float32)}, np.ones((8, 3), np.float32)
    model = Counts()
    model.compile("sgd", "mse")
    seed = model.drop.seed_generator.state.numpy()
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.5, training=True)
    assert model.built
    assert len(snip_tf.get_masks(pruned)) == 2
    assert (model.calls.numpy(), float(model.count)) == (0, 0)
    np.testing.assert_array_equal(model.norm.moving_mean, 0)
    np.testing.assert_array_equal(model.drop.seed_generator.state, seed)
