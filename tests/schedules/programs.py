"""A small network, data, and callbacks that record, for the tests of schedules."""

import keras
import numpy as np

import snip_tf

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 12)).astype(np.float32)
Y = RNG.integers(4, size=128)


def network(optimizer="adam", **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(32, "relu", name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(16, "relu", name="second"),
            layers.Dense(4, name="out"),
        ]
    )
    model.compile(optimizer, LOSS, **options)
    return model


def dense(optimizer="adam", **options):
    """Returns the network with masks that keep everything."""
    return snip_tf.prune_model(
        network(optimizer, **options), sparsity=0.0, criterion="magnitude"
    )


def sparse(optimizer="adam", sparsity=0.75, **options):
    """Returns the network with random masks."""
    return snip_tf.prune_model(
        network(optimizer, **options), sparsity=sparsity, criterion="random", seed=0
    )


def fit(model, *callbacks, epochs=2, **options):
    """Trains for eight steps an epoch, in a fixed order."""
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)


def weights_of(model):
    return {
        path: keras.ops.convert_to_numpy(weight)
        for path, weight in snip_tf.prunable_weights(model).items()
    }


class Recorder(keras.callbacks.Callback):
    """Records masks and weights after each execution of steps."""

    def __init__(self):
        super().__init__()
        self.masks, self.weights = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.masks.append(snip_tf.get_masks(self.model))  # brings JAX up to date
        self.weights.append(weights_of(self.model))

    def sparsities(self):
        return [
            1
            - sum(m.sum() for m in masks.values()) / sum(m.size for m in masks.values())
            for masks in self.masks
        ]
