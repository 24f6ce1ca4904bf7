"""What the kinds of models have in common: their data, loss and register."""

import keras
import numpy as np

layers = keras.layers

# As many examples as a batch has, so that every way of training sees the same batch.
EXAMPLES = 8
KINDS = {}


def kind(title, kinds=KINDS):
    """Registers a function that makes a model, under a title for people."""

    def register(make):
        kinds[title] = make
        return make

    return register


def normal(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(EXAMPLES, *shape)).astype(np.float32)


def labels(classes=3):
    return np.arange(EXAMPLES) % classes


def classifier(*hidden, shape):
    """A Sequential model that ends in three logits; compiled, with its data."""
    model = keras.Sequential([keras.Input(shape), *hidden, layers.Dense(3)])
    return compiled(model), normal(*shape), labels()


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(0.01, weight_decay=0.01)
    model.compile(optimizer, **{"loss": loss, **options})
    return model


def activity_is_a_mean():
    """Whether Keras divides activity penalties by the examples, as from 3.14 on."""
    penalty = keras.regularizers.L1(1.0)
    layer = keras.layers.Identity(activity_regularizer=penalty)
    layer(np.ones((2, 1), np.float32))
    return float(layer.losses[0]) == 1
