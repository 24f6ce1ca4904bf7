"""What must hold of GraSP with any loss, and of its second derivatives."""

import functools
import warnings

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import criteria
from snip_tf.criteria import ScoringContext
from snip_tf.criteria.grasp import hessian_products
from snip_tf.network import prunable_weights
from snip_tf.scoring.objective import Objective
from tests.criteria.networks import LOSS, RECURRENT, attention, bits, data, dense

layers = keras.layers


def normalized(layer):
    stack = [keras.Input((5, 6)), layers.Dense(6), layer, layers.Flatten()]
    return keras.Sequential([*stack, layers.Dense(4)])


TWICE = {
    "gru": lambda: keras.Sequential(RECURRENT["gru"]()),
    "layer norm": lambda: normalized(layers.LayerNormalization()),
    "group norm": lambda: normalized(layers.GroupNormalization(2)),
    "batch norm": lambda: normalized(layers.BatchNormalization()),
    "attention": attention,
}


def test_grasp_says_where_its_temperature_is_unused():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, [layers.Dense(4)(inputs), layers.Dense(4)(inputs)])
    y = [np.arange(16) % 4] * 2
    with pytest.warns(UserWarning, match="temperature of 200 is not used"):
        snip_tf.prune_model(
            model, np.ones((16, 8)), y, sparsity=0.5, loss=LOSS, criterion="grasp"
        )


def own_crossentropy(y, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)


SAME_LOSS = {
    "in a list": lambda: [LOSS],
    "in a dict": lambda: {"out": LOSS},
    "a partial function": lambda: functools.partial(
        keras.losses.sparse_categorical_crossentropy, from_logits=True
    ),
}


def grasp_scores(model, x, y, loss, temperature=200.0):
    context = ScoringContext(
        model, prunable_weights(model), [(x, y, None)], objective=Objective(loss)
    )
    return criteria.Grasp(temperature)(context)


@pytest.mark.parametrize("given", SAME_LOSS)
def test_grasp_uses_its_temperature_however_the_loss_is_given(given):
    inputs, (x, y) = keras.Input((12,)), data()
    hidden = layers.Dense(9, "relu")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="out")(hidden))
    expected = grasp_scores(model, x, y, LOSS)
    found = grasp_scores(model, x, y, SAME_LOSS[given]())
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=1e-5)


@pytest.mark.parametrize("loss", [LOSS, {"out": LOSS}])
@pytest.mark.parametrize("nest", ["dict", "list", "of targets"])
def test_grasp_uses_its_temperature_where_one_output_is_in_a_nest(nest, loss):
    inputs, (x, y) = keras.Input((12,)), data()
    hidden = layers.Dense(9, "relu")(inputs)
    output = layers.Dense(4, name="out")(hidden)
    expected = grasp_scores(keras.Model(inputs, output), x, y, LOSS)
    nested = {"dict": {"out": output}, "list": [output], "of targets": output}[nest]
    targets = {"out": y} if nest == "dict" else [y]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = grasp_scores(keras.Model(inputs, nested), x, targets, loss)
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=1e-5)


def test_grasp_knows_short_names():
    model = keras.Sequential([keras.Input((12,)), layers.Dense(1, "sigmoid")])
    x, y = data()
    long, short = (
        grasp_scores(model, x, y % 2, name) for name in ("binary_crossentropy", "bce")
    )
    for path, score in long.items():
        np.testing.assert_array_equal(short[path], score)


@pytest.mark.parametrize("name", ["ce", "Crossentropy"])
@pytest.mark.parametrize(
    ("outputs", "activation", "one_hot", "long"),
    [
        (4, "softmax", False, "sparse_categorical_crossentropy"),
        (4, "softmax", True, "categorical_crossentropy"),
        (1, "sigmoid", False, "binary_crossentropy"),
    ],
)
def test_grasp_knows_names_that_depend_on_shapes(
    name, outputs, activation, one_hot, long
):
    stack = layers.Dense(9, "relu"), layers.Dense(outputs, activation)
    model = keras.Sequential([keras.Input((12,)), *stack])
    x, y = data()
    y = np.eye(4, dtype=np.float32)[y] if one_hot else y % max(outputs, 2)
    expected, found = (grasp_scores(model, x, y, loss) for loss in (long, name))
    for path, score in expected.items():
        np.testing.assert_array_equal(found[path], score)


def test_grasp_says_that_it_does_not_know_a_loss():
    model, (x, y) = dense(12, 9, 4), data()
    with pytest.warns(UserWarning, match="'own_crossentropy' is not a built-in"):
        found = grasp_scores(model, x, y, own_crossentropy)
    plain = grasp_scores(model, x, y, LOSS, temperature=1.0)
    for path, score in plain.items():
        np.testing.assert_allclose(found[path], score, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("end", "loss"),
    [
        ("softmax", "sparse_categorical_crossentropy"),
        ("sigmoid", "binary_crossentropy"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_grasp_takes_probabilities_of_zero_and_one(end, loss, known):
    keras.utils.set_random_seed(0)
    outputs = [layers.Dense(10, end)]
    if not known:  # from what logits they come
        outputs += [layers.Reshape((10,))]
    stack = [layers.Dense(300, "relu"), layers.Dense(100, "relu"), *outputs]
    model = keras.Sequential([keras.Input((784,)), *stack])
    x = np.random.default_rng(0).integers(256, size=(64, 784)).astype(np.float32)
    y = np.arange(64) % 10 if end == "softmax" else np.eye(10)[np.arange(64) % 10]
    scores = grasp_scores(model, x, y, loss)
    assert all(np.isfinite(score).all() and score.any() for score in scores.values())


@pytest.mark.parametrize("kind", TWICE)
def test_hessian_products_are_differences_of_gradients(kind):
    keras.utils.set_random_seed(0)
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = TWICE[kind]()
    finally:
        keras.config.set_dtype_policy(usual)
    x = np.random.default_rng(0).normal(size=(16, 5, 6))
    batch, weights = (x, np.arange(16) % 4, None), prunable_weights(model)
    loss = keras.losses.SparseCategoricalCrossentropy(True, dtype="float64")
    rng = np.random.default_rng(1)
    along = {path: rng.normal(size=tuple(w.shape)) for path, w in weights.items()}
    context = ScoringContext(
        model, weights, [batch], objective=Objective(loss), training=True
    )
    found = hessian_products(context, along)
    # Keras computes the softmax of attention in float32: a small step would drown.
    step = 1e-3
    sides, values = [], {path: w.numpy() for path, w in weights.items()}
    for way in (step, -step):
        for path, weight in weights.items():
            weight.assign(values[path] + way * along[path])
        sides.append(context.gradients())
    for path in weights:
        above, below = (np.asarray(side[path]) for side in sides)
        expected = (above - below) / (2 * step)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found[path], expected, rtol=0, atol=1e-3 * scale, err_msg=path
        )


def test_grasp_divides_the_logits_of_probabilities_too():
    x, y = data()
    logits = dense(12, 9, 4)
    probabilities = keras.Sequential([logits, layers.Softmax()])
    probabilities.build((None, 12))
    first = snip_tf.prune_model(
        logits, x, y, sparsity=0.7, loss=LOSS, criterion="grasp"
    )
    loss = "sparse_categorical_crossentropy"
    second = snip_tf.prune_model(
        probabilities, x, y, sparsity=0.7, loss=loss, criterion="grasp"
    )
    np.testing.assert_array_equal(bits(first), bits(second))
