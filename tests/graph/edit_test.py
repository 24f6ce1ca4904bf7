import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.graph.edit import Names, like, rebuild
from snip_tf.graph.graph import trace
from tests.random_networks import assert_same_outputs, prune_at_random

layers = keras.layers


# What has no configuration, since it has none of Keras' or of its own.
class Ridge(keras.regularizers.Regularizer):
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return self.weight * keras.ops.sum(x**2)


class Scaled(keras.initializers.Initializer):
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, shape, dtype=None):
        return keras.random.normal(shape, stddev=self.scale, dtype=dtype, seed=0)


class Clip(keras.constraints.Constraint):
    def __init__(self, limit):
        self.limit = limit

    def __call__(self, w):
        return keras.ops.clip(w, -self.limit, self.limit)


def squared(x):
    return x**2


class Gate:
    """An activation that cannot be a key."""

    __hash__ = None

    def __call__(self, x):
        return keras.ops.sigmoid(x)


class Function(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def own(*weights):
    """Settings of a layer with these weights."""
    settings = {"activity_regularizer": Ridge(1e-3)}
    for weight in weights:
        settings[f"{weight}_regularizer"] = Ridge(1e-2)
        settings[f"{weight}_initializer"] = Scaled(0.5)
        settings[f"{weight}_constraint"] = Clip(3.0)
    return settings


KERNEL, LOOP = ("kernel", "bias"), ("kernel", "recurrent", "bias")


OWN_PARTS = {
    "dense": (
        (6,),
        lambda: [
            layers.Dense(40, squared, **own(*KERNEL)),
            layers.Dense(30, lambda x: keras.ops.tanh(x), **own(*KERNEL)),
            layers.Dense(30, Gate()),
        ],
    ),
    "convolutions": (
        (8, 8, 3),
        lambda: [
            layers.Conv2D(20, 3, **own(*KERNEL)),
            layers.BatchNormalization(
                **{k: v for k, v in own("beta", "gamma").items() if "activity" not in k}
            ),
            layers.ReLU(activity_regularizer=Ridge(1e-3)),
            layers.DepthwiseConv2D(3, **own("depthwise", "bias")),
            layers.SeparableConv2D(12, 3, **own("depthwise", "pointwise", "bias")),
            layers.Conv2DTranspose(9, 2, **own(*KERNEL)),
            layers.Flatten(),
        ],
    ),
    "recurrent": (
        (5, 6),
        lambda: [
            layers.Dense(30, "relu"),
            layers.LSTM(20, squared, return_sequences=True, **own(*LOOP)),
            layers.GRU(20, recurrent_activation=Gate(), **own(*LOOP)),
        ],
    ),
    "a layer beside": (
        (6,),
        lambda: [layers.Dense(40), Function(squared), layers.Dense(30)],
    ),
    "a reshape": (
        (6,),
        lambda: [
            layers.Dense(24),
            layers.Reshape((4, 6), activity_regularizer=Ridge(1e-3)),
            layers.Conv1D(5, 2),
            layers.Flatten(),
        ],
    ),
}


@pytest.mark.parametrize("kind", OWN_PARTS)
def test_objects_without_a_configuration_are_passed_on(kind):
    shape, make = OWN_PARTS[kind]
    keras.utils.set_random_seed(0)  # squares of squares may overflow with other weights
    model = keras.Sequential([keras.Input(shape), *make(), layers.Dense(2)])
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.9, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    assert np.isfinite(pruned(x)).all()
    assert_same_outputs(smaller, pruned, x)
    assert len(smaller.losses) == len(pruned.losses)
    ends = ("activation", "regularizer", "initializer", "constraint")
    for layer in model.layers:
        old, new = layer, smaller.get_layer(layer.name)
        if hasattr(layer, "cell"):
            old, new = layer.cell, new.cell
        names = [name for name in vars(old) if name.endswith(ends)]
        assert all(getattr(new, name) is getattr(old, name) for name in names)


def test_an_embedding_of_own_parts():
    table = layers.Embedding(20, 30, **own("embeddings"))
    stack = [keras.Input((5,), dtype="int32"), table, layers.Flatten(), layers.Dense(2)]
    pruned = prune_at_random(keras.Sequential(stack), 0.9, np.random.default_rng(0))
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer(table.name).output_dim < 30
    assert type(smaller.get_layer(table.name).embeddings_regularizer) is Ridge
    assert_same_outputs(smaller, pruned, np.random.randint(0, 20, (4, 5)))


def test_a_layer_as_an_activation_keeps_its_weights():
    slope = layers.PReLU(name="slope")
    stack = [layers.Dense(40, name="in"), layers.Dense(30, slope), layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,)), *stack])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6)).astype(np.float32)
    model(x)  # which makes the slopes
    slope.alpha.assign(rng.normal(size=30))
    pruned = prune_at_random(model, 0.9, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer("in").units < 40
    assert_same_outputs(smaller, pruned, x)


def test_rebuild_may_replace_calls_and_leave_them_out():
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="in")(inputs)
    outputs = layers.Dense(2, name="out")(layers.ReLU(name="gone")(x))
    graph = trace(keras.Model(inputs, outputs))
    given = {}

    def call(node, tensors):
        given[node.name] = tensors
        if node.name == "gone":
            return None
        if node.name == "out":
            return layers.Dense(2, name="other")(inner.pop())
        inner.append(node.operation(*tensors))
        return inner[0]

    inner = []
    model = rebuild(graph, call)
    assert [layer.name for layer in model.layers[1:]] == ["in", "other"]
    assert given["out"] == [None]


def test_names_are_given_once():
    inputs = keras.Input((3,), name="x")
    inside = keras.Sequential([keras.Input((3,)), layers.ReLU(name="x")], name="in")
    graph = trace(keras.Model(inputs, layers.ELU(name="take")(inside(inputs))))
    names = Names(graph)
    assert [names.of(node) for node in graph.nodes] == ["in_x", "take"]
    assert [names.new("take"), names.new("take")] == ["take_1", "take_2"]
    assert names.of(graph.nodes[1]) == "take_3"


def test_settings_of_a_layer_that_is_like_another():
    layer = layers.Dense(4, "relu", use_bias=False, activity_regularizer="l2")
    new = like(layer, lambda part: part, units=3)
    assert (new.units, new.use_bias, new.built) == (3, False, False)
    assert new.activation is layer.activation
    assert new.activity_regularizer is layer.activity_regularizer
