import json

import keras
import numpy as np
import pytest

import snip_tf

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 8)).astype(np.float32)
Y = RNG.integers(4, size=48)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", kernel_regularizer="l2", name="a"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(4, name="b"),
        ]
    )
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(X, Y, epochs=3, verbose=0)
    return model


def by_hand(model, path, sparsity, x, y):
    """Loss and accuracy with the smallest of one weight removed."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kernel = copy.get_layer(path.partition("/")[0]).kernel
    value = keras.ops.convert_to_numpy(kernel).copy()
    order = np.argsort(-np.abs(value).ravel(), kind="stable")
    value.ravel()[order[round((1 - sparsity) * value.size) :]] = 0
    kernel.assign(value)
    logits = keras.ops.convert_to_numpy(copy(x, training=False))
    logits = logits - logits.max(axis=1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log[np.arange(len(y)), y].mean(), (logits.argmax(axis=1) == y).mean()


def test_the_curves_are_those_of_one_layer_pruned(model):
    before = [np.array(weight) for weight in model.get_weights()]
    curves = snip_tf.sensitivity_curves(
        model, X, Y, sparsities=[0.9, 0.5], batch_size=48, verbose=0
    )
    assert curves.sparsities == (0.5, 0.9) and list(curves.curves) == ["a", "b"]
    for name, curve in curves.curves.items():
        for number, sparsity in enumerate(curves.sparsities):
            loss, accuracy = by_hand(model, f"{name}/kernel", sparsity, X, Y)
            assert curve["loss"][number] == pytest.approx(loss, abs=1e-5)
            assert curve["accuracy"][number] == pytest.approx(accuracy, abs=1e-6)
    loss, accuracy = by_hand(model, "a/kernel", 0.0, X, Y)
    assert curves.before == pytest.approx({"loss": loss, "accuracy": accuracy}, 1e-5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_and_several_mini_batches(model):
    one = snip_tf.sensitivity_curves(
        model, X, Y, by="weight", batch_size=48, verbose=0, sparsities=[0.8]
    )
    pieces = snip_tf.sensitivity_curves(
        model, X, Y, by="weight", batch_size=16, batches=3, verbose=0, sparsities=[0.8]
    )
    assert list(one.curves) == ["a/kernel", "b/kernel"]
    for name, curve in one.curves.items():
        for value, points in curve.items():
            assert pieces.curves[name][value] == pytest.approx(points, abs=1e-5)


@pytest.mark.parametrize("criterion", ["snip", "wanda", "random"])
def test_other_criteria(model, criterion):
    curves = snip_tf.sensitivity_curves(
        model, X, Y, criterion=criterion, seed=0, verbose=0
    )
    assert len(curves.curves["a"]["loss"]) == 5


def test_of_a_pruned_model(model):
    """What is removed already stays removed."""
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    curves = snip_tf.sensitivity_curves(
        pruned, X, Y, sparsities=[0.0], batch_size=48, verbose=0
    )
    loss = pruned.evaluate(X, Y, verbose=0, return_dict=True)
    assert curves.before["accuracy"] == pytest.approx(loss["accuracy"])
    assert curves.curves["a"]["loss"] == pytest.approx([curves.before["loss"]])


def test_an_objective(model):
    def objective(model, batch, training):
        x, _ = batch
        return keras.ops.mean(keras.ops.square(model(x, training=training)))

    curves = snip_tf.sensitivity_curves(
        model, X, Y, objective=objective, sparsities=[0.5], batch_size=48, verbose=0
    )
    assert list(curves.before) == ["loss"]
    outputs = keras.ops.convert_to_numpy(model(X))
    assert curves.before["loss"] == pytest.approx((outputs**2).mean(), rel=1e-5)


def test_to_dict_and_pictures(model):
    curves = snip_tf.sensitivity_curves(model, X, Y, verbose=0)
    found = json.loads(json.dumps(curves.to_dict()))
    assert found["sparsities"] == [0.5, 0.8, 0.9, 0.95, 0.99]
    assert found["curves"]["b"]["accuracy"] == curves.curves["b"]["accuracy"]
    html = curves._repr_html_()
    assert "<table>" in html and "99%" in html and "accuracy" in html
    for value in ("loss", "accuracy"):
        [axes] = curves.plot(value).axes
        assert len(axes.lines) == 2 and axes.get_ylabel() == value
    with pytest.raises(ValueError, match="value='auc'"):
        curves.plot("auc")


def test_the_most_sensitive_of_many_layers_are_drawn():
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(8, "relu", name=f"h{number}") for number in range(14)]
    model = keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(4, name="out")])
    curves = snip_tf.sensitivity_curves(model, X, Y, loss=LOSS, verbose=0)
    assert len(curves.plot().axes[0].lines) == 10


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"sparsities": [0.5, 1.0]}, ValueError, "1.0"),
        ({"sparsities": 0.5}, TypeError, "sparsities=0.5"),
        ({"sparsities": []}, ValueError, "at least one"),
        ({"by": "unit"}, ValueError, "by='unit'"),
        ({"x": None, "y": None}, ValueError, "x=None"),
        ({"verbose": 3}, ValueError, "verbose=3"),
        ({"criterion": "best"}, ValueError, "criterion='best'"),
    ],
)
def test_bad_arguments(model, arguments, error, words):
    with pytest.raises(error, match=words):
        snip_tf.sensitivity_curves(model, **{"x": X, "y": Y, **arguments})
