import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.graph.rules import RULES
from snip_tf.graph.rules.opaque import Opaque
from tests.graph.rules.one_call import rule_for
from tests.random_networks import assert_same_outputs, compacted, prune_at_random

layers, ops = keras.layers, keras.ops

VECTOR, SEQUENCE, IMAGE, VOLUME = (6,), (6, 6), (6, 6, 4), (4, 4, 4, 3)


def gated(merge):
    """Combines a tensor with a function of it."""
    return lambda x: merge([x, layers.Dense(x.shape[-1], activation="relu")(x)])


def made_by(function):
    return lambda x: function(x, layers.Dense(x.shape[-1], activation="relu")(x))


def of_image(layer, *settings, **options):
    return IMAGE, lambda x: layer(*settings, **options)(x)


# How a network calls each of the operations that have a rule: on which shape.
CALLS = {
    layers.Dense: (VECTOR, lambda x: layers.Dense(7, activation="tanh")(x)),
    layers.Conv1D: (SEQUENCE, lambda x: layers.Conv1D(7, 3)(x)),
    layers.Conv2D: of_image(layers.Conv2D, 7, 3, padding="same"),
    layers.Conv3D: (VOLUME, lambda x: layers.Conv3D(5, 2)(x)),
    layers.Conv1DTranspose: (SEQUENCE, lambda x: layers.Conv1DTranspose(7, 3)(x)),
    layers.Conv2DTranspose: of_image(layers.Conv2DTranspose, 7, 3, strides=2),
    layers.Conv3DTranspose: (VOLUME, lambda x: layers.Conv3DTranspose(5, 2)(x)),
    layers.SeparableConv1D: (SEQUENCE, lambda x: layers.SeparableConv1D(7, 3)(x)),
    layers.SeparableConv2D: of_image(layers.SeparableConv2D, 7, 3, depth_multiplier=2),
    layers.DepthwiseConv1D: (SEQUENCE, lambda x: layers.DepthwiseConv1D(3)(x)),
    layers.DepthwiseConv2D: of_image(layers.DepthwiseConv2D, 3, depth_multiplier=2),
    layers.SimpleRNN: (SEQUENCE, lambda x: layers.SimpleRNN(7)(x)),
    layers.GRU: (SEQUENCE, lambda x: layers.GRU(7, return_sequences=True)(x)),
    layers.LSTM: (SEQUENCE, lambda x: layers.LSTM(7)(x)),
    layers.Bidirectional: (SEQUENCE, lambda x: layers.Bidirectional(layers.GRU(5))(x)),
    layers.Add: (VECTOR, gated(layers.Add())),
    layers.Multiply: (IMAGE, gated(layers.Multiply())),
    layers.Subtract: (VECTOR, gated(layers.Subtract())),
    layers.Average: (VECTOR, gated(layers.Average())),
    layers.Maximum: (VECTOR, gated(layers.Maximum())),
    layers.Minimum: (VECTOR, gated(layers.Minimum())),
    layers.Concatenate: (SEQUENCE, gated(layers.Concatenate())),
    ops.add: (VECTOR, lambda x: made_by(ops.add)(3 + x)),
    ops.multiply: (VECTOR, lambda x: made_by(ops.multiply)(3 * x)),
    ops.subtract: (VECTOR, lambda x: made_by(ops.subtract)(3 - x)),
    ops.maximum: (VECTOR, made_by(ops.maximum)),
    ops.minimum: (VECTOR, made_by(ops.minimum)),
    layers.Activation: of_image(layers.Activation, "tanh"),
    layers.ReLU: of_image(layers.ReLU),
    layers.LeakyReLU: of_image(layers.LeakyReLU),
    layers.ELU: of_image(layers.ELU),
    layers.BatchNormalization: of_image(layers.BatchNormalization),
    layers.Rescaling: of_image(layers.Rescaling, 2.0, 1.0),
    ops.cast: (VECTOR, lambda x: ops.cast(ops.cast(x, "float64"), "float32")),
    ops.pad: (IMAGE, lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 1], [2, 1]])),
    layers.Identity: of_image(layers.Identity),
    layers.ActivityRegularization: of_image(layers.ActivityRegularization, 0.1),
    layers.Dropout: of_image(layers.Dropout, 0.5),
    layers.SpatialDropout1D: (SEQUENCE, lambda x: layers.SpatialDropout1D(0.5)(x)),
    layers.SpatialDropout2D: of_image(layers.SpatialDropout2D, 0.5),
    layers.SpatialDropout3D: (VOLUME, lambda x: layers.SpatialDropout3D(0.5)(x)),
    layers.AlphaDropout: of_image(layers.AlphaDropout, 0.5),
    layers.GaussianDropout: of_image(layers.GaussianDropout, 0.5),
    layers.GaussianNoise: of_image(layers.GaussianNoise, 0.5),
    layers.RepeatVector: (VECTOR, lambda x: layers.RepeatVector(3)(x)),
    layers.Flatten: of_image(layers.Flatten),
    layers.Reshape: (VECTOR, lambda x: layers.Reshape((2, 6))(x)),
}
ELEMENTWISE = ["relu", "relu6", "sigmoid", "silu", "tanh", "gelu", "elu"]
ELEMENTWISE += ["hard_sigmoid", "hard_silu", "leaky_relu", "softplus"]
for name in ELEMENTWISE:
    CALLS[getattr(ops, name)] = (VECTOR, getattr(ops, name))
