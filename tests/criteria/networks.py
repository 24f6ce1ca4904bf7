"""Small networks that the tests of criteria share, with data."""

import keras
import numpy as np

import snip_tf

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense(*units, name="dense"):
    hidden = [layers.Dense(n, "relu") for n in units[1:-1]]
    stack = [keras.Input(units[:1]), *hidden, layers.Dense(units[-1])]
    return keras.Sequential(stack, name=name)


def data(features=12, classes=4):
    x = np.random.default_rng(0).normal(size=(32, features)).astype(np.float32)
    return x, np.arange(32) % classes


def bits(model):
    return np.concatenate([m.ravel() for m in snip_tf.get_masks(model).values()])


RECURRENT = {
    "lstm": lambda: [keras.Input((None, 6)), layers.LSTM(8), layers.Dense(4)],
    "gru": lambda: [keras.Input((5, 6)), layers.GRU(8), layers.Dense(4)],
    "both ways": lambda: [
        keras.Input((5, 6)),
        layers.Bidirectional(layers.SimpleRNN(8, activation="relu")),
        layers.Dense(4),
    ],
}


def attention():
    inputs = keras.Input((5, 6))
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(inputs, inputs))
    x = layers.GlobalAveragePooling1D()(layers.Add()([x, inputs]))
    return keras.Model(inputs, layers.Dense(4)(x))
