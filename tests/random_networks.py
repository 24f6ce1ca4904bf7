"""Networks of random parts, to be pruned at random."""

import warnings

import keras
import numpy as np

import snip_tf

layers = keras.layers

# Parts of a network on images; each takes a tensor and a random generator.
ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "linear"]


def convolution(x, rng):
    return layers.Conv2D(
        int(rng.integers(2, 8)),
        int(rng.integers(1, 4)),
        padding=str(rng.choice(["same", "valid"])),
        activation=str(rng.choice(ACTIVATIONS)),
        use_bias=bool(rng.integers(2)),
    )(x)


def depthwise(x, rng):
    multiplier = int(rng.integers(1, 3))
    padding = str(rng.choice(["same", "valid"]))
    return layers.DepthwiseConv2D(2, padding=padding, depth_multiplier=multiplier)(x)


def separable(x, rng):
    padding = str(rng.choice(["same", "valid"]))
    return layers.SeparableConv2D(5, 2, padding=padding, depth_multiplier=2)(x)


def transposed(x, rng):
    return layers.Conv2DTranspose(4, 2, strides=int(rng.integers(1, 3)))(x)


def normalized(x, rng):
    x = layers.BatchNormalization()(x)
    return layers.Activation(str(rng.choice(ACTIVATIONS)))(x)


def pooled(x, rng):
    pool = rng.choice([layers.MaxPooling2D, layers.AveragePooling2D])
    return pool(2, padding="same")(x)


def padded(x, rng):
    return layers.Dropout(0.5)(layers.ZeroPadding2D(1)(x))


def residual(x, rng):
    branch = layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")(x)
    if rng.integers(2):
        branch = layers.BatchNormalization()(branch)
    return x + branch if rng.integers(2) else layers.Add()([x, branch])


def concatenated(x, rng):
    branches = [layers.Conv2D(3, 1, activation="relu")(x), x, layers.ReLU()(x)]
    return layers.Concatenate()([branches[i] for i in rng.permutation(3)[:2]])


def squeezed_and_excited(x, rng):
    del rng
    weights = layers.GlobalAveragePooling2D()(x)
    weights = layers.Dense(4, activation="relu")(weights)
    weights = layers.Dense(x.shape[-1], activation="sigmoid")(weights)
    return layers.Multiply()([x, layers.Reshape((1, 1, x.shape[-1]))(weights)])


def with_a_model_inside(x, rng):
    del rng
    inside = [layers.Conv2D(4, 1, activation="relu"), layers.BatchNormalization()]
    return keras.Sequential([keras.Input(x.shape[1:]), *inside])(x)


def not_analysed(x, rng):
    del rng
    return layers.LayerNormalization()(x)


IMAGE_PARTS = [
    convolution,
    depthwise,
    separable,
    transposed,
    normalized,
    pooled,
    padded,
    residual,
    concatenated,
    squeezed_and_excited,
    with_a_model_inside,
    not_analysed,
]


def flat(x, rng):
    if rng.integers(2):
        return layers.Flatten()(x)
    return layers.GlobalMaxPooling2D()(x)


def recurrent(x, rng):
    x = layers.Reshape((-1, x.shape[-1]))(x)
    x = layers.MaxPooling1D(8, padding="same")(x)  # each step takes long, run eagerly
    kinds = [layers.SimpleRNN, layers.GRU, layers.LSTM]
    first, last = rng.choice(kinds, 2)
    x = first(6, return_sequences=True, use_bias=bool(rng.integers(2)))(x)
    if rng.integers(2):
        return layers.Bidirectional(last(4))(x)
    return last(4, dropout=0.5, recurrent_dropout=0.5)(x)


def and_back(x, rng):
    x = layers.Dense(18, activation="relu")(layers.Flatten()(x))
    return layers.Flatten()(convolution(layers.Reshape((3, 3, 2))(x), rng))


def dense_residual(x, rng):
    del rng
    x = layers.Dense(7, activation="relu")(x)
    return layers.Add()([x, layers.Dense(7)(x), layers.Dense(7)(x)])


def network(parts, head, residual_head, two_outputs, rng):
    inputs = x = keras.Input((6, 6, 3))
    for part in parts:
        if x.shape[1] < 3:
            break
        x = part(x, rng)
    x = head(x, rng)
    if residual_head:
        x = dense_residual(x, rng)
    y = layers.Dense(3)(x)
    return keras.Model(inputs, [y, x] if two_outputs else y)


class OwnModel(keras.Model):
    """A model that calls its layer in code of its own; not random."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def prune_at_random(model, sparsity, rng):
    """Returns it with random masks, after `randomize`."""
    randomize(model, rng)
    return snip_tf.apply_masks(model, random_masks(model, sparsity, rng))


def cut_at_random(model, sparsity, rng):
    """Sets random connections to zero in place, after `randomize`."""
    randomize(model, rng)
    weights = snip_tf.prunable_weights(model)
    for path, mask in random_masks(model, sparsity, rng).items():
        weights[path].assign(np.where(mask, weights[path], 0))


def randomize(model, rng):
    """Gives it random biases, half of them zero, and statistics, in place."""
    for weight in model.weights:
        name = weight.path.rpartition("/")[2]
        if name in ("bias", "beta", "moving_mean"):
            weight.assign(
                rng.normal(size=weight.shape) * rng.integers(2, size=weight.shape)
            )
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))


def random_masks(model, sparsity, rng):
    return {
        path: rng.random(weight.shape) >= sparsity
        for path, weight in snip_tf.prunable_weights(model).items()
    }


class Words(layers.Layer):
    """An embedding inside, whose mask is on what it returns."""

    def __init__(self, **options):
        super().__init__(**options)
        self.table = layers.Embedding(20, 6, mask_zero=True)

    def call(self, ids):
        return self.table(ids)


def attention_over_padding(words=None):
    """A pruned model with an attention that must not see padding, and its inputs.

    What makes the queries and the values reads some features of the embedding, which
    another layer needs whole.
    """
    inputs = keras.Input((5,), dtype="int32")
    words = words() if words else layers.Embedding(20, 6, mask_zero=True)
    table = x = words(inputs)
    x = layers.Dense(8, activation="relu", name="reads_a_few")(x)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    whole = layers.Flatten()(layers.LayerNormalization()(table))
    x = layers.Concatenate()([layers.Flatten()(x), whole])
    model = keras.Model(inputs, layers.Dense(3)(x))
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    reads = np.zeros((6, 8), bool)
    reads[0], reads[5, :4] = True, True
    ids = np.array([[3, 4, 5, 0, 0], [1, 2, 0, 0, 0], [5, 6, 7, 8, 9]], np.int32)
    return snip_tf.apply_masks(model, {"reads_a_few/kernel": reads}), ids


def compacted(model):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Nothing could be removed")
        return snip_tf.compact(model)


def assert_same_outputs(smaller, model, x, tolerance=1e-6):
    expected = keras.tree.flatten(model(x, training=False))
    outputs = keras.tree.flatten(smaller(x, training=False))
    for output, wanted in zip(outputs, expected, strict=True):
        largest = max(1e-30, float(np.abs(wanted).max()))
        np.testing.assert_allclose(output, wanted, rtol=0, atol=tolerance * largest)