for rank, shape in enumerate((SEQUENCE, IMAGE, VOLUME), start=1):
    for name in ("MaxPooling", "AveragePooling", "Cropping", "UpSampling"):
        layer = getattr(layers, f"{name}{rank}D")
        size = 1 if name == "Cropping" else 2
        CALLS[layer] = (shape, lambda x, layer=layer, size=size: layer(size)(x))
    for name in ("GlobalMaxPooling", "GlobalAveragePooling", "ZeroPadding"):
        layer = getattr(layers, f"{name}{rank}D")
        CALLS[layer] = (shape, lambda x, layer=layer: layer()(x))


def name_of(operation):
    return operation.__name__


def test_each_listed_operation_is_called_here():
    # An embedding has a test of its own: its inputs are no features.
    assert {*CALLS, layers.Embedding} == {*RULES}


@pytest.mark.parametrize("operation", CALLS, ids=name_of)
def test_a_network_is_smaller_around_it_and_computes_the_same(operation):
    shape, call = CALLS[operation]
    inputs = keras.Input(shape)
    x = layers.Dense(12, activation="relu", name="before")(inputs)
    outputs = layers.Dense(3, name="after")(call(x))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(1)
    pruned = prune_at_random(model, 0.6, rng)
    dead = np.arange(12) < 5
    pruned.get_layer("before").bias.assign(np.where(dead, 0, rng.normal(size=12)))
    dead_inputs = np.broadcast_to(~dead, (shape[-1], 12))
    pruned = snip_tf.apply_masks(pruned, {"before/kernel": dead_inputs})
    smaller = compacted(pruned)
    assert smaller.get_layer("before").units < 12
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    assert_same_outputs(smaller, pruned, x, 1e-5)


class OwnDense(layers.Dense):
    """May compute anything."""


class Relu(keras.Operation):
    """Has the name of an operation of `keras.ops`."""

    def call(self, x):
        return -x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.LayerNormalization(), VECTOR),
        (OwnDense(3), VECTOR),
        (Relu(), VECTOR),
        (ops.softmax, VECTOR),
        (layers.MaxPooling2D(data_format="channels_first"), IMAGE),
    ],
)
def test_what_cannot_be_analysed(layer, shape):
    assert type(rule_for(layer, shape)) is Opaque


def test_a_layer_whose_weights_are_used_again_stays():
    layer = layers.Dense(3)
    assert type(rule_for(layer, VECTOR)) is not Opaque
    assert type(rule_for(layer, VECTOR, shared=True)) is Opaque


def test_a_layer_with_a_low_rank_update_or_quantized_stays():
    for change in (lambda x: x.enable_lora(2), lambda x: x.quantize("int8")):
        layer = layers.Dense(3)
        layer.build((None, 6))
        change(layer)
        assert type(rule_for(layer, VECTOR)) is Opaque


def test_a_call_in_training_mode_stays():
    inputs = keras.Input(VECTOR)
    dropped = layers.Dropout(0.5)(layers.Dense(9, name="in")(inputs), training=True)
    model = keras.Model(inputs, layers.Dense(2)(dropped))
    pruned = prune_at_random(model, 0.9, np.random.default_rng(0))
    assert compacted(pruned).get_layer("in").units == 9
