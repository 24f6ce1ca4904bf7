"""Models of the layers that Keras has."""

import keras
import numpy as np

from tests.kinds.making import EXAMPLES, classifier, compiled, kind, labels, normal

layers = keras.layers
ops = keras.ops


@kind("Sequential, Dense")
def dense():
    return classifier(layers.Dense(6, activation="tanh"), shape=(5,))


@kind("Functional: dict inputs, two outputs, loss weights")
def dict_inputs():
    a, b = keras.Input((5,), name="a"), keras.Input((4,), name="b")
    both = layers.Concatenate()([layers.Dense(6)(a), layers.Dense(6)(b)])
    outputs = {"y": layers.Dense(3, name="y")(both), "z": layers.Dense(2)(both)}
    model = keras.Model({"a": a, "b": b}, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = compiled(
        model, loss={"y": loss, "z": "mse"}, loss_weights={"y": 1.0, "z": 0.5}
    )
    x = {"a": normal(5), "b": normal(4, seed=1)}
    return model, x, {"y": labels(), "z": normal(2, seed=2)}


@kind("models nested in models")
def nested():
    innermost = keras.Sequential(
        [keras.Input((5,)), layers.Dense(5, name="fc")], name="innermost"
    )
    x = keras.Input((5,))
    inner = keras.Model(x, layers.Dense(4, name="fc")(innermost(x)), name="inner")
    return classifier(inner, shape=(5,))


@kind("a shared layer and a shared inner model")
def shared():
    layer = layers.Dense(5, activation="tanh", name="shared")
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(5)], name="inner")
    x = keras.Input((5,))
    y = inner(layer(inner(layer(x))))
    model = keras.Model(x, layers.Dense(3)(y))
    return compiled(model), normal(5), labels()


@kind("operations (`keras.ops`) in the graph")
def operations():
    x = keras.Input((5,))
    y = ops.concatenate([ops.tanh(layers.Dense(4)(x)), x * 2.0], axis=-1)
    model = keras.Model(x, layers.Dense(3)(y))
    return compiled(model), normal(5), labels()


@kind("Masking, Embedding(mask_zero), LSTM")
def masking():
    tokens = np.random.default_rng(0).integers(0, 9, (EXAMPLES, 4))
    x = keras.Input((4,), dtype="int32")
    y = layers.Masking()(layers.Embedding(9, 5, mask_zero=True)(x))
    model = keras.Model(x, layers.Dense(3)(layers.LSTM(4)(y)))
    return compiled(model), tokens, labels()


@kind("EinsumDense")
def einsum_dense():
    layer = layers.EinsumDense("abc,cd->abd", (3, 4), bias_axes="d")
    return classifier(layer, layers.Flatten(), shape=(3, 5))


@kind("Conv1D, Conv1DTranspose")
def conv1d():
    hidden = layers.Conv1D(4, 3), layers.Conv1DTranspose(4, 3), layers.Flatten()
    return classifier(*hidden, shape=(6, 2))


@kind("Conv2D, BatchNormalization, Dropout")
def conv2d():
    hidden = (
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.Activation("tanh"),
        layers.Dropout(0.2),
        layers.Flatten(),
    )
    return classifier(*hidden, shape=(6, 6, 2))


@kind("Conv2DTranspose")
def conv2d_transpose():
    return classifier(layers.Conv2DTranspose(4, 3), layers.Flatten(), shape=(3, 3, 2))


@kind("Conv3D, Conv3DTranspose")
def conv3d():
    hidden = layers.Conv3D(3, 2), layers.Conv3DTranspose(2, 2), layers.Flatten()
    return classifier(*hidden, shape=(3, 3, 3, 2))


@kind("DepthwiseConv2D, SeparableConv2D")
def depthwise():
    hidden = (
        layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(4, 3),
        layers.Flatten(),
    )
    return classifier(*hidden, shape=(6, 6, 2))


@kind("SimpleRNN")
def simple_rnn():
    return classifier(layers.SimpleRNN(4), shape=(4, 3))


@kind("LSTM, recurrent dropout")
def lstm():
    return classifier(layers.LSTM(4, recurrent_dropout=0.2), shape=(4, 3))


@kind("GRU(reset_after=True)")
def gru():
    return classifier(layers.GRU(4), shape=(4, 3))


@kind("GRU(reset_after=False)")
def gru_reset_before():
    return classifier(layers.GRU(4, reset_after=False), shape=(4, 3))


@kind("LSTM(stateful=True)")
def stateful():
    inputs = keras.Input(batch_shape=(EXAMPLES, 4, 3))
    model = keras.Sequential([inputs, layers.LSTM(4, stateful=True), layers.Dense(3)])
    return compiled(model), normal(4, 3), labels()


@kind("ConvLSTM2D")
def conv_lstm():
    hidden = layers.ConvLSTM2D(2, 2), layers.Flatten()
    return classifier(*hidden, shape=(2, 4, 4, 2))


@kind("Bidirectional")
def bidirectional():
    return classifier(layers.Bidirectional(layers.LSTM(3)), shape=(4, 3))


@kind("TimeDistributed")
def time_distributed():
    hidden = layers.TimeDistributed(layers.Dense(4)), layers.Flatten()
    return classifier(*hidden, shape=(4, 3))


@kind("StackedRNNCells")
def stacked_cells():
    cells = [layers.LSTMCell(4), layers.GRUCell(3)]
    return classifier(layers.RNN(cells), shape=(4, 3))


@kind("MultiHeadAttention, GroupedQueryAttention")
def attention():
    x = keras.Input((4, 6))
    y = layers.MultiHeadAttention(2, 3)(x, x)
    y = layers.GroupQueryAttention(3, 2, 1)(y, y)
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))
    return compiled(model), normal(4, 6), labels()


def transformer_block(x, context, causal):
    y = layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=causal)
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    if context is not None:
        y = layers.MultiHeadAttention(2, 3)(query=x, value=context, key=context)
        x = layers.LayerNormalization()(layers.Add()([x, y]))
    y = layers.Dense(6)(layers.Dropout(0.1)(layers.Dense(8, activation="gelu")(x)))
    return layers.LayerNormalization()(layers.Add()([x, y]))


@kind("a transformer: encoder and decoder")
def transformer():
    source, target = keras.Input((4, 6), name="s"), keras.Input((3, 6), name="t")
    encoded = transformer_block(source, None, causal=False)
    decoded = transformer_block(target, encoded, causal=True)
    model = keras.Model([source, target], layers.Dense(3)(layers.Flatten()(decoded)))
    return compiled(model), [normal(4, 6), normal(3, 6, seed=1)], labels()


@kind("regularizers and constraints")
def regularized():
    hidden = layers.Dense(
        6,
        activation="tanh",
        kernel_regularizer="l2",
        activity_regularizer="l1",
        kernel_constraint=keras.constraints.MaxNorm(0.5),
    )
    return classifier(hidden, shape=(5,))


@kind("a frozen layer")
def frozen():
    return classifier(
        layers.Dense(6, trainable=False), layers.Dense(6, activation="tanh"), shape=(5,)
    )


@kind("LoRA on a layer")
def lora():
    model, x, y = classifier(layers.Dense(6), layers.Dense(6), shape=(5,))
    model.layers[0].enable_lora(2)
    return compiled(model), x, y


@kind("a quantized layer")
def quantized():
    model, x, y = classifier(layers.Dense(6), layers.Dense(6), shape=(5,))
    model.layers[0].quantize("int8")
    return compiled(model), x, y
